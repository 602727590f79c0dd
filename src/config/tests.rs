use std::fs;

use super::*;

/// What a file, variables and flags make; the file is `tidings.toml` in the messages.
fn load(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &'static str, &str)],
) -> Result<Config, String> {
    load_for(Role::Serve, file, environment, flags)
}

fn load_for(
    role: Role,
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &'static str, &str)],
) -> Result<Config, String> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("tidings.toml");
    fs::write(&path, file).expect("a file");
    let sources = Sources {
        file: Some(path),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        flags: flags
            .iter()
            .map(|(name, key, value)| Flag {
                name,
                key,
                value: (*value).to_owned(),
            })
            .collect(),
        insecure: false,
        role,
    };
    let here = format!("{}/", dir.path().display());
    sources.load().map_err(|error| error.to_string().replace(&here, ""))
}

#[test]
fn nothing_set_is_the_defaults() {
    assert_eq!(load("", &[], &[]), Ok(Config::default()));
}

#[test]
fn later_layers_win() {
    let file = "[http]\nlisten = \"127.0.0.1:1\"\nworkers = 1\nheartbeat = \"1s\"\n";
    let environment = [("TIDINGS_HTTP__LISTEN", "127.0.0.1:2"), ("TIDINGS_HTTP__WORKERS", "2")];
    let flags = [("--http", "http.listen", "127.0.0.1:3")];
    let config = load(file, &environment, &flags).expect("valid");
    assert_eq!(config.http.listen.port(), 3);
    assert_eq!(config.http.workers, 2);
    assert_eq!(config.http.heartbeat, Duration::from_secs(1));
    assert_eq!(config.http.retry, Duration::from_secs(3));
}

#[test]
fn variables_take_text_numbers_switches_and_lists() {
    let environment = [
        ("TIDINGS_TELEMETRY__LOG", "debug"),
        ("TIDINGS_TELEMETRY__FORMAT", "json"),
        ("TIDINGS_GRPC__REFLECTION", "true"),
        ("TIDINGS_DATA__DIR", "/srv/tidings"),
        ("TIDINGS_LOG__RETENTION_BYTES", "20GiB"),
        ("TIDINGS_HTTP__CORS_ORIGINS", "https://a.example, https://b.example"),
    ];
    let config = load("", &environment, &[]).expect("valid");
    assert_eq!(config.telemetry.log, "debug");
    assert_eq!(config.telemetry.format, LogFormat::Json);
    assert!(config.grpc.reflection);
    assert_eq!(config.data.dir, PathBuf::from("/srv/tidings"));
    assert_eq!(config.log.retention_bytes, Size::gib(20));
    assert_eq!(config.http.cors_origins, ["https://a.example", "https://b.example"]);
}

#[test]
fn variables_that_are_no_settings_are_left_alone() {
    let environment = [("TIDINGS_PORT", "tcp://10.0.0.1:80"), ("HTTP__LISTEN", "nonsense")];
    assert_eq!(load("", &environment, &[]), Ok(Config::default()));
}

#[test]
fn what_is_printed_reads_back() {
    let file = "[http]\ncors_origins = [\"https://a.example\"]\nretry = \"1s 500ms\"\n[data]\ndir = \"/x\"\n";
    let config = load(file, &[], &[]).expect("valid");
    assert_eq!(load(&config.to_toml(), &[], &[]), Ok(config));
}

#[test]
fn every_mistake_is_told_with_where_it_came_from() {
    let file = r#"
[http]
heartbeat = "soon"
lisen = "127.0.0.1:1"
cors_origins = ["https://a.example/"]

[limits]
data_bytes = "2MiB"
retention_age = "1d"

[journal]
disk_high_water_percent = 101
"#;
    let environment = [
        ("TIDINGS_HTTP__WORKER", "2"),
        ("TIDINGS_LOG__CONCURRENT_REPLAYS", "many"),
    ];
    let flags = [
        ("--grpc", "grpc.listen", "0.0.0.0:50051"),
        ("--admin", "admin.listen", "8081"),
    ];
    let told = load(file, &environment, &flags).expect_err("all of it is wrong");
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "the configuration has 10 mistakes", "{told}");
    let expected = [
        ("tidings.toml:3", "\"soon\" is not a duration"),
        ("tidings.toml:4", "did you mean `http.listen`?"),
        ("tidings.toml:5", "no slash at the end"),
        ("tidings.toml:8", "not \"2MiB\""),
        ("tidings.toml:9", "did you mean `log.retention_age`?"),
        ("tidings.toml:12", "must be 1 to 100"),
        ("TIDINGS_HTTP__WORKER", "did you mean `TIDINGS_HTTP__WORKERS`?"),
        ("TIDINGS_LOG__CONCURRENT_REPLAYS", "the default is 16"),
        ("--admin", "the default is \"127.0.0.1:8081\""),
        ("--grpc", "add --insecure"),
    ];
    for (line, (origin, part)) in lines[1..].iter().zip(expected) {
        assert!(
            line.trim_start().starts_with(&format!("{origin}: ")),
            "{origin} is missing in:\n{told}"
        );
        assert!(line.contains(part), "{part} is missing in:\n{told}");
    }
}

#[test]
fn a_file_that_is_not_toml_says_where() {
    let told = load("[http]\nlisten = \n", &[], &[]).expect_err("not TOML");
    assert!(told.contains("tidings.toml:2: is not TOML"), "{told}");
}

#[test]
fn a_key_outside_of_its_section_is_told() {
    let told = load("http = 1\n", &[], &[]).expect_err("no section");
    assert!(told.contains("tidings.toml:1: `http` is not in a section"), "{told}");
}

#[test]
fn a_named_file_must_be_there() {
    let sources = Sources {
        file: Some("/nowhere/tidings.toml".into()),
        ..Sources::default()
    };
    let told = sources.load().expect_err("no file").to_string();
    assert!(
        told.contains("/nowhere/tidings.toml: the file cannot be read"),
        "{told}"
    );
}

#[test]
fn beyond_loopback_only_when_it_is_meant() {
    for (address, fine) in [
        ("127.0.0.2:1", true),
        ("[::1]:1", true),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("10.0.0.1:1", false),
    ] {
        let mut sources = Sources {
            file: Some("/dev/null".into()),
            flags: vec![Flag {
                name: "--http",
                key: "http.listen",
                value: address.to_owned(),
            }],
            ..Sources::default()
        };
        assert_eq!(sources.load().is_ok(), fine, "{address}");
        sources.insecure = true;
        assert!(sources.load().is_ok(), "{address} with --insecure");
    }
}

#[test]
fn two_listeners_do_not_share_an_address() {
    let told = load("", &[], &[("--admin", "admin.listen", "127.0.0.1:8080")]).expect_err("taken");
    assert!(
        told.contains("--admin: `admin.listen`: 127.0.0.1:8080 is what http.listen listens on too"),
        "{told}"
    );
    let any = [
        ("--http", "http.listen", "127.0.0.1:0"),
        ("--admin", "admin.listen", "127.0.0.1:0"),
    ];
    assert!(load("", &[], &any).is_ok(), "port 0 is a new one each time");
}

#[test]
fn the_example_names_every_setting_with_its_default() {
    let example = include_str!("../../examples/tidings.toml");
    assert_eq!(load(example, &[], &[]), Ok(Config::default()));
    let defaults: toml::Table = Config::default().to_toml().parse().expect("TOML");
    let shown: toml::Table = example.parse().expect("TOML");
    for (section, keys) in defaults {
        for key in keys.as_table().expect("a section").keys() {
            assert!(
                shown[&section].get(key).is_some(),
                "{section}.{key} is missing in the example"
            );
        }
    }
}

/// The problems, each without where it came from.
fn problems(role: Role, file: &str) -> Vec<String> {
    let told = load_for(role, file, &[], &[]).err().unwrap_or_default();
    let lines = told.lines().skip(1);
    lines
        .map(|line| line.split_once(": ").expect("an origin").1.to_owned())
        .collect()
}

#[test]
fn each_role_has_its_own_needs() {
    let any = "[http]\nlisten = \"0.0.0.0:8080\"\n[cluster]\nnode = \"here\"\ningest_nodes = 2\n";
    assert_eq!(problems(Role::Edge, any).len(), 2, "{:?}", problems(Role::Edge, any));
    let edge = problems(Role::Edge, any).join("\n");
    assert!(
        edge.contains("`cluster.advertise_http`: is needed, since `http.listen`"),
        "{edge}"
    );
    assert!(edge.contains("add --insecure"), "{edge}");
    // It does not serve streams, and must know which one it is.
    let ingest = problems(Role::Ingest, any);
    assert_eq!(ingest.len(), 1, "{ingest:?}");
    assert!(
        ingest[0].starts_with("`cluster.ordinal`: the name of this node, here, does not end"),
        "{ingest:?}"
    );
    let ingest = problems(Role::Ingest, "[cluster]\nnode = \"ingest-2\"\ningest_nodes = 2\n");
    assert_eq!(
        ingest,
        [
            "`cluster.ordinal`: is 2 for the node ingest-2, and there are 2 ingest nodes (`cluster.ingest_nodes`), counted from 0"
        ]
    );
    let lonely = problems(Role::Edge, "[nats]\nurls = []\n");
    assert!(
        lonely.len() == 1 && lonely[0].starts_with("`nats.urls`: names no server"),
        "{lonely:?}"
    );
    for role in [Role::Serve, Role::Edge] {
        assert_eq!(load_for(role, "", &[], &[]), Ok(Config::default()));
    }
}

#[test]
fn nats_is_told_in_one_way_who_calls() {
    for (settings, wrong) in [
        ("user = \"a\"\npassword = \"b\"", &[][..]),
        ("user = \"a\"\npassword_file = \"b\"", &[]),
        ("token_file = \"b\"\ntls_cert = \"c\"\ntls_key = \"k\"", &[]),
        ("user = \"a\"", &["nats.password"]),
        ("password = \"b\"", &["nats.user"]),
        (
            "user = \"a\"\npassword = \"b\"\npassword_file = \"b\"",
            &["nats.password_file"],
        ),
        (
            "token = \"t\"\nnkey_file = \"n\"\ncredentials_file = \"c\"",
            &["nats.nkey_file", "nats.credentials_file"],
        ),
        ("tls_cert = \"c\"", &["nats.tls_key"]),
        ("token = \"********\"", &["nats.token"]),
        ("urls = [\"nats://a:b@c\"]", &["nats.urls"]),
        ("urls = [\"http://c\", \"tls://d:4222\", \"e\"]", &["nats.urls"]),
    ] {
        let problems = problems(Role::Serve, &format!("[nats]\n{settings}\n"));
        let keys: Vec<&str> = problems
            .iter()
            .filter_map(|problem| problem.split('`').nth(1))
            .collect();
        assert_eq!(keys, wrong, "{settings}: {problems:?}");
    }
}

#[test]
fn secrets_are_never_shown() {
    let environment = [("TIDINGS_NATS__USER", "a"), ("TIDINGS_NATS__PASSWORD", "open sesame")];
    let config = load("", &environment, &[]).expect("valid");
    assert_eq!(config.nats.password.reveal(), "open sesame");
    let shown = format!("{config:?}{}", config.to_toml());
    assert!(!shown.contains("sesame"), "{shown}");
    assert!(shown.contains("password = \"********\""), "{shown}");
    for wrong in [
        "[nats]\npassword = 4711\n",
        "[nats]\nurls = [\"nats://u:4711@h\"]\n",
        "[nats]\ntoken = [\"4711\"]\n",
    ] {
        let told = load(wrong, &[], &[]).expect_err("wrong");
        assert!(!told.contains("4711"), "{told}");
    }
}

#[test]
fn an_ordinal_is_a_number_or_auto() {
    for (text, want) in [
        ("2", Ordinal::Number(2)),
        ("\"2\"", Ordinal::Number(2)),
        ("\"auto\"", Ordinal::Auto),
    ] {
        let config = load(&format!("[cluster]\nordinal = {text}\n"), &[], &[]).expect("valid");
        assert_eq!(config.cluster.ordinal, want);
        assert_eq!(load(&config.to_toml(), &[], &[]), Ok(config));
    }
    let config = load("", &[("TIDINGS_CLUSTER__ORDINAL", "7")], &[]).expect("valid");
    assert_eq!(config.cluster.ordinal, Ordinal::Number(7));
    for text in ["-1", "65536", "\"first\"", "true"] {
        let told = load(&format!("[cluster]\nordinal = {text}\n"), &[], &[]).expect_err("none");
        assert!(told.contains("neither a number"), "{told}");
    }
}

#[test]
fn the_settings_of_jetstream_fit_together() {
    for (settings, wrong) in [
        ("[jetstream]\nmax_bytes = \"10GiB\"", &[][..]),
        ("[jetstream]\nmax_bytes = \"1KiB\"", &["jetstream.max_bytes"]),
        ("[jetstream]\npatience = \"61s\"", &["jetstream.patience"]),
        ("[jetstream]\nmonitor_urls = [\"http://nats-0:8222\"]", &[]),
        (
            "[jetstream]\nmonitor_urls = [\"http://nats-0:8222\", \"nats://nats-1:4222\"]",
            &["jetstream.monitor_urls"],
        ),
        ("[jetstream]\nmax_age = \"1m\"", &["jetstream.duplicate_window"]),
        ("[journal]\nkey_window = \"1m\"", &[]),
        (
            "[journal]\nkind = \"jetstream\"\nkey_window = \"1m\"",
            &["journal.key_window"],
        ),
    ] {
        let problems = problems(Role::Ingest, &format!("[cluster]\nordinal = 0\n{settings}\n"));
        let keys: Vec<&str> = problems
            .iter()
            .filter_map(|problem| problem.split('`').nth(1))
            .collect();
        assert_eq!(keys, wrong, "{settings}: {problems:?}");
    }
}

mod auth;
