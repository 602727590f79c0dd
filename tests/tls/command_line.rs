//! `tidings publish`, `listen` and `route`, over TLS.

use std::process::Output;

use crate::{
    authority::{Authority, Key, Pair, text},
    node::{Setup, tidings},
    patiently,
};

async fn run(arguments: &[&str]) -> Output {
    let output = tidings().args(arguments).kill_on_drop(true).output();
    patiently(format_args!("{arguments:?}"), output)
        .await
        .expect("it starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[tokio::test]
async fn clients_go_by_the_authority_that_they_are_given() {
    let authority = Authority::new(Key::Ec);
    let setup = Setup::new().set("grpc.tls_client_ca", text(&authority.ca()));
    let node = authority.local("node").on(setup, &["http", "grpc"]).start().await;
    let (http, grpc) = (node.addresses().http, node.addresses().grpc);
    let (streams, publishing) = (format!("https://localhost:{}", http.port()), format!("https://{grpc}"));
    let ca = authority.ca();
    let ca = text(&ca);
    let shown = authority.issue("orders", "URI:spiffe://example.org/orders");
    let publish = [
        "publish",
        "a",
        "--data",
        "over TLS",
        "--url",
        &publishing,
        "--retry-for",
        "0s",
    ];

    let output = run(&[&publish[..], &["--ca", ca]].concat()).await;
    assert!(output.status.success(), "{}", said(&output));
    let identity = ["--ca", ca, "--cert", text(&shown.cert), "--cert-key", text(&shown.key)];
    let output = run(&[&publish[..], &identity].concat()).await;
    assert!(output.status.success(), "{}", said(&output));
    let listen = [
        "listen", "a", "--since", "earliest", "--count", "2", "--url", &streams, "--ca", ca,
    ];
    let output = run(&listen).await;
    assert!(
        output.status.success() && said(&output).matches("over TLS").count() == 2,
        "{}",
        said(&output)
    );
    let output = run(&["route", "42", "--url", &streams, "--ca", ca]).await;
    assert!(said(&output).contains(&format!("https://{http}")), "{}", said(&output));

    // Without it the system's are asked, and none of them vouches for this.
    let output = run(&publish).await;
    assert!(
        !output.status.success() && said(&output).contains("certificate"),
        "{}",
        said(&output)
    );
    let output = run(&["listen", "a", "--url", &streams, "--retry-for", "0s"]).await;
    assert!(
        !output.status.success() && said(&output).contains("certificate"),
        "{}",
        said(&output)
    );
    let output = run(&[&publish[..], &["--ca", "/nowhere/ca.pem"]].concat()).await;
    assert!(
        said(&output).contains("`--ca` names /nowhere/ca.pem, which cannot be read"),
        "{}",
        said(&output)
    );
    let plain = format!("http://{http}");
    let output = run(&["route", "42", "--url", &plain]).await;
    assert!(said(&output).contains("https://"), "{}", said(&output));
}

#[tokio::test]
async fn a_certificate_says_who_publishes() {
    let (authority, others) = (Authority::new(Key::Ec), Authority::new(Key::Ec));
    let publishers =
        "[{ name = \"orders\", certificate = \"spiffe://example.org/orders\", publish = [\"orders/**\"] }]";
    let setup = Setup::new()
        .set("grpc.tls_client_ca", text(&authority.ca()))
        .set("auth.publishers", publishers);
    let node = authority.local("node").on(setup, &["grpc"]).start().await;
    let url = format!("https://localhost:{}", node.addresses().grpc.port());
    let ca = authority.ca();
    let publish = |topic: &'static str, shown: Option<&Pair>| {
        let mut arguments: Vec<String> = [
            "publish",
            topic,
            "--data",
            "1",
            "--retry-for",
            "0s",
            "--url",
            &url,
            "--ca",
        ]
        .map(str::to_owned)
        .into();
        arguments.push(text(&ca).to_owned());
        if let Some(Pair { cert, key, .. }) = shown {
            arguments.extend(["--cert", text(cert), "--cert-key", text(key)].map(str::to_owned));
        }
        async move {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let output = run(&arguments).await;
            (output.status.success(), said(&output))
        }
    };
    let orders = authority.issue("orders", "URI:spiffe://example.org/orders");
    let billing = authority.issue("billing", "URI:spiffe://example.org/billing");
    let stranger = others.issue("orders", "URI:spiffe://example.org/orders");
    let expired = authority.expired("expired", "URI:spiffe://example.org/orders");
    let (published, said) = publish("orders/7", Some(&orders)).await;
    assert!(published, "{said}");
    for (topic, shown) in [
        ("billing/7", Some(&orders)),
        ("orders/7", Some(&billing)),
        ("orders/7", Some(&stranger)),
        ("orders/7", Some(&expired)),
        ("orders/7", None),
    ] {
        let (published, said) = publish(topic, shown).await;
        assert!(!published, "{topic} {shown:?}: {said}");
    }
}
