//! The one connection of a load besides those of its workers. (A take-over from a stopped run
//! opens a second one for a moment.)

use tokio_postgres::Client;

use crate::connect::{self, ConnectError, ConnectSettings};

/// A connection that is opened when it is needed, and again when it is lost.
pub struct ControlConnection {
    server: ConnectSettings,
    client: Option<Client>,
}

impl ControlConnection {
    pub fn new(server: &ConnectSettings) -> Self {
        ControlConnection {
            server: server.clone(),
            client: None,
        }
    }

    pub fn server(&self) -> &ConnectSettings {
        &self.server
    }

    /// The connection.
    pub async fn client(&mut self) -> Result<&mut Client, ConnectError> {
        let open = self.client.take().filter(|client| !client.is_closed());
        let client = match open {
            Some(client) => client,
            None => connect::connect(&self.server).await?,
        };
        Ok(self.client.insert(client))
    }

    /// Closes the connection: something may be left on it.
    pub fn forget(&mut self) {
        self.client = None;
    }
}
