//! The names of a directory: those that a process sees, those that survive, and the changes between.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::Kept;
use crate::types::FileName;

/// One change of names, done in one piece or not at all.
#[derive(Clone)]
enum Change {
    Create { name: FileName, inode: u64 },
    Rename { from: FileName, to: FileName, inode: u64 },
    Remove { name: FileName, inode: u64 },
}

/// Names and the numbers of their files.
#[derive(Default)]
pub(super) struct Names {
    visible: BTreeMap<FileName, u64>,
    synced: BTreeMap<FileName, u64>,
    unsynced: Vec<Change>,
}

impl Names {
    /// The file that a process finds under this name.
    pub(super) fn visible(&self, name: &FileName) -> Option<u64> {
        self.visible.get(name).copied()
    }

    /// The file that is certain to be found after a power cut.
    pub(super) fn synced(&self, name: &FileName) -> Option<u64> {
        self.synced.get(name).copied()
    }

    /// All visible names.
    pub(super) fn all_visible(&self) -> impl Iterator<Item = (&FileName, u64)> {
        self.visible.iter().map(|(name, &inode)| (name, inode))
    }

    /// All names that are certain to survive.
    pub(super) fn all_synced(&self) -> impl Iterator<Item = (&FileName, u64)> {
        self.synced.iter().map(|(name, &inode)| (name, inode))
    }

    /// Whether any name, visible, synced or between, leads to this file.
    pub(super) fn is_used(&self, inode: u64) -> bool {
        let between = |change: &Change| match *change {
            Change::Create { inode: other, .. } | Change::Rename { inode: other, .. } => other == inode,
            Change::Remove { .. } => false,
        };
        self.visible.values().chain(self.synced.values()).any(|&other| other == inode)
            || self.unsynced.iter().any(between)
    }

    pub(super) fn create(&mut self, name: &FileName, inode: u64) {
        self.change(Change::Create { name: name.clone(), inode });
    }

    /// Whether there was such a file.
    pub(super) fn rename(&mut self, from: &FileName, to: &FileName) -> bool {
        let Some(inode) = self.visible(from) else { return false };
        self.change(Change::Rename { from: from.clone(), to: to.clone(), inode });
        true
    }

    pub(super) fn remove(&mut self, name: &FileName) {
        if let Some(inode) = self.visible(name) {
            self.change(Change::Remove { name: name.clone(), inode });
        }
    }

    /// Makes the visible names durable.
    pub(super) fn sync(&mut self) {
        self.unsynced.clear();
        self.synced.clone_from(&self.visible);
    }

    /// A sync of the directory that is interrupted.
    pub(super) fn sync_some(&mut self, rng: &mut Rng) {
        let count = rng.usize(..=self.unsynced.len());
        for change in self.unsynced.drain(..count) {
            apply(&mut self.synced, &change);
        }
    }

    /// Of the changes that are not durable, any are lost.
    pub(super) fn cut_power(&mut self, kept: Kept, rng: &mut Rng) {
        let changes = std::mem::take(&mut self.unsynced);
        let prefix = rng.usize(..=changes.len());
        for (number, change) in changes.iter().enumerate() {
            let keeps = match kept {
                Kept::Nothing => false,
                Kept::Everything => true,
                Kept::Prefix => number < prefix,
                Kept::Some => rng.bool(),
            };
            if keeps {
                apply(&mut self.synced, change);
            }
        }
        self.visible.clone_from(&self.synced);
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.visible, &change);
        self.unsynced.push(change);
    }
}

/// A removal, and a rename's end for its old name, concern the file that they concerned when they were done: without an
/// earlier change that was lost, another file may have the name.
fn apply(names: &mut BTreeMap<FileName, u64>, change: &Change) {
    match change {
        Change::Create { name, inode } => {
            names.insert(name.clone(), *inode);
        }
        Change::Rename { from, to, inode } => {
            if names.get(from) == Some(inode) {
                names.remove(from);
            }
            names.insert(to.clone(), *inode);
        }
        Change::Remove { name, inode } => {
            if names.get(name) == Some(inode) {
                names.remove(name);
            }
        }
    }
}
