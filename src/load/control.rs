//! What controls a load from outside, and the one connection that it has besides those of its
//! workers. (A take-over from a stopped run opens a second one for a moment.)

use std::sync::Arc;

use tokio_postgres::Client;

use crate::connect::{self, ConnectError, ConnectSettings};
use crate::report::Console;
use crate::stop::Stop;

/// Where a load says what it does, and what stops it.
#[derive(Debug, Clone, Default)]
pub struct Control {
    /// Where notices go.
    pub console: Console,
    /// Once set, nothing more is read; what is under way may finish, and the load ends, without an
    /// error unless by a signal.
    pub stop: Arc<Stop>,
}

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
