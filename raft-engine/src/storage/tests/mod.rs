//! Storage against a disk in memory that loses, tears and reorders what was not synced.

mod crash;
pub(crate) mod disk;
mod golden;
mod recovery;
mod rules;
mod snapshots;
mod world;
