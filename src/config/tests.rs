use std::fs;

use super::*;

/// What a file, variables and flags make; the file is `tidings.toml` in the messages.
fn load(
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
        ("TIDINGS_LOG__CONCURRENT_REPLAYS", "the default is 64"),
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
