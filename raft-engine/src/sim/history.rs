//! What clients asked and how it ended: every request exactly once, "not applied" never in a log, no command committed
//! twice, and no linearizable read behind what was acknowledged before it began.

use std::collections::BTreeMap;

use super::invariants::Violation;
use crate::types::Index;

/// How a request ended, as its client knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// At this index.
    Applied(Index),
    /// Certainly not.
    NotApplied,
    /// Maybe.
    Unknown,
}

/// What a request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// A command, known by the CRC of its payload, which no other command has.
    Propose {
        /// CRC32C of the payload.
        payload_crc: u32,
    },
    /// A linearizable read; it must cover everything acknowledged when it began.
    ReadLinearizable {
        /// The last index acknowledged to anybody then.
        floor: Index,
    },
    /// The same, asked for by lease.
    ReadByLease {
        /// The last index acknowledged to anybody then.
        floor: Index,
    },
    /// A read of at least an index.
    ReadAtLeast {
        /// That index.
        floor: Index,
    },
    /// A session to be opened, renewed or closed.
    Session,
    /// A snapshot.
    Snapshot,
    /// Other members, or no other after all.
    Change,
    /// Another leader.
    Transfer,
    /// The replicas compared.
    CheckDigests,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    group: usize,
    server: usize,
    epoch: u32,
    request: Request,
    ended: Option<Ended>,
    is_appended: bool,
    /// Where a command was committed.
    committed: Option<Index>,
    /// By which entry one of a session was applied.
    applied: Option<Index>,
}

/// All requests of a run, by tag.
#[derive(Debug, Default)]
pub struct History {
    records: Vec<Record>,
    /// Tags of commands by payload CRC.
    commands: BTreeMap<u32, u64>,
    /// The last index acknowledged, by group.
    acknowledged: BTreeMap<usize, Index>,
    /// The first request that may still be open: all before it have ended.
    first_open: usize,
}

impl History {
    /// Whether a payload with this CRC may be proposed: CRCs tell commands apart.
    pub fn is_new(&self, payload_crc: u32) -> bool {
        !self.commands.contains_key(&payload_crc)
    }

    /// A client asks a process (a server's epoch) for something; the answer's tag.
    pub fn begin(&mut self, group: usize, server: usize, epoch: u32, request: Request) -> u64 {
        let tag = self.records.len() as u64;
        if let Request::Propose { payload_crc } = request {
            self.commands.insert(payload_crc, tag);
        }
        self.records.push(Record {
            group,
            server,
            epoch,
            request,
            ended: None,
            is_appended: false,
            committed: None,
            applied: None,
        });
        tag
    }

    /// The tag of the next request.
    pub fn next_tag(&self) -> u64 {
        self.records.len() as u64
    }

    /// Whether a request has no end yet.
    pub fn is_open(&self, tag: u64) -> bool {
        let record = usize::try_from(tag).ok().and_then(|tag| self.records.get(tag));
        record.is_some_and(|record| record.ended.is_none())
    }

    /// What was asked under this tag.
    pub fn request(&self, tag: u64) -> Option<Request> {
        self.records.get(usize::try_from(tag).ok()?).map(|record| record.request)
    }

    /// The last index that anybody knows to be committed in this group.
    pub fn acknowledged(&self, group: usize) -> Index {
        self.acknowledged.get(&group).copied().unwrap_or(0)
    }

    /// The group was recovered from the loss of a quorum: what was acknowledged behind `through` is lost.
    pub fn goes_back(&mut self, group: usize, through: Index) {
        let acknowledged = self.acknowledged.entry(group).or_default();
        *acknowledged = (*acknowledged).min(through);
    }

    /// A process answers. `index` of an applied command is its entry's; of a read, what the state that answered it had
    /// applied.
    pub fn end(&mut self, group: usize, server: usize, epoch: u32, tag: u64, ended: Ended) -> Result<(), Violation> {
        let violation = |what: String| Err(Violation::new("every request ends exactly once", what));
        let Some(record) = usize::try_from(tag).ok().and_then(|tag| self.records.get_mut(tag)) else {
            return violation(format!("tag {tag} was never given"));
        };
        if (record.group, record.server, record.epoch) != (group, server, epoch) {
            return violation(format!(
                "tag {tag} of {record:?} ended at server {server}, epoch {epoch}, group {group}"
            ));
        }
        if let Some(before) = record.ended {
            return violation(format!("tag {tag} ended as {before:?} and again as {ended:?}"));
        }
        record.ended = Some(ended);
        if ended == Ended::NotApplied && record.is_appended {
            return Err(not_applied(tag));
        }
        let Ended::Applied(index) = ended else { return Ok(()) };
        let acknowledged = self.acknowledged.entry(group).or_default();
        match record.request {
            Request::Propose { .. } | Request::Session => *acknowledged = (*acknowledged).max(index),
            Request::ReadLinearizable { floor } | Request::ReadByLease { floor } | Request::ReadAtLeast { floor }
                if index < floor =>
            {
                return Err(Violation::new(
                    "a read covers every commit acknowledged before it began",
                    format!("read {tag} was answered at {index}, {floor} was acknowledged before it began"),
                ));
            }
            Request::ReadLinearizable { .. } | Request::ReadByLease { .. } => {
                *acknowledged = (*acknowledged).max(index)
            }
            Request::ReadAtLeast { .. }
            | Request::Snapshot
            | Request::Change
            | Request::Transfer
            | Request::CheckDigests => {}
        }
        Ok(())
    }

    /// The process is gone: nobody will ever hear how its open requests ended.
    pub fn process_ends(&mut self, server: usize, epoch: u32) {
        while self.records.get(self.first_open).is_some_and(|record| record.ended.is_some()) {
            self.first_open += 1;
        }
        for record in &mut self.records[self.first_open..] {
            if record.server == server && record.epoch == epoch && record.ended.is_none() {
                record.ended = Some(Ended::Unknown);
            }
        }
    }

    /// A command is in some log: it must not have been answered as not applied.
    pub fn appended(&mut self, payload_crc: u32) -> Result<(), Violation> {
        let Some(&tag) = self.commands.get(&payload_crc) else {
            return Err(Violation::new("nothing but proposals is in the log", format!("payload CRC {payload_crc:#x}")));
        };
        let record = &mut self.records[tag as usize];
        record.is_appended = true;
        if record.ended == Some(Ended::NotApplied) { Err(not_applied(tag)) } else { Ok(()) }
    }

    /// A command is committed: once, for nobody proposes it twice.
    pub fn committed(&mut self, payload_crc: u32, index: Index) -> Result<(), Violation> {
        let Some(&tag) = self.commands.get(&payload_crc) else { return Ok(()) };
        match self.records[tag as usize].committed.replace(index) {
            Some(before) if before != index => Err(Violation::new(
                "a command is committed once",
                format!("tag {tag} is committed at {before} and at {index}"),
            )),
            _ => Ok(()),
        }
    }

    /// A command of a session is applied somewhere, by the entry at `index`.
    pub fn applied(&mut self, payload_crc: u32, index: Index) {
        if let Some(&tag) = self.commands.get(&payload_crc) {
            self.records[tag as usize].applied = Some(index);
        }
    }

    /// Where the command of this tag took effect, if it did: one of a session may be committed and not applied.
    pub fn effect_at(&self, tag: u64, is_in_session: bool) -> Option<Index> {
        let record = self.records.get(usize::try_from(tag).ok()?)?;
        if is_in_session { record.applied } else { record.committed }
    }

    /// The command's tag.
    pub fn tag(&self, payload_crc: u32) -> Option<u64> {
        self.commands.get(&payload_crc).copied()
    }

    /// Requests of a living process that have not ended.
    pub fn open(&self, server: usize, epoch: u32) -> usize {
        let is_open = |record: &&Record| record.server == server && record.epoch == epoch && record.ended.is_none();
        self.records[self.first_open..].iter().filter(is_open).count()
    }

    /// The first such request, of one group or of any, for a report.
    pub fn first_open(&self, server: usize, epoch: u32, group: Option<usize>) -> Option<(u64, Request)> {
        let is_open = |record: &Record| {
            let is_meant = group.is_none_or(|group| record.group == group);
            is_meant && record.server == server && record.epoch == epoch && record.ended.is_none()
        };
        self.records.iter().position(is_open).map(|tag| (tag as u64, self.records[tag].request))
    }
}

fn not_applied(tag: u64) -> Violation {
    let what = format!("tag {tag} was answered as not applied, and a log has it");
    Violation::new("what was certainly not applied is in no log", what)
}
