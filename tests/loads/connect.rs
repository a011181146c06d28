//! Connects to real servers, with and without TLS, in every way that may work or fail.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::library::{ConnectError, ConnectSettings, connect, pool};
use crate::support::server::free_port;
use crate::support::{Files, PASSWORD, Server, wait_until};

/// Who may log in how; the socket of `postgres` is the way in for the set-up.
const HBA: [&str; 8] = [
    "local     all postgres  trust",
    "local     all all       scram-sha-256",
    "hostssl   all tlsonly   all scram-sha-256",
    "hostnossl all tlsonly   all reject",
    "hostnossl all plainonly all scram-sha-256",
    "hostssl   all plainonly all reject",
    "hostssl   all certuser  all cert",
    "host      all all       all scram-sha-256",
];

/// The certificates of a server with TLS, as PEM.
struct Certificates {
    server: String,
    key: String,
    /// Signs client certificates.
    ca: String,
}

/// A server with a role for each way to log in; without certificates it has no TLS.
fn start(certificates: Option<&Certificates>) -> Server {
    // On a thread without a runtime: the set-up blocks.
    thread::scope(|scope| scope.spawn(|| set_up(certificates)).join()).unwrap()
}

fn set_up(certificates: Option<&Certificates>) -> Server {
    let server = Server::start_with(None, &[], &HBA);
    let session = server.session("postgres");
    for user in ["etl", "tlsonly", "plainonly", "certuser"] {
        session.run(&format!("CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'"));
    }
    if let Some(certificates) = certificates {
        install(certificates, server.embedded().data_dir());
        session.run("ALTER SYSTEM SET ssl = on");
        session.run("ALTER SYSTEM SET ssl_ca_file = 'ca.crt'");
        session.run("SELECT pg_reload_conf()");
        wait_until("the server takes TLS", || {
            server.session("postgres").one("SHOW ssl") == "on"
        });
    }
    server
}

/// The server reads them from its data directory, and the key only if it is its user's own.
fn install(certificates: &Certificates, data: &Path) {
    let owner = fs::metadata(data).unwrap();
    for (name, text) in [
        ("server.crt", &certificates.server),
        ("server.key", &certificates.key),
        ("ca.crt", &certificates.ca),
    ] {
        let path = data.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
}

/// A server with TLS, one without, and the files a client needs.
struct Site {
    tls: Server,
    plain: Server,
    files: Files,
}

/// One site for all tests that run at the same time; stopped when the last one ends.
fn site() -> Arc<Site> {
    static SITE: Mutex<Weak<Site>> = Mutex::new(Weak::new());
    let mut shared = SITE.lock().unwrap_or_else(|e| e.into_inner());
    shared.upgrade().unwrap_or_else(|| {
        let site = Arc::new(Site::start());
        *shared = Arc::downgrade(&site);
        site
    })
}

fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, Issuer::new(params, key))
}

impl Site {
    fn start() -> Site {
        let files = Files::new();
        let write = |name: &str, text: &str| {
            let path = files.path(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        let (ca, issuer) = authority("right");
        let (other, _) = authority("wrong");
        write("right.crt", &ca);
        write("wrong.crt", &other);
        write("empty.crt", "");

        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let server = params.signed_by(&key, &issuer).unwrap().pem();
        let client_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let user = &mut params.distinguished_name;
        user.push(DnType::CommonName, "certuser");
        let client = params.signed_by(&client_key, &issuer).unwrap().pem();
        write("client.crt", &client);
        write("client.key", &client_key.serialize_pem());

        let tls = start(Some(&Certificates {
            server,
            key: key.serialize_pem(),
            ca,
        }));
        let plain = start(None);
        Site { tls, plain, files }
    }

    fn file(&self, name: &str) -> String {
        self.files.path(name).display().to_string()
    }

    /// `etl` with its password on the server with TLS; later words override earlier ones.
    fn dsn(&self, words: &str) -> String {
        let port = self.tls.port();
        format!("host=localhost port={port} user=etl password='{PASSWORD}' dbname=postgres {words}")
    }

    /// The same without a password.
    fn dsn_without_password(&self) -> String {
        let port = self.tls.port();
        format!("host=localhost port={port} user=etl dbname=postgres")
    }
}

/// The environment is empty but for these; a home of our own keeps the tester's files out.
fn resolve(dsn: &str, env: &[(&str, &str)]) -> Result<ConnectSettings, ConnectError> {
    ConnectSettings::resolve(Some(dsn), &|name| {
        let found = env.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        found
            .or((name == "HOME").then_some("/nonexistent"))
            .map(str::to_owned)
    })
}

async fn open(dsn: &str) -> Result<Client, ConnectError> {
    let opened = match resolve(dsn, &[]) {
        Ok(settings) => connect(&settings).await,
        Err(error) => Err(error),
    };
    if let Err(error) = &opened {
        assert_no_password(error);
    }
    opened
}

fn assert_no_password(error: &ConnectError) {
    for text in [error.to_string(), format!("{error:?}")] {
        assert!(!text.contains("s3cr") && !text.contains("et@"), "{text}");
    }
}

async fn failure(dsn: &str) -> ConnectError {
    match open(dsn).await {
        Ok(_) => panic!("must not connect: {dsn}"),
        Err(error) => error,
    }
}

async fn encrypted(client: &Client) -> bool {
    let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Only a simple query sees both times equal: with Parse, Bind and Execute the statement's moves on.
async fn in_transaction(client: &Client) -> bool {
    let sql = "SELECT now() <> statement_timestamp()";
    let messages = client.simple_query(sql).await.unwrap();
    messages
        .iter()
        .any(|m| matches!(m, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")))
}

async fn one(client: &Client, sql: &str) -> String {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// What came of an attempt, in a word.
async fn outcome(dsn: &str) -> &'static str {
    match open(dsn).await {
        Ok(client) if encrypted(&client).await => "tls",
        Ok(_) => "plain",
        Err(ConnectError::TlsSettings(_)) => "usage",
        Err(ConnectError::NoTls { .. }) => "no tls",
        Err(ConnectError::TlsFailed { reason, .. }) if reason.contains("trusted CA") => "ca",
        Err(ConnectError::TlsFailed { reason, .. }) if reason.contains("wrong host name") => "name",
        Err(error) => panic!("{dsn}: {error}"),
    }
}

#[tokio::test]
async fn every_sslmode_keeps_its_promise() {
    let site = site();
    let right = format!("sslrootcert={}", site.file("right.crt"));
    let wrong = format!("sslrootcert={}", site.file("wrong.crt"));
    let situations = [
        right.clone(),
        wrong,
        format!("{right} host=db.invalid hostaddr=127.0.0.1"),
        format!("{right} port={}", site.plain.port()),
        String::new(),
    ];
    for (mode, expected) in [
        // right CA, wrong CA, wrong host name, server without TLS, no root certificate
        ("disable", ["plain", "plain", "plain", "plain", "plain"]),
        ("allow", ["tls", "plain", "tls", "plain", "tls"]),
        ("prefer", ["tls", "plain", "tls", "plain", "tls"]),
        ("require", ["tls", "ca", "tls", "no tls", "tls"]),
        ("verify-ca", ["tls", "ca", "tls", "no tls", "usage"]),
        ("verify-full", ["tls", "ca", "name", "no tls", "usage"]),
    ] {
        for (words, expected) in situations.iter().zip(expected) {
            let dsn = site.dsn(&format!("sslmode={mode} {words}"));
            assert_eq!(outcome(&dsn).await, expected, "sslmode={mode} {words}");
        }
    }
}

#[tokio::test]
async fn a_certificate_for_an_address_is_good_for_that_address() {
    let site = site();
    let words = format!("sslmode=verify-full sslrootcert={}", site.file("right.crt"));
    for place in ["host=127.0.0.1", "host='' hostaddr=127.0.0.1"] {
        let dsn = site.dsn(&format!("{words} {place}"));
        assert_eq!(outcome(&dsn).await, "tls", "{place}");
    }
}

#[tokio::test]
async fn the_root_in_the_home_directory_turns_require_into_verify_ca() {
    let site = site();
    let home = Files::new();
    fs::create_dir(home.path(".postgresql")).unwrap();
    let root = home.path(".postgresql/root.crt");
    let env = [("HOME", home.dir().to_str().unwrap())];
    for (name, works) in [("right.crt", true), ("wrong.crt", false)] {
        fs::copy(site.file(name), &root).unwrap();
        let settings = resolve(&site.dsn("sslmode=require"), &env).unwrap();
        assert_eq!(connect(&settings).await.is_ok(), works, "{name}");
    }
}

#[tokio::test]
async fn a_self_signed_server_certificate_is_its_own_root() {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let server = start(Some(&Certificates {
        server: pem.clone(),
        key: key.serialize_pem(),
        ca: pem.clone(),
    }));
    let dir = Files::new();
    let root = dir.path("root.crt");
    fs::write(&root, pem).unwrap();
    let common = format!(
        "port={} user=etl password='{PASSWORD}' dbname=postgres sslrootcert={}",
        server.port(),
        root.display()
    );
    for (words, expected) in [
        ("sslmode=verify-full host=localhost", "tls"),
        ("sslmode=verify-full host=127.0.0.1", "name"),
        ("sslmode=verify-ca host=127.0.0.1", "tls"),
    ] {
        let dsn = format!("{common} {words}");
        assert_eq!(outcome(&dsn).await, expected, "{words}");
    }
}

#[tokio::test]
async fn a_client_certificate_logs_in() {
    let site = site();
    let dsn = format!(
        "{} user=certuser sslmode=require",
        site.dsn_without_password()
    );
    let error = failure(&dsn).await;
    assert_eq!(error.sqlstate().unwrap().code(), "28000", "{error}");
    let (cert, key) = (site.file("client.crt"), site.file("client.key"));
    let client = open(&format!("{dsn} sslcert={cert} sslkey={key}")).await;
    assert_eq!(
        one(&client.unwrap(), "SELECT current_user::text").await,
        "certuser"
    );
}

#[tokio::test]
async fn prefer_goes_without_tls_where_the_server_wants_that_and_only_there() {
    let site = site();
    assert_eq!(outcome(&site.dsn("user=plainonly")).await, "plain");
    assert_eq!(outcome(&site.dsn("user=tlsonly")).await, "tls");
    let error = failure(&site.dsn("user=tlsonly sslmode=disable")).await;
    assert_eq!(error.sqlstate().unwrap().code(), "28000");
    let error = failure(&site.dsn("user=plainonly sslmode=require")).await;
    assert_eq!(error.sqlstate().unwrap().code(), "28000");
    // Both ways are closed: both stories are told.
    let wrong = format!("user=tlsonly sslrootcert={}", site.file("wrong.crt"));
    let error = failure(&site.dsn(&wrong)).await.to_string();
    assert!(
        error.contains("trusted CA") && error.contains("pg_hba"),
        "{error}"
    );
}

#[tokio::test]
async fn a_socket_never_uses_tls_even_if_required() {
    let site = site();
    let socket = site.tls.embedded().socket_dir().to_owned();
    for mode in ["require", "verify-full"] {
        let words = format!("sslmode={mode} host={}", socket.display());
        assert_eq!(outcome(&site.dsn(&words)).await, "plain", "{mode}");
    }
}

#[tokio::test]
async fn a_password_comes_from_dsn_uri_environment_or_password_file() {
    let site = site();
    open(&site.dsn("")).await.unwrap();
    let port = site.tls.port();
    let uri = format!("postgres://etl:s3cr%3Aet%40%2F%25x@localhost:{port}/postgres");
    open(&uri).await.unwrap();

    let dsn = site.dsn_without_password();
    let by_env = resolve(&dsn, &[("PGPASSWORD", PASSWORD)]).unwrap();
    connect(&by_env).await.unwrap();

    let dir = Files::new();
    let path: PathBuf = dir.path("pgpass");
    let line = format!("# of the test\nlocalhost:{port}:*:etl:s3cr\\:et@/%x\n");
    fs::write(&path, line).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let env = [("PGPASSFILE", path.to_str().unwrap())];
    connect(&resolve(&dsn, &env).unwrap()).await.unwrap();

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let settings = resolve(&dsn, &env).unwrap();
    assert!(settings.warnings()[0].contains("0600"));
    let error = connect(&settings).await.unwrap_err();
    assert!(error.to_string().contains("PGPASSWORD"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_refused_once_with_the_servers_words() {
    let site = site();
    for mode in ["prefer", "disable", "verify-full"] {
        let root = site.file("right.crt");
        let words = format!("password=s3cr-wrong sslmode={mode} sslrootcert={root}");
        let error = failure(&site.dsn(&words)).await;
        assert!(
            matches!(error, ConnectError::Authentication { .. }),
            "{error:?}"
        );
        assert_eq!(error.sqlstate().unwrap().code(), "28P01");
        assert!(
            error.to_string().contains("password authentication failed"),
            "{error}"
        );
        assert!(!error.is_usage());
    }
}

#[tokio::test]
async fn an_unknown_database_is_told_apart() {
    let site = site();
    let error = failure(&site.dsn("dbname=nowhere")).await;
    assert!(
        matches!(error, ConnectError::UnknownDatabase { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[tokio::test]
async fn nothing_listening_or_no_such_host_is_unreachable() {
    let port = free_port();
    for place in ["host=127.0.0.1", "host=/nonexistent", "host=db.invalid"] {
        let error = failure(&format!("{place} port={port} password={PASSWORD}")).await;
        assert!(
            matches!(error, ConnectError::Unreachable { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(&port.to_string()), "{error}");
        assert!(!error.is_usage() && error.sqlstate().is_none());
    }
}

#[tokio::test]
async fn the_next_host_is_tried_if_one_is_down_but_not_after_a_refused_login() {
    let site = site();
    let (down, up) = (free_port(), site.tls.port());
    let hosts = "host=127.0.0.1,localhost";
    open(&site.dsn(&format!("{hosts} port={down},{up}")))
        .await
        .unwrap();
    let error = failure(&site.dsn(&format!("{hosts} port={up},{down} password=s3cr"))).await;
    assert_eq!(error.sqlstate().unwrap().code(), "28P01", "{error}");
    let error = failure(&site.dsn(&format!("host=127.0.0.1,127.0.0.1 port={down}"))).await;
    assert!(error.to_string().contains("all 2 attempts"), "{error}");
}

#[tokio::test]
async fn a_server_that_never_answers_ends_by_the_connect_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for mode in ["disable", "prefer", "require"] {
        let dsn = format!("host=127.0.0.1 port={port} sslmode={mode} connect_timeout=1");
        let error = failure(&dsn).await;
        assert!(matches!(error, ConnectError::Timeout { .. }), "{error:?}");
        assert!(error.to_string().contains("within 1 s"), "{error}");
    }
}

#[tokio::test]
async fn the_next_host_is_tried_if_one_never_answers() {
    let site = site();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (silent, up) = (listener.local_addr().unwrap().port(), site.tls.port());
    let words = format!("host=127.0.0.1,127.0.0.1 port={silent},{up} connect_timeout=1");
    open(&site.dsn(&words)).await.unwrap();
}

#[tokio::test]
async fn a_read_only_server_is_passed_over_if_writes_are_wanted() {
    let site = site();
    let words = "options='-c default_transaction_read_only=on' target_session_attrs=primary";
    let error = failure(&site.dsn(words)).await;
    assert!(
        matches!(error, ConnectError::SessionAttributes { .. }),
        "{error:?}"
    );
    let words = "options='-c default_transaction_read_only=on' target_session_attrs=read-only";
    open(&site.dsn(words)).await.unwrap();
}

#[tokio::test]
async fn the_session_has_our_name_or_the_one_given() {
    let site = site();
    let client = open(&site.dsn("")).await.unwrap();
    assert_eq!(one(&client, "SHOW application_name").await, "pgrung");
    let client = open(&site.dsn("application_name=nightly")).await.unwrap();
    assert_eq!(one(&client, "SHOW application_name").await, "nightly");
}

#[tokio::test]
async fn a_ready_configuration_connects_without_tls() {
    let site = site();
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(site.tls.embedded().socket_dir())
        .port(site.tls.port())
        .user("etl")
        .dbname("postgres")
        .password(PASSWORD);
    let client = connect(&ConnectSettings::from_config(config))
        .await
        .unwrap();
    assert!(!encrypted(&client).await);
}

#[tokio::test]
async fn the_pool_takes_back_a_connection_without_its_transaction() {
    let site = site();
    let settings = resolve(&site.dsn("application_name=pooled"), &[]).unwrap();
    let pool = pool(&settings, 1).unwrap();
    let pid = "SELECT pg_backend_pid()::text";
    let client = pool.get().await.unwrap();
    assert!(encrypted(&client).await);
    let first = one(&client, pid).await;
    client.batch_execute("BEGIN").await.unwrap();
    assert!(in_transaction(&client).await);
    drop(client);

    let client = pool.get().await.unwrap();
    assert!(!in_transaction(&client).await, "an open one is rolled back");
    client.batch_execute("BEGIN").await.unwrap();
    client.batch_execute("SELECT 1/0").await.unwrap_err();
    drop(client);

    let client = pool.get().await.unwrap();
    assert!(
        !in_transaction(&client).await,
        "a failed one is rolled back"
    );
    drop(client);

    let client = pool.get().await.unwrap();
    assert_eq!(one(&client, pid).await, first, "the connection is kept");
    let log = fs::read_to_string(site.tls.embedded().server_log()).unwrap();
    assert!(!log.contains("no transaction in progress"));

    client
        .batch_execute("SELECT pg_terminate_backend(pg_backend_pid())")
        .await
        .unwrap_err();
    drop(client);
    let client = pool.get().await.unwrap();
    assert_ne!(
        one(&client, pid).await,
        first,
        "a lost connection is replaced"
    );
}

#[tokio::test]
async fn the_pool_tells_why_it_cannot_connect() {
    let site = site();
    let settings = resolve(&site.dsn("password=s3cr-wrong"), &[]).unwrap();
    let error = pool(&settings, 1).unwrap().get().await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains("s3cr"));
    let error = ConnectError::from(error);
    assert_eq!(error.sqlstate().unwrap().code(), "28P01");
}
