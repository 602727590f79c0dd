use std::{fs, os::unix::fs::symlink, path::Path};

use super::*;
use crate::auth::keys::{
    file::Watch,
    source::{Reader, SourceError},
};

async fn open(path: &Path, content: Content) -> Result<(std::sync::Arc<Keys>, Watch), SourceError> {
    Watch::open(path.to_owned(), content, Reader::new("test", &Algorithm::ALL)).await
}

#[tokio::test]
async fn a_file_is_read_anew_when_what_is_in_it_changes() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("keys.json");
    fs::write(&path, set("a")).expect("written");
    let (keys, mut watch) = open(&path, Content::Jwks).await.expect("a set");
    assert_eq!(ids(&keys), ["a"]);
    fs::write(&path, set("b")).expect("written");
    watch.look().await.expect("a set");
    assert_eq!(ids(&keys), ["b"]);
    // What becomes broken leaves the last good keys, however it is broken.
    for broken in ["", "{", "{\"keys\":[]}"] {
        fs::write(&path, broken).expect("written");
        assert!(watch.look().await.is_err());
        assert_eq!(ids(&keys), ["b"], "{broken:?}");
    }
    fs::remove_file(&path).expect("there");
    assert!(matches!(watch.look().await, Err(SourceError::File { .. })));
    fs::write(&path, vec![b' '; (1 << 20) + 1]).expect("written");
    assert!(matches!(watch.look().await, Err(SourceError::File { .. })));
    assert_eq!(ids(&keys), ["b"]);
    fs::write(&path, set("c")).expect("written");
    watch.look().await.expect("a set");
    assert_eq!(ids(&keys), ["c"]);
}

/// As Kubernetes does it: the file is a link into `..data`, which is a link to a directory that another takes the place of.
#[tokio::test]
async fn links_are_followed_wherever_they_lead() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    for id in ["one", "two"] {
        fs::create_dir(at(id)).expect("a directory");
        fs::write(at(id).join("keys.json"), set(id)).expect("written");
    }
    symlink("one", at("..data")).expect("a link");
    symlink("..data/keys.json", at("keys.json")).expect("a link");
    let (keys, mut watch) = open(&at("keys.json"), Content::Jwks).await.expect("a set");
    assert_eq!(ids(&keys), ["one"]);
    symlink("two", at("..tmp")).expect("a link");
    fs::rename(at("..tmp"), at("..data")).expect("renamed");
    watch.look().await.expect("a set");
    assert_eq!(ids(&keys), ["two"]);
}

#[tokio::test]
async fn it_must_be_good_at_the_beginning() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("key");
    assert!(matches!(open(&path, Content::Pem).await, Err(SourceError::File { .. })));
    fs::write(&path, "hello").expect("written");
    assert!(matches!(
        open(&path, Content::Pem).await,
        Err(SourceError::Key(KeyError::NotPem))
    ));
    fs::write(&path, "0123456789abcdef0123456789abcdef\r\n").expect("written");
    let (keys, _) = open(&path, Content::Secret).await.expect("a secret");
    assert_eq!(keys.current().candidates(None, Algorithm::Hs256).count(), 1);
    // The line's end is none of its 32 bytes.
    fs::write(&path, "0123456789abcdef0123456789abcde\n").expect("written");
    let short = open(&path, Content::Secret).await.err();
    assert!(matches!(
        short,
        Some(SourceError::Key(KeyError::ShortSecret { bytes: 31 }))
    ));
    let reader = Reader::new("test", &[Algorithm::Rs256]);
    fs::write(&path, set("a")).expect("written");
    let other = Watch::open(path, Content::Jwks, reader).await.err();
    assert!(matches!(other, Some(SourceError::Algorithms)));
}
