//! Something that is made from files, and made anew when they hold something else.

use std::{
    convert::Infallible,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::{
    TlsError,
    files::{Content, NamedFile},
};

/// How often the files are looked at. They are small.
const LOOK: Duration = Duration::from_secs(1);

type Make<T> = dyn Fn(&[Content]) -> Result<T, TlsError> + Send + Sync;

/// See the module.
pub(super) struct Kept<T> {
    files: Arc<[NamedFile]>,
    make: Box<Make<T>>,
    current: RwLock<Arc<T>>,
    /// What the files held at first.
    first: Prints,
}

impl<T> Kept<T> {
    /// Makes it. What is handed to `make` are the files in their order.
    pub(super) fn load(
        files: Vec<NamedFile>,
        make: impl Fn(&[Content]) -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        let contents = read(&files);
        Ok(Self {
            current: RwLock::new(Arc::new(make(&contents)?)),
            make: Box::new(make),
            files: files.into(),
            first: prints(&contents),
        })
    }

    /// As it is now.
    pub(super) fn current(&self) -> Arc<T> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files until it is dropped.
    pub(super) async fn keep(&self) -> Infallible {
        let mut looks = Looks::new(self.first.clone());
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            let files = Arc::clone(&self.files);
            // Not on a thread that others wait for: they may be on a disk that hangs. An error means that the process ends.
            let Ok(contents) = tokio::task::spawn_blocking(move || read(&files)).await else {
                continue;
            };
            if !looks.see(prints(&contents)) {
                continue;
            }
            match (self.make)(&contents) {
                Ok(new) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                    let files: Vec<_> = self.files.iter().map(|file| file.setting).collect();
                    info!(?files, "certificates have changed: new connections have the new ones");
                }
                Err(error) => warn!(%error, "certificates have changed and cannot be used: those from before are kept"),
            }
        }
    }
}

impl<T> std::fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

fn read(files: &[NamedFile]) -> Vec<Content> {
    files.iter().map(NamedFile::read).collect()
}

/// What the files hold, each: nothing for one that cannot be read.
type Prints = Vec<Option<[u8; 32]>>;

fn prints(contents: &[Content]) -> Prints {
    contents.iter().map(Content::print).collect()
}

/// Decides when files have changed. They are written one after the other, and each in pieces: what is only half there must neither be
/// taken nor complained of, so it has to be the same at two looks.
#[derive(Debug)]
struct Looks {
    /// What was last taken, or tried in vain.
    tried: Prints,
    last: Prints,
}

impl Looks {
    fn new(taken: Prints) -> Self {
        Self {
            last: taken.clone(),
            tried: taken,
        }
    }

    /// Whether this is to be tried.
    fn see(&mut self, prints: Prints) -> bool {
        let is_new = prints == self.last && prints != self.tried;
        if is_new {
            self.tried.clone_from(&prints);
        }
        self.last = prints;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_has_settled_and_once() {
        let print = |byte: u8| vec![Some([byte; 32])];
        let mut looks = Looks::new(print(0));
        let seen: Vec<bool> = [0, 1, 2, 2, 2, 3, 2, 2, 0, 0, 0]
            .into_iter()
            .map(|byte| looks.see(print(byte)))
            .collect();
        // 1 and 3 were gone again at the next look; 2 was there already; 0 was there long ago.
        assert_eq!(
            seen,
            [
                false, false, false, true, false, false, false, false, false, true, false
            ]
        );
    }

    #[test]
    fn a_file_that_is_gone_is_a_change_too() {
        let mut looks = Looks::new(vec![Some([1; 32]), Some([2; 32])]);
        assert!(!looks.see(vec![Some([1; 32]), None]));
        assert!(looks.see(vec![Some([1; 32]), None]));
    }
}
