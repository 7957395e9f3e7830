//! The simulator: whole servers under virtual time, on simulated disks and links, wholly determined by a seed.
//!
//! It runs the same [`crate::driver::Driver`] as the real server, moves the same bytes, and breaks everything around it
//! that may break: processes, power, disks, links, directories. After every step it checks what must hold
//! ([`Invariants`]) against a record that no server can reach. A seed averages a few thousand steps; the same seed gives
//! the same steps, to the last byte, and the trace's hash says so.
//!
//! What lives where: `queue` is time, `disk` and `network` are what servers stand on, `host` is the program that embeds
//! them, `profile`, `faults` and `attacks` say what a seed is like, `history`, `invariants`, `operations` and `linearizability` judge,
//! `trace`, `coverage` and `shrink` tell, and `world` moves it all. It uses the driver and nothing below it, and takes no decision that a server should.

mod attacks;
mod coverage;
mod disk;
mod faults;
mod history;
mod host;
mod invariants;
mod linearizability;
mod network;
mod operations;
mod profile;
mod queue;
mod report;
mod shrink;
mod trace;
mod world;

pub use coverage::Coverage;
pub use history::{Ended, History, Request};
pub use invariants::{Changed, EntryId, Invariants, Limits, Lost, Seen, View, Violation};
pub use linearizability::{Action, NEVER, Operation, Tick, Verdict, check};
pub use operations::{Cell, Change};
pub use report::{Failure, Options, Report, run, shrink};
pub use shrink::{ATTACKS, FAULTS, Reduction};
