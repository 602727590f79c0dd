//! The head of an answer.

use anyhow::{Context as _, Result, bail};

/// What matters of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Head {
    /// Its status.
    pub status: u16,
    /// How many bytes it takes: the body begins after them.
    pub bytes: usize,
    /// Whether the body comes in chunks.
    pub is_chunked: bool,
    /// Whether it is an event stream.
    pub is_event_stream: bool,
    /// The body's length, if it says so.
    pub length: Option<usize>,
    /// For how many seconds the server asks to stay away, if it does.
    pub retry_after: Option<u32>,
}

impl Head {
    /// Whether a stream follows.
    #[must_use]
    pub const fn is_stream(&self) -> bool {
        self.status == 200 && self.is_event_stream
    }

    /// The head at the beginning of these bytes; none if it is not whole yet.
    ///
    /// # Errors
    /// If it is not HTTP/1.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; 48];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(bytes).context("the answer is not HTTP/1")? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial if bytes.len() > 64 * 1_024 => bail!("an answer's head has no end"),
            httparse::Status::Partial => return Ok(None),
        };
        let mut head = Self {
            status: response.code.context("an answer without a status")?,
            bytes: length,
            ..Self::default()
        };
        for header in response.headers {
            let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
            match header.name.to_ascii_lowercase().as_str() {
                "transfer-encoding" => head.is_chunked = value.eq_ignore_ascii_case("chunked"),
                "content-type" => head.is_event_stream = value.to_ascii_lowercase().starts_with("text/event-stream"),
                "content-length" => head.length = value.parse().ok(),
                "retry-after" => head.retry_after = value.parse().ok(),
                _ => {}
            }
        }
        Ok(Some(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\nrest";
        for end in 0..answer.len() - 4 {
            assert_eq!(Head::parse(&answer[..end]).expect("HTTP"), None);
        }
        let head = Head::parse(answer).expect("HTTP").expect("whole");
        assert!(head.is_stream() && head.is_chunked);
        assert_eq!(&answer[head.bytes..], b"rest");
        let shed = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n";
        let head = Head::parse(shed).expect("HTTP").expect("whole");
        assert_eq!((head.status, head.retry_after, head.length), (503, Some(7), Some(0)));
        assert!(!head.is_stream());
        Head::parse(b"SSH-2.0-OpenSSH\r\n\r\n").expect_err("not HTTP");
    }
}
