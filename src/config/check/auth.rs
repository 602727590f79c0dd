//! The rules of `[auth]` and of the admin port's token.

use std::time::Duration;

use super::super::{Admin, Auth, Config, Issuer, Publisher, Secret};
use crate::auth::{
    Pattern, TokenHash,
    keys::{Algorithm, Endpoint, Key},
};

/// The fewest bytes of a token that cannot be guessed.
const TOKEN_BYTES: usize = 16;
/// The most that clocks may be off.
const LEEWAY: Duration = Duration::from_secs(10 * 60);
/// The longest a name may be, in bytes.
const NAME_BYTES: usize = 255;
/// How often key sets may be asked for.
const REFRESH: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

const MASKED: &str = "is what is shown in place of the secret, not the secret";

/// Calls `refuse` with the key and the problem of each value that cannot be.
pub(super) fn check(config: &Config, refuse: &mut impl FnMut(&str, String)) {
    admin(&config.admin, refuse);
    let auth = &config.auth;
    values(auth, refuse);
    for (at, entry) in auth.issuers.iter().enumerate() {
        let place = format!("auth.issuers[{at}]");
        issuer(entry, &place, &mut |key, problem| refuse(&join(&place, key), problem));
    }
    for (at, entry) in auth.publishers.iter().enumerate() {
        let place = format!("auth.publishers[{at}]");
        let others = &auth.publishers[..at];
        publisher(entry, others, &mut |key, problem| refuse(&join(&place, key), problem));
    }
}

fn join(place: &str, key: &str) -> String {
    if key.is_empty() {
        place.to_owned()
    } else {
        format!("{place}.{key}")
    }
}

fn admin(admin: &Admin, refuse: &mut impl FnMut(&str, String)) {
    let token = admin.token.reveal();
    if token == Secret::MASK {
        refuse("admin.token", MASKED.to_owned());
    } else if !token.is_empty() && token.len() < TOKEN_BYTES {
        let problem =
            format!("can be guessed: at least {TOKEN_BYTES} bytes, `tidings token hash --generate` makes one");
        refuse("admin.token", problem);
    }
    if !token.is_empty() && !admin.token_file.as_os_str().is_empty() {
        refuse(
            "admin.token_file",
            "is set as well as `admin.token`: one of them will do".to_owned(),
        );
    }
}

fn values(auth: &Auth, refuse: &mut impl FnMut(&str, String)) {
    for text in &auth.public {
        match Pattern::parse(text) {
            Err(error) => refuse("auth.public", error.to_string()),
            Ok(_) if text.contains("{sub}") || text.starts_with("user:") => refuse(
                "auth.public",
                format!("{text:?} is about users, and what is public belongs to nobody"),
            ),
            Ok(_) => {}
        }
    }
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !auth.cookie.bytes().all(is_letter) {
        refuse("auth.cookie", format!("{:?} is not the name of a cookie", auth.cookie));
    }
    if auth.leeway > LEEWAY {
        refuse("auth.leeway", "must be at most \"10m\"".to_owned());
    }
    if auth.expiry_notice > super::LONGEST {
        refuse(
            "auth.expiry_notice",
            "must be at most 100 years: \"36500days\"".to_owned(),
        );
    }
    if !REFRESH.contains(&auth.jwks_refresh) {
        refuse("auth.jwks_refresh", "must be \"1s\" to \"1day\"".to_owned());
    }
}

fn issuer(entry: &Issuer, place: &str, refuse: &mut impl FnMut(&str, String)) {
    let is_set = |path: &std::path::Path| !path.as_os_str().is_empty();
    let sources = [
        ("secret", !entry.secret.is_empty()),
        ("secret_file", is_set(&entry.secret_file)),
        ("key", !entry.key.is_empty()),
        ("key_file", is_set(&entry.key_file)),
        ("jwks_file", is_set(&entry.jwks_file)),
        ("jwks_url", !entry.jwks_url.is_empty()),
    ];
    let mut chosen = sources.into_iter().filter(|(_, chosen)| *chosen).map(|(key, _)| key);
    match chosen.next() {
        None => {
            let keys = sources.map(|(key, _)| format!("`{key}`")).join(", ");
            refuse("", format!("has no keys: one of {keys} says where they are"));
        }
        Some(first) => {
            for other in chosen {
                refuse(
                    other,
                    format!(
                        "is set as well as `{first}`: an issuer's keys are in one place, and a second place is a second [[auth.issuers]]"
                    ),
                );
            }
        }
    }
    if entry.audience.is_empty() || entry.audience.iter().any(String::is_empty) {
        refuse(
            "audience",
            "is missing: without it tokens that are meant for other services would be accepted; what they say as `aud`: [\"tidings\"]"
                .to_owned(),
        );
    }
    for name in &entry.algorithms {
        if Algorithm::parse(name).is_none() {
            let known = Algorithm::ALL.map(Algorithm::name).join(", ");
            refuse("algorithms", format!("{name:?} is none of {known}"));
        }
    }
    let keys = if entry.secret.reveal() == Secret::MASK {
        refuse("secret", MASKED.to_owned());
        Vec::new()
    } else if entry.secret.is_empty() {
        Vec::new()
    } else {
        told(
            "secret",
            Key::secret(entry.secret.reveal().as_bytes()).map(|key| vec![key]),
            refuse,
        )
    };
    let pem = if entry.key.is_empty() {
        Vec::new()
    } else {
        told("key", Key::from_pem(entry.key.as_bytes()), refuse)
    };
    let is_named = |key: &Key| {
        let mut named = entry.algorithms.iter().map(|name| Algorithm::parse(name));
        named.any(|named| named == Some(key.algorithm()))
    };
    if !entry.algorithms.is_empty()
        && let Some(key) = keys.iter().chain(&pem).find(|key| !is_named(key))
    {
        let name = key.algorithm().name();
        refuse(
            "algorithms",
            format!("does not have {name}, which the key of {place} is for"),
        );
    }
    if !entry.jwks_url.is_empty()
        && let Err(error) = Endpoint::new(&entry.jwks_url, None)
    {
        refuse("jwks_url", error.to_string());
    }
    if is_set(&entry.jwks_ca) && entry.jwks_url.is_empty() {
        refuse("jwks_ca", "is for `jwks_url`, which is not set".to_owned());
    }
}

/// The keys, or nothing and what is wrong with them.
fn told(
    key: &str,
    keys: Result<Vec<Key>, crate::auth::keys::KeyError>,
    refuse: &mut impl FnMut(&str, String),
) -> Vec<Key> {
    keys.unwrap_or_else(|error| {
        refuse(key, error.to_string());
        Vec::new()
    })
}

fn publisher(entry: &Publisher, others: &[Publisher], refuse: &mut impl FnMut(&str, String)) {
    let name = &entry.name;
    if name.is_empty() || name.len() > NAME_BYTES || name.contains(char::is_control) {
        refuse(
            "name",
            "is missing, or cannot be shown: 1 to 255 bytes, by which the audit log and quotas call it".to_owned(),
        );
    } else if others.iter().any(|other| other.name == *name) {
        refuse("name", format!("{name:?} is taken by another publisher"));
    }
    match (entry.token_sha256.as_str(), entry.certificate.as_str()) {
        ("", "") => refuse(
            "",
            "is known by nothing: `token_sha256` or `certificate` says how".to_owned(),
        ),
        (hash, "") => match TokenHash::parse(hash) {
            None => refuse(
                "token_sha256",
                "is not the SHA-256 of a token, 64 hexadecimal digits: `tidings token hash` prints it".to_owned(),
            ),
            hash if others.iter().any(|other| TokenHash::parse(&other.token_sha256) == hash) => {
                refuse("token_sha256", "is the token of another publisher".to_owned());
            }
            Some(_) => {}
        },
        ("", certificate) if certificate.contains('*') => refuse(
            "certificate",
            format!("{certificate:?} is not a name: it is compared letter by letter, and `*` stands for nothing"),
        ),
        ("", certificate) if others.iter().any(|other| other.certificate == certificate) => {
            refuse(
                "certificate",
                format!("{certificate:?} is the name of another publisher"),
            );
        }
        ("", _) => {}
        (_, _) => refuse(
            "certificate",
            "is set as well as `token_sha256`: a publisher is known in one way".to_owned(),
        ),
    }
    for text in &entry.publish {
        match Pattern::parse(text) {
            Err(error) => refuse("publish", error.to_string()),
            Ok(_) if text.contains("{sub}") => {
                refuse("publish", format!("{text:?}: only tokens of issuers have a `{{sub}}`"));
            }
            Ok(_) => {}
        }
    }
}
