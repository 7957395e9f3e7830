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

            /// What never happened.
            pub fn never(&self) -> Vec<&'static str> {
                self.rows().into_iter().filter(|(_, count)| *count == 0).map(|(text, _)| text).collect()
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
    joint_changes_undone = "joint configurations undone by a truncation",
    changes_given_up = "changes of members given up, as nobody caught up",
    changes_not_met = "changes of members given up, as somebody was not met",
    changes_cancelled = "changes of members cancelled",
    cancellations_too_late = "cancellations refused in the joint phase",
    elections_in_joint = "elections won in a joint configuration",
    joins = "servers that joined",
    removals = "servers that learned of their removal",
    transfers_done = "hand-overs of leadership",
    transfers_not_done = "hand-overs that came to nothing",
    transfers_timed_out = "hand-overs given up in time",
    hand_overs_of_priority_0 = "words to stand from leaders of priority 0",
    hand_overs_of_leavers = "words to stand from leaders that were removed",
    proposals_transferring = "proposals refused during a hand-over",
    leases_held = "reads by lease at a leader that has one",
    leases_missing = "reads by lease at a leader that has none",
    starts_bound_by_a_promise = "starts of a group bound by a promise",
    reads_by_lease = "reads asked for by lease and answered",
    entries_committed = "entries committed",
    operations_judged = "operations of clients judged",
    operations_unknown = "operations of unknown outcome judged",
    keys_judged = "keys whose histories were judged",
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
    snapshots_resumed = "snapshot streams resumed",
    snapshots_resumed_after_restart = "snapshot streams resumed after a restart",
    snapshots_unwanted = "snapshot streams refused as stale",
    snapshots_overtaken = "own snapshots overtaken by an installed one",
    truncations_while_a_snapshot_is_written = "truncations while a snapshot is written",
    truncations_while_restoring = "truncations while a host is restored",
    segments_made = "log segments filled ahead",
    files_renamed = "files renamed",
    large_entries = "entries longer than a frame",
    processes_killed = "processes killed",
    power_cuts = "power cuts",
    kills_before_a_power_cut = "power cuts after a kill",
    crashes_before_ready = "crashes during recovery",
    crashes_inside_a_turn = "crashes between effects of a turn",
    log_writes_torn = "log writes torn by a crash",
    torn_tails = "opens that cut a torn tail",
    relocations = "groups moved to the end of the log",
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
    ambushes_change_begun = "ambushes as a change began",
    ambushes_begun_committed = "ambushes as its first entry was committed",
    ambushes_joint = "ambushes as a joint configuration was appended",
    ambushes_joint_committed = "ambushes as a joint configuration was committed",
    ambushes_target = "ambushes as a target was appended",
    ambushes_target_committed = "ambushes as a target was committed",
    ambushes_handing_over = "ambushes as a successor was told to stand",
    ambushes_recovering = "ambushes during recovery",
    ambushes_snapshot = "ambushes as a snapshot began",
    ambushes_truncation = "ambushes as a log was truncated",
    stars = "partitions with one hub",
    chains = "partitions in a chain",
    constrained_elections = "partitions whose hub is behind",
    stalls = "partial partitions left to stand",
    quorum_losses = "quorums lost for good and recovered",
    entries_lost_with_a_quorum = "committed entries lost with a quorum",
    entries_committed_by_a_recovery = "entries committed by a recovery alone",
    crashes_in_quorum_recoveries = "crashes while a group is recovered from that",
    recoveries_done_again = "such recoveries undone by a power cut, and done again",
    servers_of_old_groups = "servers left behind by such a recovery",
    refusals_of_old_groups = "refusals told to those",
    digests_agreed = "comparisons of replicas that agree",
    digests_undecided = "comparisons of replicas that decide nothing",
    digests_unfinished = "comparisons of replicas without an end",
    states_corrupted = "states corrupted",
    digests_differ = "verdicts that replicas differ, at a server",
    digests_split = "of these, where no majority agrees",
    odd_ones_stopped = "replicas stopped for a state that is not the majority's",
    odd_ones_stopped_again = "of these, after a restart",
    odd_leaders_stopped = "of these, leaders",
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows().iter().try_for_each(|(text, count)| writeln!(f, "{count:>10}  {text}"))
    }
}
