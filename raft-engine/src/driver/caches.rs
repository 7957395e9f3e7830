//! Recent entries in memory, of all groups together. The budget is the server's; each core keeps to all of it, and where
//! several would fill it, whoever was not written to for the longest time gives way first.

use std::collections::BTreeMap;

use super::Driver;
use crate::types::GroupId;

/// What all groups keep in memory.
#[derive(Debug, Default)]
pub(super) struct Caches {
    /// In bytes, of each group as of when it was looked at last.
    total_bytes: usize,
    /// Groups that have something to give, by when they grew.
    order: BTreeMap<u64, GroupId>,
    /// Counts every growth.
    clock: u64,
}

/// What is noted of one group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cached {
    bytes: usize,
    /// Its place in the order; 0: none.
    place: u64,
}

impl Driver {
    /// Notes what a group keeps in memory that was looked at.
    pub(super) fn account_cache(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(bytes) = group.formed().map(|formed| formed.raft.cache_bytes()) else { return };
        let (caches, cached) = (&mut self.caches, &mut group.cached);
        caches.total_bytes = caches.total_bytes - cached.bytes + bytes;
        if bytes > cached.bytes || (bytes > 0 && cached.place == 0) {
            caches.order.remove(&cached.place);
            caches.clock += 1;
            cached.place = caches.clock;
            caches.order.insert(cached.place, id);
        }
        cached.bytes = bytes;
    }

    /// At the beginning of a turn's end, so that what came in a turn is there to be seen after it: lets go of entries until
    /// all groups together are in the budget, or have nothing that may go: what is not both committed and on the own disk
    /// stays.
    pub(super) fn trim_caches(&mut self) {
        let budget_bytes = self.settings.cache_bytes;
        while self.caches.total_bytes > budget_bytes
            && let Some((place, id)) = self.caches.order.pop_first()
        {
            let Some(group) = self.groups.get_aside(&id) else { continue };
            let excess = self.caches.total_bytes - budget_bytes;
            let kept = group.cached.bytes.saturating_sub(excess);
            let bytes = group.run(|raft| {
                raft.shrink_cache(kept);
                raft.cache_bytes()
            });
            let bytes = bytes.unwrap_or(0);
            self.caches.total_bytes = self.caches.total_bytes - group.cached.bytes + bytes;
            group.cached = Cached { bytes, place: 0 };
            if self.caches.total_bytes <= budget_bytes && bytes > 0 {
                group.cached.place = place;
                self.caches.order.insert(place, id);
            }
        }
    }
}
