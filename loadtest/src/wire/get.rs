//! Reading JSON over HTTP/1.1, one request after another on a connection.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use super::chunked::Chunks;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    socket: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// If nobody listens.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address).await;
        let socket = socket.with_context(|| format!("cannot connect to {address}"))?;
        socket.set_nodelay(true)?;
        let socket = BufReader::new(socket);
        Ok(Self { address, socket })
    }

    /// Asks for a path, with its query.
    ///
    /// # Errors
    /// If the connection fails, or the answer is not a 200 with JSON.
    pub async fn json(&mut self, path: &str) -> Result<Value> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        self.socket.write_all(request.as_bytes()).await?;
        let mut line = String::new();
        self.socket.read_line(&mut line).await?;
        ensure!(
            line.starts_with("HTTP/1.1 200"),
            "{}{path} answers {line:?}",
            self.address
        );
        let (mut length, mut chunked) = (None, false);
        loop {
            line.clear();
            ensure!(self.socket.read_line(&mut line).await? > 0, "the answer broke off");
            let header = line.trim_end().to_ascii_lowercase();
            match header.split_once(": ") {
                None => break,
                Some(("content-length", value)) => length = Some(value.parse::<usize>()?),
                Some(("transfer-encoding", value)) => chunked = value == "chunked",
                Some(_) => {}
            }
        }
        let mut body = Vec::new();
        if chunked {
            let mut chunks = Chunks::default();
            while !chunks.is_complete() {
                let read = self.socket.fill_buf().await?;
                ensure!(!read.is_empty(), "the answer broke off");
                chunks.read(read, &mut body)?;
                let read = read.len();
                self.socket.consume(read);
            }
        } else {
            body.resize(length.context("an answer without a length")?, 0);
            self.socket.read_exact(&mut body).await?;
        }
        Ok(serde_json::from_slice(&body)?)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn one_answer_after_another_is_read_however_it_is_framed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let answers = [
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n3\r\n:2}\r\n0\r\n\r\n",
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        ];
        let serve = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.expect("a connection");
            let mut socket = BufReader::new(socket);
            for answer in answers {
                let mut line = String::new();
                while line != "\r\n" {
                    line.clear();
                    socket.read_line(&mut line).await.expect("a request");
                }
                socket.write_all(answer.as_bytes()).await.expect("sent");
            }
        });
        let mut connection = Connection::open(address).await.expect("connected");
        assert_eq!(connection.json("/").await.expect("an answer")["a"], 1);
        assert_eq!(connection.json("/").await.expect("an answer")["a"], 2);
        connection.json("/").await.expect_err("not a 200");
        serve.await.expect("no panic");
    }
}
