//! Judges a server by its system calls: no acknowledgement, vote or term leaves before the write under it is durable.
//!
//! It follows what the server put on its disk, from the log batches that it wrote (docs/disk-format.md), and what it
//! said, from the frames that it sent (docs/wire-format.md). Both layouts are read here anew, by their documented
//! offsets: what the server believes of its own disk plays no part. It judges a server from its first open on, whose
//! directory was empty: what an earlier process left on the disk is not in the trace.

use std::collections::BTreeMap;

use crate::trace::{Call, Descriptor, Stop};

/// What was found in a trace that broke no rule.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Account {
    /// Batches written to the log.
    pub log_batches: u64,
    /// Entries of the host in them.
    pub commands: u64,
    /// Acknowledgements of entries that were sent, each found to stand on durable entries.
    pub acknowledgements: u64,
    /// Votes granted to others that were sent, each found to be durable.
    pub votes: u64,
    /// All messages with a term that were sent, each found to be of a durable term.
    pub terms: u64,
}

/// A message that left too early.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("to {to}, in call {call}: {what}; durable were {durable:?}")]
pub struct TooEarly {
    /// The connection.
    pub to: String,
    /// Which call of the trace, from 1.
    pub call: usize,
    /// What was said.
    pub what: String,
    /// What the disk held for sure when the call began.
    pub durable: Durable,
}

/// What of one group is on the disk for sure.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Durable {
    /// The hard state's term.
    pub term: u64,
    /// The hard state's vote; 0 for none.
    pub vote: u64,
    /// The last entry.
    pub last: u64,
}

/// One write to the log on its way.
struct LogWrite {
    file: Descriptor,
    batch: Vec<u8>,
    is_synchronous: bool,
    progress: Progress,
}

#[derive(PartialEq, Eq)]
enum Progress {
    Submitted,
    Written,
    Durable,
}

/// Bytes on their way to a connection.
struct Send {
    to: Descriptor,
    bytes: Vec<u8>,
    /// What was durable when the call began, by group.
    durable: BTreeMap<u64, Durable>,
}

/// A stream of frames on one connection.
#[derive(Default)]
struct Stream {
    /// A frame whose rest has not been sent.
    partial: Vec<u8>,
    /// What was durable when its first byte left.
    durable_then: Option<BTreeMap<u64, Durable>>,
}

/// Follows one server through its trace.
struct Judge<'a> {
    /// Which member listens at which address, to know whom a vote is for.
    members: &'a BTreeMap<String, u64>,
    synchronous_files: BTreeMap<i32, bool>,
    /// In the order of submission.
    writes: Vec<(usize, LogWrite)>,
    /// Syncs on their way, by call: the writes that were complete when each began.
    syncs: BTreeMap<usize, Vec<usize>>,
    /// How many of `writes` are folded into `durable`.
    folded: usize,
    durable: BTreeMap<u64, Durable>,
    streams: BTreeMap<Descriptor, Stream>,
    /// Sends on their way, by call.
    sends: BTreeMap<usize, Send>,
    account: Account,
}

/// Follows a server's trace to its end. `members` says who listens at `host:port`.
pub fn judge(stops: &[Stop], members: &BTreeMap<String, u64>) -> Result<Account, TooEarly> {
    let mut judge = Judge {
        members,
        synchronous_files: BTreeMap::new(),
        writes: Vec::new(),
        syncs: BTreeMap::new(),
        folded: 0,
        durable: BTreeMap::new(),
        streams: BTreeMap::new(),
        sends: BTreeMap::new(),
        account: Account::default(),
    };
    let mut opens = BTreeMap::new();
    for stop in stops {
        match stop {
            Stop::Entered(number, call) => {
                if call.name == "openat" {
                    opens.insert(*number, call.arguments.contains("O_DSYNC") || call.arguments.contains("O_SYNC"));
                }
                judge.entered(*number, call);
            }
            Stop::Left(number, result, descriptor) => {
                if let (Some(is_synchronous), Some(file)) = (opens.remove(number), descriptor) {
                    judge.synchronous_files.insert(file.number, is_synchronous);
                }
                judge.left(*number, *result)?;
            }
        }
    }
    Ok(judge.account)
}

impl Judge<'_> {
    fn entered(&mut self, number: usize, call: &Call) {
        let Some(descriptor) = call.descriptor.clone() else { return };
        let matters = call.bytes.starts_with(BATCH_MAGIC) || descriptor.target.starts_with("TCP");
        assert!(!(matters && call.is_cut), "the trace does not show all of call {number}: raise strace's -s");
        match call.name.as_str() {
            "pwrite64" | "pwritev" | "pwritev2" | "write" if call.bytes.starts_with(BATCH_MAGIC) => {
                let is_synchronous = self.synchronous_files.get(&descriptor.number).copied().unwrap_or(false)
                    || call.arguments.contains("RWF_DSYNC");
                let batch = call.bytes.clone();
                self.count_batch(&batch);
                let write = LogWrite { file: descriptor, batch, is_synchronous, progress: Progress::Submitted };
                self.writes.push((number, write));
            }
            "fdatasync" | "fsync" => {
                let covered = self
                    .writes
                    .iter()
                    .filter(|(_, write)| write.progress == Progress::Written && write.file.target == descriptor.target);
                self.syncs.insert(number, covered.map(|(number, _)| *number).collect());
            }
            "write" | "writev" | "sendto" | "sendmsg" if descriptor.target.starts_with("TCP") => {
                let (bytes, durable) = (call.bytes.clone(), self.durable.clone());
                self.sends.insert(number, Send { to: descriptor, bytes, durable });
            }
            "close" => {
                self.streams.remove(&descriptor);
            }
            _ => {}
        }
    }

    fn left(&mut self, number: usize, result: i64) -> Result<(), TooEarly> {
        if let Some((_, write)) = self.writes.iter_mut().skip(self.folded).find(|(write, _)| *write == number) {
            if usize::try_from(result) == Ok(write.batch.len()) {
                write.progress = if write.is_synchronous { Progress::Durable } else { Progress::Written };
            }
            self.fold();
        }
        if let Some(covered) = self.syncs.remove(&number).filter(|_| result == 0) {
            for (write, state) in &mut self.writes {
                if covered.contains(write) {
                    state.progress = Progress::Durable;
                }
            }
            self.fold();
        }
        match self.sends.remove(&number) {
            Some(mut send) if result > 0 => {
                send.bytes.truncate(usize::try_from(result).expect("positive"));
                self.sent(number, send)
            }
            _ => Ok(()),
        }
    }

    /// A write counts when it and every earlier one are durable.
    fn fold(&mut self) {
        while let Some((_, write)) = self.writes.get(self.folded)
            && write.progress == Progress::Durable
        {
            fold_batch(&write.batch, &mut self.durable);
            self.folded += 1;
        }
    }

    fn count_batch(&mut self, batch: &[u8]) {
        self.account.log_batches += 1;
        let rows = rows_of(batch);
        self.account.commands += rows.iter().filter(|row| row[0] == COMMAND).count() as u64;
    }

    fn sent(&mut self, call: usize, send: Send) -> Result<(), TooEarly> {
        let Send { to: descriptor, bytes, durable } = send;
        let stream = self.streams.entry(descriptor.clone()).or_default();
        let mut then = stream.durable_then.take().unwrap_or_else(|| durable.clone());
        stream.partial.extend_from_slice(&bytes);
        if !stream.partial.starts_with(&FRAME_MAGIC[..FRAME_MAGIC.len().min(stream.partial.len())]) {
            stream.partial.clear(); // A client's connection.
            return Ok(());
        }
        let mut frames = Vec::new();
        while stream.partial.len() >= FRAME_HEADER_BYTES {
            let length =
                FRAME_HEADER_BYTES + u32_at(&stream.partial, 16) as usize + u32_at(&stream.partial, 20) as usize;
            if stream.partial.len() < length {
                break;
            }
            let rest = stream.partial.split_off(length);
            frames.push((std::mem::replace(&mut stream.partial, rest), std::mem::replace(&mut then, durable.clone())));
        }
        stream.durable_then = (!stream.partial.is_empty()).then_some(then);
        for (frame, durable) in frames {
            self.frame(call, &descriptor, &frame, &durable)?;
        }
        Ok(())
    }

    /// Holds one frame to what was durable when its first byte left.
    fn frame(
        &mut self,
        call: usize,
        descriptor: &Descriptor,
        frame: &[u8],
        durable: &BTreeMap<u64, Durable>,
    ) -> Result<(), TooEarly> {
        let (kind, group) = (frame[4], u64_at(frame, 8));
        let metadata = &frame[FRAME_HEADER_BYTES..];
        let durable = |group| durable.get(&group).copied().unwrap_or_default();
        let too_early = |durable, what| Err(TooEarly { to: descriptor.target.clone(), call, what, durable });
        for (group, term) in terms_of(kind, group, metadata) {
            if durable(group).term < term {
                let what = format!("a message of kind {kind:#x} of group {group} in term {term}");
                return too_early(durable(group), what);
            }
            self.account.terms += 1;
        }
        let durable = durable(group);
        if kind == APPEND_REPLY && u32_at(metadata, 16) == MATCHED {
            let through = u64_at(metadata, 20);
            if durable.last < through {
                return too_early(durable, format!("an acknowledgement of the entries through {through}"));
            }
            self.account.acknowledgements += 1;
        }
        if kind == VOTE_REPLY && metadata[8] == 1 {
            let to = descriptor.target.rsplit("->").next().unwrap_or_default().trim_end_matches(']');
            let candidate = self.members.get(to).copied().unwrap_or(0);
            let term = u64_at(metadata, 0);
            if durable.term != term || candidate == 0 || durable.vote != candidate {
                return too_early(durable, format!("a vote for {candidate} in term {term}"));
            }
            self.account.votes += 1;
        }
        Ok(())
    }
}

// docs/wire-format.md
const FRAME_MAGIC: &[u8] = b"rft\x01";
const FRAME_HEADER_BYTES: usize = 28;
const VOTE_REPLY: u8 = 0x23;
const APPEND_REPLY: u8 = 0x25;
/// PreVoteReply, Vote, VoteReply, Append, AppendReply: each begins with its sender's term.
const WITH_DURABLE_TERM: &[u8] = &[0x21, 0x22, VOTE_REPLY, 0x24, APPEND_REPLY];
/// Heartbeats, HeartbeatReplies: a count of rows, each of which begins with a group and its sender's term in it.
const WITH_DURABLE_TERMS: &[u8] = &[0x26, 0x27];
const HEARTBEAT_ROW_BYTES: usize = 32;
/// The variant of an answer that acknowledges.
const MATCHED: u32 = 0;

// docs/disk-format.md
const BATCH_MAGIC: &[u8] = b"raftbtch";
const BATCH_HEADER_BYTES: usize = 96;
const ROW_BYTES: usize = 48;
/// The kind of an entry that is the host's.
const COMMAND: u8 = 4;
/// Control records, by variant.
const HARD_STATE: u32 = 2;
const TRUNCATE: u32 = 3;

/// The groups and terms of which a frame says that its sender is in them.
fn terms_of(kind: u8, group: u64, metadata: &[u8]) -> Vec<(u64, u64)> {
    if WITH_DURABLE_TERMS.contains(&kind) {
        let rows = metadata[8..].chunks_exact(HEARTBEAT_ROW_BYTES);
        rows.map(|row| (u64_at(row, 0), u64_at(row, 8))).collect()
    } else if WITH_DURABLE_TERM.contains(&kind) {
        vec![(group, u64_at(metadata, 0))]
    } else {
        Vec::new()
    }
}

fn rows_of(batch: &[u8]) -> &[[u8; ROW_BYTES]] {
    let rows = u32_at(batch, 16) as usize;
    batch[BATCH_HEADER_BYTES..][..rows * ROW_BYTES].as_chunks().0
}

/// Takes the records of a batch in their order: before each row, the control records that say so.
fn fold_batch(batch: &[u8], durable: &mut BTreeMap<u64, Durable>) {
    let rows = rows_of(batch);
    let control_at = BATCH_HEADER_BYTES + rows.len() * ROW_BYTES;
    let mut control = &batch[control_at..][..u32_at(batch, 20) as usize];
    let mut taken = 0;
    let mut take_rows = |until: usize, durable: &mut BTreeMap<u64, Durable>| {
        for row in &rows[taken..until] {
            durable.entry(u64_at(row, 8)).or_default().last = u64_at(row, 16);
        }
        taken = until;
    };
    while !control.is_empty() {
        let (rows_before, length) = (u32_at(control, 0) as usize, u32_at(control, 4) as usize);
        let body = &control[8..8 + length];
        control = &control[8 + length..];
        take_rows(rows_before, durable);
        match u32_at(body, 0) {
            HARD_STATE => {
                let state = durable.entry(u64_at(body, 4)).or_default();
                state.term = u64_at(body, 12);
                state.vote = if body[20] == 1 { u64_at(body, 21) } else { 0 };
            }
            TRUNCATE => {
                let state = durable.entry(u64_at(body, 4)).or_default();
                state.last = state.last.min(u64_at(body, 12) - 1);
            }
            _ => {}
        }
    }
    take_rows(rows.len(), durable);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("a whole structure"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("a whole structure"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "TCP:[127.0.0.1:9->127.0.0.1:2]";

    fn batch(entries: &[u64], hard_state: Option<(u64, u64)>) -> Vec<u8> {
        let mut control = Vec::new();
        if let Some((term, vote)) = hard_state {
            let mut body = HARD_STATE.to_le_bytes().to_vec();
            body.extend([1_u64, term].iter().flat_map(|word| word.to_le_bytes()));
            body.push(1);
            body.extend(vote.to_le_bytes());
            control.extend(0_u32.to_le_bytes());
            control.extend((body.len() as u32).to_le_bytes());
            control.extend(body);
        }
        let mut batch = vec![0; BATCH_HEADER_BYTES];
        batch[..8].copy_from_slice(BATCH_MAGIC);
        batch[16..20].copy_from_slice(&(entries.len() as u32).to_le_bytes());
        batch[20..24].copy_from_slice(&(control.len() as u32).to_le_bytes());
        for index in entries {
            let mut row = [0; ROW_BYTES];
            row[0] = COMMAND;
            row[8] = 1;
            row[16..24].copy_from_slice(&index.to_le_bytes());
            batch.extend(row);
        }
        batch.extend(control);
        batch.resize(4096, 0);
        batch
    }

    fn frame(kind: u8, metadata: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        frame[..4].copy_from_slice(FRAME_MAGIC);
        frame[4] = kind;
        frame[8] = 1;
        frame[16..20].copy_from_slice(&(metadata.len() as u32).to_le_bytes());
        frame.extend(metadata);
        frame
    }

    fn acknowledgement(term: u64, through: u64) -> Vec<u8> {
        let mut metadata = [term, 77].map(u64::to_le_bytes).concat();
        metadata.extend(MATCHED.to_le_bytes());
        metadata.extend(through.to_le_bytes());
        frame(APPEND_REPLY, &metadata)
    }

    fn vote(term: u64) -> Vec<u8> {
        frame(VOTE_REPLY, &[&term.to_le_bytes()[..], &[1]].concat())
    }

    /// A server with one log file, with or without O_DSYNC, whose stops are told one by one.
    struct Story(Vec<Stop>);

    impl Story {
        fn new(flags: &str) -> Self {
            let open = Call {
                name: "openat".to_owned(),
                descriptor: None,
                bytes: b"segment-0000000001".to_vec(),
                is_cut: false,
                arguments: flags.to_owned(),
            };
            Self(vec![Stop::Entered(1, open), Stop::Left(1, 3, Some(Self::file()))])
        }

        fn file() -> Descriptor {
            Descriptor { number: 3, target: "segment-0000000001".to_owned() }
        }

        fn enter(&mut self, number: usize, name: &str, descriptor: Descriptor, bytes: &[u8]) -> &mut Self {
            let call = Call {
                name: name.to_owned(),
                descriptor: Some(descriptor),
                bytes: bytes.to_vec(),
                is_cut: false,
                arguments: String::new(),
            };
            self.0.push(Stop::Entered(number, call));
            self
        }

        fn write(&mut self, number: usize, batch: &[u8]) -> &mut Self {
            self.enter(number, "pwrite64", Self::file(), batch)
        }

        fn left(&mut self, number: usize, result: usize) -> &mut Self {
            self.0.push(Stop::Left(number, i64::try_from(result).expect("small"), None));
            self
        }

        fn send(&mut self, number: usize, bytes: &[u8]) -> &mut Self {
            let socket = Descriptor { number: 9, target: PEER.to_owned() };
            self.enter(number, "sendmsg", socket, bytes).left(number, bytes.len())
        }

        fn verdict(&self) -> Result<Account, TooEarly> {
            judge(&self.0, &BTreeMap::from([("127.0.0.1:2".to_owned(), 2)]))
        }
    }

    #[test]
    fn an_acknowledgement_after_its_write_is_in_order() {
        let mut story = Story::new("O_RDWR|O_DIRECT|O_DSYNC");
        story.write(2, &batch(&[1, 2], Some((5, 2)))).left(2, 4096).send(3, &acknowledgement(5, 2)).send(4, &vote(5));
        let account = story.verdict().expect("in order");
        let expected = Account { log_batches: 1, commands: 2, acknowledgements: 1, votes: 1, terms: 2 };
        assert_eq!(account, expected);
    }

    #[test]
    fn an_acknowledgement_while_its_write_is_under_way_is_found() {
        let mut story = Story::new("O_RDWR|O_DSYNC");
        story.write(2, &batch(&[1], Some((5, 0)))).left(2, 4096);
        story.write(3, &batch(&[2], None)).send(4, &acknowledgement(5, 2)).left(3, 4096);
        let error = story.verdict().expect_err("entry 2 was not durable");
        assert!(error.what.contains("through 2"), "{error}");
    }

    #[test]
    fn a_write_without_sync_makes_nothing_durable() {
        let mut story = Story::new("O_RDWR");
        story.write(2, &batch(&[1], Some((5, 0)))).left(2, 4096).send(3, &acknowledgement(5, 1));
        assert!(story.verdict().is_err());
        let mut story = Story::new("O_RDWR");
        story.write(2, &batch(&[1], Some((5, 0)))).left(2, 4096);
        story.enter(3, "fdatasync", Story::file(), &[]).left(3, 0).send(4, &acknowledgement(5, 1));
        assert!(story.verdict().is_ok());
    }

    #[test]
    fn a_sync_does_not_cover_what_was_written_after_it_began() {
        let mut story = Story::new("O_RDWR");
        story.enter(2, "fdatasync", Story::file(), &[]).write(3, &batch(&[1], Some((5, 0)))).left(3, 4096);
        story.left(2, 0).send(4, &acknowledgement(5, 1));
        assert!(story.verdict().is_err());
    }

    #[test]
    fn a_later_write_does_not_stand_in_for_an_earlier_one() {
        let mut story = Story::new("O_RDWR|O_DSYNC");
        story.write(2, &batch(&[1], Some((5, 0)))).write(3, &batch(&[2], None)).left(3, 4096);
        story.send(4, &acknowledgement(5, 2)).left(2, 4096);
        assert!(story.verdict().is_err());
    }

    #[test]
    fn a_vote_or_a_term_that_is_not_durable_is_found() {
        let mut story = Story::new("O_RDWR|O_DSYNC");
        story.write(2, &batch(&[], Some((5, 2)))).send(3, &vote(5)).left(2, 4096);
        assert!(story.verdict().is_err(), "the vote left before its write was done");
        let mut story = Story::new("O_RDWR|O_DSYNC");
        story.write(2, &batch(&[], Some((5, 3)))).left(2, 4096).send(3, &vote(5));
        assert!(story.verdict().is_err(), "the vote on disk is for another");
        let mut story = Story::new("O_RDWR|O_DSYNC");
        story.write(2, &batch(&[], Some((5, 2)))).left(2, 4096).send(3, &frame(0x22, &6_u64.to_le_bytes()));
        assert!(story.verdict().is_err(), "the candidate's term is not on its disk");
        for (term, is_durable) in [(5, true), (6, false)] {
            let mut story = Story::new("O_RDWR|O_DSYNC");
            let heartbeat = [1, 1, term, 3, 0].map(u64::to_le_bytes).concat();
            story.write(2, &batch(&[], Some((5, 2)))).left(2, 4096).send(3, &frame(0x26, &heartbeat));
            assert_eq!(story.verdict().is_ok(), is_durable, "a leader's heartbeat in term {term}");
        }
    }

    #[test]
    fn a_frame_sent_in_pieces_is_held_to_the_moment_of_its_first_byte() {
        let reply = acknowledgement(5, 1);
        let mut story = Story::new("O_RDWR|O_DSYNC");
        story.send(2, &reply[..10]).write(3, &batch(&[1], Some((5, 0)))).left(3, 4096).send(4, &reply[10..]);
        assert!(story.verdict().is_err());
    }
}
