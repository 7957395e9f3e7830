//! The C ABI of [`raft_engine`]: `libraft.so`, `libraft.a` and `include/raft/raft.h`.
//!
//! Each section of the header is a file here, and `raft-header` makes the one from the others, comments and all: what
//! is said about a function is written for its C callers. This crate adds no behaviour to the engine. It checks what
//! comes in, catches what must not get out, and translates words; docs/abi.md has what crosses and how it may change.

// Every exported function is as unsafe as its section of the header says: there is no other contract to repeat.
#![allow(clippy::missing_safety_doc)]

mod call;
pub mod change;
mod completion;
pub mod config;
pub mod digest;
pub mod directory;
pub mod error;
pub mod group;
mod handle;
mod host;
mod live;
pub mod propose;
pub mod read;
mod request;
pub mod server;
pub mod session;
pub mod snapshot;
pub mod start;
pub mod state_machine;
pub mod status;
pub mod version;
