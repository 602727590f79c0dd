//! The cursor: how far one reader has come, over everything it follows. It is the SSE `id:` and comes back as `Last-Event-ID`.
//!
//! # Text
//! ```text
//! cursor   = "1" 1*( "-" shard )          version 1; the shards in ascending order, none twice
//! shard    = [ number "_" ] epoch "." watermark *( "." slot "_" ahead )
//! ```
//! Every number is base 36 in lower case, without leading zeros. The number before an epoch is the shard's; without one it is shard
//! 0. `watermark`: every event of the shard up to this sequence has been seen. `slot "_" ahead`, in ascending order: of this slot,
//! everything up to `watermark + ahead` has been seen too; `ahead` is at least 1.
//!
//! Embedded, a cursor is epoch and one number: `1-1z141z3.5f`. Only `a-z 0-9 . _ -` occur, so it needs no escaping in a header, a
//! URL or a file name. Each cursor has one text. It is not a secret and grants nothing. Test vectors: `docs/semantics.md` and below.

use std::{collections::BTreeMap, fmt};

use super::{Epoch, Seq, Shard, Slot};

/// How far one reader has come in every shard it follows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    shards: BTreeMap<Shard, Position>,
}

/// How far one reader has come in one shard: everything up to the watermark, and some slots further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The history that the sequences belong to.
    pub epoch: Epoch,
    /// Everything up to here has been seen.
    pub watermark: Seq,
    ahead: BTreeMap<Slot, Seq>,
}

impl Position {
    /// Everything up to `watermark`.
    #[must_use]
    pub const fn at(epoch: Epoch, watermark: Seq) -> Self {
        Self {
            epoch,
            watermark,
            ahead: BTreeMap::new(),
        }
    }

    /// How far the reader has come in one slot.
    #[must_use]
    pub fn of(&self, slot: Slot) -> Seq {
        self.ahead
            .get(&slot)
            .map_or(self.watermark, |&ahead| ahead.max(self.watermark))
    }

    /// The slots that are further than the watermark, in ascending order.
    pub fn ahead(&self) -> impl Iterator<Item = (Slot, Seq)> + '_ {
        self.ahead.iter().map(|(&slot, &seq)| (slot, seq))
    }

    /// Notes that everything of `slot` up to `seq` has been seen.
    pub fn advance_slot(&mut self, slot: Slot, seq: Seq) {
        if seq > self.of(slot) {
            self.ahead.insert(slot, seq);
        }
    }

    /// Notes that everything up to `seq`, in every slot, has been seen.
    pub fn advance(&mut self, seq: Seq) {
        if seq > self.watermark {
            self.watermark = seq;
            self.ahead.retain(|_, ahead| *ahead > seq);
        }
    }
}

impl Cursor {
    /// The longest text that is looked at, in bytes. Those issued are far shorter: as a rule under 128. But one who follows a thousand topics of
    /// as many slots may be ahead of the watermark in each, and what is issued has to be taken back.
    pub const MAX_BYTES: usize = 65_536;

    const VERSION: &'static str = "1";

    /// A cursor that names no shard yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            shards: BTreeMap::new(),
        }
    }

    /// How far it has come in a shard, if it names it.
    #[must_use]
    pub fn get(&self, shard: Shard) -> Option<&Position> {
        self.shards.get(&shard)
    }

    /// How far it has come in a shard, to be moved on.
    pub fn get_mut(&mut self, shard: Shard) -> Option<&mut Position> {
        self.shards.get_mut(&shard)
    }

    /// Sets how far it has come in a shard.
    pub fn set(&mut self, shard: Shard, position: Position) {
        self.shards.insert(shard, position);
    }

    /// The shards it names, in ascending order.
    pub fn shards(&self) -> impl Iterator<Item = (Shard, &Position)> {
        self.shards.iter().map(|(&shard, position)| (shard, position))
    }

    /// Reads a cursor's text.
    ///
    /// # Errors
    /// If this is not the text of a cursor: this service never issued it.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        if text.len() > Self::MAX_BYTES {
            return Err(CursorError);
        }
        let mut parts = text.split('-');
        if parts.next() != Some(Self::VERSION) {
            return Err(CursorError);
        }
        let mut shards = BTreeMap::new();
        for part in parts {
            let (shard, position) = parse_shard(part)?;
            if shards.last_key_value().is_some_and(|(&last, _)| last >= shard) {
                return Err(CursorError);
            }
            shards.insert(shard, position);
        }
        if shards.is_empty() {
            Err(CursorError)
        } else {
            Ok(Self { shards })
        }
    }
}

fn parse_shard(text: &str) -> Result<(Shard, Position), CursorError> {
    let mut fields = text.split('.');
    let head = fields.next().ok_or(CursorError)?;
    let (shard, epoch) = match head.split_once('_') {
        None => (0, head),
        Some((shard, epoch)) => match number::<u16>(shard)? {
            0 => return Err(CursorError),
            shard => (shard, epoch),
        },
    };
    let epoch = Epoch(number(epoch)?);
    let watermark = number::<u64>(fields.next().ok_or(CursorError)?)?;
    let mut ahead = BTreeMap::new();
    for field in fields {
        let (slot, by) = field.split_once('_').ok_or(CursorError)?;
        let slot = Slot(number(slot)?);
        let by = number::<u64>(by)?;
        if by == 0 || ahead.last_key_value().is_some_and(|(&last, _)| last >= slot) {
            return Err(CursorError);
        }
        ahead.insert(slot, Seq(watermark.checked_add(by).ok_or(CursorError)?));
    }
    Ok((
        Shard(shard),
        Position {
            epoch,
            watermark: Seq(watermark),
            ahead,
        },
    ))
}

/// One number of a cursor: base 36, lower case, no leading zero.
fn number<N: TryFrom<u64>>(text: &str) -> Result<N, CursorError> {
    let canonical =
        text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()) && (text == "0" || !text.starts_with('0'));
    if !canonical {
        return Err(CursorError);
    }
    let value = u64::from_str_radix(text, 36).map_err(|_| CursorError)?;
    N::try_from(value).map_err(|_| CursorError)
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::VERSION)?;
        for (shard, position) in &self.shards {
            f.write_str("-")?;
            if shard.0 != 0 {
                write_number(f, u64::from(shard.0))?;
                f.write_str("_")?;
            }
            write_number(f, u64::from(position.epoch.0))?;
            f.write_str(".")?;
            write_number(f, position.watermark.0)?;
            for (slot, seq) in &position.ahead {
                f.write_str(".")?;
                write_number(f, u64::from(slot.0))?;
                f.write_str("_")?;
                write_number(f, seq.0 - position.watermark.0)?;
            }
        }
        Ok(())
    }
}

fn write_number(f: &mut fmt::Formatter<'_>, mut value: u64) -> fmt::Result {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut text = [0_u8; 13];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = DIGITS[usize::try_from(value % 36).unwrap_or_default()];
        value /= 36;
        if value == 0 {
            break;
        }
    }
    f.write_str(std::str::from_utf8(&text[at..]).unwrap_or_default())
}

/// A text that is not a cursor: this service never issued it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor that this service issued")]
pub struct CursorError;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cursors() -> impl Strategy<Value = Cursor> {
        let position = (
            any::<u32>(),
            0..u64::MAX / 2,
            prop::collection::btree_map(0..65_536_u32, 1..u64::MAX / 4, 0..4),
        )
            .prop_map(|(epoch, watermark, ahead)| Position {
                epoch: Epoch(epoch),
                watermark: Seq(watermark),
                ahead: ahead
                    .into_iter()
                    .map(|(slot, by)| (Slot(slot), Seq(watermark + by)))
                    .collect(),
            });
        prop::collection::btree_map(any::<u16>().prop_map(Shard), position, 1..5).prop_map(|shards| Cursor { shards })
    }

    proptest! {
        #[test]
        fn text_round_trips(cursor in cursors()) {
            let text = cursor.to_string();
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b)));
            prop_assert_eq!(Cursor::parse(&text), Ok(cursor));
        }

        #[test]
        fn what_parses_is_the_only_text_of_its_cursor(text in "1-[0-9a-z._-]{1,40}") {
            if let Ok(cursor) = Cursor::parse(&text) {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }

        #[test]
        fn any_text_is_a_cursor_or_an_error(text in any::<String>()) {
            let _ = Cursor::parse(&text);
        }
    }

    #[test]
    fn published_vectors() {
        let mut embedded = Cursor::new();
        embedded.set(Shard(0), Position::at(Epoch(4_294_967_295), Seq(195)));
        let mut cluster = Cursor::new();
        let mut position = Position::at(Epoch(7), Seq(1_000_000));
        position.advance_slot(Slot(1_023), Seq(1_000_036));
        position.advance_slot(Slot(5), Seq(1_000_001));
        cluster.set(Shard(0), position);
        cluster.set(Shard(11), Position::at(Epoch(35), Seq(0)));
        for (cursor, text) in [(embedded, "1-1z141z3.5f"), (cluster, "1-7.lfls.5_1.sf_10-b_z.0")] {
            assert_eq!(cursor.to_string(), text);
            assert_eq!(Cursor::parse(text), Ok(cursor));
        }
    }

    #[test]
    fn the_longest_that_can_be_issued_is_read() {
        // A thousand topics and an inbox, in as many slots, of as many shards.
        let mut cursor = Cursor::new();
        for number in 0..1_001_u16 {
            let watermark = u64::MAX / 36;
            let mut position = Position::at(Epoch(u32::MAX), Seq(watermark));
            position.advance_slot(Slot(60_000 + u32::from(number)), Seq(watermark + (1 << 40)));
            cursor.set(Shard(60_000 + number), position);
        }
        let text = cursor.to_string();
        assert!(text.len() > 32_768, "{}", text.len());
        assert_eq!(Cursor::parse(&text), Ok(cursor));
    }

    #[test]
    fn refused_texts() {
        for text in [
            "",
            "1",
            "1-",
            "2-1.1",
            "1-1",
            "1-01.1",
            "1-1.1.",
            "1-1.1.5",
            "1-1.1.5_0",
            "1-1.1.6_1.5_1",
            "1-0_1.1",
            "1-1.1-1.1",
            "1-b_1.1-a_1.1",
            "1-1Z.1",
            "1-+1.1",
            "1-1.3w5e11264sgsg",
            "1-1.3w5e11264sgsf.1_1",
            "1-1z141z4.1",
            "42",
            "1-1.1\n",
        ] {
            assert_eq!(Cursor::parse(text), Err(CursorError), "{text:?}");
        }
    }
}
