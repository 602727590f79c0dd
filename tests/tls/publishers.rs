//! The port for backends, in this process: who is let in, and as whom. A route that repeats the names that it is told stands in for services.

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{Extension, Router, routing::get};
use tidings::{
    auth::ClientNames,
    ingest::{ServerSettings, Services, serve},
    tls::{ClientFiles, ClientTls, NamedFile, Protocol, ServerFiles, ServerTls},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    authority::{Authority, Key, Pair, text},
    curl::{self, Version},
    handshake::shake,
    patiently,
};

async fn names(names: Option<Extension<ClientNames>>) -> String {
    match names {
        Some(Extension(ClientNames(names))) => format!("names: {}", names.join(" ")),
        None => "no certificate".to_owned(),
    }
}

/// A port of its own, and the tasks that serve it.
struct Port {
    address: SocketAddr,
    drain: CancellationToken,
    serving: JoinSet<()>,
}

impl Port {
    async fn open(pair: &Pair, client_ca: Option<&Path>, first_word: Duration) -> Self {
        let tls = ServerTls::load(ServerFiles {
            cert: NamedFile::new("grpc.tls_cert", &pair.cert),
            key: NamedFile::new("grpc.tls_key", &pair.key),
            client_ca: client_ca.map(|path| NamedFile::new("grpc.tls_client_ca", path)),
        });
        let tls = Arc::new(tls.expect("good files"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let settings = ServerSettings {
            tls: Some(Arc::clone(&tls)),
            first_word,
            drain_window: Duration::from_secs(60),
            ..ServerSettings::default()
        };
        let services = Services::new().http(Router::new().route("/names", get(names)));
        let drain = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(async move { match tls.keep().await {} });
        let draining = drain.clone();
        serving.spawn(async move { serve(listener, services, settings, draining).await.expect("served") });
        Self {
            address,
            drain,
            serving,
        }
    }

    async fn ask(&self, version: Version, ca: &Authority, shows: Option<&Pair>) -> Result<String, String> {
        let url = format!("https://localhost:{}/names", self.address.port());
        let arguments = shows.map(|pair| ["--cert", text(&pair.cert), "--key", text(&pair.key)]);
        curl::get(version, &ca.ca(), &url, arguments.as_ref().map_or(&[], |them| them)).await
    }
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn clients_are_known_by_the_names_of_good_certificates_alone() {
    let (ours, others) = (Authority::new(Key::Ec), Authority::new(Key::Rsa));
    let port = Port::open(&ours.local("server"), Some(&ours.ca()), LONG).await;
    let good = ours.issue(
        "orders",
        "DNS:orders.internal,URI:spiffe://example.org/orders,IP:10.0.0.7",
    );
    let stranger = others.issue("orders", "URI:spiffe://example.org/orders");
    let expired = ours.expired("billing", "URI:spiffe://example.org/billing");
    for version in Version::ALL {
        let told = port.ask(version, &ours, Some(&good)).await.expect("let in");
        assert!(
            told.ends_with("names: orders.internal spiffe://example.org/orders"),
            "{told}"
        );
        let told = port.ask(version, &ours, None).await.expect("let in");
        assert!(told.ends_with("no certificate"), "{told}");
        for bad in [&stranger, &expired] {
            let error = port.ask(version, &ours, Some(bad)).await.expect_err("refused");
            assert!(error.contains("alert"), "{error}");
        }
    }
}

#[tokio::test]
async fn nobody_is_asked_where_no_authority_is_named() {
    let ours = Authority::new(Key::Ec);
    let port = Port::open(&ours.local("server"), None, LONG).await;
    let shown = ours.issue("orders", "URI:spiffe://example.org/orders");
    let told = port.ask(Version::Http2, &ours, Some(&shown)).await.expect("let in");
    assert!(told.ends_with("no certificate"), "{told}");
    let (told, let_in) = shake(port.address, &ours.ca(), &[]).await;
    assert!(let_in && told.contains("No client certificate CA names sent"), "{told}");
}

#[tokio::test]
async fn whoever_shows_a_certificate_shows_it_each_time() {
    let ours = Authority::new(Key::Ec);
    let port = Port::open(&ours.local("server"), Some(&ours.ca()), LONG).await;
    let shown = ours.issue("orders", "URI:spiffe://example.org/orders");
    let session = ours.dir().join("session");
    for version in ["-tls1_2", "-tls1_3"] {
        let (cert, key) = (text(&shown.cert), text(&shown.key));
        let identity = ["-cert", cert, "-cert_chain", cert, "-key", key, version];
        let ask = [&identity[..], &["-sess_out", text(&session), "-ign_eof"]].concat();
        let request = "GET /names HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let told = crate::handshake::say(port.address, &ours.ca(), &ask, request).await;
        assert!(told.contains("spiffe://example.org/orders"), "{told}");
        if session.exists() {
            let again = ["-sess_in", text(&session), version];
            let (told, _) = shake(port.address, &ours.ca(), &again).await;
            assert!(told.contains("New, TLSv1"), "{told}");
        }
    }
}

#[tokio::test]
async fn this_programs_own_clients_demand_the_right_authority_and_host() {
    let (ours, others) = (Authority::new(Key::Ec), Authority::new(Key::Ec));
    let port = Port::open(&ours.issue("server", "DNS:localhost"), Some(&ours.ca()), LONG).await;
    let node = ours.issue("node", "DNS:edge-0.internal");
    let client = |ca: &Authority| {
        let files = ClientFiles {
            ca: Some(NamedFile::new("cluster.tls_ca", ca.ca())),
            identity: Some((
                NamedFile::new("cluster.tls_cert", &node.cert),
                NamedFile::new("cluster.tls_key", &node.key),
            )),
        };
        ClientTls::load(files).expect("good files")
    };
    let address = port.address;
    let connect = |tls: ClientTls, host: &'static str| async move {
        let socket = TcpStream::connect(address).await.expect("it listens");
        patiently("a handshake", tls.connect(host, socket, Protocol::Http1)).await
    };
    let mut stream = connect(client(&ours), "localhost").await.expect("let in");
    let request = b"GET /names HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("written");
    let mut told = String::new();
    patiently("an answer", stream.read_to_string(&mut told))
        .await
        .expect("text");
    assert!(told.ends_with("names: edge-0.internal"), "{told}");
    for (tls, host, cause) in [
        (client(&others), "localhost", "UnknownIssuer"),
        (client(&ours), "127.0.0.1", "NotValidForName"),
        (client(&ours), "ingest-0", "NotValidForName"),
        (ClientTls::default(), "localhost", ""),
    ] {
        let error = connect(tls, host).await.expect_err("refused").to_string();
        assert!(
            error.contains(cause) || error.contains("not valid for name"),
            "{host}: {error}"
        );
    }
}

#[tokio::test]
async fn connections_that_say_nothing_are_cut_off_at_each_step() {
    let ours = Authority::new(Key::Ec);
    let short = Duration::from_millis(200);
    let port = Port::open(&ours.local("server"), None, short).await;
    let until_closed = |mut stream: TcpStream| async move {
        let mut rest = Vec::new();
        // Closed in good order or not: it is over.
        let _ = patiently("being cut off", stream.read_to_end(&mut rest)).await;
    };
    let connect = || async { TcpStream::connect(port.address).await.expect("it listens") };
    until_closed(connect().await).await;
    let mut begun = connect().await;
    begun.write_all(&[0x16, 3, 1, 2, 0, 1]).await.expect("written");
    until_closed(begun).await;
    let tls = ClientTls::load(ClientFiles {
        ca: Some(NamedFile::new("--ca", ours.ca())),
        identity: None,
    });
    let tls = tls.expect("good files");
    for protocol in [Protocol::Http2, Protocol::Http1] {
        let mut stream = tls
            .connect("localhost", connect().await, protocol)
            .await
            .expect("let in");
        if protocol == Protocol::Http2 {
            stream.write_all(b"PRI * HTTP/2.0\r\n").await.expect("written");
            let mut rest = Vec::new();
            let _ = patiently("being cut off", stream.read_to_end(&mut rest)).await;
        }
    }
}

#[tokio::test]
async fn calls_that_are_under_way_end_before_the_port_does() {
    let ours = Authority::new(Key::Ec);
    let mut port = Port::open(&ours.local("server"), None, LONG).await;
    // One that never gets beyond its handshake, and one that is idle.
    let _silent = TcpStream::connect(port.address).await.expect("it listens");
    let told = port.ask(Version::Http2, &ours, None).await.expect("an answer");
    assert!(told.ends_with("no certificate"), "{told}");
    port.drain.cancel();
    patiently("the end of the port", port.serving.join_next())
        .await
        .expect("a task")
        .expect("no panic");
}

#[tokio::test]
async fn both_sides_follow_a_change_of_authority() {
    let (ours, others) = (Authority::new(Key::Ec), Authority::new(Key::Ec));
    let (trusted_there, trusted_here) = (ours.dir().join("there.pem"), ours.dir().join("here.pem"));
    fs::copy(ours.ca(), &trusted_there).expect("copied");
    fs::copy(others.ca(), &trusted_here).expect("copied");
    let port = Port::open(&ours.local("server"), Some(&trusted_there), LONG).await;
    let stranger = others.issue("orders", "URI:spiffe://example.org/orders");
    assert!(port.ask(Version::Http2, &ours, Some(&stranger)).await.is_err());
    fs::copy(others.ca(), &trusted_there).expect("copied");
    let let_in = async { while port.ask(Version::Http2, &ours, Some(&stranger)).await.is_err() {} };
    patiently("the stranger being let in", let_in).await;

    let tls = ClientTls::load(ClientFiles {
        ca: Some(NamedFile::new("cluster.tls_ca", &trusted_here)),
        identity: None,
    });
    let tls = tls.expect("good files");
    let mut keeping = JoinSet::new();
    keeping.spawn(tls.clone().keep());
    let connect = || async {
        let socket = TcpStream::connect(port.address).await.expect("it listens");
        tls.connect("localhost", socket, Protocol::Http2).await
    };
    assert!(connect().await.is_err());
    fs::copy(ours.ca(), &trusted_here).expect("copied");
    patiently("the server being trusted", async { while connect().await.is_err() {} }).await;
}
