//! The chunks of an HTTP/1.1 body, by the letter of <https://www.rfc-editor.org/rfc/rfc9112#section-7.1>; without extensions and
//! trailers, which the server has no reason to send.

use anyhow::{Result, bail, ensure};

/// Takes the chunks apart.
#[derive(Debug, Default)]
pub struct Chunks {
    expected: Expected,
    /// The digits of the size, or the line end, as far as they came.
    line: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Expected {
    #[default]
    Size,
    Data(usize),
    /// What ends a chunk; the last, if it says so.
    LineEnd {
        is_last: bool,
    },
    Nothing,
}

impl Chunks {
    /// Adds to `body` what these bytes have of it.
    ///
    /// # Errors
    /// If they are no chunks.
    pub fn read(&mut self, mut bytes: &[u8], body: &mut Vec<u8>) -> Result<()> {
        while let Some(&first) = bytes.first() {
            match self.expected {
                Expected::Data(left) => {
                    let here = left.min(bytes.len());
                    body.extend_from_slice(&bytes[..here]);
                    bytes = &bytes[here..];
                    self.expected = match left - here {
                        0 => Expected::LineEnd { is_last: false },
                        left => Expected::Data(left),
                    };
                }
                Expected::Nothing => bail!("more after the last chunk: {}", bytes.escape_ascii()),
                Expected::Size | Expected::LineEnd { .. } => {
                    self.line.push(first);
                    bytes = &bytes[1..];
                    if first == b'\n' {
                        let line = std::mem::take(&mut self.line);
                        self.expected = self.expected.after(&line)?;
                    }
                    ensure!(self.line.len() <= 18, "no chunk: {}", self.line.escape_ascii());
                }
            }
        }
        Ok(())
    }

    /// Whether the last chunk was there: what ends before it was torn.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.expected == Expected::Nothing
    }

    /// Whether no chunk is half-read.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.is_complete() || self.expected == Expected::Size && self.line.is_empty()
    }
}

impl Expected {
    fn after(self, line: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(line)?.strip_suffix("\r\n");
        match (self, text) {
            (Self::Size, Some(digits)) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Ok(match usize::from_str_radix(digits, 16)? {
                    0 => Self::LineEnd { is_last: true },
                    size => Self::Data(size),
                })
            }
            (Self::LineEnd { is_last: true }, Some("")) => Ok(Self::Nothing),
            (Self::LineEnd { is_last: false }, Some("")) => Ok(Self::Size),
            _ => bail!("no chunk: {}", line.escape_ascii()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] = b"e\r\nretry: 3000\n:\n\r\n10\r\n0123456789\r\nabcd\r\n0\r\n\r\n";

    #[test]
    fn the_body_is_the_same_however_it_is_cut() {
        for size in 1..=WHOLE.len() {
            let (mut chunks, mut body) = (Chunks::default(), Vec::new());
            for part in WHOLE.chunks(size) {
                assert!(!chunks.is_complete());
                chunks.read(part, &mut body).expect("chunks");
            }
            assert!(chunks.is_complete());
            assert_eq!(body, b"retry: 3000\n:\n0123456789\r\nabcd");
        }
    }

    #[test]
    fn what_is_torn_is_not_complete() {
        let between = [0, 19, 41];
        for end in 0..WHOLE.len() {
            let (mut chunks, mut body) = (Chunks::default(), Vec::new());
            chunks.read(&WHOLE[..end], &mut body).expect("chunks");
            assert!(!chunks.is_complete());
            assert_eq!(chunks.is_between(), between.contains(&end), "{end}");
        }
    }

    #[test]
    fn what_breaks_the_rules_is_told() {
        let wrong: [&[u8]; 8] = [
            b"\r\n",
            b"g\r\n",
            b"+1\r\n",
            b"1\n",
            b"1;a=b\r\n",
            b"1\r\nab\r\n",
            b"0\r\n\r\n0",
            b"11111111111111111111",
        ];
        for bytes in wrong {
            Chunks::default().read(bytes, &mut Vec::new()).expect_err("refused");
        }
    }
}
