//! One file: what is visible, what is synced, and which sectors lie between.

use fastrand::Rng;

use super::Kept;

/// What a disk writes in one piece.
pub(super) const SECTOR_BYTES: usize = 512;

/// A set of sectors.
#[derive(Clone, Default)]
struct Sectors(Vec<u64>);

impl Sectors {
    fn insert(&mut self, sector: usize) {
        if self.0.len() <= sector / 64 {
            self.0.resize(sector / 64 + 1, 0);
        }
        self.0[sector / 64] |= 1 << (sector % 64);
    }

    fn remove(&mut self, sector: usize) {
        if let Some(word) = self.0.get_mut(sector / 64) {
            *word &= !(1 << (sector % 64));
        }
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// Takes all of them, in order.
    fn take(&mut self) -> Vec<usize> {
        let words = std::mem::take(&mut self.0);
        let bits =
            |(at, word): (usize, u64)| (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit);
        words.into_iter().enumerate().filter(|&(_, word)| word != 0).flat_map(bits).collect()
    }
}

/// A file's content, twice.
#[derive(Default)]
pub(super) struct Inode {
    visible: Vec<u8>,
    synced: Vec<u8>,
    /// Sectors that a sync would write.
    unsynced: Sectors,
    /// Sectors that a failed sync gave up: visible, believed clean, and never written.
    abandoned: Sectors,
}

impl Inode {
    /// What a process reads.
    pub(super) fn visible(&self) -> &[u8] {
        &self.visible
    }

    /// What is certain to survive.
    pub(super) fn synced(&self) -> &[u8] {
        &self.synced
    }

    /// Cuts the visible content to nothing.
    pub(super) fn truncate(&mut self) {
        self.visible.clear();
    }

    /// Writes to the page cache.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let from = usize::try_from(offset).expect("offsets of a simulated disk are small");
        self.lengthen(from + data.len());
        self.visible[from..from + data.len()].copy_from_slice(data);
        self.mark(from, data.len());
    }

    /// Writes zeros to the page cache.
    pub(super) fn write_zeros(&mut self, offset: u64, length: u64) {
        let from = usize::try_from(offset).expect("offsets of a simulated disk are small");
        let length = usize::try_from(length).expect("files of a simulated disk are small");
        self.lengthen(from + length);
        self.visible[from..from + length].fill(0);
        self.mark(from, length);
    }

    /// Writes whole sectors to the disk itself.
    pub(super) fn write_synced(&mut self, offset: u64, data: &[u8]) {
        let from = usize::try_from(offset).expect("offsets of a simulated disk are small");
        self.lengthen(from + data.len());
        self.visible[from..from + data.len()].copy_from_slice(data);
        if self.synced.len() < from + data.len() {
            self.synced.resize(from + data.len(), 0);
        }
        self.synced[from..from + data.len()].copy_from_slice(data);
        for sector in from / SECTOR_BYTES..(from + data.len()).div_ceil(SECTOR_BYTES) {
            self.unsynced.remove(sector);
            self.abandoned.remove(sector);
        }
    }

    /// Makes the content durable, but for what an earlier failed sync gave up.
    pub(super) fn sync(&mut self) {
        self.synced.resize(self.visible.len(), 0);
        for sector in self.unsynced.take() {
            self.sync_sector(sector);
        }
    }

    /// A sync that fails: the kernel forgets that the sectors have to be written.
    pub(super) fn abandon(&mut self) {
        for sector in self.unsynced.take() {
            self.abandoned.insert(sector);
        }
    }

    /// The kernel writes some sectors on its own.
    pub(super) fn write_back(&mut self, rng: &mut Rng) {
        for sector in self.unsynced.take() {
            if rng.bool() {
                self.synced.resize(self.synced.len().max(self.visible.len()), 0);
                self.sync_sector(sector);
            } else {
                self.unsynced.insert(sector);
            }
        }
    }

    /// What was not synced is lost, but for what the disk happened to have.
    pub(super) fn cut_power(&mut self, kept: Kept, rng: &mut Rng) {
        if self.unsynced.is_empty() && self.abandoned.is_empty() && self.visible.len() == self.synced.len() {
            return;
        }
        if self.visible.len() != self.synced.len()
            && (kept == Kept::Everything || (kept != Kept::Nothing && rng.bool()))
        {
            self.synced.resize(self.visible.len(), 0);
        }
        let sectors = self.unsynced.take();
        let prefix = rng.usize(..=sectors.len());
        for (number, sector) in sectors.into_iter().enumerate() {
            let keeps = match kept {
                Kept::Nothing => false,
                Kept::Everything => true,
                Kept::Prefix => number < prefix,
                Kept::Some => rng.bool(),
            };
            if keeps {
                self.sync_sector(sector);
            }
        }
        self.abandoned = Sectors::default();
        self.visible.clone_from(&self.synced);
    }

    fn lengthen(&mut self, length: usize) {
        if self.visible.len() < length {
            self.visible.resize(length, 0);
        }
    }

    fn mark(&mut self, from: usize, length: usize) {
        for sector in from / SECTOR_BYTES..(from + length).div_ceil(SECTOR_BYTES) {
            self.unsynced.insert(sector);
            self.abandoned.remove(sector);
        }
    }

    /// Copies what the synced content's length reaches of one sector.
    fn sync_sector(&mut self, sector: usize) {
        let from = sector * SECTOR_BYTES;
        let to = (from + SECTOR_BYTES).min(self.visible.len()).min(self.synced.len());
        if from < to {
            self.synced[from..to].copy_from_slice(&self.visible[from..to]);
        }
    }
}
