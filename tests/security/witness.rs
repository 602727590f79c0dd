//! A real client, who must be served whatever others do.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    client::{Publisher, event, get_json},
    node::{Addresses, Node},
    sse::{Ask, Stream},
};

/// Somebody who follows since before it began, and publishes now and then.
pub(crate) struct Witness {
    addresses: Addresses,
    stream: Stream,
    publisher: Publisher,
    count: u64,
}

impl Witness {
    /// Follows.
    pub(crate) async fn of(node: &Node) -> Self {
        let addresses = node.addresses();
        Self {
            addresses,
            stream: follow(addresses.http).await,
            publisher: Publisher::connect(addresses).await,
            count: 0,
        }
    }

    /// Shows that the old stream and the old publisher work, that new ones do, over either version, and that the node is healthy. Answers how long
    /// all of it took.
    pub(crate) async fn is_served(&mut self) -> Duration {
        let begin = Instant::now();
        let mut new = follow(self.addresses.http).await;
        let mut new_http2 = Ask::topic("witness")
            .open_http2(self.addresses.http)
            .await
            .expect("a stream");
        let mut publisher = Publisher::connect(self.addresses).await;
        for publisher in [&mut publisher, &mut self.publisher] {
            self.count += 1;
            let data = self.count.to_string();
            publisher.publish(event("witness", &*data)).await;
            assert_eq!(self.stream.event().await.data, data);
            for stream in [&mut new, &mut new_http2] {
                // A stream that begins now may begin a little earlier: its worker has not come further. It is not given anything later.
                while number(&stream.event().await.data) < self.count {}
            }
        }
        for path in ["/livez", "/readyz"] {
            assert_eq!(get_json(self.addresses.admin, path).await.0, 200, "{path}");
        }
        begin.elapsed()
    }
}

fn number(data: &str) -> u64 {
    data.parse().expect("a number")
}

async fn follow(http: SocketAddr) -> Stream {
    let stream = Ask::topic("witness").open(http).await.expect("a stream");
    assert_eq!(stream.status(), 200);
    stream
}
