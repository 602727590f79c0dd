//! A directory whose files are being written by others: waits for what they come to hold.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::{io::AsyncReadExt as _, net::unix::pipe::Receiver};

use crate::patiently;

/// A watched directory.
pub(crate) struct Growing {
    dir: PathBuf,
    /// Not a pipe, but read like one.
    changes: Receiver,
}

impl Growing {
    /// Begins to watch.
    pub(crate) fn watch(dir: &Path) -> Self {
        let changes = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).expect("inotify");
        inotify::add_watch(&changes, dir, WatchFlags::CREATE | WatchFlags::MODIFY).expect("a directory");
        Self {
            dir: dir.to_path_buf(),
            changes: Receiver::from_owned_fd_unchecked(changes).expect("a runtime"),
        }
    }

    /// Waits until a file has at least so many whole lines; answers how many it has.
    pub(crate) async fn until_lines(&mut self, name: &str, lines: usize) -> usize {
        let path = self.dir.join(name);
        let grown = async {
            loop {
                let found = count_lines(&path);
                if found >= lines {
                    return found;
                }
                // What changed does not matter: the file says it.
                let events = self.changes.read(&mut [0; 4_096]).await.expect("inotify");
                assert_ne!(events, 0);
            }
        };
        patiently(format_args!("{lines} lines in {name}"), grown).await
    }
}

/// How many whole lines a file has; none if it is not there.
pub(crate) fn count_lines(path: &Path) -> usize {
    let text = fs::read(path).unwrap_or_default();
    text.iter().filter(|&&byte| byte == b'\n').count()
}
