//! Those who come without TLS to where it is spoken.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::FIRST_BYTE;

/// What is told to those who speak anything else, as a rule plain HTTP.
const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    content-type: text/plain; charset=utf-8\r\n\
    content-length: 48\r\n\
    cache-control: no-store\r\n\
    connection: close\r\n\r\n\
    this port speaks TLS: ask for it with https://\r\n";

/// How long, and how much, they may still send before they are cut off.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 64 * 1024);

/// Waits for the first byte and leaves it where it is; whether it is one of TLS.
pub(super) async fn begins_with_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 1];
    match stream.peek(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0] == FIRST_BYTE),
    }
}

/// Says what to do instead, and closes.
pub(super) async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    stream.write_all(ANSWER).await?;
    close(stream).await
}

/// Closes a connection such that what was last said arrives: closing while the peer's bytes are unread would take it back.
pub(super) async fn close(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let (time, bytes) = LINGER;
    let mut rest = stream.take(bytes);
    let _ = timeout(time, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let text = std::str::from_utf8(ANSWER).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
    }
}
