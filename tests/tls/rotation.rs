//! Certificates that are replaced while the node runs.

use std::{fs, os::unix::fs::symlink};

use crate::{
    authority::{Authority, Key, text},
    client::{Publisher, event},
    curl::{Stream, Version},
    handshake::{serial, until_shown},
    node::Setup,
};

#[tokio::test]
async fn a_new_certificate_counts_for_new_connections_and_streams_go_on() {
    let authority = Authority::new(Key::Ec);
    let (old, new) = (authority.local("old"), authority.local("new"));
    let shown = old.copy_to(authority.dir());
    let mut node = shown.on(Setup::new(), &["http"]).start().await;
    let (address, ca) = (node.addresses().http, authority.ca());
    let mut publisher = Publisher::connect(node.addresses()).await;
    let mut streams = Vec::new();
    for version in Version::ALL {
        streams.push(Stream::open(version, &ca, address, "topic=a").await);
    }
    assert_eq!(serial(address, &ca).await, old.serial);

    new.replace(&shown);
    until_shown(address, &ca, &new.serial).await;
    node.logs("certificates have changed: new connections have the new ones")
        .await;
    for version in Version::ALL {
        streams.push(Stream::open(version, &ca, address, "topic=a").await);
    }
    publisher.publish(event("a", "after")).await;
    for stream in &mut streams {
        assert_eq!(stream.data().await.as_deref(), Some("after"));
    }
    assert!(!node.log().contains("cannot be used"), "{}", node.log());
}

#[tokio::test]
async fn a_pair_that_does_not_match_changes_nothing_and_is_told_once() {
    let authority = Authority::new(Key::Ec);
    let (old, new, last) = (authority.local("old"), authority.local("new"), authority.local("last"));
    let shown = old.copy_to(authority.dir());
    let mut node = shown.on(Setup::new(), &["http"]).start().await;
    let (address, ca) = (node.addresses().http, authority.ca());

    // The certificate alone; later the key is lost too, then cut short. Each is told of by itself.
    fs::copy(&new.cert, &shown.cert).expect("copied");
    node.logs("which does not go with the first certificate in the file of `http.tls_cert`")
        .await;
    assert_eq!(serial(address, &ca).await, old.serial);
    fs::remove_file(&shown.key).expect("removed");
    node.logs("which cannot be read: No such file").await;
    let key = fs::read(&new.key).expect("made");
    fs::write(&shown.key, &key[..key.len() / 2]).expect("written");
    node.logs("which holds no private key").await;
    assert_eq!(serial(address, &ca).await, old.serial);

    // What was missing makes it whole.
    fs::copy(&new.key, &shown.key).expect("copied");
    until_shown(address, &ca, &new.serial).await;
    last.replace(&shown);
    until_shown(address, &ca, &last.serial).await;
    let warnings = node.log().matches("those from before are kept").count();
    assert_eq!(warnings, 3, "{}", node.log());
    let secret = String::from_utf8(key).expect("text");
    let secret = secret.lines().nth(1).expect("a line of the key");
    assert!(!node.log().contains(secret));
}

#[tokio::test]
async fn the_link_of_a_kubernetes_volume_can_be_swapped() {
    let authority = Authority::new(Key::Ec);
    let (old, new) = (authority.local("old"), authority.local("new"));
    let volume = tempfile::tempdir().expect("a directory");
    // As the kubelet does it: a directory for each version, a link to the one that counts, and links to what is in that.
    let path = |name: &str| volume.path().join(name);
    for (dir, pair) in [("..1", &old), ("..2", &new)] {
        fs::create_dir(path(dir)).expect("made");
        pair.copy_to(&path(dir));
    }
    symlink("..1", path("..data")).expect("linked");
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), path(name)).expect("linked");
    }
    let node = Setup::new()
        .set("http.tls_cert", text(&path("tls.crt")))
        .set("http.tls_key", text(&path("tls.key")))
        .start()
        .await;
    let (address, ca) = (node.addresses().http, authority.ca());
    assert_eq!(serial(address, &ca).await, old.serial);
    symlink("..2", path("..data_tmp")).expect("linked");
    fs::rename(path("..data_tmp"), path("..data")).expect("renamed");
    fs::remove_dir_all(path("..1")).expect("removed");
    until_shown(address, &ca, &new.serial).await;
}

#[tokio::test]
async fn a_session_of_the_old_certificate_is_not_resumed_with_the_new_one() {
    let authority = Authority::new(Key::Ec);
    let (old, new) = (authority.local("old"), authority.local("new"));
    let shown = old.copy_to(authority.dir());
    let node = shown.on(Setup::new(), &["http"]).start().await;
    let (address, ca) = (node.addresses().http, authority.ca());
    let session = authority.dir().join("session");
    for version in ["-tls1_2", "-tls1_3"] {
        old.replace(&shown);
        until_shown(address, &ca, &old.serial).await;
        let ask = ["-sess_out", text(&session), version, "-ign_eof"];
        // It says hello and goodbye, and has got its ticket by then.
        let request = "GET /nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        crate::handshake::say(address, &ca, &ask, request).await;
        let again = ["-sess_in", text(&session), version];
        let (told, _) = crate::handshake::shake(address, &ca, &again).await;
        assert!(told.contains("Reused, TLSv1"), "{told}");
        new.replace(&shown);
        until_shown(address, &ca, &new.serial).await;
        let (told, let_in) = crate::handshake::shake(address, &ca, &again).await;
        assert!(let_in && told.contains("New, TLSv1"), "{told}");
    }
}
