//! Publishing, and whole answers over HTTP.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tidings_proto::v1::{
    PublishRequest, PublishResponse, publisher_client::PublisherClient, subscriber_client::SubscriberClient,
};
use tokio::net::TcpStream;
use tonic::{Status, transport::Channel};

use crate::{node::Addresses, patiently};

/// An event of one topic.
pub(crate) fn event(topic: &str, data: impl Into<String>) -> PublishRequest {
    PublishRequest {
        topics: vec![topic.to_owned()],
        data: data.into(),
        ..PublishRequest::default()
    }
}

/// The same with a key.
pub(crate) fn keyed(topic: &str, data: impl Into<String>, key: impl Into<String>) -> PublishRequest {
    PublishRequest {
        key: key.into(),
        ..event(topic, data)
    }
}

/// Publishes over gRPC.
#[derive(Debug, Clone)]
pub(crate) struct Publisher(pub(crate) PublisherClient<Channel>);

impl Publisher {
    /// Connects.
    pub(crate) async fn connect(addresses: Addresses) -> Self {
        Self::try_connect(addresses).await.expect("it listens")
    }

    /// Connects, if there is anybody.
    pub(crate) async fn try_connect(addresses: Addresses) -> Result<Self, tonic::transport::Error> {
        let client = PublisherClient::connect(addresses.publish_url());
        patiently("a connection", client).await.map(Self)
    }

    /// Publishes.
    pub(crate) async fn try_publish(&mut self, request: PublishRequest) -> Result<PublishResponse, Status> {
        let answer = patiently("a publish", self.0.publish(request)).await;
        answer.map(tonic::Response::into_inner)
    }

    /// Publishes to one topic what is not refused; answers its sequence, and whether it was there already.
    pub(crate) async fn publish(&mut self, request: PublishRequest) -> (u64, bool) {
        let answer = self.try_publish(request).await.expect("it is accepted");
        let [result] = answer.results.as_slice() else {
            panic!("one topic, one result: {answer:?}");
        };
        (result.sequence, result.repeated)
    }

    /// Publishes many events to one topic over one stream, their data `<name> <number>` from the first to before the last.
    pub(crate) async fn publish_many(&mut self, topic: &str, data: impl IntoIterator<Item = String>) {
        let requests: Vec<_> = data.into_iter().map(|data| event(topic, data)).collect();
        let count = requests.len();
        let publish = async {
            let answers = self.0.publish_stream(futures::stream::iter(requests)).await;
            let mut answers = answers.expect("it is accepted").into_inner();
            let mut answered = 0;
            while let Some(answer) = answers.message().await.expect("answers") {
                use tidings_proto::v1::publish_stream_response::Outcome;
                assert!(matches!(answer.outcome, Some(Outcome::Published(_))), "{answer:?}");
                answered += 1;
            }
            assert_eq!(answered, count);
        };
        patiently("a stream of publishes", publish).await;
    }
}

/// Connects a subscriber over gRPC.
pub(crate) async fn subscriber(addresses: Addresses) -> Result<SubscriberClient<Channel>, tonic::transport::Error> {
    patiently("a connection", SubscriberClient::connect(addresses.publish_url())).await
}

/// Asks over HTTP/1.1, on a connection of its own, and reads the whole answer.
pub(crate) async fn ask(address: SocketAddr, request: Request<impl Into<Bytes>>) -> Response<Bytes> {
    let answered = async {
        let socket = TcpStream::connect(address).await.expect("it listens");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .expect("a handshake");
        // It ends with the answer.
        tokio::spawn(connection);
        let mut request = request.map(|body| Full::new(body.into()));
        let host = http::HeaderValue::from_str(&address.to_string()).expect("an address");
        request.headers_mut().insert("host", host);
        let (parts, body) = sender.send_request(request).await.expect("an answer").into_parts();
        Response::from_parts(parts, body.collect().await.expect("a body").to_bytes())
    };
    patiently("an answer", answered).await
}

/// Reads a path, and its body as JSON.
pub(crate) async fn get_json(address: SocketAddr, path: &str) -> (u16, serde_json::Value) {
    let answer = ask(address, Request::get(path).body("").expect("a request")).await;
    let body = serde_json::from_slice(answer.body()).unwrap_or_default();
    (answer.status().as_u16(), body)
}

/// Publishes as JSON; answers the status, the headers and the body.
pub(crate) async fn post(addresses: Addresses, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
    let mut request = Request::post("/v1/publish");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    ask(addresses.grpc, request.body(body.to_owned()).expect("a request")).await
}
