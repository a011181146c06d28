//! Pairs up the lists of hosts, addresses and ports into the places to try, in order.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use super::error::ConnectError;
use super::given::Given;

/// PostgreSQL's port, as registered with IANA.
pub(super) const DEFAULT_PORT: u16 = 5432;

/// One place to try.
#[derive(Clone)]
pub(super) struct Endpoint {
    /// A host name, an IP address, or a socket directory (starts with `/`).
    pub(super) host: String,
    /// Connect here instead of looking `host` up; `host` stays the name TLS checks.
    pub(super) addr: Option<IpAddr>,
    pub(super) port: u16,
    /// Each place may have its own, by the password file.
    pub(super) password: Option<Vec<u8>>,
}

impl Endpoint {
    /// Unix sockets never use TLS.
    pub(super) fn is_socket(&self) -> bool {
        self.host.starts_with('/') && self.addr.is_none()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The places to try. A connection string or a service that names a host or an address closes
/// that question: `PGHOST` and `PGHOSTADDR` are then not looked at.
pub(super) fn endpoints(
    given: &Given<'_>,
    socket_dirs: &[&str],
) -> Result<Vec<Endpoint>, ConnectError> {
    let named = given.is_stated("host") || given.is_stated("hostaddr");
    let environment = |name| if named { "" } else { name };
    let hosts = given.list("host", environment("PGHOST"));
    let addrs = given.list("hostaddr", environment("PGHOSTADDR"));
    let ports = given.list("port", "PGPORT");

    let count = hosts.items.len().max(addrs.items.len()).max(1);
    for list in [&hosts, &addrs] {
        if !list.items.is_empty() && list.items.len() != count {
            return Err(ConnectError::Settings(format!(
                "{} has {} entries where the other list has {count}; give as many hosts as addresses",
                list.origin,
                list.items.len(),
            )));
        }
    }
    if ports.items.len() > 1 && ports.items.len() != count {
        return Err(ConnectError::Settings(format!(
            "{} has {} entries for {count} hosts; give one port, or one for each host",
            ports.origin,
            ports.items.len(),
        )));
    }

    (0..count)
        .map(|i| {
            let port = match ports.items.get(i).or(ports.items.first()) {
                Some(text) if !text.is_empty() => parse_port(text, &ports.origin)?,
                _ => DEFAULT_PORT,
            };
            let addr = match addrs.items.get(i) {
                Some(text) if !text.is_empty() => Some(parse_addr(text, &addrs.origin)?),
                _ => None,
            };
            let host = match hosts.items.get(i) {
                Some(host) if !host.is_empty() => host.clone(),
                // The address stands in for the name, so that TLS can check a certificate for it.
                _ => addr.map_or_else(|| default_host(port, socket_dirs), |ip| ip.to_string()),
            };
            Ok(Endpoint {
                host,
                addr,
                port,
                password: None,
            })
        })
        .collect()
}

/// The first directory with a socket for this port, else `localhost`.
fn default_host(port: u16, socket_dirs: &[&str]) -> String {
    let socket = format!(".s.PGSQL.{port}");
    socket_dirs
        .iter()
        .find(|dir| Path::new(dir).join(&socket).exists())
        .map_or_else(|| "localhost".to_owned(), |dir| (*dir).to_owned())
}

// Values are not repeated: an unquoted `:` or `/` in a URI can make a part of the
// password look like a port.
fn parse_port(text: &str, origin: &str) -> Result<u16, ConnectError> {
    text.trim()
        .parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| {
            ConnectError::Settings(format!(
                "{origin} must be a number from 1 to 65535; in a URI, percent-encode the characters : / @ of user and password"
            ))
        })
}

fn parse_addr(text: &str, origin: &str) -> Result<IpAddr, ConnectError> {
    text.trim().parse().map_err(|_| {
        ConnectError::Settings(format!(
            "{origin} must be an IP address; give names by `host`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(dsn: &str, env: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let env = |name: &str| {
            let found = env.iter().find(|(n, _)| *n == name)?;
            Some(found.1.to_owned())
        };
        let given = Given::new(Some(dsn), &env).map_err(|e| e.to_string())?;
        endpoints(&given, &["/nowhere"])
            .map(|all| {
                all.iter()
                    .map(|e| format!("{e}{}", e.addr.map_or(String::new(), |a| format!("={a}"))))
                    .collect()
            })
            .map_err(|e| e.to_string())
    }

    #[test]
    fn one_port_serves_all_hosts_and_an_empty_one_is_5432() {
        assert_eq!(places("host=a,b port=1", &[]).unwrap(), ["a:1", "b:1"]);
        assert_eq!(
            places("host=a,b,::1 port=1,,3", &[]).unwrap(),
            ["a:1", "b:5432", "[::1]:3"]
        );
    }

    #[test]
    fn lists_of_different_length_are_refused() {
        assert!(
            places("host=a,b,c port=1,2", &[])
                .unwrap_err()
                .contains("2 entries")
        );
        assert!(
            places("host=a,b hostaddr=127.0.0.1", &[])
                .unwrap_err()
                .contains("addresses")
        );
        let error = places("host=a", &[("PGPORT", "1,2")]).unwrap_err();
        assert!(error.starts_with("PGPORT"), "{error}");
    }

    #[test]
    fn an_address_is_used_in_place_of_the_name() {
        assert_eq!(
            places("host=a,b hostaddr=127.0.0.1,", &[]).unwrap(),
            ["a:5432=127.0.0.1", "b:5432"]
        );
        assert_eq!(places("hostaddr=::1", &[]).unwrap(), ["[::1]:5432=::1"]);
    }

    #[test]
    fn a_host_in_the_dsn_shuts_out_the_hosts_of_the_environment() {
        let env = [
            ("PGHOST", "x,y"),
            ("PGHOSTADDR", "10.0.0.1,10.0.0.2"),
            ("PGPORT", "7"),
        ];
        assert_eq!(places("host=a", &env).unwrap(), ["a:7"]);
        assert_eq!(
            places("user=u", &env).unwrap(),
            ["x:7=10.0.0.1", "y:7=10.0.0.2"]
        );
    }

    #[test]
    fn without_a_host_the_first_socket_is_taken_else_localhost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        assert_eq!(default_host(77, &[path]), "localhost");
        std::fs::write(dir.path().join(".s.PGSQL.77"), "").unwrap();
        assert_eq!(default_host(77, &["/nowhere", path]), path);
    }

    #[test]
    fn a_bad_port_is_not_repeated() {
        let error = places("postgres://u:pass/word", &[]).unwrap_err();
        assert!(
            !error.contains("pass/") && !error.contains("word;"),
            "{error}"
        );
    }
}
