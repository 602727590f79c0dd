//! A cluster in which everybody speaks TLS with everybody: clients with the edge, the edge with ingest nodes, those with each other, and all with
//! NATS.

use tokio::task::block_in_place;

use crate::{
    authority::{Authority, Key, text},
    client::get_json,
    curl::{Stream, Version, get},
    node::{Node, Role, Setup},
    patiently,
    server::{self, Server},
};

async fn ready(node: &Node) {
    let ready = async {
        while get_json(node.addresses().admin, "/readyz").await.0 != 200 {
            // It has no way to tell when it is.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    patiently("a node being ready", ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_through_a_cluster_is_encrypted() {
    let authority = Authority::new(Key::Ec);
    let address = server::an_address();
    let nats = authority.issue("nats", &format!("IP:{address}"));
    let (cert, key, ca) = (text(&nats.cert), text(&nats.key), authority.ca());
    let ca = text(&ca);
    let tls = format!("tls {{ cert_file: {cert:?}, key_file: {key:?}, ca_file: {ca:?}, verify: true }}");
    let nats = block_in_place(|| Server::start_at(server::Version::Newest, address, &tls)).expect("installed");
    let start = |role: Role, name: &'static str| {
        let pair = authority.local(name);
        let sections: &[&str] = if role == Role::Edge {
            &["http", "grpc", "cluster", "nats"]
        } else {
            &["grpc", "cluster", "nats"]
        };
        let setup = Setup::role(role)
            .argument("--nats")
            .argument(&nats.url())
            .set("cluster.node", name)
            .set("cluster.ingest_nodes", "2")
            .set("cluster.shards", "4")
            .set("cluster.secret", "0123456789abcdef0123456789abcdef")
            .set("cluster.tls_ca", ca)
            .set("grpc.tls_client_ca", ca)
            .set("nats.tls_ca", ca);
        pair.on(setup, sections).start()
    };
    let (one, other, edge) = tokio::join!(
        start(Role::Ingest, "ingest-0"),
        start(Role::Ingest, "ingest-1"),
        start(Role::Edge, "edge-0"),
    );
    for node in [&one, &other, &edge] {
        ready(node).await;
    }
    // As many topics as make sure that each node has some that the other owns.
    let topics: Vec<_> = (0..16).map(|number| format!("cluster/{number}")).collect();
    let mut streams = Vec::new();
    for version in Version::ALL {
        let query = topics.iter().map(|topic| format!("topic={topic}&")).collect::<String>();
        let address = edge.addresses().http;
        streams.push(Stream::open(version, &authority.ca(), address, &format!("{query}since=earliest")).await);
    }
    for node in [&one, &other] {
        let url = format!("https://localhost:{}/v1/publish", node.addresses().grpc.port());
        for topic in &topics {
            let body = format!("{{\"topics\":[\"{topic}\"],\"data\":\"{topic}\",\"key\":\"{topic}\"}}");
            let published = async {
                loop {
                    let told = get(Version::Http2, &authority.ca(), &url, &["--json", &body])
                        .await
                        .expect("an answer");
                    if told.starts_with("HTTP/2 200") {
                        break;
                    }
                    // They may not have heard of each other yet.
                    assert!(told.starts_with("HTTP/2 503"), "{told}");
                }
            };
            patiently(topic, published).await;
        }
    }
    for stream in &mut streams {
        let mut heard = Vec::new();
        for _ in &topics {
            heard.push(stream.data().await.expect("an event"));
        }
        heard.sort();
        let mut all = topics.clone();
        all.sort();
        assert_eq!(heard, all);
    }
    // Those that come later read it all from the ingest nodes.
    let query = topics.iter().map(|topic| format!("topic={topic}&")).collect::<String>();
    let query = format!("{query}since=earliest");
    let mut late = Stream::open(Version::Http1, &authority.ca(), edge.addresses().http, &query).await;
    for _ in &topics {
        late.data().await.expect("an event");
    }
}
