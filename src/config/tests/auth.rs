//! `[auth]`, whose lists of tables hold secrets.

use super::*;

const SECRET: &str = "correct horse battery staple, and then some";
const HASH: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn entries_come_from_the_file_or_a_variable() {
    let file = format!(
        "[[auth.issuers]]\nissuer = \"https://id.example/\"\naudience = [\"tidings\"]\nsecret = \"{SECRET}\"\n\n\
         [[auth.publishers]]\nname = \"billing\"\ntoken_sha256 = \"{HASH}\"\npublish = [\"orders/**\"]\n"
    );
    let from_file = load(&file, &[], &[]).expect("valid");
    assert_eq!(from_file.auth.issuers[0].secret.reveal(), SECRET);
    assert_eq!(from_file.auth.publishers[0].publish, ["orders/**"]);
    assert!(!from_file.auth.is_open());
    let toml = format!("[{{issuer = \"https://id.example/\", audience = [\"tidings\"], secret = \"{SECRET}\"}}]");
    let json =
        format!("[{{\"issuer\": \"https://id.example/\", \"audience\": [\"tidings\"], \"secret\": \"{SECRET}\"}}]");
    for text in [toml, json] {
        let publishers =
            format!("[{{\"name\": \"billing\", \"token_sha256\": \"{HASH}\", \"publish\": [\"orders/**\"]}}]");
        let environment = [
            ("TIDINGS_AUTH__ISSUERS", text.as_str()),
            ("TIDINGS_AUTH__PUBLISHERS", &publishers),
        ];
        assert_eq!(load("", &environment, &[]), Ok(from_file.clone()));
        // They take the place of those in the file.
        let wrong = "[[auth.issuers]]\nissuer = \"https://other.example/\"\nsecret = \"short\"\n";
        assert_eq!(load(wrong, &environment, &[]), Ok(from_file.clone()));
    }
}

#[test]
fn secrets_are_shown_nowhere() {
    let file = format!(
        "[auth]\ncookie = \"t\"\n[[auth.issuers]]\naudience = [\"a\"]\nsecret = \"{SECRET}\"\n[admin]\ntoken = \"{SECRET}\"\n"
    );
    let config = load(&file, &[], &[]).expect("valid");
    for shown in [config.to_toml(), format!("{config:?}")] {
        assert!(!shown.contains("horse") && shown.contains(Secret::MASK), "{shown}");
    }
    // What is shown in place of secrets is not taken for them.
    let told = load(&config.to_toml(), &[], &[]).expect_err("masked");
    assert_eq!(
        told.matches("is what is shown in place of the secret").count(),
        2,
        "{told}"
    );
    for text in [
        format!("[{{secret = \"{SECRET}\""),
        format!("[{{\"secret\": \"{SECRET}\"}}, 7"),
        format!("secret={SECRET}"),
        format!("[\"{SECRET}\"]"),
        format!("[{{secret = [\"{SECRET}\"]}}]"),
        format!("[{{secrt = \"{SECRET}\"}}]"),
        format!("[{{secret = \"-----BEGIN {SECRET}\", key = \"{SECRET}\", audience = []}}]"),
        format!("[{{jwks_url = \"https://user:{SECRET}@host\"}}]"),
    ] {
        let told = load("", &[("TIDINGS_AUTH__ISSUERS", &text)], &[]).expect_err("wrong");
        assert!(!told.contains("horse"), "{told}");
        assert!(told.contains("TIDINGS_AUTH__ISSUERS: `auth.issuers"), "{told}");
    }
}

#[test]
fn a_mistake_says_which_entry_and_where() {
    let file = r#"[auth]
public = ["a b", "user:*", "x/{sub}"]
cookie = "a b"
jwks_refresh = "1ms"
leeway = "1h"

[[auth.issuers]]
audience = ["tidings"]
secret = "short"

[[auth.issuers]]
issuer = "https://id.example/"
jwks_url = "http://id.example/jwks.json"
jwks_file = "/keys.json"
algorithms = ["RS512"]

[[auth.publishers]]
name = "a"
publish = ["orders/{sub}", "***"]

[[auth.publishers]]
name = "a"
token_sha256 = "abc"
certificate = "*.example.com"

[[auth.publishers]]
name = "b"
certificate = "*.example.com"
"#;
    let told = load(file, &[], &[]).expect_err("all of it is wrong");
    for (line, key, part) in [
        (2, "auth.public", "\"a b\" is not a pattern"),
        (2, "auth.public", "\"user:*\" is about users"),
        (2, "auth.public", "\"x/{sub}\" is about users"),
        (3, "auth.cookie", "is not the name of a cookie"),
        (4, "auth.jwks_refresh", "\"1s\" to \"1day\""),
        (5, "auth.leeway", "at most \"10m\""),
        (9, "auth.issuers[0].secret", "at least 32 bytes, and this one has 5"),
        (11, "auth.issuers[1].audience", "is missing"),
        (13, "auth.issuers[1].jwks_url", "can be changed on its way"),
        (13, "auth.issuers[1].jwks_url", "is set as well as `jwks_file`"),
        (15, "auth.issuers[1].algorithms", "\"RS512\" is none of HS256"),
        (17, "auth.publishers[0]", "is known by nothing"),
        (
            19,
            "auth.publishers[0].publish",
            "only tokens of issuers have a `{sub}`",
        ),
        (19, "auth.publishers[0].publish", "`***` means nothing"),
        (22, "auth.publishers[1].name", "is taken by another publisher"),
        (24, "auth.publishers[1].certificate", "is set as well as `token_sha256`"),
        (28, "auth.publishers[2].certificate", "`*` stands for nothing"),
    ] {
        let start = format!("  tidings.toml:{line}: `{key}`: ");
        let found = told.lines().any(|told| told.starts_with(&start) && told.contains(part));
        assert!(found, "{start}…{part} is missing in:\n{told}");
    }
    assert_eq!(told.lines().count(), 18, "{told}");
}

#[test]
fn what_does_not_fit_says_which_entry_and_where_too() {
    let file =
        "[[auth.issuers]]\nissuer = \"a\"\n\n[[auth.issuers]]\naudience = \"tidings\"\nsecrt = \"x\"\nsecret = 4711\n";
    let told = load(file, &[], &[]).expect_err("wrong");
    for part in [
        "tidings.toml:5: `auth.issuers[1].audience`: invalid type: string \"tidings\", expected a sequence",
        "tidings.toml:6: `auth.issuers[1].secrt`: unknown field `secrt`, expected one of",
        "tidings.toml:7: `auth.issuers[1].secret`: is not text",
    ] {
        assert!(told.contains(part), "{part} is missing in:\n{told}");
    }
    assert!(!told.contains("4711"), "{told}");
    for (file, part) in [
        (
            "[auth.issuers]\nissuer = \"a\"\n",
            "tidings.toml:1: `auth.issuers`: is not a list of tables: [[auth.issuers]]",
        ),
        (
            "[auth]\nissuers = [7]\n",
            "tidings.toml:2: `auth.issuers[0]`: is no table",
        ),
        (
            "[auth]\npublishers = \"x\"\n",
            "tidings.toml:2: `auth.publishers`: is not a list of tables",
        ),
    ] {
        let told = load(file, &[], &[]).expect_err("wrong");
        assert!(told.contains(part), "{part} is missing in:\n{told}");
    }
}

#[test]
fn who_asks_who_calls_may_listen_anywhere() {
    let listen = "[http]\nlisten = \"0.0.0.0:1\"\n[grpc]\nlisten = \"0.0.0.0:2\"\n";
    let admin = "[admin]\nlisten = \"0.0.0.0:3\"\n";
    let auth = "[auth]\npublic = [\"quakes/**\"]\n";
    let told = load(&format!("{listen}{admin}"), &[], &[]).expect_err("open");
    assert_eq!(told.matches("nothing asks who calls").count(), 3, "{told}");
    assert_eq!(told.matches("say in [auth] who may do what").count(), 2, "{told}");
    assert!(load(&format!("{listen}{auth}"), &[], &[]).is_ok());
    let told = load(&format!("{listen}{admin}{auth}"), &[], &[]).expect_err("the admin port is open");
    assert!(
        told.contains("`admin.listen`") && told.contains("set `admin.token_file`"),
        "{told}"
    );
    for token in ["token = \"0123456789abcdef\"", "token_file = \"/run/secrets/admin\""] {
        assert!(load(&format!("{admin}{token}\n"), &[], &[]).is_ok(), "{token}");
    }
    let told = load("[admin]\ntoken = \"short\"\ntoken_file = \"x\"\n", &[], &[]).expect_err("wrong");
    assert!(
        told.contains("can be guessed") && told.contains("is set as well as `admin.token`"),
        "{told}"
    );
}

#[test]
fn keys_fit_their_algorithms() {
    let entry = |rest: &str| format!("[[auth.issuers]]\naudience = [\"a\"]\n{rest}\n");
    let told = |rest: &str| load(&entry(rest), &[], &[]).err().unwrap_or_default();
    assert_eq!(
        told(&format!("secret = \"{SECRET}\"\nalgorithms = [\"HS256\", \"ES256\"]")),
        ""
    );
    let wrong = told(&format!("secret = \"{SECRET}\"\nalgorithms = [\"RS256\"]"));
    assert!(
        wrong.contains("does not have HS256, which the key of auth.issuers[0] is for"),
        "{wrong}"
    );
    let none = told("");
    assert!(none.contains("`auth.issuers[0]`: has no keys"), "{none}");
    let key = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
    assert_eq!(
        told(&format!("key = \"\"\"\n{key}\"\"\"\nalgorithms = [\"Ed25519\"]")),
        ""
    );
    let as_secret = told(&format!("secret = \"\"\"\n{key}\"\"\""));
    assert!(as_secret.contains("this is a key, not a secret"), "{as_secret}");
    let private = told(&format!("key = \"\"\"\n{}\"\"\"", key.replace("PUBLIC", "PRIVATE")));
    assert!(
        private.contains("this is a private key, which stays with the issuer"),
        "{private}"
    );
    let ca = told(&format!("secret = \"{SECRET}\"\njwks_ca = \"x\""));
    assert!(ca.contains("`auth.issuers[0].jwks_ca`: is for `jwks_url`"), "{ca}");
}
