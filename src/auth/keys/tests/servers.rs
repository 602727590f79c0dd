use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use super::*;
use crate::{
    auth::keys::{
        refresh::{Pace, Refresh},
        source::Reader,
    },
    model::UnixMillis,
};

/// How a server answers.
#[derive(Debug, Clone)]
enum Manner {
    /// These bytes, and then the connection ends.
    Says(String),
    /// A body without end.
    Floods,
    /// Nothing, and the connection stays open.
    Silent,
    /// A byte of the head now and then.
    Dribbles,
}

/// A server of key sets.
struct Server {
    address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    /// The head of each request.
    requests: mpsc::UnboundedReceiver<String>,
}

fn says(status: &str, body: &str) -> Manner {
    Manner::Says(format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    ))
}

impl Server {
    async fn start(manner: Manner, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let manner = Arc::new(Mutex::new(manner));
        let (told, requests) = mpsc::unbounded_channel();
        let shared = manner.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (manner, told, tls) = (shared.lock().expect("not poisoned").clone(), told.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                answer(socket, manner, told).await;
                            }
                        }
                        None => answer(socket, manner, told).await,
                    }
                });
            }
        });
        Self {
            address,
            manner,
            requests,
        }
    }

    fn now(&self, manner: Manner) {
        *self.manner.lock().expect("not poisoned") = manner;
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/jwks.json", self.address)
    }

    fn endpoint(&self) -> Endpoint {
        let mut endpoint = Endpoint::new(&self.url("http"), None).expect("loopback");
        endpoint.patience = Duration::from_millis(300);
        endpoint
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(mut socket: S, manner: Manner, told: mpsc::UnboundedSender<String>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = socket.read_u8().await else { return };
        head.push(byte);
    }
    let _ = told.send(String::from_utf8(head).expect("text"));
    match manner {
        Manner::Says(text) => {
            let _ = socket.write_all(text.as_bytes()).await;
            let _ = socket.shutdown().await;
        }
        Manner::Floods => {
            let _ = socket
                .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"keys\":[")
                .await;
            while socket.write_all(&[b' '; 64 << 10]).await.is_ok() {}
        }
        Manner::Silent => {
            let _ = socket.read_u8().await;
        }
        Manner::Dribbles => {
            for byte in b"HTTP/1.1 200 OK\r\nx: " {
                let _ = socket.write_all(&[*byte]).await;
            }
            while socket.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

#[tokio::test]
async fn a_server_is_not_trusted_with_more_than_a_key_set_needs() {
    let mut server = Server::start(says("200 OK", &set("a")), None).await;
    let endpoint = server.endpoint();
    assert_eq!(endpoint.fetch().await.expect("a set"), set("a"));
    let request = server.requests.recv().await.expect("asked");
    assert!(request.starts_with("GET /jwks.json HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("accept: application/jwk-set+json"), "{request}");
    let elsewhere = format!(
        "HTTP/1.1 302 Found\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
        server.url("http")
    );
    for (manner, told) in [
        (Manner::Says(elsewhere), "answers 302 Found"),
        (says("500 Internal Server Error", &set("a")), "answers 500"),
        (says("204 No Content", ""), "answers 204"),
        (Manner::Floods, "more than the 1 MiB"),
        (says("200 OK", &" ".repeat((1 << 20) + 1)), "more than the 1 MiB"),
        (Manner::Silent, "has not answered in 300ms"),
        (Manner::Dribbles, "has not answered in 300ms"),
        (Manner::Says("nonsense\r\n\r\n".to_owned()), "cannot be asked"),
        (
            Manner::Says("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_owned()),
            "cannot be asked",
        ),
    ] {
        server.now(manner.clone());
        let error = endpoint.fetch().await.expect_err(told).to_string();
        assert!(
            error.contains(told) && error.contains(&server.address.to_string()),
            "{error}"
        );
        server.requests.recv().await.expect("asked");
    }
    assert!(server.requests.try_recv().is_err(), "nobody was sent elsewhere");
    let nobody = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port")
        .local_addr()
        .expect("bound");
    let dead = Endpoint::new(&format!("http://{nobody}/"), None).expect("loopback");
    assert!(dead.fetch().await.expect_err("dead").to_string().contains("refused"));
}

#[tokio::test]
async fn a_server_shows_a_certificate_that_is_vouched_for() {
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).expect("valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed")
    };
    let dir = tempfile::tempdir().expect("a directory");
    let written = |name: &str, text: &str| -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let acceptor = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec![name.to_owned()]).expect("valid");
        let certificate = certificate.signed_by(&key, &ours).expect("signed");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("known")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("they fit");
        TlsAcceptor::from(Arc::new(config))
    };
    let good = Server::start(says("200 OK", &set("a")), Some(acceptor("127.0.0.1"))).await;
    let other_name = Server::start(says("200 OK", &set("a")), Some(acceptor("localhost"))).await;
    let (ca, other_ca) = (written("ca.pem", &ours.pem()), written("other.pem", &theirs.pem()));
    let ask = async |server: &Server, ca: PathBuf| {
        let endpoint = Endpoint::new(&server.url("https"), Some(ca)).expect("https");
        endpoint.fetch().await.map_err(|error| error.to_string())
    };
    assert_eq!(ask(&good, ca.clone()).await.expect("vouched for"), set("a"));
    for (server, ca, told) in [
        (&good, other_ca, "cannot be asked"),
        (&other_name, ca, "cannot be asked"),
        (&good, written("none.pem", "hello"), "which holds no certificate"),
        (&good, dir.path().join("missing.pem"), "which cannot be read"),
    ] {
        let error = ask(server, ca).await.expect_err(told);
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn keys_do_not_come_over_what_can_be_changed_on_its_way() {
    for url in [
        "https://id.example/x",
        "https://id.example:8443",
        "http://localhost:1/x",
        "http://127.9.9.9/",
        "http://[::1]:8/",
    ] {
        assert!(Endpoint::new(url, None).is_ok(), "{url}");
    }
    for url in [
        "http://id.example/x",
        "http://10.0.0.1/",
        "http://localhost.example/",
        "http://127.0.0.1.example/",
    ] {
        assert!(
            matches!(Endpoint::new(url, None), Err(EndpointError::Insecure { .. })),
            "{url}"
        );
    }
    for url in [
        "",
        "id.example",
        "ftp://id.example",
        "file:///etc/passwd",
        "https://",
        "https://u:geheim@h/",
        "/x",
    ] {
        let error = Endpoint::new(url, None).expect_err(url);
        assert!(
            matches!(error, EndpointError::Url { .. }) && !error.to_string().contains("geheim"),
            "{error}"
        );
    }
}

/// Starts to keep keys, in a hurry.
fn keep(server: &Server, refresh: Duration) -> Arc<Keys> {
    let pace = Pace {
        refresh,
        at_most_every: Duration::from_millis(20),
        first_retry: Duration::from_millis(10),
    };
    let keys = Arc::new(Keys::asked_for());
    let reader = Reader::new("test", &Algorithm::ALL);
    tokio::spawn(Refresh::new(server.endpoint(), pace, keys.clone(), reader).run());
    keys
}

#[tokio::test]
async fn the_last_good_keys_stay_while_there_are_no_better_ones() {
    let mut server = Server::start(says("503 Service Unavailable", ""), None).await;
    let keys = keep(&server, Duration::from_millis(10));
    // Of two requests the first has been seen to by the time the second comes.
    let mut seen = async |manner| {
        server.now(manner);
        while server.requests.try_recv().is_ok() {}
        for _ in 0..3 {
            server.requests.recv().await.expect("asked");
        }
    };
    seen(says("503 Service Unavailable", "")).await;
    assert_eq!(ids(&keys), [""; 0]);
    seen(says("200 OK", &set("a"))).await;
    assert_eq!(ids(&keys), ["a"]);
    for lie in [
        says("200 OK", "<html>"),
        says("200 OK", "{\"keys\":[]}"),
        says("500 Internal Server Error", &set("b")),
        Manner::Says(String::new()),
    ] {
        seen(lie.clone()).await;
        assert_eq!(ids(&keys), ["a"], "{lie:?}");
    }
    seen(says("200 OK", &set("b"))).await;
    assert_eq!(ids(&keys), ["b"], "the keys were changed");
}

#[tokio::test]
async fn a_key_that_is_wanted_is_asked_for_at_once_and_once() {
    let mut server = Server::start(says("200 OK", &set("a")), None).await;
    let keys = keep(&server, Duration::from_secs(60 * 60));
    // Whoever wants a key while it is being asked for has the answer to that.
    let known = async |id: &str| {
        while ids(&keys) != [id] {
            tokio::task::yield_now().await;
        }
    };
    server.requests.recv().await.expect("asked at the beginning");
    known("a").await;
    server.now(says("200 OK", &set("b")));
    // As many as there are: one answer is for all of them.
    let later = UnixMillis(UnixMillis::now().0 + 60_000);
    for _ in 0..1_000 {
        assert!(keys.want(&keys.current(), later));
    }
    server.requests.recv().await.expect("asked because a key is wanted");
    known("b").await;
    assert!(keys.want(&keys.current(), UnixMillis(later.0 * 2)));
    server.requests.recv().await.expect("asked again");
    assert!(server.requests.try_recv().is_err(), "no more often than that");
}
