//! Opens sessions on a PostgreSQL server, as libpq would: hosts in order, TLS by sslmode.
//!
//! One way of connecting serves [`connect()`] and [`pool()`]: each place of the settings, each
//! address of its name, with TLS and, where sslmode allows, again without.
//!
//! Differences from libpq, on purpose: `allow` tries TLS first, as `prefer` does; after a
//! wrong password there is no second try without TLS (it would count twice towards a
//! lockout); a certificate's names are its subjectAltName only, never the common name.

mod connector;
mod dsn;
mod endpoint;
mod error;
mod given;
mod passfile;
mod pool;
mod pooled;
mod service;
mod settings;
mod tls;
mod verify;

use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config};

use connector::{Connector, Progress, Step};
use endpoint::Endpoint;
use tls::Encryption;

pub use dsn::is_connection_string;
pub use error::ConnectError;
pub use pool::{Lent, Opener, Pool, pool};
pub use pooled::{process_of_login, skip_statement_names};
pub use settings::ConnectSettings;

/// A session and the task that drives it, which ends with the session.
type Opened = (Client, JoinHandle<()>);

/// Opens one connection and drives it on a spawned task.
///
/// Each address has `connect_timeout` for everything from TCP to the end of the login. The
/// next host is tried as in libpq: after a failure to reach one, not after a refused login.
///
/// # Errors
/// Any [`ConnectError`]; [`ConnectError::Several`] if more than one thing was tried.
pub async fn connect(settings: &ConnectSettings) -> Result<Client, ConnectError> {
    open(settings).await.map(|(client, _task)| client)
}

/// [`connect`], with the task's handle.
async fn open(settings: &ConnectSettings) -> Result<Opened, ConnectError> {
    let mut failures = Vec::new();
    let mut places: Vec<&Endpoint> = settings.endpoints.iter().collect();
    if settings.shuffle {
        fastrand::shuffle(&mut places);
    }
    for place in places {
        match open_place(settings, place, &mut failures).await {
            Some(opened) => return Ok(opened),
            None if failures.last().is_some_and(|e| !e.next_host_may_work()) => break,
            None => {}
        }
    }
    Err(ConnectError::all(failures))
}

/// Tries one place: all addresses of its name. Notes each failure.
async fn open_place(
    settings: &ConnectSettings,
    place: &Endpoint,
    failures: &mut Vec<ConnectError>,
) -> Option<Opened> {
    if place.is_socket() {
        let attempt = Attempt::new(settings, place, None);
        return attempt.open(None, failures).await;
    }
    let addresses = match addresses(settings, place).await {
        Ok(addresses) => addresses,
        Err(error) => {
            failures.push(error);
            return None;
        }
    };
    for address in addresses {
        let attempt = Attempt::new(settings, place, Some(address));
        let encryption = settings.encryption.as_ref();
        if let Some(opened) = attempt.open(encryption, failures).await {
            return Some(opened);
        }
        if failures.last().is_some_and(|e| !e.next_host_may_work()) {
            break;
        }
    }
    None
}

/// The address given, or those of the name; not empty.
async fn addresses(
    settings: &ConnectSettings,
    place: &Endpoint,
) -> Result<Vec<IpAddr>, ConnectError> {
    if let Some(address) = place.addr {
        return Ok(vec![address]);
    }
    let target = settings.describe_at(&place.to_string());
    let lookup = tokio::net::lookup_host((place.host.as_str(), place.port));
    let reason = match within(settings.limit, lookup).await {
        None => {
            return Err(ConnectError::Timeout {
                target,
                step: "looking up the host name",
                limit: settings.limit,
            });
        }
        Some(Ok(found)) => {
            let mut all: Vec<IpAddr> = found.map(|socket| socket.ip()).collect();
            if settings.shuffle {
                fastrand::shuffle(&mut all);
            }
            if !all.is_empty() {
                return Ok(all);
            }
            "the host name has no address".to_owned()
        }
        Some(Err(error)) => error.to_string(),
    };
    Err(ConnectError::Unreachable { target, reason })
}

/// `None` when the limit is over.
async fn within<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, work).await.ok(),
        None => Some(work.await),
    }
}

/// One address to be tried, once or twice.
struct Attempt {
    config: Config,
    target: String,
    limit: Option<Duration>,
}

impl Attempt {
    fn new(settings: &ConnectSettings, place: &Endpoint, address: Option<IpAddr>) -> Self {
        let mut config = settings.base.clone();
        config.host(&place.host).port(place.port);
        let mut shown = place.to_string();
        if let Some(address) = address {
            config.hostaddr(address);
            if address.to_string() != place.host {
                shown = format!("{place} ({address})");
            }
        }
        if let Some(password) = &place.password {
            config.password(password);
        }
        Self {
            config,
            target: settings.describe_at(&shown),
            limit: settings.limit,
        }
    }

    /// With TLS if there is any; then, if that is not required and TLS is at fault, without.
    async fn open(
        mut self,
        encryption: Option<&Encryption>,
        failures: &mut Vec<ConnectError>,
    ) -> Option<Opened> {
        if let Some(encryption) = encryption {
            self.config.ssl_mode(match encryption.required {
                true => SslMode::Require,
                false => SslMode::Prefer,
            });
            match self.once(Some(encryption)).await {
                Ok(opened) => return Some(opened),
                Err((step, error)) => {
                    let in_tls = matches!(step, Step::Handshake | Step::LoggingIn);
                    let again = !encryption.required && in_tls && error.plain_may_work();
                    failures.push(error);
                    if !again {
                        return None;
                    }
                }
            }
        }
        self.config.ssl_mode(SslMode::Disable);
        match self.once(None).await {
            Ok(opened) => Some(opened),
            Err((_, error)) => {
                failures.push(error);
                None
            }
        }
    }

    async fn once(&self, encryption: Option<&Encryption>) -> Result<Opened, (Step, ConnectError)> {
        let progress = Progress::default();
        let connector = Connector {
            tls: encryption.map(|e| e.connector.clone()),
            tls_required: encryption.is_some_and(|e| e.required),
            progress: progress.clone(),
        };
        let outcome = within(self.limit, self.config.connect(connector)).await;
        let step = progress.step();
        match outcome {
            Some(Ok((client, connection))) => {
                let task = tokio::spawn(async move {
                    // The client learns of the end by its next request.
                    let _ = connection.await;
                });
                Ok((client, task))
            }
            Some(Err(error)) => {
                let has_password = self.config.get_password().is_some();
                let target = self.target.clone();
                let error =
                    ConnectError::of_attempt(target, step, self.limit, has_password, &error);
                Err((step, error))
            }
            None => {
                let error = ConnectError::Timeout {
                    target: self.target.clone(),
                    step: step.doing(),
                    limit: self.limit,
                };
                Err((step, error))
            }
        }
    }
}
