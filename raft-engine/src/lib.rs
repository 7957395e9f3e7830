//! A Raft consensus engine that other programs embed.
//!
//! The folders are layers (docs/architecture.md). `server` and `sim` move bytes, for real or under virtual time, and
//! decide nothing. Everything from `driver` down decides, and touches no file, socket, thread or clock.

#![deny(unsafe_code)]

pub mod codec;
pub mod core;
pub mod driver;
pub mod server;
pub mod session;
pub mod sim;
pub mod storage;
pub mod transport;
pub mod types;
