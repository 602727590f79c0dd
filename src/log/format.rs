//! What a data directory is: the file `FORMAT` in it says, and what it says is checked before anything else is touched.
//!
//! ```toml
//! tidings = "data directory"
//! format = 1
//! slots = 1
//! shards = 1
//! ```
//! In a cluster it also says what the directory's place there is ([`Home`]): `ordinal` and `ingest_nodes`, or `replica = true`.
//! Beside it is one RocksDB store per shard that this node holds, `shard-0` and so on.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::store::Store;
use crate::model::{Layout, Shard};

/// The format that is written, and the newest that is read.
pub const FORMAT: u32 = 1;

const FILE: &str = "FORMAT";
const UNFINISHED: &str = "FORMAT.unfinished";
const MAGIC: &str = "data directory";

#[derive(Debug, Serialize, Deserialize)]
struct Described {
    tidings: String,
    format: u32,
    slots: u32,
    shards: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ordinal: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ingest_nodes: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    replica: bool,
}

impl Described {
    fn new(layout: Layout, home: Home) -> Self {
        let (ordinal, ingest_nodes) = match home {
            Home::Owner { ordinal, nodes } => (Some(ordinal), Some(nodes)),
            Home::Alone | Home::Replica => (None, None),
        };
        Self {
            tidings: MAGIC.to_owned(),
            format: FORMAT,
            slots: layout.slots(),
            shards: layout.shards(),
            ordinal,
            ingest_nodes,
            replica: home == Home::Replica,
        }
    }

    fn home(&self) -> Result<Home, String> {
        match (self.ordinal, self.ingest_nodes, self.replica) {
            (None, None, false) => Ok(Home::Alone),
            (None, None, true) => Ok(Home::Replica),
            (Some(ordinal), Some(nodes), false) => Ok(Home::Owner { ordinal, nodes }),
            _ => Err("it says of its place in a cluster what cannot be".to_owned()),
        }
    }
}

/// What a data directory is to a deployment. Fixed for the life of its data: under another the directory would be asked for what it never had,
/// or be wiped where it is the only copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// Of the one process that there is.
    Alone,
    /// Of one of a cluster's ingest nodes under `journal = "rocksdb"`: the only copy of the shards that this node owns.
    Owner {
        /// Which of the ingest nodes: 0 to `nodes - 1`.
        ordinal: u32,
        /// Among how many ingest nodes the shards are placed.
        nodes: u32,
    },
    /// Of a cluster's ingest node under `journal = "jetstream"`: a copy of what the streams hold.
    Replica,
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone => write!(f, "`tidings serve`"),
            Self::Owner { ordinal, nodes } => {
                write!(f, "ingest node {ordinal} of {nodes} with `journal.kind = \"rocksdb\"`")
            }
            Self::Replica => write!(f, "an ingest node with `journal.kind = \"jetstream\"`"),
        }
    }
}

/// The part that every format has.
#[derive(Deserialize)]
struct Version {
    tidings: String,
    format: u32,
}

/// Why a data directory was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system refused.
    #[error("{} cannot be used as data directory: {cause}{}", path.display(), advice(&cause.to_string()))]
    Io {
        /// What was touched.
        path: PathBuf,
        /// What the file system said.
        cause: io::Error,
    },
    /// It holds something else.
    #[error("{} is not a data directory of tidings: it holds {found}; name an empty or a new directory", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// What is in it.
        found: String,
    },
    /// Its description cannot be read.
    #[error("{} is damaged ({cause}): restore it from a backup, or name another data directory", file.display())]
    Damaged {
        /// The description.
        file: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// It was written by a newer version.
    #[error(
        "{} has format {found}, and this version reads up to format {FORMAT}: use the version that wrote it, or a newer one", dir.display()
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It was written under another layout, which would put its topics elsewhere.
    #[error(
        "{} was made for {} slots over {} shards, and the configuration says {} over {}: a layout is fixed for the life of its data, so set it back or begin with another directory",
        dir.display(), found.slots(), found.shards(), configured.slots(), configured.shards()
    )]
    OtherLayout {
        /// The directory.
        dir: PathBuf,
        /// Its layout.
        found: Layout,
        /// The layout that was asked for.
        configured: Layout,
    },
    /// It has another place in the deployment, so that it holds other shards, or holds them otherwise.
    #[error(
        "{} is the data directory of {found}, and this is {configured}: which node owns what is fixed for the life of the data, so set it back (`cluster.ordinal`, `cluster.ingest_nodes`, `journal.kind`) or begin with another directory",
        dir.display()
    )]
    OtherHome {
        /// The directory.
        dir: PathBuf,
        /// What it was made for.
        found: Home,
        /// What it was to be used for.
        configured: Home,
    },
    /// A shard's store is another shard's.
    #[error("{} holds shard {found} and not shard {expected}: put the directories back under their own names", dir.display())]
    OtherShard {
        /// The store.
        dir: PathBuf,
        /// The shard that it holds.
        found: u32,
        /// The shard that it should hold.
        expected: Shard,
    },
    /// Another process has it open.
    #[error("{} is in use by another process: stop that one, or name another data directory", dir.display())]
    Locked {
        /// The store.
        dir: PathBuf,
    },
    /// The store cannot be opened.
    #[error("the store in {} cannot be opened: {cause}{}", dir.display(), advice(cause))]
    Store {
        /// The store.
        dir: PathBuf,
        /// What it said.
        cause: String,
    },
}

/// What to do about a cause, where that is known. RocksDB tells causes as text alone.
fn advice(cause: &str) -> String {
    if cause.contains("No space left on device") || cause.contains("Disk quota exceeded") {
        format!(
            "; what was acknowledged is still there: have {} MiB free on that disk, then start again",
            Store::RESERVE >> 20
        )
    } else {
        String::new()
    }
}

/// Checks that a directory is a data directory of this layout, or makes it one if it is new or empty. Answers where the shard's store is.
pub(super) fn claim(dir: &Path, layout: Layout, home: Home, shard: Shard) -> Result<PathBuf, OpenError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |cause| OpenError::Io { path, cause }
    };
    make(dir).map_err(io(dir))?;
    let file = dir.join(FILE);
    match fs::read_to_string(&file) {
        Ok(text) => check(dir, &file, &text, layout, home)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            refuse_foreign(dir)?;
            describe(dir, &file, layout, home).map_err(io(&file))?;
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let cause = "it is not text".to_owned();
            return Err(OpenError::Damaged { file, cause });
        }
        Err(error) => return Err(io(&file)(error)),
    }
    let store = dir.join(format!("shard-{shard}"));
    let wiped = being_wiped(&store);
    if wiped.exists() {
        fs::remove_dir_all(&wiped).map_err(io(&wiped))?;
    }
    make(&store).map_err(io(&store))?;
    Ok(store)
}

/// Takes everything out of a shard's store. A crash in between leaves it empty or as it was.
pub(super) fn wipe(store: &Path) -> Result<(), OpenError> {
    let io = |cause| OpenError::Io {
        path: store.to_path_buf(),
        cause,
    };
    let wiped = being_wiped(store);
    fs::rename(store, &wiped).map_err(io)?;
    make(store).map_err(io)?;
    fs::remove_dir_all(&wiped).map_err(io)
}

/// What a store is called while it is taken away.
fn being_wiped(store: &Path) -> PathBuf {
    store.with_extension("wiped")
}

/// Makes a directory, and those above it, so that they are there after a loss of power too: a sync of what is in a directory says nothing
/// of the directory itself.
fn make(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    make(parent)?;
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !dir.is_dir() => Err(error),
        _ => fs::File::open(parent)?.sync_all(),
    }
}

fn check(dir: &Path, file: &Path, text: &str, layout: Layout, home: Home) -> Result<(), OpenError> {
    let damaged = |cause: String| OpenError::Damaged {
        file: file.to_path_buf(),
        cause,
    };
    let version: Version = toml::from_str(text).map_err(|error| damaged(error.message().to_owned()))?;
    if version.tidings != MAGIC {
        return Err(damaged(format!("it describes a {:?}", version.tidings)));
    }
    if version.format > FORMAT {
        return Err(OpenError::Newer {
            dir: dir.to_path_buf(),
            found: version.format,
        });
    }
    let described: Described = toml::from_str(text).map_err(|error| damaged(error.message().to_owned()))?;
    let found = Layout::new(described.slots, described.shards).map_err(|error| damaged(error.to_string()))?;
    if found != layout {
        return Err(OpenError::OtherLayout {
            dir: dir.to_path_buf(),
            found,
            configured: layout,
        });
    }
    let found = described.home().map_err(damaged)?;
    if found != home {
        return Err(OpenError::OtherHome {
            dir: dir.to_path_buf(),
            found,
            configured: home,
        });
    }
    Ok(())
}

/// Refuses a directory that holds anything: a file system's `lost+found` and what a crash left of [`describe`] aside.
fn refuse_foreign(dir: &Path) -> Result<(), OpenError> {
    let io = |cause| OpenError::Io {
        path: dir.to_path_buf(),
        cause,
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        if name != "lost+found" && name != UNFINISHED {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    let found = match names.as_slice() {
        [] => return Ok(()),
        names if names.iter().any(|name| name == "CURRENT") => "a RocksDB database of another program".to_owned(),
        [one] => format!("{one:?} and no {FILE} file"),
        [first, rest @ ..] => format!("{first:?}, {} more, and no {FILE} file", rest.len()),
    };
    Err(OpenError::Foreign {
        dir: dir.to_path_buf(),
        found,
    })
}

/// Writes the description so that after a crash it is there whole or not at all.
fn describe(dir: &Path, file: &Path, layout: Layout, home: Home) -> io::Result<()> {
    let text = toml::to_string(&Described::new(layout, home)).map_err(io::Error::other)?;
    let unfinished = dir.join(UNFINISHED);
    fs::write(&unfinished, text)?;
    fs::File::open(&unfinished)?.sync_all()?;
    fs::rename(&unfinished, file)?;
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: Shard = Shard(0);

    fn fresh() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    #[test]
    fn a_new_directory_is_claimed_and_known_again() {
        let parent = fresh();
        let dir = parent.path().join("new/data");
        for _ in 0..2 {
            let store = claim(&dir, Layout::EMBEDDED, Home::Alone, SHARD).expect("ours");
            assert_eq!(store, dir.join("shard-0"));
        }
        let text = fs::read_to_string(dir.join(FILE)).expect("written");
        assert_eq!(
            text,
            "tidings = \"data directory\"\nformat = 1\nslots = 1\nshards = 1\n"
        );
    }

    #[test]
    fn what_a_crash_or_a_file_system_leaves_is_no_obstacle() {
        let dir = fresh();
        fs::write(dir.path().join(UNFINISHED), "tid").expect("written");
        fs::create_dir(dir.path().join("lost+found")).expect("made");
        claim(dir.path(), Layout::EMBEDDED, Home::Alone, SHARD).expect("as good as empty");
    }

    #[test]
    fn a_newer_format_is_refused_whatever_else_it_says() {
        let dir = fresh();
        fs::write(
            dir.path().join(FILE),
            "tidings = \"data directory\"\nformat = 2\nrings = 3\n",
        )
        .expect("written");
        let error = claim(dir.path(), Layout::EMBEDDED, Home::Alone, SHARD).expect_err("newer");
        assert!(matches!(error, OpenError::Newer { found: 2, .. }), "{error}");
    }

    #[test]
    fn another_layout_is_refused_and_both_are_named() {
        let dir = fresh();
        claim(dir.path(), Layout::new(1_024, 3).expect("valid"), Home::Alone, SHARD).expect("new");
        let error = claim(dir.path(), Layout::EMBEDDED, Home::Alone, SHARD).expect_err("another layout");
        let text = error.to_string();
        assert!(text.contains("made for 1024 slots over 3 shards"), "{text}");
        assert!(text.contains("says 1 over 1"), "{text}");
    }

    #[test]
    fn another_home_is_refused_and_both_are_named() {
        let layout = Layout::new(1_024, 8).expect("valid");
        let owner = |ordinal, nodes| Home::Owner { ordinal, nodes };
        let homes = [Home::Alone, owner(0, 2), owner(1, 2), owner(0, 3), Home::Replica];
        for made_for in homes {
            let dir = fresh();
            claim(dir.path(), layout, made_for, SHARD).expect("new");
            for asked in homes {
                match claim(dir.path(), layout, asked, SHARD) {
                    Ok(_) => assert_eq!(asked, made_for),
                    Err(error @ OpenError::OtherHome { .. }) => {
                        let text = error.to_string();
                        assert!(asked != made_for && text.contains(&made_for.to_string()), "{text}");
                        assert!(text.contains(&asked.to_string()), "{text}");
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    #[test]
    fn what_was_being_wiped_is_gone_and_the_store_is_empty() {
        let dir = fresh();
        let store = claim(dir.path(), Layout::EMBEDDED, Home::Replica, SHARD).expect("new");
        fs::write(store.join("CURRENT"), "x").expect("written");
        wipe(&store).expect("wiped");
        assert_eq!(fs::read_dir(&store).expect("there").count(), 0);
        // A crash while it was taken away.
        fs::create_dir(being_wiped(&store)).expect("made");
        claim(dir.path(), Layout::EMBEDDED, Home::Replica, SHARD).expect("ours");
        assert!(!being_wiped(&store).exists());
    }

    #[test]
    fn damaged_descriptions_are_refused() {
        for text in [
            "",
            "format = 1",
            "\u{0}\u{1}",
            "tidings = \"x\"\nformat = 1",
            "tidings = \"data directory\"\nformat = 1",
            "tidings = \"data directory\"\nformat = 1\nslots = 0\nshards = 0",
        ] {
            let dir = fresh();
            fs::write(dir.path().join(FILE), text).expect("written");
            let error = claim(dir.path(), Layout::EMBEDDED, Home::Alone, SHARD).expect_err("damaged");
            assert!(matches!(error, OpenError::Damaged { .. }), "{text:?}: {error}");
        }
        let dir = fresh();
        fs::write(dir.path().join(FILE), [0xff, 0xfe]).expect("written");
        let error = claim(dir.path(), Layout::EMBEDDED, Home::Alone, SHARD).expect_err("damaged");
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    }

    #[test]
    fn foreign_directories_are_left_alone() {
        for (name, expected) in [
            ("CURRENT", "a RocksDB database"),
            ("notes.txt", "\"notes.txt\" and no FORMAT"),
        ] {
            let dir = fresh();
            fs::write(dir.path().join(name), "precious").expect("written");
            let error = claim(dir.path(), Layout::EMBEDDED, Home::Alone, SHARD).expect_err("foreign");
            assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(
                fs::read_dir(dir.path()).expect("listed").count(),
                1,
                "nothing was added"
            );
        }
    }

    #[test]
    fn a_file_is_no_directory() {
        let dir = fresh();
        let file = dir.path().join("file");
        fs::write(&file, "").expect("written");
        let error = claim(&file, Layout::EMBEDDED, Home::Alone, SHARD).expect_err("a file");
        assert!(matches!(error, OpenError::Io { .. }), "{error}");
    }
}
