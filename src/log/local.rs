//! The log of this process' own stores.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use futures::future::BoxFuture;
use tokio::runtime::Handle;

use super::{
    Heads, Located, Log, ReadError, Replay, ReplayRequest,
    readers::Readers,
    store::{Store, StoreError},
};
use crate::model::{Shard, UnixMillis};

/// Reads the stores of the shards that this node holds.
///
/// Reading a disk blocks, so reads run on the blocking threads of a runtime of their own choice and whoever asks only awaits. A bounded
/// number run at once, over all shards; the others wait in the order they came.
///
/// Which shards it holds may change: one that is being rebuilt is not held ([`ReadError::NotHeld`]) until it can be trusted. A copy of what
/// others hold too is to be held only once it is known to be of the present epoch, and let go when it can no longer follow: whoever asks goes
/// to another node then, and would be kept waiting otherwise.
#[derive(Debug)]
pub struct LocalLog {
    stores: RwLock<BTreeMap<Shard, Arc<Store>>>,
    replays: Arc<Readers>,
    fills: Arc<Readers>,
}

impl LocalLog {
    /// A log of one store. `concurrent_reads`: how many reads run at once, on blocking threads of `runtime`.
    #[must_use]
    pub fn new(store: Arc<Store>, runtime: Handle, concurrent_reads: usize) -> Self {
        let log = Self::empty(runtime, concurrent_reads);
        log.hold(store);
        log
    }

    /// A log that holds no shard yet.
    #[must_use]
    pub fn empty(runtime: Handle, concurrent_reads: usize) -> Self {
        Self {
            stores: RwLock::default(),
            // Few, since one read fills a slot for all who are live in it.
            fills: Arc::new(Readers::new(runtime.clone(), concurrent_reads / 4)),
            replays: Arc::new(Readers::new(runtime, concurrent_reads)),
        }
    }

    /// Holds a shard from now on. Whatever store it held of it until now is returned; reads of that which are under way go on.
    pub fn hold(&self, store: Arc<Store>) -> Option<Arc<Store>> {
        let mut stores = self.stores.write().unwrap_or_else(PoisonError::into_inner);
        stores.insert(store.shard(), store)
    }

    /// Does not hold a shard any more.
    pub fn let_go(&self, shard: Shard) -> Option<Arc<Store>> {
        let mut stores = self.stores.write().unwrap_or_else(PoisonError::into_inner);
        stores.remove(&shard)
    }

    /// The store of a shard, if it is held.
    ///
    /// # Errors
    /// If it is not.
    pub fn store(&self, shard: Shard) -> Result<Arc<Store>, ReadError> {
        let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
        stores.get(&shard).cloned().ok_or(ReadError::NotHeld(shard))
    }

    fn read<T: Send + 'static>(
        &self,
        shard: Shard,
        readers: &Arc<Readers>,
        read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, ReadError>> {
        let (store, readers) = (self.store(shard), Arc::clone(readers));
        Box::pin(async move {
            let store = store?;
            let answer = readers.read(move || read(&store)).await;
            Ok(answer.map_err(|_| ReadError::failed("the read came to no end"))??)
        })
    }
}

impl Log for LocalLog {
    fn heads(&self, shard: Shard) -> BoxFuture<'static, Result<Heads, ReadError>> {
        // From memory: nothing blocks.
        let heads = self.store(shard).map(|store| store.heads());
        Box::pin(std::future::ready(heads))
    }

    fn replay(&self, request: ReplayRequest) -> BoxFuture<'static, Result<Replay, ReadError>> {
        self.read(request.shard, &self.replays, move |store| store.replay(&request))
    }

    fn fill(&self, request: ReplayRequest) -> BoxFuture<'static, Result<Replay, ReadError>> {
        self.read(request.shard, &self.fills, move |store| store.replay(&request))
    }

    fn locate(&self, shard: Shard, time: UnixMillis) -> BoxFuture<'static, Result<Located, ReadError>> {
        self.read(shard, &self.replays, move |store| {
            let after = store.locate(time)?;
            Ok(Located {
                epoch: store.heads().epoch,
                after,
            })
        })
    }
}
