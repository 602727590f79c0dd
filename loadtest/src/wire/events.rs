//! Events in the bytes of an event stream, found in place: nothing is copied, nothing is kept but what is not whole yet.

/// What a stream says in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A comment, or a field that belongs to no event: how long to wait before coming back.
    Line(&'a [u8]),
    /// The lines of an event, without the blank one.
    Event(Block<'a>),
}

/// The first whole piece of these bytes, and how many of them it takes.
#[must_use]
pub fn next(bytes: &[u8]) -> Option<(Piece<'_>, usize)> {
    let first = memchr::memchr(b'\n', bytes)?;
    let line = unended(&bytes[..first]);
    if line.starts_with(b":") || line.starts_with(b"retry") {
        return Some((Piece::Line(line), first + 1));
    }
    // The blank line that ends it; the first line may be that itself.
    let mut begin = 0;
    loop {
        let end = begin + memchr::memchr(b'\n', &bytes[begin..])?;
        if unended(&bytes[begin..end]).is_empty() {
            return Some((Piece::Event(Block(&bytes[..begin])), end + 1));
        }
        begin = end + 1;
    }
}

fn unended(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The lines of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a>(&'a [u8]);

impl<'a> Block<'a> {
    /// Its fields, in order, each with its value.
    pub fn fields(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.0.split_inclusive(|&byte| byte == b'\n').map(|line| {
            let line = unended(&line[..line.len() - 1]);
            let (name, value) = match memchr::memchr(b':', line) {
                Some(colon) => (&line[..colon], &line[colon + 1..]),
                None => (line, &[][..]),
            };
            (name, value.strip_prefix(b" ").unwrap_or(value))
        })
    }

    /// The value of a field, the last if there are several.
    #[must_use]
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.fields()
            .filter(|&(field, _)| field == name.as_bytes())
            .last()
            .map(|(_, value)| value)
    }

    /// All its bytes.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Whether it is as this service writes events: line feeds alone, `event` first, then data, at least a line, then `id`, and nothing else.
    #[must_use]
    pub fn is_strict(self) -> bool {
        let rank = |(name, _): (&[u8], &[u8])| match name {
            b"event" => Some(0),
            b"data" => Some(1),
            b"id" => Some(2),
            _ => None,
        };
        let ranks: Option<Vec<u8>> = self.fields().map(rank).collect();
        let Some(ranks) = ranks else { return false };
        let in_order = ranks.is_sorted() && ranks.windows(2).all(|two| two[0] != two[1] || two[0] == 1);
        in_order && ranks.contains(&1) && memchr::memchr(b'\r', self.0).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(mut bytes: &[u8]) -> (Vec<Piece<'_>>, &[u8]) {
        let mut found = Vec::new();
        while let Some((piece, taken)) = next(bytes) {
            found.push(piece);
            bytes = &bytes[taken..];
        }
        (found, bytes)
    }

    #[test]
    fn lines_and_events_are_told_apart() {
        let stream = b"retry: 3000\n:\nevent: order\ndata: one\ndata:two\nid: a\n\n:\ndata\n\nid: b\r\ndata: c\r\n\r\nid: torn\nda";
        let (found, rest) = pieces(stream);
        let [
            Piece::Line(b"retry: 3000"),
            Piece::Line(b":"),
            Piece::Event(one),
            Piece::Line(b":"),
            Piece::Event(two),
            Piece::Event(three),
        ] = found[..]
        else {
            panic!("{found:?}");
        };
        assert_eq!(rest, b"id: torn\nda");
        assert_eq!(
            (one.get("id"), one.get("event"), one.get("data")),
            (Some(&b"a"[..]), Some(&b"order"[..]), Some(&b"two"[..]))
        );
        assert_eq!(one.fields().count(), 4);
        assert_eq!(two.get("data"), Some(&b""[..]));
        assert_eq!((three.get("id"), three.get("data")), (Some(&b"b"[..]), Some(&b"c"[..])));
        assert_eq!([one, two, three].map(Block::is_strict), [true, true, false]);
    }

    #[test]
    fn what_this_service_would_not_write_is_told() {
        for wrong in [
            &b"id: early\ndata: a\n"[..],
            b"id: alone\n",
            b"",
            b"date: a\ndata: b\n",
            b"data: c\nid: a\nid: b\n",
            b"data: a\rb\n",
            b"data: a\nevent: b\n",
        ] {
            assert!(!Block(wrong).is_strict(), "{}", wrong.escape_ascii());
        }
        for right in [&b"data: b\nid: a\n"[..], b"data: b\ndata: c\n", b"event: x\ndata:\n"] {
            assert!(Block(right).is_strict(), "{}", right.escape_ascii());
        }
    }
}
