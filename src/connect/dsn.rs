//! Splits a connection string, a URI or key=value pairs, into named parameters.
//!
//! The syntax is libpq's (PostgreSQL documentation, 34.1.1). No error repeats any
//! part of the text but a parameter's name, and not even that after a password,
//! where it may be the rest of one.

use std::collections::BTreeMap;

use super::error::ConnectError;

/// Parameters by libpq's name; the last of equal names wins.
pub(super) type Parameters = BTreeMap<String, String>;

/// Reads the text; `origin` names it in errors (`--dsn`, `--dsn-file FILE`, `DATABASE_URL`).
pub(super) fn parse(text: &str, origin: &str) -> Result<Parameters, ConnectError> {
    let fault = |what: &str| ConnectError::Settings(format!("{origin}: {what}"));
    let uri = text
        .strip_prefix("postgresql://")
        .or_else(|| text.strip_prefix("postgres://"));
    let pairs = match uri {
        Some(rest) => uri_pairs(rest),
        None if !text.contains('=') => {
            Err("neither a URI (postgresql://...) nor key=value pairs; write dbname=NAME to name a database")
        }
        None => keyword_pairs(text),
    }
    .map_err(fault)?;

    let mut parameters = Parameters::new();
    let mut after_password = false;
    for (name, value) in pairs {
        match support(&name) {
            Support::Read => {}
            _ if after_password => {
                return Err(fault(
                    "unknown parameter after the password; quote or percent-encode the password if it goes on there",
                ));
            }
            Support::NotRead => {
                return Err(fault(&format!(
                    "parameter `{name}` is not supported; leave it out"
                )));
            }
            Support::Unknown => {
                return Err(fault(&format!(
                    "unknown parameter `{}`; check its spelling",
                    name.escape_default()
                )));
            }
        }
        after_password = name == "password";
        parameters.insert(name, value);
    }
    Ok(parameters)
}

/// Whether a text that stands somewhere is a connection string, also one with faults in it: a URI,
/// several `key=value` pairs, or a lone password.
pub fn is_connection_string(text: &str) -> bool {
    let known = |word: &str| {
        let key = word.split_once('=').map(|(key, _)| key);
        key.is_some_and(|key| matches!(support(key), Support::Read))
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| text.contains(scheme))
        || words.iter().any(|word| word.starts_with("password="))
        || words.len() > 1 && words.iter().all(|word| known(word))
}

/// What becomes of a parameter of this name.
pub(super) enum Support {
    Read,
    /// libpq's, and not ours.
    NotRead,
    Unknown,
}

pub(super) fn support(name: &str) -> Support {
    let is_one_of = |names: &str| names.split(' ').any(|known| known == name);
    if is_one_of(SUPPORTED) {
        Support::Read
    } else if is_one_of(UNSUPPORTED) {
        Support::NotRead
    } else {
        Support::Unknown
    }
}

/// What we read, by libpq's names.
const SUPPORTED: &str = "\
    application_name channel_binding client_encoding connect_timeout dbname \
    fallback_application_name gssencmode host hostaddr keepalives keepalives_count \
    keepalives_idle keepalives_interval keepalives_retries load_balance_hosts options passfile \
    password port service ssl_min_protocol_version sslcert sslcompression sslkey sslmode \
    sslnegotiation sslrootcert target_session_attrs tcp_user_timeout user";

/// libpq's other parameters. Ignoring one could weaken what was asked for.
const UNSUPPORTED: &str = "\
    gssdelegation gsslib krbsrvname max_protocol_version min_protocol_version oauth_client_id \
    oauth_client_secret oauth_issuer oauth_scope replication require_auth requirepeer \
    scram_client_key scram_server_key servicefile ssl_max_protocol_version sslcertmode \
    sslcrl sslcrldir sslkeylogfile sslpassword sslsni";

type Pairs = Result<Vec<(String, String)>, &'static str>;

fn uri_pairs(text: &str) -> Pairs {
    const RAW_AT: &str = "an @ outside its place; percent-encode @ as %40 and / as %2F in user, password and database";
    let mut pairs = Vec::new();
    let mut rest = text;
    // As libpq: credentials end at the first @ that comes before any /.
    let parts = text.split_once('@');
    if let Some((credentials, place)) = parts.filter(|(before, _)| !before.contains('/')) {
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (credentials, None),
        };
        if !user.is_empty() {
            pairs.push(("user".to_owned(), decode(user)?));
        }
        if let Some(password) = password {
            pairs.push(("password".to_owned(), decode(password)?));
        }
        rest = place;
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    if place.contains('@') {
        return Err(RAW_AT);
    }
    let (hosts, dbname) = place.split_once('/').unwrap_or((place, ""));
    if !hosts.is_empty() {
        let (hosts, ports) = host_lists(hosts)?;
        pairs.push(("host".to_owned(), hosts));
        pairs.push(("port".to_owned(), ports));
    }
    // As libpq: an empty part says nothing, where an empty parameter means the default.
    pairs.retain(|(_, value)| !value.is_empty());
    if !dbname.is_empty() {
        pairs.push(("dbname".to_owned(), decode(dbname)?));
    }
    for parameter in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = parameter
            .split_once('=')
            .ok_or("a parameter after the ? has no =; write name=value")?;
        let (name, value) = (decode(name)?, decode(value)?);
        // As libpq: what JDBC writes.
        if name == "ssl" && value == "true" {
            pairs.push(("sslmode".to_owned(), "require".to_owned()));
        } else {
            pairs.push((name, value));
        }
    }
    Ok(pairs)
}

/// `a:1,[::1]:2,c` -> `a,::1,c` and `1,2,`; no ports at all gives an empty list.
fn host_lists(text: &str) -> Result<(String, String), &'static str> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for chunk in text.split(',') {
        let (host, port) = match chunk.strip_prefix('[') {
            Some(v6) => {
                let (host, tail) = v6
                    .split_once(']')
                    .ok_or("an IPv6 address lacks its closing ]")?;
                match tail.strip_prefix(':') {
                    Some(port) => (host, port),
                    None if tail.is_empty() => (host, ""),
                    None => return Err("text between ] and the port; write [address]:port"),
                }
            }
            None => chunk.split_once(':').unwrap_or((chunk, "")),
        };
        hosts.push(decode(host)?);
        ports.push(decode(port)?);
    }
    let join = |list: Vec<String>| match list.iter().all(String::is_empty) {
        true => String::new(),
        false => list.join(","),
    };
    Ok((join(hosts), join(ports)))
}

fn decode(text: &str) -> Result<String, &'static str> {
    const BAD: &str = "a % is not followed by two hexadecimal digits; write % itself as %25";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit().ok_or(BAD)?, digit().ok_or(BAD)?);
        match u8::try_from(high * 16 + low) {
            Ok(0) | Err(_) => return Err("%00 cannot be part of a connection string"),
            Ok(byte) => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| "percent-encoded text is not UTF-8")
}

/// `name = value`, a value quoted by `'` if it holds spaces, `\` before `'` and `\`.
fn keyword_pairs(text: &str) -> Pairs {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| c == '=' || c.is_whitespace())
            .unwrap_or(rest.len());
        let (name, tail) = rest.split_at(end);
        let value = tail
            .trim_start()
            .strip_prefix('=')
            .ok_or("a word without =; write name=value, and quote values with spaces by '")?;
        let (value, tail) = keyword_value(value.trim_start())?;
        pairs.push((name.to_owned(), value));
        rest = tail.trim_start();
    }
    Ok(pairs)
}

/// The value at the start of the text, and what follows it.
fn keyword_value(text: &str) -> Result<(String, &str), &'static str> {
    let inside = text.strip_prefix('\'');
    let quoted = inside.is_some();
    let mut value = String::new();
    let mut chars = inside.unwrap_or(text).chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => value.extend(chars.next()),
            '\'' if quoted => return Ok((value, chars.as_str())),
            c if !quoted && c.is_whitespace() => return Ok((value, chars.as_str())),
            c => value.push(c),
        }
    }
    if quoted {
        return Err("a quoted value lacks its closing '");
    }
    Ok((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        parse(text, "--dsn")
            .unwrap()
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect()
    }

    fn fault(text: &str) -> String {
        parse(text, "--dsn").unwrap_err().to_string()
    }

    #[test]
    fn a_uri_is_split_into_its_parts() {
        assert_eq!(
            read(
                "postgresql://u%40x:p%3Aw@h1:1,[::1]:2,h3/my%20db?sslmode=verify-full&options=-c%20a%3D1"
            ),
            [
                "dbname=my db",
                "host=h1,::1,h3",
                "options=-c a=1",
                "password=p:w",
                "port=1,2,",
                "sslmode=verify-full",
                "user=u@x"
            ]
        );
        assert_eq!(read("postgres://"), [""; 0]);
        assert_eq!(read("postgres://:@:/?user="), ["user="]);
        assert_eq!(
            read("postgres:///db?host=/run/pg"),
            ["dbname=db", "host=/run/pg"]
        );
        assert_eq!(
            read("postgres://%2Frun%2Fpg/db"),
            ["dbname=db", "host=/run/pg"]
        );
        assert_eq!(read("postgres://h?ssl=true"), ["host=h", "sslmode=require"]);
    }

    #[test]
    fn key_value_pairs_take_quotes_escapes_and_spaces() {
        assert_eq!(
            read(r" host = a  password='it\'s a \\ secret' dbname=x\ y user='' "),
            ["dbname=x y", "host=a", r"password=it's a \ secret", "user="]
        );
    }

    #[test]
    fn unknown_parameters_are_named() {
        assert!(fault("host=a hots=b").contains("unknown parameter `hots`"));
        assert!(fault("postgres://h/d?sslmod=x").contains("unknown parameter `sslmod`"));
        assert!(fault("host=a sslcrl=b").contains("`sslcrl` is not supported"));
    }

    #[test]
    fn no_error_repeats_what_may_be_a_password() {
        for text in [
            "password=hunter two22=x",
            "password=x hunter two22",
            "password='hunter two22",
            "hunter two22",
            "mysql://u:hunter@two22/db",
            "postgres://u:hunter%zz@two22/db",
            "postgres://u:hunter@two22@h/db",
            "postgres://u:1/hunter@two22/db",
            "postgres://h/db?password=hunter&two22=1",
            "postgres://h/db?password=x&hunter",
        ] {
            let fault = fault(text);
            assert!(
                !fault.contains("hunter") && !fault.contains("two22"),
                "{fault}"
            );
            assert!(fault.starts_with("--dsn: "), "{fault}");
        }
    }
}
