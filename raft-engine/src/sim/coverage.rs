//! How often the rare things happened: a simulator that never reaches a branch proves nothing about it.

use std::fmt;

macro_rules! counters {
    ($($name:ident = $text:literal,)*) => {
        /// Counts of one run, or of many.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Coverage {
            $(
                #[doc = $text]
                pub $name: u64,
            )*
        }

        impl Coverage {
            /// Adds the counts of another run.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Every count with what it counts.
            pub fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$(($text, self.$name),)*]
            }
        }
    };
}

counters! {
    seeds_formed = "seeds whose group formed",
    elections_won = "elections won",
    suspicions = "leaders known to be dead",
    changes_done = "changes of members done",
    changes_not_done = "changes of members refused, given up or cancelled",
    changes_unknown = "changes of members whose asker lost the leader",
    changes_joint = "joint configurations appended",
    changes_undone = "configurations undone by a truncation",
    joins = "servers that joined",
    removals = "servers that learned of their removal",
    transfers_done = "hand-overs of leadership",
    transfers_not_done = "hand-overs that came to nothing",
    reads_by_lease = "reads asked for by lease and answered",
    entries_committed = "entries committed",
    truncations = "log tails truncated",
    proposals_applied = "proposals applied",
    proposals_not_applied = "proposals certainly not applied",
    proposals_unknown = "proposals unknown",
    proposals_overloaded = "proposals refused as overloaded",
    proposals_disk_full = "proposals refused for a full disk",
    forwards_applied = "proposals at a follower applied there",
    forwards_refused = "forwarded proposals that the leader refused",
    forwards_broken = "forwarded proposals without an answer on a broken route",
    forwards_late = "forwarded proposals answered after they were applied",
    forwarded_reads = "reads at a follower answered by its leader",
    reads_linearizable = "linearizable reads answered",
    reads_at_least = "reads of at least an index answered",
    reads_refused = "reads refused",
    snapshots_taken = "snapshots taken",
    snapshots_restored_at_start = "snapshots restored at a start",
    snapshots_installed = "snapshots installed from a leader",
    segments_made = "log segments filled ahead",
    files_renamed = "files renamed",
    large_entries = "entries longer than a frame",
    processes_killed = "processes killed",
    power_cuts = "power cuts",
    kills_before_a_power_cut = "power cuts after a kill",
    crashes_before_ready = "crashes during recovery",
    crashes_inside_a_turn = "crashes between effects of a turn",
    log_writes_torn = "log writes torn by a crash",
    log_writes_unsynced = "log writes left in the page cache by a crash",
    crashes_while_forming = "crashes before formation ended",
    wipes_while_forming = "directories wiped before formation ended",
    wipes = "directories wiped after formation",
    other_members = "starts with other members",
    refusals = "peers refused",
    server_stops = "servers stopped by their disk",
    write_errors = "log writes failed",
    sync_errors = "syncs failed",
    full_disks = "disk steps refused for want of room",
    partitions = "partitions",
    pauses = "pauses",
    streams_broken = "streams broken",
    frames_lost = "core messages lost",
    frames_doubled = "core messages doubled",
    frames_late = "core messages reordered",
    closes = "servers closed by their host",
    votes_checked = "votes and terms looked up in synced bytes",
    acknowledgements_checked = "acknowledgements looked up in synced bytes",
    durable_hosts = "starts of a host with state of its own",
    sessions_opened = "sessions opened",
    session_settings_changed = "changes of the sessions' settings asked for",
    sessions_expired = "sessions expired, at a server",
    sessions_evicted = "sessions evicted, at a server",
    sessions_restored = "sessions restored from snapshots",
    session_commands_applied = "commands of sessions applied, at a server",
    session_retries = "commands of sessions tried again",
    session_repeats = "retries answered with the first reply",
    session_forgotten = "retries whose reply is not kept any more",
    session_gone = "commands of sessions that are gone",
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows().iter().try_for_each(|(text, count)| writeln!(f, "{count:>10}  {text}"))
    }
}
