//! Which server a command uses: the one that is named, or a private one for as long as it runs.

use std::path::PathBuf;

use crate::cli::ServerArgs;
use crate::connect::ConnectSettings;
use crate::embedded::{Embedded, EmbeddedOptions};
use crate::error::Error;
use crate::job::{ConnectionArgs, LoadSettings, Time};
use crate::load::ControlConnection;
use crate::report::Console;
use crate::worker::RetryLimits;

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl ConnectionArgs {
    /// Whether anything says which server to use.
    pub fn names_a_server(&self) -> bool {
        self.dsn_file.is_some() || ConnectSettings::is_named(self.dsn.as_deref(), &environment)
    }

    /// The settings of the named server.
    ///
    /// # Errors
    /// When they make no sense.
    pub fn settings(&self) -> Result<ConnectSettings, Error> {
        Ok(match &self.dsn_file {
            Some(path) => ConnectSettings::resolve_file(path, &environment)?,
            None => ConnectSettings::resolve(self.dsn.as_deref(), &environment)?,
        })
    }

    /// The server to use, and what keeps a private one alive.
    ///
    /// # Errors
    /// When the settings make no sense, or a private server cannot be started.
    pub async fn server(
        &self,
        console: &Console,
    ) -> Result<(ConnectSettings, Option<Embedded>), Error> {
        match &self.embedded {
            Some(dir) => private_server(dir.clone(), console).await,
            None => {
                let settings = self.settings()?;
                for warning in settings.warnings() {
                    console.notice(warning);
                }
                Ok((settings, None))
            }
        }
    }
}

impl ServerArgs {
    /// The limits that a load has by default, with those that are given.
    ///
    /// # Errors
    /// When there is no time for an answer.
    pub fn limits(&self) -> Result<RetryLimits, Error> {
        let mut limits = LoadSettings::default().retries;
        if let Some(Time(answer_timeout)) = self.answer_timeout {
            limits.answer_timeout = answer_timeout;
        }
        limits.check()?;
        Ok(limits)
    }

    /// A connection to the server, and what keeps a private one alive.
    ///
    /// # Errors
    /// As [`ConnectionArgs::server`].
    pub async fn control(
        &self,
        console: &Console,
    ) -> Result<(ControlConnection, Option<Embedded>), Error> {
        let limits = self.limits()?;
        let (server, private) = self.connection.server(console).await?;
        let control = ControlConnection::new(&server, limits, console);
        Ok((control, private))
    }
}

/// Starts a private server; its data is kept in `dir`, if one is named.
pub async fn private_server(
    dir: Option<PathBuf>,
    console: &Console,
) -> Result<(ConnectSettings, Option<Embedded>), Error> {
    console.notice("starting a private PostgreSQL server");
    let options = EmbeddedOptions {
        dir,
        ..EmbeddedOptions::default()
    };
    let server = tokio::task::spawn_blocking(|| Embedded::start(options))
        .await
        .map_err(Error::panic("starting the server"))??;
    console.detail(&format!("private server: {}", server.dsn()));
    Ok((ConnectSettings::from_config(server.config()), Some(server)))
}
