//! Ingest as its clients see it: real ones, over loopback, before a journal that does as it is told.

mod audit;
mod backpressure;
mod control;
mod double;
mod entrance;
mod grpc;
mod json;
mod permissions;
mod port;
mod quotas;
mod who;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tidings_proto::v1::{PublishRequest, publisher_client::PublisherClient};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use self::double::{TestBus, TestJournal};
use super::{
    Ingest, Rates, ServeError, ServerSettings, Services, Settings, control::control, grpc::publisher, json::router,
    serve,
};
use crate::{
    auth::Auth,
    journal::{AppendError, Placed, Unavailable},
    model::{Layout, Seq, Shard},
};

/// A served port.
struct Node {
    address: SocketAddr,
    auth: Arc<Auth>,
    journal: Arc<TestJournal>,
    bus: Arc<TestBus>,
    drain: CancellationToken,
    served: JoinHandle<Result<(), ServeError>>,
}

impl Node {
    async fn start(journal: TestJournal) -> Self {
        // So long that a test which needs it to be over hangs.
        Self::start_with_window(journal, Duration::from_secs(3_600)).await
    }

    async fn start_with_window(journal: TestJournal, drain_window: Duration) -> Self {
        let settings = ServerSettings {
            reflection: true,
            drain_window,
            ..ServerSettings::default()
        };
        Self::start_with(journal, settings).await
    }

    async fn start_with(journal: TestJournal, settings: ServerSettings) -> Self {
        Self::start_all(journal, settings, Auth::open(), Rates::default()).await
    }

    /// With those who are let in, and how much each may publish.
    async fn start_for(journal: TestJournal, auth: Auth, rates: Rates) -> Self {
        Self::start_all(journal, ServerSettings::default(), auth, rates).await
    }

    async fn start_all(journal: TestJournal, settings: ServerSettings, auth: Auth, rates: Rates) -> Self {
        let journal = Arc::new(journal);
        let bus = Arc::new(TestBus::default());
        let drain = CancellationToken::new();
        let auth = Arc::new(auth);
        let ingest = ingest_for(&journal, &bus, &drain, &auth, rates);
        let services = Services::new()
            .grpc(publisher(ingest.clone()))
            .grpc(control(ingest.clone()))
            .http(router(ingest));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(serve(listener, services, settings, drain.clone()));
        Self {
            address,
            auth,
            journal,
            bus,
            drain,
            served,
        }
    }

    async fn client(&self) -> PublisherClient<Channel> {
        PublisherClient::connect(format!("http://{}", self.address))
            .await
            .unwrap()
    }

    /// Sends one request over HTTP/1.1.
    async fn http1(&self, mut request: Request<Full<Bytes>>) -> Response<Bytes> {
        request.headers_mut().insert("host", "test".parse().unwrap());
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        connection.abort();
        Response::from_parts(parts, body)
    }

    /// Sends one hand-made gRPC message over HTTP/2; gives back the status's code and message.
    async fn raw_grpc(&self, message: &[u8], timeout: Option<&str>) -> (String, String) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::post(format!("http://{}/tidings.v1.Publisher/Publish", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if let Some(timeout) = timeout {
            request = request.header("grpc-timeout", timeout);
        }
        let request = request.body(Full::new(framed(message))).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let headers = response.headers().clone();
        let body = response.into_body().collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        connection.abort();
        let field = |name: &str| {
            let value = trailers.get(name).or_else(|| headers.get(name));
            value
                .map(|value| value.to_str().unwrap().replace("%20", " "))
                .unwrap_or_default()
        };
        (field("grpc-status"), field("grpc-message"))
    }
}

fn ingest(journal: &Arc<TestJournal>, bus: &Arc<TestBus>, drain: &CancellationToken) -> Ingest {
    ingest_for(journal, bus, drain, &Arc::new(Auth::open()), Rates::default())
}

fn ingest_for(
    journal: &Arc<TestJournal>,
    bus: &Arc<TestBus>,
    drain: &CancellationToken,
    auth: &Arc<Auth>,
    rates: Rates,
) -> Ingest {
    let settings = Settings {
        rates,
        ..Settings::default()
    };
    Ingest::new(
        journal.clone(),
        bus.clone(),
        Layout::new(1_024, 3).unwrap(),
        settings,
        Arc::clone(auth),
        drain.clone(),
    )
}

/// Of three topics the first has the event, the second has not, and of the third nobody knows.
fn partly() -> AppendError {
    let (shard, cause) = (Shard(3), Unavailable::NoHolder);
    AppendError::Partly {
        outcomes: vec![
            Ok(Placed {
                seq: Seq(7),
                repeated: true,
            }),
            Err(AppendError::Unavailable { shard, cause }),
            Err(AppendError::Unknown {
                cause: "the connection broke".to_owned(),
            }),
        ],
    }
}

/// A message as gRPC frames it: not compressed, length, bytes.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(message);
    frame.into()
}

fn to(topic: &str) -> PublishRequest {
    PublishRequest {
        topics: vec![topic.to_owned()],
        data: "x".to_owned(),
        ..PublishRequest::default()
    }
}
