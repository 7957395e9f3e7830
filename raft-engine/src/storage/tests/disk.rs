//! A data directory in memory, with a write cache: what was not synced is lost, torn or reordered by a power cut, and
//! survives the death of a process.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::types::{DiskError, DiskStep, FileName, ReadFiles};

const SECTOR_BYTES: usize = 512;

/// One file: what the disk has, and what was written since.
#[derive(Clone, Debug, Default)]
struct File {
    durable: Vec<u8>,
    cached: Vec<u8>,
    /// Written since the last sync, in order: where, and how many bytes.
    dirty: Vec<(usize, Vec<u8>)>,
}

/// A change of names that is not durable.
#[derive(Clone, Debug)]
enum NameChange {
    Set(FileName, u64),
    Remove(FileName),
}

/// The directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    files: BTreeMap<u64, File>,
    names: BTreeMap<FileName, u64>,
    durable_names: BTreeMap<FileName, u64>,
    changes: Vec<NameChange>,
    last_file: u64,
    /// No file may grow beyond what all have now.
    pub(crate) is_full: bool,
}

impl Disk {
    pub(crate) fn content(&self, name: &FileName) -> Option<&[u8]> {
        Some(&self.files[self.names.get(name)?].cached)
    }

    /// Changes bytes behind everyone's back, durably.
    pub(crate) fn damage(&mut self, name: &FileName, change: impl FnOnce(&mut Vec<u8>)) {
        let file = self.files.get_mut(&self.names[name]).unwrap();
        assert!(file.dirty.is_empty());
        change(&mut file.cached);
        file.durable = file.cached.clone();
    }

    pub(crate) fn remove(&mut self, name: &FileName) {
        self.names.remove(name);
        self.durable_names.remove(name);
    }

    pub(crate) fn rename(&mut self, from: &FileName, to: &FileName) {
        let file = self.names.remove(from).unwrap();
        self.names.insert(to.clone(), file);
        self.durable_names = self.names.clone();
    }

    pub(crate) fn names(&self) -> Vec<FileName> {
        self.names.keys().cloned().collect()
    }

    fn error(action: &'static str, file: &FileName, is_full: bool) -> DiskError {
        DiskError { action, file: file.clone(), is_full, message: "no".into() }
    }

    pub(crate) fn write(&mut self, name: &FileName, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        let is_full = self.is_full;
        let number = *self.names.get(name).ok_or_else(|| Self::error("open", name, false))?;
        let file = self.files.get_mut(&number).unwrap();
        let (offset, end) = (offset as usize, offset as usize + data.len());
        if file.cached.len() < end {
            if is_full {
                return Err(Self::error("write", name, true));
            }
            file.cached.resize(end, 0);
        }
        file.cached[offset..end].copy_from_slice(data);
        file.dirty.push((offset, data.to_vec()));
        Ok(())
    }

    pub(crate) fn sync(&mut self, name: &FileName) -> Result<(), DiskError> {
        let number = *self.names.get(name).ok_or_else(|| Self::error("open", name, false))?;
        let file = self.files.get_mut(&number).unwrap();
        file.dirty.clear();
        file.durable = file.cached.clone();
        Ok(())
    }

    fn create(&mut self, name: &FileName, data: &[u8]) -> Result<(), DiskError> {
        if self.is_full {
            return Err(Self::error("create", name, true));
        }
        match self.names.get(name) {
            Some(number) => {
                let file = self.files.get_mut(number).unwrap();
                file.cached.clear();
                file.dirty.clear();
                // The old content may or may not be gone after a power cut; gone is the harder case.
                file.durable.clear();
            }
            None => {
                self.last_file += 1;
                self.files.insert(self.last_file, File::default());
                self.set_name(name, self.last_file);
            }
        }
        self.write(name, 0, data)
    }

    fn set_name(&mut self, name: &FileName, file: u64) {
        self.names.insert(name.clone(), file);
        self.changes.push(NameChange::Set(name.clone(), file));
    }

    fn remove_name(&mut self, name: &FileName) {
        if self.names.remove(name).is_some() {
            self.changes.push(NameChange::Remove(name.clone()));
        }
    }

    pub(crate) fn step(&mut self, step: &DiskStep) -> Result<(), DiskError> {
        match step {
            DiskStep::CreateZeroed { file, length } => self.create(file, &vec![0; *length as usize]),
            DiskStep::Create { file, data } => self.create(file, data),
            DiskStep::Write { file, offset, data } => self.write(file, *offset, data),
            DiskStep::WriteZeros { file, offset, length } => self.write(file, *offset, &vec![0; *length as usize]),
            DiskStep::Sync { file } => self.sync(file),
            DiskStep::Rename { from, to } => {
                let number = *self.names.get(from).ok_or_else(|| Self::error("rename", from, false))?;
                // Atomic: the new name and the end of the old one are one change, or the old one stays beside it.
                self.set_name(to, number);
                self.remove_name(from);
                Ok(())
            }
            DiskStep::Remove { file } => {
                self.remove_name(file);
                Ok(())
            }
            DiskStep::SyncDirectory => {
                self.changes.clear();
                self.durable_names = self.names.clone();
                Ok(())
            }
        }
    }

    /// The power fails: of what was not synced, any sectors are there, and a prefix of the names' changes.
    pub(crate) fn power_cut(&mut self, random: &mut fastrand::Rng) {
        for file in self.files.values_mut() {
            let share = random.u8(0..=4);
            for (offset, data) in std::mem::take(&mut file.dirty) {
                for (sector, bytes) in data.chunks(SECTOR_BYTES).enumerate() {
                    if random.u8(0..4) < share {
                        let start = offset + sector * SECTOR_BYTES;
                        let end = start + bytes.len();
                        if file.durable.len() < end {
                            file.durable.resize(end, 0);
                        }
                        file.durable[start..end].copy_from_slice(bytes);
                    }
                }
            }
            file.cached = file.durable.clone();
        }
        let kept = random.usize(0..=self.changes.len());
        for change in self.changes.drain(..).take(kept) {
            match change {
                NameChange::Set(name, file) => drop(self.durable_names.insert(name, file)),
                NameChange::Remove(name) => drop(self.durable_names.remove(&name)),
            }
        }
        self.names = self.durable_names.clone();
    }

    /// A write on its way when the process dies: any sectors of it reach the cache.
    pub(crate) fn tear(&mut self, name: &FileName, offset: u64, data: &[u8], random: &mut fastrand::Rng) {
        let share = random.u8(0..=4);
        for (sector, bytes) in data.chunks(SECTOR_BYTES).enumerate() {
            if random.u8(0..4) < share {
                let _ = self.write(name, offset + (sector * SECTOR_BYTES) as u64, bytes);
            }
        }
    }
}

impl ReadFiles for Disk {
    fn list(&mut self) -> Result<Vec<(FileName, u64)>, DiskError> {
        Ok(self.names.iter().map(|(name, file)| (name.clone(), self.files[file].cached.len() as u64)).collect())
    }

    fn read(&mut self, file: &FileName, offset: u64, length: usize) -> Result<Bytes, DiskError> {
        let content = self.content(file).ok_or_else(|| Self::error("open", file, false))?;
        let start = (offset as usize).min(content.len());
        let end = (start + length).min(content.len());
        Ok(Bytes::copy_from_slice(&content[start..end]))
    }
}
