//! Shows which word wins: the connection string, the environment or the default.

use super::*;

fn resolve(dsn: Option<&str>, env: &[(&str, &str)]) -> Result<ConnectSettings, ConnectError> {
    // A home without files, so that the tester's own do not count.
    let lookup = |name: &str| match env.iter().find(|(n, _)| *n == name) {
        Some((_, value)) => Some((*value).to_owned()),
        None => (name == "HOME").then(|| "/nonexistent".to_owned()),
    };
    ConnectSettings::resolve(dsn, &lookup)
}

fn password(settings: &ConnectSettings) -> Option<&str> {
    let bytes = settings.config().get_password()?;
    Some(std::str::from_utf8(bytes).unwrap())
}

#[test]
fn the_dsn_wins_over_database_url_and_both_over_the_environment() {
    let env = [
        ("DATABASE_URL", "postgres://a:pw1@h1/d1"),
        ("PGHOST", "h2"),
        ("PGUSER", "b"),
        ("PGPASSWORD", "pw2"),
        ("PGDATABASE", "d2"),
        ("PGPORT", "6000"),
    ];
    let by_url = resolve(None, &env).unwrap();
    assert_eq!(by_url.describe(), "d1 on h1:6000 as a");
    assert_eq!(password(&by_url), Some("pw1"));
    let by_dsn = resolve(Some("host=h3 port=1"), &env).unwrap();
    assert_eq!(by_dsn.describe(), "d2 on h3:1 as b");
    assert_eq!(password(&by_dsn), Some("pw2"));
    let by_env = resolve(None, &env[1..]).unwrap();
    assert_eq!(by_env.describe(), "d2 on h2:6000 as b");
}

#[test]
fn the_defaults_are_the_system_user_and_ours_for_the_session() {
    let settings = resolve(Some("host=h"), &[]).unwrap();
    let user = User::from_uid(geteuid()).unwrap().unwrap().name;
    assert_eq!(settings.describe(), format!("{user} on h:5432 as {user}"));
    let config = settings.config();
    assert_eq!(config.get_application_name(), Some("pgrung"));
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(10)));
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(15));
    assert_eq!(
        config.get_keepalives_interval(),
        Some(Duration::from_secs(5))
    );
    assert_eq!(config.get_keepalives_retries(), Some(3));
    assert_eq!(
        config.get_tcp_user_timeout(),
        Some(&Duration::from_secs(30))
    );
    assert_eq!(config.get_ssl_mode(), ClientSslMode::Prefer);
}

#[test]
fn session_parameters_come_from_dsn_and_environment() {
    let env = [
        ("PGAPPNAME", "nightly"),
        ("PGCONNECT_TIMEOUT", "3"),
        ("PGOPTIONS", "-c a=1"),
        ("PGTARGETSESSIONATTRS", "read-write"),
        ("PGSSLMODE", "require"),
    ];
    let settings = resolve(
        Some("host=h tcp_user_timeout=1500 keepalives=0 keepalives_count=9"),
        &env,
    )
    .unwrap();
    let config = settings.config();
    assert_eq!(config.get_application_name(), Some("nightly"));
    assert_eq!(settings.limit, Some(Duration::from_secs(3)));
    assert_eq!(config.get_options(), Some("-c a=1"));
    assert_eq!(
        config.get_target_session_attrs(),
        TargetSessionAttrs::ReadWrite
    );
    assert_eq!(config.get_ssl_mode(), ClientSslMode::Require);
    assert_eq!(
        config.get_tcp_user_timeout(),
        Some(&Duration::from_millis(1500))
    );
    assert_eq!(config.get_keepalives_retries(), Some(9));
    assert!(!config.get_keepalives());
    let unlimited = resolve(Some("host=h connect_timeout=0"), &env).unwrap();
    assert_eq!(unlimited.limit, None);
}

#[test]
fn a_wrong_value_is_a_usage_error_that_names_its_origin() {
    for (dsn, env, origin) in [
        ("host=h sslmode=maybe", ("X", ""), "`sslmode` in --dsn"),
        ("host=h", ("PGCONNECT_TIMEOUT", "soon"), "PGCONNECT_TIMEOUT"),
        ("host=h", ("PGPORT", "0"), "PGPORT"),
        ("hostaddr=localhost", ("X", ""), "`hostaddr` in --dsn"),
        (
            "host=h target_session_attrs=standby",
            ("X", ""),
            "`target_session_attrs`",
        ),
        ("", ("X", ""), "--dsn is empty"),
        ("host=h", ("PGSERVICE", "prod"), "PGSERVICE: definition of"),
        ("service=''", ("X", ""), "`service` in --dsn: definition of"),
        ("host=h", ("PGSSLCRL", "/crl.pem"), "PGSSLCRL"),
    ] {
        let error = resolve(Some(dsn), &[env]).unwrap_err();
        assert!(error.is_usage(), "{error}");
        assert!(error.to_string().starts_with(origin), "{error}");
    }
}

#[test]
fn only_what_says_where_names_a_connection() {
    let named = |dsn, name: &str, value: &str| {
        ConnectSettings::is_named(dsn, &|n| (n == name).then(|| value.to_owned()))
    };
    assert!(named(Some("host=h"), "X", ""));
    assert!(named(None, "PGHOST", "h") && named(None, "DATABASE_URL", "x"));
    assert!(!named(None, "PGHOST", "") && !named(None, "PGUSER", "u"));
}

#[test]
fn each_host_has_its_own_line_in_the_password_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".pgpass");
    std::fs::write(&path, "b:*:*:*:of-b\nc:*:*:*:of-c\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let env = [("HOME", dir.path().to_str().unwrap())];
    let settings = resolve(Some("host=a,b,c"), &env).unwrap();
    let passwords: Vec<_> = settings
        .endpoints
        .iter()
        .map(|e| e.password.as_deref())
        .collect();
    assert_eq!(passwords, [None, Some(b"of-b".as_slice()), Some(b"of-c")]);
    assert_eq!(password(&settings), Some("of-b"));
}

#[test]
fn neither_debug_nor_description_shows_the_password() {
    let settings = resolve(Some("postgres://u:hunter2@a:1,[::1]:2/d"), &[]).unwrap();
    assert_eq!(settings.describe(), "d on a:1,[::1]:2 as u");
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn sockets_alone_need_no_certificates() {
    let dsn = Some("host=/run/pg sslmode=verify-full");
    assert!(resolve(dsn, &[]).unwrap().encryption.is_none());
    let dsn = Some("host=/run/pg,h sslmode=verify-full");
    assert!(resolve(dsn, &[]).unwrap_err().is_usage());
}

#[test]
fn a_ready_configuration_keeps_its_places_and_gets_a_limit() {
    let mut config = Config::new();
    config
        .user("u")
        .dbname("d")
        .host("/run/pg")
        .port(77)
        .password("x");
    let settings = ConnectSettings::from_config(config);
    assert_eq!(settings.describe(), "d on /run/pg:77 as u");
    assert_eq!(settings.limit, Some(CONNECT_TIMEOUT));
    assert_eq!(settings.config().get_ssl_mode(), ClientSslMode::Disable);
}
