//! The words of the engine: identifiers, time, entries, configurations, messages.
//!
//! Every layer may use them. They carry no behaviour beyond what their own fields decide, and know no layer above.

mod configuration;
mod digest;
mod disk;
mod entry;
mod id;
mod message;
mod recovery;
mod session;
mod snapshot;
mod time;

pub use configuration::{Change, Configuration, GroupSettings, Member, MemberChange, MemberRole};
pub use digest::{DigestAnswer, DigestCheck, DigestVerdict, Divergence, HostDigest, StateDigest};
pub use disk::{AlignedBytes, DiskDone, DiskError, DiskStep, DiskWork, DiskWorkId, FileName, ReadFiles};
pub use entry::{Entry, EntryKind, FIRST_INDEX, HardState, Index, Position, Proposed, Term};
pub use id::{ClusterId, GroupId, Identity, Incarnation, Lineage, ServerId};
pub use message::{AppendOutcome, Message};
pub use recovery::{QuorumRecovery, TERMS_OF_AN_AGE};
pub use session::{Session, SessionId, SessionKey};
pub use snapshot::{SnapshotMeta, SnapshotSection};
pub use time::{LogTime, Time};
