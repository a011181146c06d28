//! Says why no session came about, in words that never hold a password.

use std::io;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::connector::Step;

/// Why a connection was not made, by what went wrong.
///
/// `Display` is the whole story in one line (what, the server's or the system's
/// own words, what to do), so there is no `source()` for a caller to print a
/// second time. Connection strings and passwords are never part of it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The DSN or the environment is wrong; nothing was tried.
    #[error("{0}")]
    Settings(String),
    /// A certificate or key file is missing or unreadable; nothing was tried.
    #[error("{0}")]
    TlsSettings(String),
    /// No route, nothing listening, an unknown host name, or a connection lost before the login.
    #[error("cannot reach {target}: {reason}; check host and port, and that the server runs")]
    Unreachable {
        /// Which database, server and user.
        target: String,
        /// The system's words.
        reason: String,
    },
    /// TLS is required, and the server of this database, address and user has none.
    #[error("{0}: server does not support TLS; turn `ssl` on there, or choose a weaker sslmode")]
    NoTls(String),
    /// The TLS handshake failed: certificate refused by us, or by the server.
    #[error("{target}: TLS failed: {reason}")]
    TlsFailed {
        /// Which database, server and user.
        target: String,
        /// What failed and what to do.
        reason: String,
    },
    /// The server refused the user, or asked for a proof we cannot give.
    #[error("cannot log in to {target}{}: {reason}; {hint}", code(.sqlstate))]
    Authentication {
        /// Which database, server and user.
        target: String,
        /// Class 28, if the server said so.
        sqlstate: Option<SqlState>,
        /// The server's or the client library's words.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// The database does not exist (3D000).
    #[error("{target} (SQLSTATE 3D000): {reason}; create it or name another one")]
    UnknownDatabase {
        /// Which database, server and user.
        target: String,
        /// The server's words.
        reason: String,
    },
    /// The server works, but is not the kind `target_session_attrs` asks for.
    #[error("{target}: {reason}, which target_session_attrs rules out; name another host")]
    SessionAttributes {
        /// Which database, server and user.
        target: String,
        /// What the server is.
        reason: String,
    },
    /// One step took longer than `connect_timeout`.
    #[error("no answer from {target}{} while {step}; check host and port, or raise connect_timeout", within(.limit))]
    Timeout {
        /// Which database, server and user.
        target: String,
        /// What was waited for.
        step: &'static str,
        /// `connect_timeout`; none when the system gave up by itself.
        limit: Option<Duration>,
    },
    /// The server refused the session for another reason.
    #[error("{target} refuses the connection (SQLSTATE {}): {reason}", .sqlstate.code())]
    Server {
        /// Which database, server and user.
        target: String,
        /// The server's code.
        sqlstate: SqlState,
        /// The server's words.
        reason: String,
    },
    /// The pool is closed or has run out of time.
    #[error("connection pool: {0}")]
    Pool(String),
    /// Several hosts or ways were tried, none worked; in the order tried, never empty.
    #[error("all {} attempts failed: {}", .0.len(), numbered(.0))]
    Several(Vec<ConnectError>),
}

/// What to do when the server refuses the user.
const HINT_REFUSED: &str = "check the user, its password and the server's pg_hba.conf";
/// What to do when there was no password to give.
const HINT_NO_PASSWORD: &str =
    "give a password by PGPASSWORD, a password file or the connection string";

impl ConnectError {
    /// True when the command line, the environment or a file named there is at fault (exit code 2).
    pub fn is_usage(&self) -> bool {
        matches!(
            self.last(),
            ConnectError::Settings(_) | ConnectError::TlsSettings(_)
        )
    }

    /// The server's code, if it was the server that refused.
    pub fn sqlstate(&self) -> Option<&SqlState> {
        match self.last() {
            ConnectError::Authentication { sqlstate, .. } => sqlstate.as_ref(),
            ConnectError::UnknownDatabase { .. } => Some(&SqlState::INVALID_CATALOG_NAME),
            ConnectError::Server { sqlstate, .. } => Some(sqlstate),
            _ => None,
        }
    }

    /// The error itself, or the last one of several attempts: the one to decide by.
    pub fn last(&self) -> &ConnectError {
        match self {
            ConnectError::Several(errors) => errors.last().map_or(self, ConnectError::last),
            other => other,
        }
    }

    /// One error of a non-empty list of failures.
    pub(super) fn all(mut failures: Vec<ConnectError>) -> ConnectError {
        match failures.pop() {
            Some(only) if failures.is_empty() => only,
            Some(last) => {
                failures.push(last);
                ConnectError::Several(failures)
            }
            None => ConnectError::Settings("no host to connect to; name one".to_owned()),
        }
    }

    /// Whether the next host may do better: as in libpq, anything but a
    /// server that answered and refused for good, or failed in TLS.
    pub(super) fn next_host_may_work(&self) -> bool {
        match self.last() {
            ConnectError::Unreachable { .. }
            | ConnectError::Timeout { .. }
            | ConnectError::SessionAttributes { .. } => true,
            ConnectError::Server { sqlstate, .. } => *sqlstate == SqlState::CANNOT_CONNECT_NOW,
            _ => false,
        }
    }

    /// Whether a connection without TLS may work where this one with TLS did not:
    /// the handshake failed, or `pg_hba.conf` has no line for TLS connections (28000).
    pub(super) fn plain_may_work(&self) -> bool {
        match self {
            ConnectError::TlsFailed { .. } => true,
            ConnectError::Authentication { sqlstate, .. } => {
                sqlstate.as_ref() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
            }
            _ => false,
        }
    }

    /// Sorts an error of one attempt by the step at which it came.
    pub(super) fn of_attempt(
        target: String,
        step: Step,
        limit: Option<Duration>,
        has_password: bool,
        error: &tokio_postgres::Error,
    ) -> ConnectError {
        use std::error::Error;
        if let Some(db) = error.as_db_error() {
            return Self::of_server(target, db.code().clone(), printable(db.message()));
        }
        let cause = error.source();
        let io = cause.and_then(|e| e.downcast_ref::<io::Error>());
        let tls = io.and_then(|e| e.get_ref()?.downcast_ref::<rustls::Error>());
        let reason = printable(&cause.map_or_else(|| error.to_string(), ToString::to_string));
        if let Some(tls) = tls {
            let reason = tls_reason(tls);
            return ConnectError::TlsFailed { target, reason };
        }
        match (step, io) {
            (Step::Handshake, _) => ConnectError::TlsFailed { target, reason },
            (_, Some(e)) if e.kind() == io::ErrorKind::TimedOut => ConnectError::Timeout {
                target,
                step: step.doing(),
                limit,
            },
            (Step::Reaching, _) => ConnectError::Unreachable { target, reason },
            (_, Some(e)) if e.kind() == io::ErrorKind::PermissionDenied => {
                ConnectError::SessionAttributes { target, reason }
            }
            (_, Some(_)) => ConnectError::Unreachable { target, reason },
            (_, None) if error.is_closed() => ConnectError::Unreachable { target, reason },
            // The only error at this step that is neither the server's nor the system's.
            (Step::AskingTls, None) => ConnectError::NoTls(target),
            (_, None) => ConnectError::Authentication {
                target,
                sqlstate: None,
                reason,
                hint: if has_password {
                    HINT_REFUSED
                } else {
                    HINT_NO_PASSWORD
                },
            },
        }
    }

    fn of_server(target: String, sqlstate: SqlState, reason: String) -> ConnectError {
        if sqlstate == SqlState::INVALID_CATALOG_NAME {
            ConnectError::UnknownDatabase { target, reason }
        } else if sqlstate.code().starts_with("28") {
            ConnectError::Authentication {
                target,
                sqlstate: Some(sqlstate),
                reason,
                hint: HINT_REFUSED,
            }
        } else {
            ConnectError::Server {
                target,
                sqlstate,
                reason,
            }
        }
    }
}

/// A TLS error with what to do, so that a wrong CA and a wrong name are told apart.
fn tls_reason(error: &rustls::Error) -> String {
    use rustls::CertificateError as Cert;
    match error {
        rustls::Error::InvalidCertificate(Cert::UnknownIssuer | Cert::BadSignature) => {
            "the server's certificate is not signed by a trusted CA; check sslrootcert".to_owned()
        }
        rustls::Error::InvalidCertificate(
            cert @ (Cert::NotValidForName | Cert::NotValidForNameContext { .. }),
        ) => format!(
            "wrong host name: {cert}; connect by a name in the certificate, or use verify-ca"
        ),
        rustls::Error::AlertReceived(alert) => {
            format!("the server refused with alert {alert:?}; check sslcert and sslkey")
        }
        other => printable(&other.to_string()),
    }
}

/// Control characters escaped: a server's words must not drive the terminal.
fn printable(words: &str) -> String {
    let shown = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    words.chars().map(shown).collect()
}

fn code(sqlstate: &Option<SqlState>) -> String {
    let code = sqlstate.as_ref().map(SqlState::code);
    code.map_or_else(String::new, |code| format!(" (SQLSTATE {code})"))
}

fn within(limit: &Option<Duration>) -> String {
    let seconds = limit.map(|limit| limit.as_secs_f64());
    seconds.map_or_else(String::new, |seconds| format!(" within {seconds} s"))
}

fn numbered(errors: &[ConnectError]) -> String {
    let numbered = |(i, error)| format!("({}) {error}", i + 1);
    let errors: Vec<String> = errors.iter().enumerate().map(numbered).collect();
    errors.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str) -> ConnectError {
        ConnectError::of_server("t".to_owned(), SqlState::from_code(code), "no".to_owned())
    }

    #[test]
    fn server_codes_are_sorted_by_what_to_do() {
        assert!(matches!(
            refused("28P01"),
            ConnectError::Authentication { .. }
        ));
        assert!(matches!(
            refused("3D000"),
            ConnectError::UnknownDatabase { .. }
        ));
        assert!(matches!(refused("53300"), ConnectError::Server { .. }));
        assert_eq!(refused("53300").sqlstate().unwrap().code(), "53300");
    }

    #[test]
    fn a_wrong_password_ends_the_search_and_a_starting_server_does_not() {
        assert!(!refused("28P01").next_host_may_work());
        assert!(refused("57P03").next_host_may_work());
        assert!(!refused("28P01").plain_may_work());
        assert!(refused("28000").plain_may_work());
    }

    #[test]
    fn several_failures_are_told_in_order_and_judged_by_the_last() {
        let all = ConnectError::all(vec![refused("57P03"), refused("28P01")]);
        assert_eq!(all.sqlstate().unwrap().code(), "28P01");
        assert!(all.to_string().starts_with("all 2 attempts failed: (1) t"));
    }

    #[test]
    fn control_characters_of_the_server_are_escaped() {
        assert_eq!(printable("a\u{1b}[2Jé\n"), "a\\u{1b}[2Jé\\n");
    }
}
