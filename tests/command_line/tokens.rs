//! `tidings token`.

use std::{
    io::Write as _,
    process::{Output, Stdio},
};

use crate::{run, text, tidings};

/// Hands it a text on standard input.
fn told(arguments: &[&str], input: &str) -> Output {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = tidings(dir.path(), arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // It may have had enough before it has read all of it.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_token_is_hashed_and_not_repeated() {
    let hash = told(&["token", "hash"], "0123456789abcdef\r\n");
    assert!(hash.status.success());
    let expected = "9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f\n";
    assert_eq!(text(&hash.stdout), expected);
    for wrong in ["short", "geheim geheim geheim", "", &"a".repeat(20_000)] {
        let refused = told(&["token", "hash"], wrong);
        let said = text(&refused.stderr);
        assert!(!refused.status.success() && refused.stdout.is_empty(), "{wrong}");
        assert!(!said.contains("geheim") && !said.contains("aaaa"), "{said}");
    }
    let made = told(&["token", "hash", "--generate"], "");
    let lines = text(&made.stdout);
    let words: Vec<_> = lines.split_whitespace().collect();
    let [_, token, _, hash] = words[..] else {
        panic!("{lines}")
    };
    assert_eq!(text(&told(&["token", "hash"], token).stdout).trim(), hash);
}

#[test]
fn nothing_is_signed_without_a_key_or_with_one_that_is_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let mint = ["token", "mint", "--audience", "tidings", "--sub", "ann"];
    let refused = run(dir.path(), &mint);
    assert!(text(&refused.stderr).contains("TIDINGS_TOKEN_SECRET"), "{refused:?}");
    std::fs::write(dir.path().join("key"), "-----BEGIN EC PRIVATE KEY-----\ngeheim\n").expect("written");
    for (flag, part) in [
        ("--key-file", "openssl pkcs8 -topk8"),
        ("--secret-file", "this is a key, not a secret"),
    ] {
        let refused = run(dir.path(), &[&mint[..], &[flag, "key"]].concat());
        let said = text(&refused.stderr);
        assert!(
            !refused.status.success() && said.contains(part) && !said.contains("geheim"),
            "{said}"
        );
    }
    let secret = "0123456789abcdef0123456789abcdef";
    let minted = tidings(dir.path(), &mint).env("TIDINGS_TOKEN_SECRET", secret).output();
    let minted = minted.expect("the program starts");
    assert_eq!(text(&minted.stdout).split('.').count(), 3);
}
