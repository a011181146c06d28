//! Reads the connection string and the environment into where and as whom to connect.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::{User, geteuid};
use tokio_postgres::Config;
use tokio_postgres::config::{
    ChannelBinding, Host, LoadBalanceHosts, SslMode as ClientSslMode, TargetSessionAttrs,
};

use super::endpoint::{DEFAULT_PORT, Endpoint, endpoints};
use super::error::ConnectError;
use super::given::{Given, names_a_connection};
use super::passfile::SOCKET_DIRS;
use super::passfile::{Passfile, Wanted};
use super::service::Environment;
use super::tls::{Encryption, SslMode, TlsSettings};

/// Shown in `pg_stat_activity` unless another name is given.
const APPLICATION_NAME: &str = "pgrung";
/// Long enough for a busy server, short enough for a nightly job to notice.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A dead peer shows after 15 s + 3 x 5 s of silence, not after the system's two hours.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVES_RETRIES: u32 = 3;
/// The same 30 s for sent data that nobody acknowledges, which keepalives do not cover.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where and as whom to connect, as meant: DSN, else `DATABASE_URL`; then the service, then `PG*`
/// environment, then defaults.
#[derive(Clone)]
pub struct ConnectSettings {
    /// Everything but hosts, ports, password and ssl mode.
    pub(super) base: Config,
    config: Config,
    /// In the order to try; never empty when made by `resolve`.
    pub(super) endpoints: Vec<Endpoint>,
    /// None: plain text. Unix sockets are plain text in any case.
    pub(super) encryption: Option<Encryption>,
    /// For each address and step, from TCP to the end of the login; none: no limit.
    pub(super) limit: Option<Duration>,
    pub(super) shuffle: bool,
    warnings: Vec<String>,
}

impl ConnectSettings {
    /// Works out the settings. `dsn` comes from `--dsn`; `env` looks a variable up.
    ///
    /// The connection string is a URI or libpq's key=value pairs. What it leaves open is
    /// filled from the service it names, else that of `PGSERVICE` (in `PGSERVICEFILE`, else
    /// `~/.pg_service.conf`; then in `pg_service.conf` in `PGSYSCONFDIR`), then from `PGHOST`,
    /// `PGHOSTADDR` (both only if neither is stated yet), `PGPORT`, `PGUSER`, `PGPASSWORD`,
    /// `PGPASSFILE`, `PGDATABASE`, `PGSSLMODE`, `PGSSLROOTCERT`, `PGSSLCERT`, `PGSSLKEY`,
    /// `PGAPPNAME`, `PGCONNECT_TIMEOUT` (seconds, 0 = no limit), `PGOPTIONS` and
    /// `PGTARGETSESSIONATTRS`. Reads the password file and the certificate files.
    ///
    /// # Errors
    /// [`ConnectError::Settings`] and [`ConnectError::TlsSettings`]; neither repeats
    /// the connection string or a password.
    pub fn resolve(dsn: Option<&str>, env: Environment<'_>) -> Result<Self, ConnectError> {
        Self::of(&Given::new(dsn, env)?)
    }

    /// [`ConnectSettings::resolve`] with the connection string in a file, on its only line.
    ///
    /// # Errors
    /// As there; also if the file cannot be read, or holds a password and its mode gives group or
    /// others access.
    pub fn resolve_file(path: &Path, env: Environment<'_>) -> Result<Self, ConnectError> {
        Self::of(&Given::of_file(path, env)?)
    }

    fn of(given: &Given<'_>) -> Result<Self, ConnectError> {
        let mut warnings = Vec::new();
        check_encoding(given, &mut warnings);
        let account = || User::from_uid(geteuid()).ok().flatten();
        let home = given.home();
        let user = given
            .text("user", "PGUSER")
            .or_else(|| account().map(|account| account.name))
            .ok_or_else(|| {
                ConnectError::Settings(
                    "the system user has no name; name a user by PGUSER".to_owned(),
                )
            })?;
        let dbname = given
            .text("dbname", "PGDATABASE")
            .unwrap_or_else(|| user.clone());

        let mut endpoints = endpoints(given, &SOCKET_DIRS)?;
        passwords(
            given,
            home.as_ref(),
            &user,
            &dbname,
            &mut endpoints,
            &mut warnings,
        );
        let tls = TlsSettings::new(given, home)?;
        let encryption = if endpoints.iter().all(Endpoint::is_socket) {
            None
        } else {
            tls.encryption(&mut warnings)?
        };

        let mut base = Config::new();
        base.user(&user).dbname(&dbname);
        let limit = session(given, &mut base)?;
        let shuffle = given
            .choice(
                "load_balance_hosts",
                "PGLOADBALANCEHOSTS",
                &[("disable", false), ("random", true)],
            )?
            .unwrap_or(false);
        let mut config = base.clone();
        config.ssl_mode(match tls.mode() {
            SslMode::Disable => ClientSslMode::Disable,
            SslMode::Allow | SslMode::Prefer => ClientSslMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => ClientSslMode::Require,
        });
        if shuffle {
            config.load_balance_hosts(LoadBalanceHosts::Random);
        }
        add_endpoints(&mut config, &endpoints);
        Ok(Self {
            base,
            config,
            endpoints,
            encryption,
            limit,
            shuffle,
            warnings,
        })
    }

    /// Whether anything says where to connect: a DSN, `DATABASE_URL`, `PGHOST`, `PGHOSTADDR`,
    /// `PGPORT`, `PGDATABASE` or `PGSERVICE`. Empty variables say nothing, an empty DSN does.
    pub fn is_named(dsn: Option<&str>, env: Environment<'_>) -> bool {
        names_a_connection(dsn, env)
    }

    /// Takes a ready configuration, e.g. of the embedded server. Never uses TLS;
    /// without a connect timeout, 10 s.
    pub fn from_config(config: Config) -> Self {
        let mut config = config;
        config.ssl_mode(ClientSslMode::Disable);
        let limit = *config.get_connect_timeout().unwrap_or(&CONNECT_TIMEOUT);
        config.connect_timeout(limit);
        Self {
            base: without_hosts(&config),
            endpoints: endpoints_of(&config),
            encryption: None,
            limit: Some(limit),
            shuffle: config.get_load_balance_hosts() == LoadBalanceHosts::Random,
            warnings: Vec::new(),
            config,
        }
    }

    /// The settings as `tokio-postgres` has them: without certificates, and with one password
    /// (that of the first host that has one) where each host may have its own.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The same, with a setting of the server for each session from its start, over that of the
    /// role and the database, and over the options given.
    pub(crate) fn with_setting(&self, name: &str, value: &str) -> Self {
        let mut settings = self.clone();
        let given = settings.base.get_options().unwrap_or_default();
        let options = format!("{given} -c {name}={value}");
        settings.base.options(&options);
        settings.config.options(&options);
        settings
    }

    /// What was ignored and why, for the user to read.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// `db on host:port as user`, all hosts, safe for output: never the password.
    pub fn describe(&self) -> String {
        let places: Vec<String> = self.endpoints.iter().map(Endpoint::to_string).collect();
        self.describe_at(&places.join(","))
    }

    /// [`ConnectSettings::describe`] for one place.
    pub(super) fn describe_at(&self, place: &str) -> String {
        let user = self.base.get_user().unwrap_or("?");
        let dbname = self.base.get_dbname().unwrap_or(user);
        format!("{dbname} on {place} as {user}")
    }
}

impl fmt::Debug for ConnectSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectSettings")
            .field("target", &self.describe())
            .field("ssl_mode", &self.config.get_ssl_mode())
            .field("limit", &self.limit)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// psql would take a file to be in this encoding.
fn check_encoding(given: &Given<'_>, warnings: &mut Vec<String>) {
    let Some(encoding) = given.variable("PGCLIENTENCODING") else {
        return;
    };
    let letters = encoding.chars().filter(char::is_ascii_alphanumeric);
    let plain: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
    // `auto` follows the locale, which is nobody's word on a file.
    if !["utf8", "unicode", "auto"].contains(&plain.as_str()) {
        warnings.push(format!(
            "PGCLIENTENCODING is {encoding} and is not heeded: input is read as UTF-8, unless pgrung's own --encoding says otherwise"
        ));
    }
}

/// Gives each place its password: the one named, else its first line in the password file.
fn passwords(
    given: &Given<'_>,
    home: Option<&PathBuf>,
    user: &str,
    dbname: &str,
    endpoints: &mut [Endpoint],
    warnings: &mut Vec<String>,
) {
    if let Some(password) = given.text("password", "PGPASSWORD") {
        for endpoint in endpoints {
            endpoint.password = Some(password.clone().into_bytes());
        }
        return;
    }
    let path = given
        .text("passfile", "PGPASSFILE")
        .map(PathBuf::from)
        .or_else(|| Some(home?.join(".pgpass")));
    let Some(path) = path else { return };
    let (passfile, warning) = Passfile::read(&path);
    warnings.extend(warning);
    for endpoint in endpoints {
        let found = passfile.password(Wanted {
            host: &endpoint.host,
            port: endpoint.port,
            dbname,
            user,
        });
        endpoint.password = found.map(String::into_bytes);
    }
}

/// Everything about the session and its socket; gives back the connect timeout.
fn session(given: &Given<'_>, base: &mut Config) -> Result<Option<Duration>, ConnectError> {
    let name = given
        .text("application_name", "PGAPPNAME")
        .or_else(|| given.text("fallback_application_name", ""));
    base.application_name(name.as_deref().unwrap_or(APPLICATION_NAME));
    if let Some(options) = given.text("options", "PGOPTIONS") {
        base.options(options);
    }
    let utf8 = [("UTF8", ()), ("utf8", ()), ("UTF-8", ()), ("utf-8", ())];
    given.choice("client_encoding", "", &utf8)?;
    let attributes = [
        ("any", TargetSessionAttrs::Any),
        ("read-write", TargetSessionAttrs::ReadWrite),
        ("read-only", TargetSessionAttrs::ReadOnly),
        // A loader wants a primary in order to write.
        ("primary", TargetSessionAttrs::ReadWrite),
    ];
    let chosen = given.choice("target_session_attrs", "PGTARGETSESSIONATTRS", &attributes)?;
    base.target_session_attrs(chosen.unwrap_or(TargetSessionAttrs::Any));
    let bindings = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];
    let chosen = given.choice("channel_binding", "PGCHANNELBINDING", &bindings)?;
    base.channel_binding(chosen.unwrap_or(ChannelBinding::Prefer));

    base.keepalives(given.number("keepalives", "")? != Some(0));
    let idle = given.number("keepalives_idle", "")?.and_then(positive);
    base.keepalives_idle(idle.map_or(KEEPALIVES_IDLE, Duration::from_secs));
    let interval = given.number("keepalives_interval", "")?.and_then(positive);
    base.keepalives_interval(interval.map_or(KEEPALIVES_INTERVAL, Duration::from_secs));
    // libpq says count, tokio-postgres says retries.
    let retries = match given.number("keepalives_count", "")? {
        Some(count) => Some(count),
        None => given.number("keepalives_retries", "")?,
    };
    base.keepalives_retries(retries.and_then(positive).unwrap_or(KEEPALIVES_RETRIES));
    // Milliseconds, as in libpq; tokio-postgres' own parser takes seconds. 0: the system's.
    let user_timeout = match given.number("tcp_user_timeout", "")? {
        None => Some(TCP_USER_TIMEOUT),
        Some(ms) => positive(ms).map(Duration::from_millis),
    };
    user_timeout.map(|timeout| base.tcp_user_timeout(timeout));
    let limit = match given.number("connect_timeout", "PGCONNECT_TIMEOUT")? {
        None => Some(CONNECT_TIMEOUT),
        Some(s) => positive(s).map(Duration::from_secs),
    };
    limit.map(|limit| base.connect_timeout(limit));
    Ok(limit)
}

fn positive<T: TryFrom<i64>>(number: i64) -> Option<T> {
    T::try_from(number).ok().filter(|_| number > 0)
}

/// Only all or no addresses can be told to a `Config`.
fn add_endpoints(config: &mut Config, endpoints: &[Endpoint]) {
    let all_have_addresses = endpoints.iter().all(|e| e.addr.is_some());
    for endpoint in endpoints {
        config.host(&endpoint.host).port(endpoint.port);
        if let Some(addr) = endpoint.addr.filter(|_| all_have_addresses) {
            config.hostaddr(addr);
        }
    }
    if let Some(password) = endpoints.iter().find_map(|e| e.password.as_ref()) {
        config.password(password);
    }
}

fn endpoints_of(config: &Config) -> Vec<Endpoint> {
    let (hosts, addrs, ports) = (
        config.get_hosts(),
        config.get_hostaddrs(),
        config.get_ports(),
    );
    (0..hosts.len().max(addrs.len()))
        .map(|i| {
            let addr = addrs.get(i).copied();
            let host = match hosts.get(i) {
                Some(Host::Tcp(name)) => name.clone(),
                Some(Host::Unix(dir)) => dir.to_string_lossy().into_owned(),
                None => addr.map(|a| a.to_string()).unwrap_or_default(),
            };
            Endpoint {
                host,
                addr,
                port: *ports.get(i).or(ports.first()).unwrap_or(&DEFAULT_PORT),
                password: config.get_password().map(<[u8]>::to_vec),
            }
        })
        .collect()
}

/// A `Config` cannot forget its hosts, so everything else is copied.
fn without_hosts(config: &Config) -> Config {
    let mut base = Config::new();
    if let Some(user) = config.get_user() {
        base.user(user);
    } else if let Ok(Some(account)) = User::from_uid(geteuid()) {
        base.user(account.name);
    }
    config.get_dbname().map(|name| base.dbname(name));
    config.get_options().map(|options| base.options(options));
    base.application_name(config.get_application_name().unwrap_or(APPLICATION_NAME));
    config
        .get_connect_timeout()
        .map(|limit| base.connect_timeout(*limit));
    config
        .get_tcp_user_timeout()
        .map(|limit| base.tcp_user_timeout(*limit));
    base.keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle());
    config
        .get_keepalives_interval()
        .map(|every| base.keepalives_interval(every));
    config
        .get_keepalives_retries()
        .map(|times| base.keepalives_retries(times));
    base.target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding());
    base
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
