//! What crosses languages and processes: the parts that the tests of this crate are made of.
//!
//! It depends on nothing that the programs under test do to pass: it has its own client, its own record of what every
//! client saw, its own judges of that record, and its own reader of system-call traces.

#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "tests of real processes live in real time")]

pub mod cluster;
pub mod durability;
pub mod edges;
pub mod history;
pub mod links;
pub mod resp;
pub mod trace;
pub mod workload;
