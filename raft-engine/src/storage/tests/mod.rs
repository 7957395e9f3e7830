//! Storage against a disk in memory that loses, tears and reorders what was not synced.

mod crash;
mod disk;
mod golden;
mod rules;
mod snapshots;
mod world;
