//! Where events go: a terminal or pipe, as lines to read or as JSON, or a file that is its own cursor.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::parser::Received;
use crate::cli::server::printable;

/// An event as one JSON object on a line: `{"id":…,"event":…,"data":…}`.
#[derive(Debug, Serialize, Deserialize)]
struct Line<'a> {
    /// The cursor that goes on after it; null for an ephemeral event.
    #[serde(borrow)]
    id: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    event: std::borrow::Cow<'a, str>,
    /// Always text, even if that text is JSON.
    #[serde(borrow)]
    data: std::borrow::Cow<'a, str>,
}

/// How each line begins, so that one that was cut short can be told from something else.
const LINE_START: &[u8] = b"{\"id\":";

/// The event as a line of JSON, its line break included.
fn json_line(event: &Received) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Line {
        id: event.id.as_deref().map(Into::into),
        event: event.event.as_str().into(),
        data: event.data.as_str().into(),
    })?;
    line.push(b'\n');
    Ok(line)
}

/// The event for people: its type and data, with further lines indented.
fn readable(event: &Received) -> Vec<u8> {
    let indent = " ".repeat(event.event.chars().count() + 2);
    let mut text = format!("{}: ", printable(&event.event));
    for (at, line) in event.data.split('\n').enumerate() {
        if at > 0 {
            text.push('\n');
            text.push_str(&indent);
        }
        text.push_str(&printable(line));
    }
    text.push('\n');
    text.into_bytes()
}

/// Where events go.
#[derive(Debug)]
pub(super) enum Output {
    /// Lines to read on standard output.
    Readable(Option<CursorFile>),
    /// JSON on standard output.
    Json(Option<CursorFile>),
    /// JSON at the end of a file.
    File(File),
}

impl Output {
    /// Writes one event, whole; then notes that it was.
    pub(super) fn write(&mut self, event: &Received) -> io::Result<()> {
        let (line, cursor) = match self {
            Self::File(file) => return file.write_all(&json_line(event)?),
            Self::Json(cursor) => (json_line(event)?, cursor),
            Self::Readable(cursor) => (readable(event), cursor),
        };
        let mut out = io::stdout().lock();
        out.write_all(&line)?;
        out.flush()?;
        match (cursor, &event.id) {
            (Some(cursor), Some(id)) => cursor.save(id),
            _ => Ok(()),
        }
    }
}

/// A file that holds the cursor of the last event that was written.
#[derive(Debug)]
pub(super) struct CursorFile {
    path: PathBuf,
    next: PathBuf,
}

impl CursorFile {
    /// The file, and the cursor it holds if there is one.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<String>), OutputError> {
        let cursor = match fs::read_to_string(path) {
            Ok(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(cause) => return Err(OutputError::at(path, cause)),
        };
        if cursor
            .as_deref()
            .is_some_and(|text| !text.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(OutputError::NotACursor { path: path.to_owned() });
        }
        let mut next = path.as_os_str().to_owned();
        next.push(".next");
        let file = Self {
            path: path.to_owned(),
            next: next.into(),
        };
        Ok((file, cursor))
    }

    /// Replaces the cursor in one step: whoever reads the file finds the old one or the new one.
    fn save(&self, id: &str) -> io::Result<()> {
        fs::write(&self.next, format!("{id}\n"))?;
        fs::rename(&self.next, &self.path)
    }
}

/// Why there is nowhere to write to.
#[derive(Debug, thiserror::Error)]
pub(super) enum OutputError {
    #[error("{} cannot be used", path.display())]
    File {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("{} is being written to by another `tidings listen`", path.display())]
    Locked { path: PathBuf },
    #[error("line {line} of {} is not an event as `tidings listen --output` writes them: name another file", path.display())]
    NotEvents { path: PathBuf, line: u64 },
    #[error("{} does not hold a cursor: name another file, or remove it to begin anew", path.display())]
    NotACursor { path: PathBuf },
}

impl OutputError {
    fn at(path: &Path, cause: io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            cause,
        }
    }
}

/// Opens a file of events to add to, and tells the id of the last one in it. The file is its own cursor, so what is in it and what is asked
/// for next never differ: a line that was cut short, by a kill in the middle of the write, is taken off and asked for again.
pub(super) fn open_file(path: &Path) -> Result<(File, Option<String>), OutputError> {
    let failed = |cause| OutputError::at(path, cause);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(failed)?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => OutputError::Locked { path: path.to_owned() },
        TryLockError::Error(cause) => failed(cause),
    })?;
    let mut last_id = None;
    let mut whole = 0;
    let mut lines = 0;
    let mut reader = BufReader::with_capacity(1 << 16, &mut file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line).map_err(failed)?;
        if line.last() != Some(&b'\n') {
            break;
        }
        let event: Line<'_> = serde_json::from_slice(&line).map_err(|_| OutputError::NotEvents {
            path: path.to_owned(),
            line: lines + 1,
        })?;
        if let Some(id) = event.id {
            last_id = Some(id.into_owned());
        }
        whole += length as u64;
        lines += 1;
    }
    let begun = LINE_START.len().min(line.len());
    if line[..begun] != LINE_START[..begun] {
        // Not one of our lines, cut short: it must not be taken off.
        return Err(OutputError::NotEvents {
            path: path.to_owned(),
            line: lines + 1,
        });
    }
    file.set_len(whole).map_err(failed)?;
    file.seek(SeekFrom::Start(whole)).map_err(failed)?;
    Ok((file, last_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: Option<&str>, data: &str) -> Received {
        Received {
            id: id.map(str::to_owned),
            event: "earthquake".to_owned(),
            data: data.to_owned(),
        }
    }

    #[test]
    fn data_stays_text_in_json() {
        let line = json_line(&event(Some("1-1.1"), "{\"mag\":0.3}")).expect("writes");
        let expected = "{\"id\":\"1-1.1\",\"event\":\"earthquake\",\"data\":\"{\\\"mag\\\":0.3}\"}\n";
        assert_eq!(String::from_utf8(line).expect("text"), expected);
        let line = json_line(&event(None, "")).expect("writes");
        assert!(line.starts_with(b"{\"id\":null,"));
    }

    #[test]
    fn terminals_are_not_steered() {
        let text = readable(&event(None, "a\tb\x1b[2J\u{9b}c\nd"));
        let expected = "earthquake: a\tb\\u{1b}[2J\\u{9b}c\n            d\n";
        assert_eq!(String::from_utf8(text).expect("text"), expected);
    }

    /// Wherever a kill cuts the file, what is left is whole lines and the id is the last one's.
    #[test]
    fn a_file_cut_anywhere_goes_on_exactly() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("events.ndjson");
        let events = [
            event(Some("1-1.1"), "one"),
            event(None, "passing"),
            event(Some("1-1.2"), "zwei ü"),
        ];
        let lines: Vec<Vec<u8>> = events.iter().map(|event| json_line(event).expect("writes")).collect();
        let all = lines.concat();
        let ends: Vec<usize> = lines
            .iter()
            .scan(0, |end, line| {
                *end += line.len();
                Some(*end)
            })
            .collect();
        for cut in 0..=all.len() {
            fs::write(&path, &all[..cut]).expect("a file");
            let (mut file, id) = open_file(&path).expect("opens");
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(
                id.as_deref(),
                [None, Some("1-1.1"), Some("1-1.1"), Some("1-1.2")][whole],
                "cut at {cut}"
            );
            for line in &lines[whole..] {
                file.write_all(line).expect("writes");
            }
            drop(file);
            assert_eq!(fs::read(&path).expect("reads"), all, "cut at {cut}");
        }
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notes.txt");
        for text in ["my notes", "my notes\n", "{\"a\":1}", "{\"a\":1}\n", "\u{0}\u{0}\n"] {
            fs::write(&path, text).expect("a file");
            assert!(
                matches!(open_file(&path), Err(OutputError::NotEvents { .. })),
                "{text:?}"
            );
            assert_eq!(fs::read_to_string(&path).expect("reads"), text);
        }
    }

    #[test]
    fn a_file_has_one_writer() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("events.ndjson");
        let first = open_file(&path).expect("opens");
        assert!(matches!(open_file(&path), Err(OutputError::Locked { .. })));
        drop(first);
        assert!(open_file(&path).is_ok());
    }

    #[test]
    fn a_cursor_file_keeps_the_last() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("cursor");
        let (file, cursor) = CursorFile::open(&path).expect("opens");
        assert_eq!(cursor, None);
        for id in ["1-1.1", "1-1.2"] {
            file.save(id).expect("saves");
            let (_, cursor) = CursorFile::open(&path).expect("opens");
            assert_eq!(cursor.as_deref(), Some(id));
        }
        fs::write(&path, "not a\ncursor").expect("a file");
        assert!(matches!(CursorFile::open(&path), Err(OutputError::NotACursor { .. })));
    }
}
