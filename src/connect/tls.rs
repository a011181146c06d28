//! Reads sslmode and the certificate files into a rustls client configuration.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::{WantsClientCert, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::ConnectError;
use super::given::Given;
use super::verify::{Trust, Verifier};

/// libpq's levels of protection, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

const MODES: [(&str, SslMode); 6] = [
    ("disable", SslMode::Disable),
    ("allow", SslMode::Allow),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

/// How connections to TCP hosts are encrypted.
#[derive(Clone)]
pub(super) struct Encryption {
    pub(super) connector: MakeRustlsConnect,
    /// False: a server without TLS, or a failed handshake, leads to plain text.
    pub(super) required: bool,
}

/// What the connection string, the environment and `~/.postgresql` say about TLS.
pub(super) struct TlsSettings {
    mode: SslMode,
    /// As given; `system` means the system's store.
    root: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    only_tls13: bool,
    home: Option<PathBuf>,
}

impl TlsSettings {
    /// Reads the words; opens no file. `home` holds `.postgresql/`.
    pub(super) fn new(given: &Given<'_>, home: Option<PathBuf>) -> Result<Self, ConnectError> {
        let root = given.text("sslrootcert", "PGSSLROOTCERT");
        let system = root.as_deref() == Some("system");
        let mode = given.choice("sslmode", "PGSSLMODE", &MODES)?;
        let mode = match mode {
            Some(mode) if system && mode != SslMode::VerifyFull => {
                return Err(ConnectError::Settings(
                    "sslrootcert=system is no protection without a host name check; use sslmode=verify-full".to_owned(),
                ));
            }
            Some(mode) => mode,
            None if system => SslMode::VerifyFull,
            None => SslMode::Prefer,
        };
        // rustls knows nothing older than 1.2, which is libpq's default minimum too.
        let versions = [
            ("TLSv1", false),
            ("TLSv1.1", false),
            ("TLSv1.2", false),
            ("TLSv1.3", true),
        ];
        let only_tls13 = given
            .choice(
                "ssl_min_protocol_version",
                "PGSSLMINPROTOCOLVERSION",
                &versions,
            )?
            .unwrap_or(false);
        given.choice("sslnegotiation", "PGSSLNEGOTIATION", &[("postgres", ())])?;
        given.choice("sslcompression", "PGSSLCOMPRESSION", &[("0", ())])?;
        let weak = [("disable", ()), ("prefer", ())];
        given.choice("gssencmode", "PGGSSENCMODE", &weak)?;
        Ok(Self {
            mode,
            root,
            cert: given.text("sslcert", "PGSSLCERT"),
            key: given.text("sslkey", "PGSSLKEY"),
            only_tls13,
            home,
        })
    }

    pub(super) fn mode(&self) -> SslMode {
        self.mode
    }

    /// Reads the certificate files; `None` for `disable`.
    ///
    /// # Errors
    /// [`ConnectError::TlsSettings`] naming the file that is missing or unusable.
    pub(super) fn encryption(
        &self,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Encryption>, ConnectError> {
        if self.mode == SslMode::Disable {
            return Ok(None);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(Verifier {
            trust: self.trust(&provider, warnings)?,
            provider: Arc::clone(&provider),
        });
        let versions: &[_] = if self.only_tls13 {
            &[&TLS13]
        } else {
            &[&TLS13, &TLS12]
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|e| ConnectError::TlsSettings(format!("TLS: {e}")))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        Ok(Some(Encryption {
            connector: MakeRustlsConnect::new(self.log_in_by(builder)?),
            required: self.mode >= SslMode::Require,
        }))
    }

    /// As in libpq: the roots are checked in every mode if there is a file, and need
    /// to be there for verify-ca and verify-full only.
    fn trust(
        &self,
        provider: &Arc<rustls::crypto::CryptoProvider>,
        warnings: &mut Vec<String>,
    ) -> Result<Trust, ConnectError> {
        let pinned = if self.root.as_deref() == Some("system") {
            system_roots()?
        } else {
            let Some(path) = self.file(self.root.as_deref(), "root.crt") else {
                return self
                    .without_roots("sslrootcert is not given and there is no home directory");
            };
            if !path.exists() {
                if self.root.is_some() && self.mode < SslMode::VerifyCa {
                    warnings.push(format!(
                        "root certificate file {} does not exist: the server's certificate is not checked",
                        path.display()
                    ));
                }
                return self.without_roots(&format!(
                    "root certificate file {} does not exist",
                    path.display()
                ));
            }
            certificates("root certificate file", &path)?
        };
        if let Some(list) = self.file(None, "root.crl").filter(|path| path.exists()) {
            warnings.push(format!(
                "{} is not read: revoked certificates are not noticed",
                list.display()
            ));
        }
        let mut roots = RootCertStore::empty();
        let (added, _unusable) = roots.add_parsable_certificates(pinned.iter().cloned());
        if added == 0 {
            return Err(ConnectError::TlsSettings(
                "no root certificate is usable; give another sslrootcert".to_owned(),
            ));
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|e| ConnectError::TlsSettings(format!("root certificates: {e}")))?;
        Ok(Trust::Roots {
            verifier,
            pinned,
            host_name: self.mode == SslMode::VerifyFull,
        })
    }

    fn without_roots(&self, why: &str) -> Result<Trust, ConnectError> {
        if self.mode < SslMode::VerifyCa {
            return Ok(Trust::Anyone);
        }
        Err(ConnectError::TlsSettings(format!(
            "{why}; give the CA by sslrootcert, use sslrootcert=system with verify-full, or choose a weaker sslmode"
        )))
    }

    /// Completes the configuration by the client's certificate, if there is one.
    fn log_in_by(
        &self,
        builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    ) -> Result<ClientConfig, ConnectError> {
        let cert = self.file(self.cert.as_deref(), "postgresql.crt");
        let Some(cert) = cert.filter(|cert| self.cert.is_some() || cert.exists()) else {
            return Ok(builder.with_no_client_auth());
        };
        let chain = certificates("client certificate file", &cert)?;
        let key = self
            .file(self.key.as_deref(), "postgresql.key")
            .ok_or_else(|| {
                ConnectError::TlsSettings(format!(
                    "the key of {} is not given; name it by sslkey",
                    cert.display()
                ))
            })?;
        check_key_mode(&key)?;
        let private = PrivateKeyDer::from_pem_file(&key).map_err(|e| {
            let why = format!("{e}; it must be PEM without a passphrase");
            fault("private key file", &key, &why)
        })?;
        builder.with_client_auth_cert(chain, private).map_err(|e| {
            let why = format!("{e}; is it the key's certificate?");
            fault("client certificate", &cert, &why)
        })
    }

    /// The file as given, else libpq's default in `~/.postgresql`.
    fn file(&self, given: Option<&str>, default: &str) -> Option<PathBuf> {
        match given {
            Some(path) => Some(PathBuf::from(path)),
            None => Some(self.home.as_ref()?.join(".postgresql").join(default)),
        }
    }
}

fn fault(what: &str, path: &Path, why: &str) -> ConnectError {
    ConnectError::TlsSettings(format!("{what} {}: {why}", path.display()))
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let all = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| fault(what, path, &e.to_string()))?;
    if all.is_empty() {
        return Err(fault(what, path, "no certificate in it; it must be PEM"));
    }
    Ok(all)
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(ConnectError::TlsSettings(
            "sslrootcert=system: this system has no root certificates; install ca-certificates or name a file".to_owned(),
        ));
    }
    Ok(found.certs)
}

/// libpq's rule: only the owner; a key of root may also be readable by its group.
fn check_key_mode(path: &Path) -> Result<(), ConnectError> {
    let fault = |why: &str| fault("private key file", path, why);
    let meta = fs::metadata(path).map_err(|e| fault(&e.to_string()))?;
    let forbidden = if meta.uid() == 0 { 0o037 } else { 0o077 };
    match meta.permissions().mode() & forbidden {
        0 => Ok(()),
        _ => Err(fault("group or others have access; chmod 0600 it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dsn: &str, home: Option<&Path>) -> Result<TlsSettings, ConnectError> {
        let given = Given::new(Some(dsn), &|_| None)?;
        TlsSettings::new(&given, home.map(Path::to_owned))
    }

    fn encrypt(dsn: &str, home: Option<&Path>) -> Result<(bool, Vec<String>), ConnectError> {
        let mut warnings = Vec::new();
        let encryption = settings(dsn, home)?.encryption(&mut warnings)?;
        Ok((encryption.is_some_and(|e| e.required), warnings))
    }

    #[test]
    fn without_a_word_tls_is_preferred_and_nobody_needs_a_root() {
        assert_eq!(settings("host=h", None).unwrap().mode(), SslMode::Prefer);
        assert_eq!(encrypt("host=h", None).unwrap(), (false, vec![]));
        assert_eq!(encrypt("sslmode=require", None).unwrap(), (true, vec![]));
    }

    #[test]
    fn an_unknown_mode_is_refused_with_the_choices() {
        let error = settings("sslmode=on", None).err().unwrap();
        assert!(error.is_usage());
        assert!(error.to_string().contains("one of disable, allow"));
    }

    #[test]
    fn verification_without_a_root_names_the_missing_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = encrypt("sslmode=verify-ca", Some(dir.path())).unwrap_err();
        assert!(error.is_usage());
        assert!(
            error
                .to_string()
                .contains(".postgresql/root.crt does not exist")
        );
        let error = encrypt("sslmode=verify-full sslrootcert=/none.crt", None).unwrap_err();
        assert!(error.to_string().contains("/none.crt does not exist"));
        assert!(encrypt("sslmode=verify-full", None).is_err());
    }

    #[test]
    fn a_named_root_that_is_missing_is_a_warning_where_none_is_needed() {
        let (_, warnings) = encrypt("sslmode=require sslrootcert=/none.crt", None).unwrap();
        assert!(warnings[0].contains("not checked"), "{warnings:?}");
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty.crt");
        fs::write(&path, "nothing\n").unwrap();
        let dsn = format!("sslmode=verify-ca sslrootcert={}", path.display());
        let error = encrypt(&dsn, None).unwrap_err().to_string();
        assert!(
            error.contains("empty.crt") && error.contains("PEM"),
            "{error}"
        );
    }

    #[test]
    fn system_roots_need_the_host_name() {
        let dsn = "sslrootcert=system";
        assert_eq!(settings(dsn, None).unwrap().mode(), SslMode::VerifyFull);
        assert!(settings("sslrootcert=system sslmode=verify-ca", None).is_err());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let pair = rcgen::generate_simple_self_signed(vec!["etl".to_owned()]).unwrap();
        let (cert, key) = (dir.path().join("c.crt"), dir.path().join("c.key"));
        fs::write(&cert, pair.cert.pem()).unwrap();
        fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
        let dsn = format!("sslcert={} sslkey={}", cert.display(), key.display());
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(
            encrypt(&dsn, None)
                .unwrap_err()
                .to_string()
                .contains("chmod")
        );
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        encrypt(&dsn, None).unwrap();
    }
}
