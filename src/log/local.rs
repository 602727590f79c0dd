//! The log of this process' own store.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::{runtime::Handle, sync::Semaphore};

use super::{
    Heads, Located, Log, ReadError, Replay, ReplayRequest,
    store::{Store, StoreError},
};
use crate::model::{Shard, UnixMillis};

/// Reads the store of one shard.
///
/// Reading a disk blocks, so reads run on the blocking threads of a runtime of their own choice and whoever asks only awaits. A bounded
/// number run at once; the others wait in the order they came.
#[derive(Debug)]
pub struct LocalLog {
    store: Arc<Store>,
    runtime: Handle,
    reads: Arc<Semaphore>,
}

impl LocalLog {
    /// A log of a store. `concurrent_reads`: how many reads run at once, on blocking threads of `runtime`.
    #[must_use]
    pub fn new(store: Arc<Store>, runtime: Handle, concurrent_reads: usize) -> Self {
        Self {
            store,
            runtime,
            reads: Arc::new(Semaphore::new(concurrent_reads.clamp(1, Semaphore::MAX_PERMITS))),
        }
    }

    fn read<T: Send + 'static>(
        &self,
        shard: Shard,
        read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, ReadError>> {
        let (store, runtime, reads) = (Arc::clone(&self.store), self.runtime.clone(), Arc::clone(&self.reads));
        Box::pin(async move {
            held(&store, shard)?;
            let failed = |error: &dyn std::error::Error| ReadError {
                cause: error.to_string(),
            };
            let turn = reads.acquire_owned().await.map_err(|error| failed(&error))?;
            let reading = runtime.spawn_blocking(move || {
                // Held here rather than outside: a read whose asker is gone still takes a thread.
                let _turn = turn;
                read(&store)
            });
            Ok(reading.await.map_err(|error| failed(&error))??)
        })
    }
}

impl Log for LocalLog {
    fn heads(&self, shard: Shard) -> BoxFuture<'static, Result<Heads, ReadError>> {
        // From memory: nothing blocks.
        let heads = held(&self.store, shard).map(|()| self.store.heads());
        Box::pin(std::future::ready(heads))
    }

    fn replay(&self, request: ReplayRequest) -> BoxFuture<'static, Result<Replay, ReadError>> {
        self.read(request.shard, move |store| store.replay(&request))
    }

    fn locate(&self, shard: Shard, time: UnixMillis) -> BoxFuture<'static, Result<Located, ReadError>> {
        self.read(shard, move |store| {
            let after = store.locate(time)?;
            Ok(Located {
                epoch: store.heads().epoch,
                after,
            })
        })
    }
}

fn held(store: &Store, shard: Shard) -> Result<(), ReadError> {
    if store.shard() == shard {
        Ok(())
    } else {
        Err(ReadError {
            cause: format!("this node holds shard {} and not shard {shard}", store.shard()),
        })
    }
}
