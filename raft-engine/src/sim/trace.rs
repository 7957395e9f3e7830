//! What happened, as records of a few numbers: hashed always, kept and made readable only where somebody will read them.
//!
//! The hash covers every record, so that two runs of a seed that differ anywhere differ in it. A passing seed pays for
//! the hash alone; a failing one is run again with a tail.

use std::collections::VecDeque;
use std::fmt;

use crate::types::Time;

macro_rules! kinds {
    ($($name:ident = $text:literal,)*) => {
        /// What a record tells; its text names the numbers in their order.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub(super) enum Kind { $($name,)* }

        impl Kind {
            fn text(self) -> &'static str {
                match self { $(Kind::$name => $text,)* }
            }
        }
    };
}

kinds! {
    Note = "",
    Open = "opens its directory: epoch {}",
    StartGroup = "starts group {} (0 bootstrap, 1 restart, 2 other members, 3 join: {}), host has applied {}",
    Ready = "is ready: incarnation {}",
    Kill = "is killed ({} log writes in flight)",
    PowerCut = "loses power ({} log writes in flight)",
    CloseServer = "is closed by its host",
    Wipe = "has its directory wiped",
    Pause = "is paused for {} us",
    Partition = "network: link masks {} {} {} {} {} {} {} {}",
    Heal = "network: healed",
    Break = "network: stream {} breaks",
    SlowDisk = "disk: slow by {}",
    FailWrite = "disk: the next log write will fail",
    FailSync = "disk: the next sync will fail",
    FullDisk = "disk: room for {} more bytes",
    RoomAgain = "disk: has room again",
    SubmitLog = "disk: log write {} submitted: offset {}, {} bytes, crc {}",
    SubmitJob = "disk: job {} submitted: {} steps",
    SubmitRead = "disk: read {} submitted: offset {}, {} bytes",
    DoneLog = "disk: log write {} done (failed: {})",
    DoneStep = "disk: job {}: step of kind {} (failed: {})",
    DoneJob = "disk: job {} done (failed: {})",
    DoneRead = "disk: read {} done: {} bytes",
    Dial = "dials server {} as connection {}",
    Dialled = "connection {} stands",
    Accepted = "accepts connection {}, stream {}",
    DialFailed = "connection {} failed (refused: {})",
    SendFrame = "sends frame on connection {} to server {}: {} bytes, crc {}",
    Received = "receives {} bytes on connection {}",
    Lost = "network: frame of {} bytes to server {} lost",
    Doubled = "network: frame to server {} doubled",
    CloseConnection = "closes connection {}",
    Closed = "connection {} closed",
    Sent = "connection {}: {} bytes gone",
    Wake = "deadline",
    PreVote = "  to {}: group {} pre-vote for term {}, last {} in term {}",
    PreVoteReply = "  to {}: group {} pre-vote reply, own term {}, for term {}, granted {}",
    Vote = "  to {}: group {} vote for term {}, last {} in term {}, told to: {}",
    VoteReply = "  to {}: group {} vote reply in term {}, granted {}",
    Append = "  to {}: group {} append in term {}, number {}, previous {}",
    AppendMore = "    previous term {}, commit {}, {} entries, last term {}",
    Matched = "  to {}: group {} matched in term {}, number {}, through {}",
    Conflict = "  to {}: group {} conflict in term {}, number {}, previous {}",
    ConflictMore = "    hint {} in term {}, last {}",
    Heartbeat = "  to {}: group {} heartbeat in term {}, round {}, commit {}",
    HeartbeatReply = "  to {}: group {} heartbeat reply in term {}, round {}, promises {} us",
    TimeoutNow = "  to {}: group {} told to stand, in term {}",
    Removed = "  to {}: group {} removed by entry {}",
    Propose = "client: proposes {} items from tag {} in group {}, {} bytes",
    Read = "client: reads with tag {} in group {}, consistency {}, floor {}",
    ChangeMembers = "operator: changes members with tag {} in group {}: {} changes",
    CancelChange = "operator: cancels the change with tag {} in group {}",
    TransferLeadership = "operator: hands over with tag {} in group {} to {}",
    AskSnapshot = "client: asks for a snapshot with tag {} in group {}",
    Apply = "group {}: hands entries {} to {} to its host, {} tickets",
    HostApplied = "group {}: host has applied {}",
    Complete = "group {}: ticket {} of {} ends: outcome {}",
    ReadReady = "group {}: read {} ready at {}",
    BeginSnapshot = "group {}: begins a snapshot at {}",
    SnapshotMore = "group {}: wants more of the snapshot",
    SnapshotChunk = "group {}: host gives {} bytes of snapshot (last: {})",
    ReleaseSnapshot = "group {}: releases the snapshot",
    RestoreSessions = "group {}: wants the sessions restored from the snapshot at {}",
    Restore = "group {}: restores its host from the snapshot at {}",
    Restored = "group {}: host is restored to {}",
    Role = "group {}: role {} in term {}, leader {}",
    Progress = "group {}: commit {}, durable {}, last {} in term {}",
    Liveness = "faults end",
    Recovered = "operator: recovers the group from the loss of its quorum, by entry {} of term {}",
    Stall = "a partial partition is left to stand",
    CheckDigests = "operator: has replicas compared with tag {} in group {}",
    Digested = "group {}: host digests at {}: {}",
    Corrupt = "group {}: the state of the host is corrupted at {}",
    Diverged = "group {}: the verdict at {} goes against this state",
}

/// The most numbers of a record.
const MOST_NUMBERS: usize = 8;

#[derive(Clone, Debug)]
struct Record {
    at: Time,
    server: Option<usize>,
    kind: Kind,
    numbers: [u64; MOST_NUMBERS],
    text: String,
}

/// The rolling hash of a run, and as many of its last records as are wanted.
pub(super) struct Trace {
    hash: u64,
    keep: usize,
    echo: bool,
    tail: VecDeque<Record>,
}

impl Trace {
    /// A trace that keeps the last `keep` records and, if `echo`, prints each as it comes.
    pub(super) fn new(keep: usize, echo: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, keep, echo, tail: VecDeque::new() }
    }

    /// The hash of everything so far.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether records are read by anybody, so that making them costly is worth it.
    pub(super) fn is_read(&self) -> bool {
        self.keep > 0 || self.echo
    }

    /// Adds a record about a server (or the world, where there is none).
    pub(super) fn add<const N: usize>(&mut self, at: Time, server: Option<usize>, kind: Kind, numbers: [u64; N]) {
        self.mix(at.0);
        self.mix(u64::from(kind as u8) << 8 | server.map_or(0xff, |server| server as u64));
        for &number in &numbers {
            self.mix(number);
        }
        if self.is_read() {
            let mut all = [0; MOST_NUMBERS];
            all[..N].copy_from_slice(&numbers);
            self.keep(Record { at, server, kind, numbers: all, text: String::new() });
        }
    }

    /// Adds a line for whoever reads; it is not hashed.
    pub(super) fn comment(&mut self, at: Time, server: usize, text: String) {
        if self.is_read() {
            self.keep(Record { at, server: Some(server), kind: Kind::Note, numbers: [0; MOST_NUMBERS], text });
        }
    }

    /// The last records, a line each.
    pub(super) fn tail(&self) -> String {
        self.tail.iter().map(|record| format!("{record}\n")).collect()
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn keep(&mut self, record: Record) {
        if self.echo {
            println!("{record}");
        }
        if self.keep > 0 {
            if self.tail.len() == self.keep {
                self.tail.pop_front();
            }
            self.tail.push_back(record);
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>12.6} ", self.at.0 as f64 / 1e9)?;
        match self.server {
            Some(server) => write!(f, "s{} ", server + 1)?,
            None => write!(f, "-- ")?,
        }
        if self.kind == Kind::Note {
            return f.write_str(&self.text);
        }
        let mut numbers = self.numbers.iter();
        for (at, part) in self.kind.text().split("{}").enumerate() {
            if at > 0 {
                write!(f, "{}", numbers.next().copied().unwrap_or(0))?;
            }
            f.write_str(part)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_differs_in_one_number_has_another_hash() {
        let hash = |number| {
            let mut trace = Trace::new(0, false);
            trace.add(Time(1), Some(0), Kind::Ready, [number]);
            trace.add(Time(2), None, Kind::Heal, []);
            trace.hash()
        };
        assert_eq!(hash(1), hash(1));
        assert_ne!(hash(1), hash(2));
    }

    #[test]
    fn the_tail_names_its_numbers() {
        let mut trace = Trace::new(1, false);
        trace.add(Time(0), Some(0), Kind::Wake, []);
        trace.add(Time(1_500_000_000), Some(2), Kind::Read, [7, 1, 0, 12]);
        assert_eq!(trace.tail(), "    1.500000 s3 client: reads with tag 7 in group 1, consistency 0, floor 12\n");
    }
}
