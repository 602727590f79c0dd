//! The entrance of a connection: who it is from, and whether there is room for them.

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tracing::debug;

use super::{http::Connection, limits::Admission};

/// Has a proxy say whom it connects for, if it must: from then on the connection is that client's, under the limits of their address. None if
/// the proxy does not, or there is no room even to say so.
pub(super) async fn enter(
    connection: Connection,
    stream: &TcpStream,
    deadline: Instant,
) -> Option<(Connection, Instant)> {
    let proxy = connection.client;
    let proxies = &connection.worker.settings.proxies;
    if !proxies.must_introduce(proxy) {
        return Some((connection, deadline));
    }
    let client = match timeout_at(deadline, proxies.introduced(proxy, stream)).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => {
            debug!(peer = %proxy, %error, "a proxy's connection is closed");
            return None;
        }
        Err(_) => {
            debug!(peer = %proxy, "a proxy's connection is closed: it did not say in time whom it is for");
            return None;
        }
    };
    let Connection {
        worker,
        permit,
        place,
        over,
        ..
    } = connection;
    let (permit, over) = match over {
        Some(over) => (permit, Some(over)),
        None => {
            // What it has as a proxy's connection it has no longer.
            drop(permit);
            match worker.limits.connect(client, std::time::Instant::now()) {
                Admission::Served(permit) => (permit, None),
                Admission::Shed(permit, over) => {
                    debug!(peer = %client, reason = %over, "a connection is shed");
                    (permit, Some(over))
                }
                Admission::Refused => {
                    debug!(peer = %client, "a connection is closed at once: too many are being shed");
                    return None;
                }
            }
        }
    };
    let connection = Connection {
        worker,
        client,
        permit,
        place,
        over,
    };
    let deadline = deadline.min(Instant::now() + connection.patience());
    Some((connection, deadline))
}
