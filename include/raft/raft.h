/*
 * raft.h: the C interface of libraft, a Raft consensus engine that other programs embed.
 *
 * SPDX-License-Identifier: Apache-2.0 OR MIT
 * Made by `cargo run -p raft-header` from raft-ffi/src. Do not edit.
 *
 * WHAT IT DOES
 *
 *   You write a state machine: apply, query, snapshot, restore. The library makes it fault tolerant: it elects a
 *   leader, keeps the log on disk, carries it to the other servers, and calls you with every entry that is committed,
 *   in the same order on every server. A server is one process's endpoint: a data directory and a listen address. A
 *   group is one log and the state machine that it drives; a server has one or many.
 *
 * IN FIVE CALLS
 *
 *   raft_config_new            cluster, id, data directory, listen address; raft_config_set for the rest
 *   raft_server_open           recovers what the directory holds
 *   raft_server_start_group    with your state machine and, the first time, the members
 *   raft_group_propose         an array of items; they come back as an array of completions
 *   raft_server_free           closes, and answers everything that is still open
 *
 * OUTCOMES
 *
 *   Every accepted request completes exactly once, also when the server is closed: it was applied; or it was certainly
 *   not applied, and doing it again is safe; or nobody can know here, and doing it again may do it twice. A time that
 *   runs out is the last of these.
 *
 * RULES
 *
 *   - A function returns RAFT_OK (0) or a negative RAFT_ERR_..., and takes as its last argument where to put an error
 *     object (may be NULL). Functions that cannot fail return what they are asked for.
 *   - What goes in is copied, or borrowed until the call returns. What comes out belongs to the caller and is released
 *     by its own _free, unless its comment says whom it belongs to. Out pointers are NULL after a failure.
 *   - Structs passed singly begin with their size and grow only at the end: zero them, then set `size`. Structs in
 *     arrays never change. docs/abi.md has them all.
 *   - A byte range may be NULL where its length is 0. Texts are UTF-8 and end with NUL.
 *   - Every function may be called from any thread unless its comment says otherwise. Callbacks are described at
 *     raft_state_machine: they may propose, and they may not wait.
 *   - The library never exits, aborts on an error, handles a signal, writes to a terminal or looks at a clock of
 *     yours. It belongs to the process that opened a server: after fork(2), the child's calls are refused.
 *   - NULL, released and foreign handles are told wherever they can be.
 *
 * A COMPLETE PROGRAM: a counter on one server. docs/embedding.md says how to build it, and how to make it three.
 *
 *   #include <inttypes.h>
 *   #include <stdio.h>
 *   #include <string.h>
 *   #include <raft/raft.h>
 *
 *   static size_t apply(void *user, const raft_entry *entries, size_t count, raft_results *results) {
 *       uint64_t *counter = user;
 *       for (size_t i = 0; i < count; i++) {
 *           *counter += entries[i].length;
 *           raft_results_set(results, i, (const uint8_t *)counter, sizeof *counter);
 *       }
 *       return count;
 *   }
 *
 *   static int failed(const char *what, raft_error *error) {
 *       fprintf(stderr, "%s: %s\n", what, raft_error_message(error));
 *       raft_error_free(error);
 *       return 1;
 *   }
 *
 *   int main(void) {
 *       uint64_t counter = 0;
 *       raft_error *error = NULL;
 *       raft_config *config = NULL;
 *       raft_server *server = NULL;
 *       raft_group *group = NULL;
 *       raft_result *result = NULL;
 *       raft_member member;
 *       raft_start start;
 *       raft_state_machine machine;
 *
 *       if (raft_config_new("example", 1, "counter-data", "127.0.0.1:7001", &config, &error))
 *           return failed("configuration", error);
 *       if (raft_server_open(config, &server, &error)) return failed("open", error);
 *
 *       memset(&member, 0, sizeof member);
 *       member.id = 1;
 *       member.address = "127.0.0.1:7001";
 *       memset(&start, 0, sizeof start);
 *       start.size = sizeof start;
 *       start.group = 1;
 *       start.how = RAFT_START_BOOTSTRAP;
 *       start.members = &member;
 *       start.member_count = 1;
 *       memset(&machine, 0, sizeof machine);
 *       machine.size = sizeof machine;
 *       machine.user = &counter;
 *       machine.apply = apply;
 *       if (raft_server_start_group(server, &start, &machine, &group, &error)) return failed("start", error);
 *
 *       while (raft_group_propose_wait(group, (const uint8_t *)"+", 1, 5000, &result, &error)) {
 *           if (!raft_error_retriable(error))
 *               return failed("propose", error);
 *           raft_error_free(error);
 *       }
 *       printf("counter is %" PRIu64 " at index %" PRIu64 "\n", counter, raft_result_index(result));
 *       raft_result_free(result);
 *       raft_config_free(config);
 *       return raft_server_free(server, NULL);
 *   }
 */
#ifndef RAFT_H
#define RAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Version ----------------------------------------------------------------------------------------------------- */

/** The major version that this header describes. Before 1.0.0, any minor version may change the ABI. */
#define RAFT_VERSION_MAJOR 0

/** The minor version that this header describes. */
#define RAFT_VERSION_MINOR 1

/** The patch version that this header describes. */
#define RAFT_VERSION_PATCH 0

/**
 * The version of the library that runs, which may be another than the one that the program was compiled against:
 * major * 1000000 + minor * 1000 + patch.
 *
 * Any thread, also in a callback and in a signal handler. Does not block, cannot fail.
 */
uint32_t raft_library_version(void);

/**
 * The same as text, for people: "0.1.0". Static, NUL-terminated; never release it.
 *
 * Any thread, also in a callback and in a signal handler. Does not block, cannot fail.
 */
const char *raft_library_version_text(void);

/* ---- Errors ------------------------------------------------------------------------------------------------------ */

/** The call did what it says. */
#define RAFT_OK 0

/** An argument cannot be: NULL where something is needed, an empty or overlong name, a number out of its range. */
#define RAFT_ERR_ARGUMENT (-1)

/** A handle is NULL, was released, or is of another kind. */
#define RAFT_ERR_HANDLE (-2)

/** The size at the head of a struct is none that a version of this header had. */
#define RAFT_ERR_STRUCT_SIZE (-3)

/** A setting has no such name or value, or settings do not fit together. */
#define RAFT_ERR_SETTING (-4)

/** Memory for a buffer whose size a host or a peer chose could not be had. */
#define RAFT_ERR_MEMORY (-5)

/** This process is a child by fork(2) of one that had a server open. A server lives in the process that opened it. */
#define RAFT_ERR_FORKED (-6)

/** The call waits, and was made in a callback, which it would wait for. */
#define RAFT_ERR_IN_CALLBACK (-7)

/** The call belongs to the other mode: dispatch in threaded mode, or poll where a `completed` callback is set. */
#define RAFT_ERR_MODE (-8)

/** The server is closed. */
#define RAFT_ERR_CLOSED (-9)

/** The operating system refused a file, directory or thread. */
#define RAFT_ERR_IO (-10)

/** Another process has the data directory open. */
#define RAFT_ERR_LOCKED (-11)

/**
 * The data directory could not be opened: damage in it, or a format that this version does not know. The message
 * names the file, the offset and the remedy. Nothing in the directory was changed.
 */
#define RAFT_ERR_STORAGE (-12)

/** The listen address could not be taken. */
#define RAFT_ERR_ADDRESS (-13)

/** The group is already started on this server. */
#define RAFT_ERR_GROUP_EXISTS (-14)

/** The group may not start as asked: there is nothing to restart, or the directory was formed with other arguments. */
#define RAFT_ERR_GROUP_START (-15)

/** This server does not lead the group; the error or completion names who does, if that is known. */
#define RAFT_ERR_NOT_LEADER (-16)

/** A budget in bytes is full (queue, uncommitted log). Try again when some completions have come. */
#define RAFT_ERR_OVERLOADED (-17)

/** The proposal is longer than an entry may be (setting `max_entry_bytes`). */
#define RAFT_ERR_TOO_LARGE (-18)

/** The disk has no room. Proposals are accepted again, by themselves, when it has. */
#define RAFT_ERR_DISK_FULL (-19)

/** Another request of this kind is in progress, or there is nothing to do. */
#define RAFT_ERR_BUSY (-20)

/** The group is not formed yet: its initial members have not all met. */
#define RAFT_ERR_FORMING (-21)

/** The group or the server stopped by itself; its status says why. */
#define RAFT_ERR_STOPPED (-22)

/** A callback of the host said that it failed. */
#define RAFT_ERR_CALLBACK (-23)

/** Leadership or contact was lost after the proposal was handed on: it may or may not be applied. */
#define RAFT_ERR_UNKNOWN (-24)

/** The time given to a waiting call is over. A proposal may or may not be applied. */
#define RAFT_ERR_TIMEOUT (-25)

/** No completion will ever come again: the server is closed, and all are polled. */
#define RAFT_ERR_END (-26)

/** A defect of this library was caught at its edge; the message says where. Please report it. */
#define RAFT_ERR_INTERNAL (-27)

/** Leadership is being handed over: its next leader takes proposals in a moment. */
#define RAFT_ERR_TRANSFERRING (-28)

/** The group cannot do what was asked; the message says what, and what to do instead. */
#define RAFT_ERR_INVALID (-29)

/** The request was given up at its deadline, and nothing is left of it; the message says what it waited for. */
#define RAFT_ERR_GIVEN_UP (-30)

/** The request was cancelled, and nothing is left of it. */
#define RAFT_ERR_CANCELLED (-31)

/**
 * The session expired, was ended, or never was. The command was not applied now; while there was the session it may
 * have been. Nothing more can be asked in that session.
 */
#define RAFT_ERR_SESSION_EXPIRED (-32)

/**
 * The command of the session was applied before, or its client said since that it needs no answer; what the answer was
 * is not kept any more.
 */
#define RAFT_ERR_REPLY_FORGOTTEN (-33)

/** No request was made: the call itself failed, or the status is not about a request. */
#define RAFT_OUTCOME_NONE 0

/** The request was done. */
#define RAFT_OUTCOME_APPLIED 1

/** The request was certainly not done, and never will be. Doing it again is safe. */
#define RAFT_OUTCOME_NOT_APPLIED 2

/** The request may or may not be done, now or later. Doing it again may do it twice. */
#define RAFT_OUTCOME_UNKNOWN 3

/**
 * What went wrong, to what, and what to do about it.
 *
 * Every call that can fail takes a `raft_error **error` as its last argument. It may be NULL. Where it is not, a
 * call that fails stores a new error there, which the caller owns and releases with raft_error_free; a call that
 * succeeds stores NULL. The returned status alone is enough to decide what to do.
 */
typedef struct raft_error raft_error;

/**
 * The status that the failed call returned: RAFT_ERR_...; RAFT_OK for NULL.
 *
 * Any thread, also in a callback. Does not block.
 */
int32_t raft_error_code(const raft_error *error);

/**
 * A sentence for people, in UTF-8, NUL-terminated, never NULL. It belongs to the error and lives as long. Its
 * wording is no part of the ABI.
 *
 * Any thread, also in a callback. Does not block.
 */
const char *raft_error_message(const raft_error *error);

/**
 * Whether the same call may be made again: nothing can come of the failed one any more, and the next may succeed
 * without anyone repairing something, here after a while or at the leader. Never true of an unknown outcome.
 *
 * Any thread, also in a callback. Does not block.
 */
bool raft_error_retriable(const raft_error *error);

/**
 * What became of the request: RAFT_OUTCOME_...
 *
 * Any thread, also in a callback. Does not block.
 */
uint32_t raft_error_outcome(const raft_error *error);

/**
 * The server that leads, as far as this one knows; 0 where it knows none or the error has nothing to do with
 * leading.
 *
 * Any thread, also in a callback. Does not block.
 */
uint64_t raft_error_leader(const raft_error *error);

/**
 * Releases an error. NULL is allowed, and what is not an error is left alone.
 *
 * Any thread, also in a callback. Does not block.
 */
void raft_error_free(raft_error *error);

/**
 * The name of a status, such as "RAFT_ERR_NOT_LEADER"; "RAFT_ERR_?" for a number that this version does not know.
 * Static, NUL-terminated; never release it.
 *
 * Any thread, also in a callback and in a signal handler. Does not block, cannot fail.
 */
const char *raft_error_name(int32_t code);

/* ---- Configuration ----------------------------------------------------------------------------------------------- */

/** What a server is opened with. One thread at a time may use a configuration. */
typedef struct raft_config raft_config;

/**
 * Makes the configuration of one server.
 *
 * - `cluster`: the name of the servers that belong together, 1 to 64 bytes of UTF-8; others are refused.
 * - `id`: this server's id within the cluster: not 0, and never used again for another directory.
 * - `directory`: where its log and snapshots are; made when missing. One process has it open at a time.
 * - `listen`: where its peers reach it, as "host:port"; port 0 takes a free one (raft_server_status says which).
 * - `out`: receives the configuration, which the caller owns and releases with raft_config_free; NULL on failure.
 *
 * The strings are NUL-terminated and copied. Any thread. Does not block.
 * Errors: RAFT_ERR_ARGUMENT.
 */
int32_t raft_config_new(const char *cluster,
                        uint64_t id,
                        const char *directory,
                        const char *listen,
                        raft_config **out,
                        raft_error **error);

/**
 * Changes one setting. Sizes are in bytes, times in milliseconds, both as whole decimal numbers above 0.
 *
 * | key                   | default    | meaning                                                                |
 * |-----------------------|------------|------------------------------------------------------------------------|
 * | dispatch              | threaded   | who runs the callbacks: "threaded" (the library) or "host" (you do)    |
 * | completions           | callback   | how completions come: "callback" (`completed`) or "poll"               |
 * | disk_backend          | auto       | "aio" (Linux AIO), "thread", or "auto": the first where it works       |
 * | election_timeout_ms   | 300        | without a leader, an election begins after this to twice this          |
 * | heartbeat_ms          | 100        | a leader is heard from this often; at most a third of the one above    |
 * | disk_stall_timeout_ms | 1000       | a leader whose disk makes no progress for so long steps down           |
 * | max_entry_bytes       | 8388608    | the longest proposal; at most 67108864 and 4096 less than queue_bytes  |
 * | queue_bytes           | 16777216   | proposals that the library's loop has not taken yet                    |
 * | uncommitted_bytes     | 67108864   | proposals taken and not yet committed                                  |
 * | in_flight_bytes       | 2097152    | entries sent to one peer and not yet acknowledged                      |
 * | connection_bytes      | 8388608    | frames waiting for one connection                                      |
 * | cache_bytes           | 16777216   | recent entries kept in memory                                          |
 * | segment_bytes         | 67108864   | the length of one file of the log; a multiple of 4096                  |
 * | log_bytes             | 1073741824 | the length of all of them                                              |
 * | snapshot_log_bytes    | 268435456  | log behind the last snapshot that calls for the next one               |
 * | snapshot_bytes_per_second | 0      | how fast a snapshot goes to one peer at most; 0: no limit              |
 * | forwarding            | on         | "on": where another server leads, it is asked; "off": it is only named |
 * | forward_bytes         | 8388608    | proposals forwarded to the leader and not yet answered                 |
 * | plaintext             | loopback   | "loopback", or "anywhere" where only you can reach the network         |
 * | peer.ID               |            | "host:port": where to dial server ID, in place of its address          |
 *
 * `config` stays the caller's; both strings are NUL-terminated and copied. Values are checked at once as far as they
 * can be alone, and together in raft_server_open. Any thread. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_SETTING.
 */
int32_t raft_config_set(raft_config *config,
                        const char *key,
                        const char *value,
                        raft_error **error);

/** Releases a configuration. NULL is allowed. Servers opened with it go on. Any thread. Does not block. */
void raft_config_free(raft_config *config);

/* ---- Server ------------------------------------------------------------------------------------------------------ */

/**
 * One process's endpoint: a data directory, a listen address, and the groups that live on them.
 *
 * A server handle is a number in disguise, not an address: any value may be passed where one is expected, and what
 * is not a live server is told, also after raft_server_free.
 */
typedef struct raft_server raft_server;

/**
 * Opens a server: locks and recovers its directory, listens, and starts the library's threads. It takes part in
 * nothing until its groups are started.
 *
 * - `config`: borrowed for the call.
 * - `out`: receives the server, which the caller owns and ends with raft_server_free; NULL on failure.
 *
 * Any thread, not in a callback. Blocks while it reads the log: tens of milliseconds for a log of usual length.
 * Errors: RAFT_ERR_ARGUMENT, RAFT_ERR_HANDLE, RAFT_ERR_SETTING, RAFT_ERR_IO, RAFT_ERR_LOCKED, RAFT_ERR_STORAGE,
 * RAFT_ERR_ADDRESS, RAFT_ERR_IN_CALLBACK, RAFT_ERR_FORKED.
 */
int32_t raft_server_open(const raft_config *config,
                         raft_server **out,
                         raft_error **error);

/**
 * In host mode, runs the callbacks of this server's groups that are due, on the calling thread.
 *
 * - `max`: pieces of work to do at most (a batch, a query, a step of a snapshot); 0 means no limit.
 * - `timeout_ms`: how long to wait for the first: 0 does not wait, -1 waits without limit. The call returns as soon
 *   as it has run what was due.
 * - `count`: receives how many were done; may be NULL.
 *
 * Any thread; calls on one server take turns. Blocks for `timeout_ms` and for as long as the callbacks take. Not in
 * a callback. raft_server_close makes it return.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_MODE (the library's thread dispatches), RAFT_ERR_IN_CALLBACK,
 * RAFT_ERR_CLOSED, RAFT_ERR_FORKED.
 */
int32_t raft_server_dispatch(raft_server *server,
                             size_t max,
                             int64_t timeout_ms,
                             size_t *count,
                             raft_error **error);

/**
 * A file descriptor for poll(2), select(2), epoll(7) or an event loop: it is readable (POLLIN) while there is
 * something for raft_server_dispatch (with `dispatch` host) or raft_group_poll (with `completions` poll), and once
 * the server is closed. Wait on it, and do nothing else with it: neither read nor close it.
 *
 * - `out`: receives the descriptor. It belongs to the server and lives until raft_server_free.
 *
 * Any thread. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_FORKED.
 */
int32_t raft_server_descriptor(raft_server *server,
                               int32_t *out,
                               raft_error **error);

/**
 * Closes a server: leaves its peers, makes what was promised durable, and ends the library's threads.
 *
 * It makes raft_server_dispatch return, waits for the callback in progress, and then completes every request still
 * open, on the calling thread: by `completed`, or into the queue of raft_group_poll, which may be emptied until it
 * says RAFT_ERR_END. Last it calls the `destroy` of every state machine. The handle stays valid, and other calls on
 * it return RAFT_ERR_CLOSED, until raft_server_free. Closing again is allowed and does nothing.
 *
 * Any thread, not in a callback. Blocks until the callback in progress is over and the disk is quiet.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_IN_CALLBACK, RAFT_ERR_FORKED.
 */
int32_t raft_server_close(raft_server *server,
                          raft_error **error);

/**
 * Ends a server, closing it first if that is not done, and with it its groups and what is left in their poll queues.
 * NULL is allowed.
 *
 * Calls in progress on other threads end safely; later ones are told RAFT_ERR_HANDLE. Results that raft_group_poll
 * lent are gone. Any thread, not in a callback. Blocks as raft_server_close does.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_IN_CALLBACK (the server lives on), RAFT_ERR_FORKED.
 */
int32_t raft_server_free(raft_server *server,
                         raft_error **error);

/* ---- Groups and members ------------------------------------------------------------------------------------------ */

/** The member votes and counts for commitment. */
#define RAFT_MEMBER_VOTER 1

/** The member receives the log and counts for nothing. */
#define RAFT_MEMBER_LEARNER 2

/**
 * The priority of a member that should lead only where nobody else can: it waits longest before it campaigns, and hands
 * leadership over as soon as another voter can take it.
 */
#define RAFT_PRIORITY_LAST (-1)

/** The priority of a member that nobody gave one. */
#define RAFT_PRIORITY_USUAL 1

/**
 * One Raft log and the state machine that it drives, on one server.
 *
 * A group handle belongs to its server and ends with it: it is never released by itself. Like a server handle it is
 * a number in disguise: what is not a live group is told.
 */
typedef struct raft_group raft_group;

/** The members of a group at one moment: a copy that the caller owns. */
typedef struct raft_members raft_members;

/** One member of a group. Lives in arrays: its layout is frozen. Zero it before filling it in. */
typedef struct raft_member {
    /** The server's id; not 0. */
    uint64_t id;
    /** Where its peers dial it: "host:port", NUL-terminated. */
    const char *address;
    /**
     * Bytes of yours that travel with the member, opaque to the library: a client address, say. NULL if there are
     * none.
     */
    const uint8_t *context;
    /** How many; at most 1,024. */
    size_t context_length;
    /** RAFT_MEMBER_...; when bootstrapping 0 or RAFT_MEMBER_VOTER. */
    uint32_t role;
    /**
     * How much it is wanted as a leader, against the other voters: 1 to 255, RAFT_PRIORITY_LAST, or 0 for the usual
     * one, which is 1. Nothing depends on it but who leads where several can.
     */
    int32_t priority;
    /**
     * Told by raft_group_members, else zero: what it becomes by the change in progress: RAFT_MEMBER_..., or 0 if it
     * leaves. Without a change the same as `role`.
     */
    uint32_t becomes;
    /**
     * Told by raft_group_members, else zero: 1 if its vote counts now. That is a voter, and, while a change is joint,
     * one that was a voter before; else 0.
     */
    uint32_t votes;
    /**
     * Told by raft_group_members at the leader, else zero: of a member that does not vote, the last entry that it holds
     * on its disk, as far as the leader knows.
     */
    uint64_t durable_index;
    /** Zero. */
    uint64_t reserved[1];
} raft_member;

/**
 * What every replica of a group computes by: kept in its log, never local to a server. Passed singly: it may grow at
 * its end. Zero it, then set `size` to its sizeof: what is 0 is the default.
 */
typedef struct raft_settings {
    /** sizeof(raft_settings). */
    size_t size;
    /**
     * For how long a follower promises to help nobody else to lead, for RAFT_READ_LEASE, in milliseconds: at most the
     * setting `election_timeout_ms` of the leader, and no server promises more than its own. 0, the default: no leases.
     */
    uint64_t lease_ms;
    /** A session that is not used for so long, in the group's own time, expires; in milliseconds. 0: an hour. */
    uint64_t session_expiry_ms;
    /** Sessions that the group keeps: to open one more ends the one that was used least recently. 0: 4,096. */
    uint32_t max_sessions;
    /** The replies that one session keeps for retries, in bytes. 0: 65,536. */
    uint32_t session_reply_bytes;
} raft_settings;

/**
 * Copies the members of the configuration that is in force.
 *
 * - `out`: receives the members, which the caller owns and releases with raft_members_free; NULL on failure.
 *
 * Any thread, also in a callback. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_FORMING, RAFT_ERR_CLOSED, RAFT_ERR_FORKED.
 */
int32_t raft_group_members(raft_group *group,
                           raft_members **out,
                           raft_error **error);

/** How many there are; 0 for NULL. One thread at a time. Does not block. */
size_t raft_members_count(const raft_members *members);

/**
 * The members as an array, in order of id: raft_members_count of them; NULL if there are none. The array and
 * everything in it belongs to `members` and lives as long. One thread at a time. Does not block.
 */
const raft_member *raft_members_array(const raft_members *members);

/**
 * The member with this id, or NULL. It belongs to `members` and lives as long. One thread at a time. Does not block.
 */
const raft_member *raft_members_find(const raft_members *members,
                                     uint64_t id);

/** Releases the members. NULL is allowed. Any thread. Does not block. */
void raft_members_free(raft_members *members);

/**
 * Tells the settings of the configuration that is in force.
 *
 * - `settings`: borrowed for the call; its `size` must be set. The library stores how much of it is filled in.
 *
 * Any thread, also in a callback. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_STRUCT_SIZE, RAFT_ERR_FORMING, RAFT_ERR_CLOSED,
 * RAFT_ERR_FORKED.
 */
int32_t raft_group_settings(raft_group *group,
                            raft_settings *settings,
                            raft_error **error);

/* ---- State machine ----------------------------------------------------------------------------------------------- */

/** The group has its first entry: its initial members have met. */
#define RAFT_NOTICE_FORMED 1

/** This server's role in the group, the term or the leader changed. */
#define RAFT_NOTICE_ROLE 2

/** A configuration took effect; raft_group_members has it. */
#define RAFT_NOTICE_MEMBERS 3

/** The group stopped on this server, for good until the server is opened again; `message` says why. */
#define RAFT_NOTICE_GROUP_STOPPED 4

/** The server stopped: its log failed, or it may not take part; `message` says why. */
#define RAFT_NOTICE_SERVER_STOPPED 5

/**
 * A peer (`server`, if its id is known) was refused or refused this server; `message` has the reason and the remedy.
 */
#define RAFT_NOTICE_REFUSED 6

/** Something is odd and costs nothing yet; `message` says what. */
#define RAFT_NOTICE_WARNING 7

/** This server was removed from the group, by a committed entry that `message` names. It campaigns no more. */
#define RAFT_NOTICE_REMOVED 8

/**
 * Replicas of the group differ at the entry `index`; `message` says who, and raft_group_digest_check has it. Where a
 * majority agrees, the group stops next on the servers of those who differ.
 */
#define RAFT_NOTICE_DIVERGED 9

/** Where `query` leaves its answer. Lives until `query` returns. */
typedef struct raft_reply raft_reply;

/** Where `apply` leaves its results. Lives until `apply` returns. */
typedef struct raft_results raft_results;

/** A complete, verified snapshot on the local disk, read from its beginning. Lives until `restore` returns. */
typedef struct raft_snapshot_reader raft_snapshot_reader;

/** One committed entry for the state machine. Comes in arrays: its layout is frozen. */
typedef struct raft_entry {
    /** Its place in the log. Indices ascend; there are gaps where the library's own entries are. */
    uint64_t index;
    /** The term of the leader that made it. */
    uint64_t term;
    /**
     * The group's own time, in nanoseconds since the group was formed; the same on every replica, and never less
     * than the entry's before. The only clock that a state machine may look at.
     */
    uint64_t log_time;
    /** What was proposed. Lives until `apply` returns. */
    const uint8_t *data;
    /** Its length in bytes. */
    size_t length;
    /** Zero. */
    uint64_t reserved[3];
} raft_entry;

/** How one request ended. Every accepted request has exactly one. Comes in arrays: its layout is frozen. */
typedef struct raft_completion {
    /** The tag that the request was made with. */
    uint64_t tag;
    /** RAFT_OUTCOME_...: applied, certainly not applied, or unknown. */
    uint32_t outcome;
    /** RAFT_OK where applied, else why not: RAFT_ERR_... */
    int32_t status;
    /**
     * Of a proposal, the entry's index; of a query or read, through which index the state was applied; of a
     * snapshot, the last index in it. 0 where `status` is not RAFT_OK.
     */
    uint64_t index;
    /** Of a proposal, the entry's term; else 0. */
    uint64_t term;
    /**
     * What `apply` or `query` gave; where `status` is not RAFT_OK, a message for people in UTF-8, without a NUL.
     * NULL if it is empty.
     */
    const uint8_t *result;
    /** Its length in bytes. */
    size_t result_length;
    /** With RAFT_ERR_NOT_LEADER: who leads, or 0 if that is not known. It was not reached, or not asked. */
    uint64_t leader;
    /** Zero. */
    uint64_t reserved[3];
} raft_completion;

/**
 * Something that the host may want to know without having asked. Passed singly: it may grow at its end. Look at a
 * field that came in a later version only if `size` covers it. What concerns the server is told to each of its groups.
 */
typedef struct raft_notice {
    /** The size of the struct that the library passes. */
    size_t size;
    /** RAFT_NOTICE_... */
    uint32_t kind;
    /** With RAFT_NOTICE_ROLE: RAFT_ROLE_...; else 0. */
    uint32_t role;
    /** With RAFT_NOTICE_ROLE: the term; else 0. */
    uint64_t term;
    /** With RAFT_NOTICE_ROLE: who leads, or 0. */
    uint64_t leader;
    /** With RAFT_NOTICE_REFUSED: the peer's id, or 0; else 0. */
    uint64_t server;
    /** A sentence for people, NUL-terminated UTF-8, never NULL. Lives until `notice` returns. */
    const char *message;
    /** With RAFT_NOTICE_DIVERGED: the entry at which replicas were compared; else 0. */
    uint64_t index;
} raft_notice;

/**
 * What the host gives a group. Passed singly: it may grow at its end. Zero it, then set `size` to its sizeof.
 *
 * All callbacks of a group are called one at a time, and in this order of the log: in host mode by
 * raft_server_dispatch, else by a thread of the library named "raft-apply". The one exception is `snapshot_write`,
 * which may run on a thread named "raft-snapshot" at the same time as the others. `user` is passed to each of them.
 *
 * A callback may make every call that does not wait: proposing and submitting are allowed. It may not leave by
 * longjmp or by an exception. A slow callback costs throughput, not leadership: heartbeats and disk have threads of
 * their own.
 */
typedef struct raft_state_machine {
    /** sizeof(raft_state_machine). */
    size_t size;
    /** Passed to every callback. The library never looks behind it. */
    void *user;
    /**
     * Called exactly once, after the last other callback: in raft_server_close, or in raft_server_start_group where
     * that fails, whatever the reason (but for NULL or a wrong `size` of this struct). May be NULL.
     */
    void (*destroy)(void *user);
    /**
     * Applies committed entries, in log order: each once, and never again in the life of this state. Must do the
     * same on every replica: no clock, no random number, nothing from outside.
     *
     * Returns how many it applied. `count` is the usual case; fewer means that the next one failed: the group stops
     * on this server at that entry, unapplied. It is not tried again before the server is opened again. Never NULL.
     */
    size_t (*apply)(void *user,
                    const raft_entry *entries,
                    size_t count,
                    raft_results *results);
    /**
     * Answers a question about the state, between batches of entries. It must not change the state. Returns 0, or
     * anything else if it failed. `request` lives until it returns. May be NULL: queries are then refused.
     */
    int32_t (*query)(void *user, const uint8_t *request, size_t length, raft_reply *reply);
    /**
     * Begins a snapshot of the state as it is now, between batches. Should be cheap: fork the state, freeze it, or
     * copy what is small. What it stores in `snapshot` is passed to the next two. Returns 0, or anything else if
     * there can be no snapshot now. NULL in all four where the state machine has no snapshots: the log then grows
     * for ever.
     */
    int32_t (*snapshot_begin)(void *user, void **snapshot);
    /**
     * Writes the next part of the snapshot: up to `capacity` bytes to `buffer`, how many to `written`, and true to
     * `done` with the last ones. Equal states need not give equal bytes. Returns 0, or anything else to give the
     * snapshot up.
     */
    int32_t (*snapshot_write)(void *user,
                              void *snapshot,
                              uint8_t *buffer,
                              size_t capacity,
                              size_t *written,
                              bool *done);
    /** Ends a snapshot, complete or not: called exactly once for each `snapshot_begin` that returned 0. */
    void (*snapshot_release)(void *user, void *snapshot);
    /**
     * Replaces the whole state by the one in the snapshot, at start or when this server was far behind. All or
     * nothing: returns 0 and has the new state, or anything else and the group stops on this server.
     */
    int32_t (*restore)(void *user, raft_snapshot_reader *reader);
    /**
     * Tells how requests ended, many at a time and proposals in log order. The array and the results live until it
     * returns. NULL with the setting `completions` poll, and where only waiting calls are made.
     */
    void (*completed)(void *user, const raft_completion *completions, size_t count);
    /** Tells what the host may want to know without having asked. May be NULL. */
    void (*notice)(void *user, const raft_notice *notice);
    /**
     * Tells what the state comes down to, for raft_group_check_digests: bytes that are equal where states are and, as
     * far as can be, only there. Called between batches, at the same entry on every replica. `digest` has
     * RAFT_DIGEST_BYTES bytes, which are zero; it fills in as many as it has. Returns 0, or anything else if it cannot
     * say. May take its time: entries wait, heartbeats do not. NULL: this replica takes no part.
     */
    int32_t (*digest)(void *user, uint8_t *digest);
} raft_state_machine;

/**
 * Gives the result of one entry, for whoever proposed it. It is copied at once. Without this call the result is
 * empty. Results must be the same on every replica.
 *
 * - `position`: the entry's position in the array that `apply` got.
 * - `data`, `length`: the result; at most 1 MiB. NULL and 0 for none.
 *
 * Only in `apply`, on its thread. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_TOO_LARGE, RAFT_ERR_MEMORY.
 */
int32_t raft_results_set(raft_results *results,
                         size_t position,
                         const uint8_t *data,
                         size_t length);

/**
 * Says why `apply` is about to return less than it got: NUL-terminated UTF-8, copied. It is in the group's status
 * and in the notice that the group stopped.
 *
 * Only in `apply`, on its thread. Does not block. Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT.
 */
int32_t raft_results_set_failure(raft_results *results,
                                 const char *message);

/**
 * Gives the answer to a query, or, where `query` then returns something else than 0, a message that says why it
 * failed. It is copied at once; the last call counts.
 *
 * - `data`, `length`: the answer. NULL and 0 for none.
 *
 * Only in `query`, on its thread. Does not block. Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_MEMORY.
 */
int32_t raft_reply_set(raft_reply *reply,
                       const uint8_t *data,
                       size_t length);

/**
 * Reads the next bytes of a snapshot.
 *
 * - `buffer`, `capacity`: where to put them.
 * - `length`: receives how many there are; 0 at the end of the snapshot, and only there.
 *
 * Only in `restore`, on its thread. Blocks on the disk. Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_IO.
 */
int32_t raft_snapshot_reader_read(raft_snapshot_reader *reader,
                                  uint8_t *buffer,
                                  size_t capacity,
                                  size_t *length);

/**
 * The index of the last entry that the snapshot includes; 0 for what is not a reader. Only in `restore`. Does not
 * block.
 */
uint64_t raft_snapshot_reader_index(const raft_snapshot_reader *reader);

/** The term of that entry; 0 for what is not a reader. Only in `restore`. Does not block. */
uint64_t raft_snapshot_reader_term(const raft_snapshot_reader *reader);

/**
 * The snapshot's length in bytes, as `snapshot_write` wrote it; 0 for what is not a reader. Only in `restore`. Does
 * not block.
 */
uint64_t raft_snapshot_reader_length(const raft_snapshot_reader *reader);

/* ---- Starting a group -------------------------------------------------------------------------------------------- */

/**
 * Form a new group with these members, all voters, and these settings. The same arguments on every one of them; where
 * the directory already holds the group, formed with the same arguments, this continues it.
 */
#define RAFT_START_BOOTSTRAP 1

/** Continue a group that the directory already holds. */
#define RAFT_START_RESTART 2

/**
 * Wait to be added to a group that runs elsewhere, by raft_group_change_members at its leader; until then its role is
 * RAFT_ROLE_FORMING. Where the directory already holds the group, this continues it. Its id must be above all that the
 * group ever used.
 */
#define RAFT_START_JOIN 3

/**
 * How a group comes to be on a server. Passed singly: it may grow at its end. Zero it, then set `size` to its
 * sizeof.
 */
typedef struct raft_start {
    /** sizeof(raft_start). */
    size_t size;
    /** The group's id, the same on every server; not 0. */
    uint64_t group;
    /** RAFT_START_... */
    uint32_t how;
    /** Zero. */
    uint32_t reserved0;
    /** The members to bootstrap with, this server among them; else NULL. Borrowed for the call. */
    const raft_member *members;
    /** How many. */
    size_t member_count;
    /**
     * The index through which the state machine has already applied, because it keeps its state durably itself; else
     * 0. Beyond the log, the start is refused.
     */
    uint64_t applied;
    /**
     * With RAFT_START_BOOTSTRAP, what every replica computes by; NULL for the defaults. Else NULL. Borrowed for the
     * call.
     */
    const raft_settings *settings;
    /**
     * With RAFT_START_JOIN, where some members of the group are dialled: "host:port" each, NUL-terminated. They need
     * not all be up, nor be all; with none, the server waits to be dialled. Else NULL. Borrowed for the call.
     */
    const char *const *contacts;
    /** How many. */
    size_t contact_count;
} raft_start;

/**
 * Starts a group on a server.
 *
 * - `start`: which group, and how; borrowed for the call.
 * - `state_machine`: copied; what its `user` points to must live until `destroy` is called.
 * - `out`: receives the group, which belongs to the server; NULL on failure.
 *
 * Returns before the group is formed or has a leader: notices and raft_group_status tell. The first callbacks may
 * come before it returns. Any thread, not in a callback. Blocks until the library's loop has taken it: milliseconds.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_STRUCT_SIZE, RAFT_ERR_GROUP_EXISTS, RAFT_ERR_GROUP_START,
 * RAFT_ERR_IN_CALLBACK, RAFT_ERR_CLOSED, RAFT_ERR_STOPPED, RAFT_ERR_FORKED.
 */
int32_t raft_server_start_group(raft_server *server,
                                const raft_start *start,
                                const raft_state_machine *state_machine,
                                raft_group **out,
                                raft_error **error);

/* ---- Proposing --------------------------------------------------------------------------------------------------- */

/** What a waiting call brought back: a copy that the caller owns. */
typedef struct raft_result raft_result;

/** Bytes to append to a group's log. Lives in arrays: its layout is frozen. Zero it before filling it in. */
typedef struct raft_item {
    /** Comes back with the completion; need not be unique. */
    uint64_t tag;
    /** The bytes: copied, borrowed for the call. NULL if there are none. */
    const uint8_t *data;
    /** How many; at most the setting `max_entry_bytes`. */
    size_t length;
    /** The session that it belongs to (raft_group_open_session); 0: to none, and then so are the next two fields. */
    uint64_t session;
    /** Which of the session's commands it is. The same command has the same number whenever it is proposed again. */
    uint64_t sequence;
    /**
     * The lowest sequence of the session that may still be proposed again: answers of those below are forgotten. 0:
     * any.
     */
    uint64_t lowest_outstanding;
    /** Zero. */
    uint64_t reserved[2];
} raft_item;

/**
 * Proposes an array of items, as one batch and in this order, and returns without waiting for them.
 *
 * Items of sessions and others may be mixed. All of them are accepted or none. Each accepted one completes exactly
 * once, by `completed` or raft_group_poll. Items that are not accepted have no completion: they are certainly not
 * applied.
 *
 * Where another server leads, it is asked, once: an item is applied on this server either way before it completes as
 * applied. Where contact with the leader is lost meanwhile, the outcome is unknown (RAFT_ERR_UNKNOWN). With the setting
 * `forwarding` off, or without contact, it completes as RAFT_ERR_NOT_LEADER.
 *
 * - `items`, `count`: borrowed for the call. A count of 0 does nothing.
 *
 * Any thread, also in a callback. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_TOO_LARGE, RAFT_ERR_OVERLOADED (more than `queue_bytes`
 * wait), RAFT_ERR_MODE (there is neither `completed` nor poll to tell the end), RAFT_ERR_MEMORY, RAFT_ERR_STOPPED,
 * RAFT_ERR_CLOSED, RAFT_ERR_FORKED.
 */
int32_t raft_group_propose(raft_group *group,
                           const raft_item *items,
                           size_t count,
                           raft_error **error);

/**
 * Takes completions, with the setting `completions` poll.
 *
 * - `completions`, `capacity`: an array to fill. The results in it belong to the library and live until the next
 *   raft_group_poll on this group, or raft_server_free.
 * - `count`: receives how many were stored; 0 if there are none now: wait on raft_server_descriptor.
 *
 * In host mode completions are made by raft_server_dispatch, so poll after it. One thread at a time for each group,
 * also in a callback. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_MODE (the setting is "callback"), RAFT_ERR_END (the server is
 * closed, and nothing is left), RAFT_ERR_FORKED.
 */
int32_t raft_group_poll(raft_group *group,
                        raft_completion *completions,
                        size_t capacity,
                        size_t *count,
                        raft_error **error);

/**
 * Proposes one entry and waits until it is applied on this server.
 *
 * - `data`, `length`: borrowed for the call. NULL and 0 are an empty entry.
 * - `timeout_ms`: how long to wait; -1 waits without limit. When it is over, the outcome is unknown.
 * - `out`: receives what `apply` gave, which the caller owns and releases with raft_result_free; NULL on failure.
 *   May be NULL where nobody asks.
 *
 * Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks. The outcome is
 * in `error`: RAFT_OUTCOME_NOT_APPLIED or RAFT_OUTCOME_UNKNOWN.
 * Errors: those of raft_group_propose, RAFT_ERR_NOT_LEADER, RAFT_ERR_DISK_FULL, RAFT_ERR_FORMING, RAFT_ERR_UNKNOWN,
 * RAFT_ERR_TIMEOUT, RAFT_ERR_IN_CALLBACK.
 */
int32_t raft_group_propose_wait(raft_group *group,
                                const uint8_t *data,
                                size_t length,
                                int64_t timeout_ms,
                                raft_result **out,
                                raft_error **error);

/**
 * The bytes of a result; NULL if there are none. They belong to the result and live as long. One thread at a time.
 * Does not block.
 */
const uint8_t *raft_result_data(const raft_result *result);

/** How many there are. One thread at a time. Does not block. */
size_t raft_result_length(const raft_result *result);

/** The index of the entry; 0 of a query. One thread at a time. Does not block. */
uint64_t raft_result_index(const raft_result *result);

/** The term of the entry; 0 of a query. One thread at a time. Does not block. */
uint64_t raft_result_term(const raft_result *result);

/** Releases a result. NULL is allowed. Any thread. Does not block. */
void raft_result_free(raft_result *result);

/* ---- Sessions ---------------------------------------------------------------------------------------------------- */

/**
 * Opens a session, under which commands that are proposed again are applied once, and waits until it is open.
 *
 * A session is a number, which is never used again in its group. Give it with each item, and number the items of a
 * session from 1; then an item that ended as unknown may be proposed again, at any server of the group, with the same
 * `session` and `sequence`: it is applied once, and every proposal of it that ends as applied has the first one's
 * result, index and term. A client tells in `lowest_outstanding` which answers it has, so that they can be forgotten.
 *
 * A session ends when it is ended, when nobody uses it for as long as the group's settings say, or when others are
 * opened and it is the one used least recently. A command of one that has ended is not applied, and ends as unknown:
 * RAFT_ERR_SESSION_EXPIRED.
 *
 * - `timeout_ms`: how long to wait; -1 waits without limit. Where the outcome is unknown, open another one.
 * - `session`: receives the session's number; 0 on failure.
 *
 * Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
 * Errors: those of raft_group_propose_wait, but for RAFT_ERR_TOO_LARGE.
 */
int32_t raft_group_open_session(raft_group *group,
                                int64_t timeout_ms,
                                uint64_t *session,
                                raft_error **error);

/**
 * As raft_group_open_session, without waiting: the session's number is the completion's `index`.
 *
 * - `tag`: comes back with the completion.
 *
 * Any thread, also in a callback. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_OVERLOADED, RAFT_ERR_MODE, RAFT_ERR_STOPPED, RAFT_ERR_CLOSED, RAFT_ERR_FORKED.
 */
int32_t raft_group_open_session_submit(raft_group *group,
                                       uint64_t tag,
                                       raft_error **error);

/**
 * Uses a session without a command, so that it does not expire, and waits until that is done.
 *
 * - `timeout_ms`: how long to wait; -1 waits without limit. It may be done again, whatever the outcome.
 *
 * Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
 * Errors: those of raft_group_open_session, RAFT_ERR_SESSION_EXPIRED.
 */
int32_t raft_group_renew_session(raft_group *group,
                                 uint64_t session,
                                 int64_t timeout_ms,
                                 raft_error **error);

/**
 * As raft_group_renew_session, without waiting.
 *
 * - `tag`: comes back with the completion.
 *
 * Any thread, also in a callback. Does not block.
 * Errors: those of raft_group_open_session_submit.
 */
int32_t raft_group_renew_session_submit(raft_group *group,
                                        uint64_t tag,
                                        uint64_t session,
                                        raft_error **error);

/**
 * Ends a session, if it has not ended, and waits until that is done.
 *
 * - `timeout_ms`: how long to wait; -1 waits without limit. It may be done again, whatever the outcome.
 *
 * Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
 * Errors: those of raft_group_open_session.
 */
int32_t raft_group_close_session(raft_group *group,
                                 uint64_t session,
                                 int64_t timeout_ms,
                                 raft_error **error);

/**
 * As raft_group_close_session, without waiting.
 *
 * - `tag`: comes back with the completion.
 *
 * Any thread, also in a callback. Does not block.
 * Errors: those of raft_group_open_session_submit.
 */
int32_t raft_group_close_session_submit(raft_group *group,
                                        uint64_t tag,
                                        uint64_t session,
                                        raft_error **error);

/**
 * As raft_group_propose_wait, for an item that may belong to a session.
 *
 * - `item`: borrowed for the call. Its tag is not looked at.
 * - `timeout_ms`, `out`: as there. Where the outcome is unknown, an item of a session may be proposed again.
 *
 * Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
 * Errors: those of raft_group_propose_wait, RAFT_ERR_SESSION_EXPIRED, RAFT_ERR_REPLY_FORGOTTEN.
 */
int32_t raft_group_propose_item_wait(raft_group *group,
                                     const raft_item *item,
                                     int64_t timeout_ms,
                                     raft_result **out,
                                     raft_error **error);

/* ---- Reading ----------------------------------------------------------------------------------------------------- */

/**
 * Covers every write that was acknowledged anywhere before the read began. Costs the leader a round trip to a
 * majority, and another server one to the leader; with the setting `forwarding` off, or without contact with the
 * leader, it ends there as RAFT_ERR_NOT_LEADER, and may be made again.
 */
#define RAFT_READ_LINEARIZABLE 1

/**
 * Covers at least the index given, on this server, waiting for it if need be: what a completion named (read your
 * writes), or an earlier read (never backwards).
 */
#define RAFT_READ_AT_LEAST 2

/** Whatever is applied on this server now. */
#define RAFT_READ_STALE 3

/**
 * As RAFT_READ_LINEARIZABLE, and without the round trip while the leader holds a lease: where the group's settings have
 * `lease_ms`, and the leader has committed in its term and is not handing over. Else it is the same. Stands on clocks:
 * the monotonic clock of every member's machine must run, while the machine does, at a rate within a tenth of the
 * others', and no machine may be suspended or migrated live: its clock would stand while the others' leases run out.
 */
#define RAFT_READ_LEASE 4

/**
 * Asks the state machine, by its `query`, and returns without waiting for the answer, which comes as a completion.
 *
 * - `tag`: comes back with the completion.
 * - `consistency`: RAFT_READ_...
 * - `index`: with RAFT_READ_AT_LEAST the index; else 0.
 * - `request`, `length`: passed to `query`; copied, borrowed for the call.
 *
 * Any thread, also in a callback. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT (also where there is no `query`), RAFT_ERR_OVERLOADED, RAFT_ERR_MODE,
 * RAFT_ERR_MEMORY, RAFT_ERR_STOPPED, RAFT_ERR_CLOSED, RAFT_ERR_FORKED.
 */
int32_t raft_group_query_submit(raft_group *group,
                                uint64_t tag,
                                uint32_t consistency,
                                uint64_t index,
                                const uint8_t *request,
                                size_t length,
                                raft_error **error);

/**
 * Asks the state machine, by its `query`, and waits for the answer.
 *
 * - `consistency`, `index`, `request`, `length`: as in raft_group_query_submit.
 * - `timeout_ms`: how long to wait; -1 waits without limit.
 * - `out`: receives the answer, which the caller owns and releases with raft_result_free; NULL on failure.
 *
 * Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
 * Errors: those of raft_group_query_submit, RAFT_ERR_NOT_LEADER, RAFT_ERR_FORMING, RAFT_ERR_CALLBACK,
 * RAFT_ERR_UNKNOWN, RAFT_ERR_TIMEOUT, RAFT_ERR_IN_CALLBACK.
 */
int32_t raft_group_query(raft_group *group,
                         uint32_t consistency,
                         uint64_t index,
                         const uint8_t *request,
                         size_t length,
                         int64_t timeout_ms,
                         raft_result **out,
                         raft_error **error);

/**
 * Asks when the host may read its own state, for hosts that keep it where they can look without `query`. Returns
 * without waiting; the completion comes when the state is fresh enough.
 *
 * - `tag`, `consistency`, `index`: as in raft_group_query_submit.
 *
 * Any thread, also in a callback. Does not block. Errors: those of raft_group_query_submit.
 */
int32_t raft_group_read_submit(raft_group *group,
                               uint64_t tag,
                               uint32_t consistency,
                               uint64_t index,
                               raft_error **error);

/**
 * Waits until the host may read its own state.
 *
 * - `consistency`, `index`: as in raft_group_query_submit.
 * - `timeout_ms`: how long to wait; -1 waits without limit.
 * - `out`: receives the index through which the state is applied; may be NULL.
 *
 * Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
 * Errors: those of raft_group_query.
 */
int32_t raft_group_read(raft_group *group,
                        uint32_t consistency,
                        uint64_t index,
                        int64_t timeout_ms,
                        uint64_t *out,
                        raft_error **error);

/* ---- Snapshots --------------------------------------------------------------------------------------------------- */

/**
 * Asks for a snapshot of the state machine now, and returns without waiting for it. The library also takes them by
 * itself, by the length of the log.
 *
 * - `tag`: comes back with the completion.
 *
 * Any thread, also in a callback. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_MODE, RAFT_ERR_STOPPED, RAFT_ERR_CLOSED, RAFT_ERR_FORKED. The completion's:
 * RAFT_ERR_BUSY (one is in progress, or nothing was applied since the last), RAFT_ERR_CALLBACK, RAFT_ERR_DISK_FULL.
 */
int32_t raft_group_snapshot_submit(raft_group *group,
                                   uint64_t tag,
                                   raft_error **error);

/**
 * Takes a snapshot now and waits until it is durable.
 *
 * - `timeout_ms`: how long to wait; -1 waits without limit. When it is over, the snapshot goes on.
 * - `out`: receives the index through which it covers the log; may be NULL.
 *
 * Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
 * Errors: those of raft_group_snapshot_submit and its completion, RAFT_ERR_TIMEOUT, RAFT_ERR_IN_CALLBACK.
 */
int32_t raft_group_snapshot(raft_group *group,
                            int64_t timeout_ms,
                            uint64_t *out,
                            raft_error **error);

/* ---- Changing members and leader --------------------------------------------------------------------------------- */

/**
 * A new server joins, under an id above all that the group ever used. Fields: `id`, `address`; `role` (0 is
 * RAFT_MEMBER_VOTER), `priority`, `context`.
 */
#define RAFT_CHANGE_ADD 1

/** A member leaves. Fields: `id`. */
#define RAFT_CHANGE_REMOVE 2

/** A learner is promoted, or a voter demoted. Fields: `id`, `role`. */
#define RAFT_CHANGE_SET_ROLE 3

/** A member is wanted more or less as a leader. Fields: `id`, `priority`. */
#define RAFT_CHANGE_SET_PRIORITY 4

/** A member moved. Fields: `id`, `address`. */
#define RAFT_CHANGE_SET_ADDRESS 5

/** The host's bytes about a member change. Fields: `id`, `context`. */
#define RAFT_CHANGE_SET_CONTEXT 6

/** What every replica computes by changes. Fields: `settings`, all of them. */
#define RAFT_CHANGE_SET_SETTINGS 7

/**
 * One part of a change of members. Lives in arrays: its layout is frozen. Zero it before filling it in; a field that
 * its kind does not name is zero.
 */
typedef struct raft_member_change {
    /** RAFT_CHANGE_ADD to RAFT_CHANGE_SET_SETTINGS. */
    uint32_t kind;
    /** RAFT_MEMBER_... */
    uint32_t role;
    /** As raft_member.priority. */
    int32_t priority;
    /** Zero. */
    uint32_t reserved0;
    /** The server's id. */
    uint64_t id;
    /** Where its peers dial it: "host:port", NUL-terminated. Borrowed for the call, as all that follows. */
    const char *address;
    /** Bytes of yours, as raft_member.context. */
    const uint8_t *context;
    /** How many; at most 1,024. */
    size_t context_length;
    /** The new settings. */
    const raft_settings *settings;
    /** Zero. */
    uint64_t reserved[3];
} raft_member_change;

/**
 * Changes the members of the group, at its leader, and waits until that is done.
 *
 * All of `changes` are one operation with one end. A server that is added runs already, started with RAFT_START_JOIN:
 * the leader meets it at its address, brings it the log while it does not vote, and promotes it once it has caught up.
 * Then the voters change, by joint consensus. Roles that stay the same are changed at once.
 *
 * - `changes`, `count`: borrowed for the call.
 * - `patience_ms`: the change is given up after this, and whom it added is gone again, if those who are to vote were
 *   not met or have not caught up by then; -1: never. Once it is past that it is never given up.
 * - `timeout_ms`: how long to wait; -1 waits without limit. When it is over, the change goes on.
 * - `out`: receives the index of the entry that did it; may be NULL.
 *
 * Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
 * Errors: those of raft_group_change_members_submit and its completion, RAFT_ERR_TIMEOUT, RAFT_ERR_IN_CALLBACK.
 */
int32_t raft_group_change_members(raft_group *group,
                                  const raft_member_change *changes,
                                  size_t count,
                                  int64_t patience_ms,
                                  int64_t timeout_ms,
                                  uint64_t *out,
                                  raft_error **error);

/**
 * As raft_group_change_members, and returns without waiting.
 *
 * - `tag`: comes back with the completion, whose `index` is that of the entry that did it.
 *
 * Any thread, also in a callback. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_STRUCT_SIZE, RAFT_ERR_OVERLOADED, RAFT_ERR_MODE,
 * RAFT_ERR_STOPPED, RAFT_ERR_CLOSED, RAFT_ERR_FORKED. The completion's: RAFT_ERR_NOT_LEADER; RAFT_ERR_BUSY (another
 * change or a hand-over is in progress, or the leader has not committed in its term yet); RAFT_ERR_INVALID (it asks for
 * what cannot be); RAFT_ERR_GIVEN_UP; RAFT_ERR_CANCELLED; RAFT_ERR_FORMING; RAFT_ERR_UNKNOWN (leadership was lost: the
 * next leader goes on with it, and raft_group_members tells).
 */
int32_t raft_group_change_members_submit(raft_group *group,
                                         uint64_t tag,
                                         const raft_member_change *changes,
                                         size_t count,
                                         int64_t patience_ms,
                                         raft_error **error);

/**
 * Gives up the change of members in progress, at the leader, and waits for its end: whom it added is gone again.
 *
 * - `timeout_ms`: how long to wait; -1 waits without limit.
 * - `out`: receives the index of the entry that did it; may be NULL.
 *
 * Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
 * Errors: those of raft_group_cancel_change_submit and its completion, RAFT_ERR_TIMEOUT, RAFT_ERR_IN_CALLBACK.
 */
int32_t raft_group_cancel_change(raft_group *group,
                                 int64_t timeout_ms,
                                 uint64_t *out,
                                 raft_error **error);

/**
 * As raft_group_cancel_change, and returns without waiting.
 *
 * - `tag`: comes back with the completion, whose `index` is that of the entry that did it.
 *
 * Any thread, also in a callback. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_OVERLOADED, RAFT_ERR_MODE, RAFT_ERR_STOPPED, RAFT_ERR_CLOSED, RAFT_ERR_FORKED. The
 * completion's: RAFT_ERR_NOT_LEADER, RAFT_ERR_INVALID (there is no change, or it is past the point of no return),
 * RAFT_ERR_FORMING, RAFT_ERR_UNKNOWN.
 */
int32_t raft_group_cancel_change_submit(raft_group *group,
                                        uint64_t tag,
                                        raft_error **error);

/**
 * Hands leadership over, at the leader, and waits until the other leads. Proposals are refused meanwhile as
 * RAFT_ERR_TRANSFERRING, which is certainly not applied.
 *
 * - `to`: the voter that is to lead, or 0 for the best one: that of the highest priority, and of these the one whose
 *   log is longest.
 * - `patience_ms`: given up after this: the leader goes on leading; -1: never.
 * - `timeout_ms`: how long to wait; -1 waits without limit. When it is over, the hand-over goes on.
 *
 * Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks.
 * Errors: those of raft_group_transfer_leadership_submit and its completion, RAFT_ERR_TIMEOUT, RAFT_ERR_IN_CALLBACK.
 */
int32_t raft_group_transfer_leadership(raft_group *group,
                                       uint64_t to,
                                       int64_t patience_ms,
                                       int64_t timeout_ms,
                                       raft_error **error);

/**
 * As raft_group_transfer_leadership, and returns without waiting.
 *
 * - `tag`: comes back with the completion.
 *
 * Any thread, also in a callback. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_OVERLOADED, RAFT_ERR_MODE, RAFT_ERR_STOPPED, RAFT_ERR_CLOSED,
 * RAFT_ERR_FORKED. The completion's: RAFT_ERR_NOT_LEADER, RAFT_ERR_BUSY (a hand-over is under way), RAFT_ERR_INVALID
 * (who is named leads or has no vote, or nobody can take over), RAFT_ERR_GIVEN_UP, RAFT_ERR_FORMING, RAFT_ERR_UNKNOWN
 * (nobody is known to lead now).
 */
int32_t raft_group_transfer_leadership_submit(raft_group *group,
                                              uint64_t tag,
                                              uint64_t to,
                                              int64_t patience_ms,
                                              raft_error **error);

/* ---- Comparing replicas ------------------------------------------------------------------------------------------ */

/** The length of a digest of a state, in bytes. */
#define RAFT_DIGEST_BYTES 32

/** A majority agrees, and nobody who answered differs. */
#define RAFT_VERDICT_AGREED 1

/** A majority agrees, and others differ: the group stops on their servers, for good. */
#define RAFT_VERDICT_DIVERGED 2

/** Replicas differ, and no majority agrees on anything: nobody knows who is right, and nobody is stopped. */
#define RAFT_VERDICT_SPLIT 3

/** Nobody differs, and those who gave a digest are no majority. */
#define RAFT_VERDICT_UNDECIDED 4

/** The replica gave a digest. */
#define RAFT_ANSWER_GIVEN 1

/** It cannot say: its state machine has no `digest` or it failed, or its state is not from before the entry. */
#define RAFT_ANSWER_UNABLE 2

/** It did not answer in time. */
#define RAFT_ANSWER_MISSING 3

/** What came of comparing the replicas of a group at one entry: a copy that the caller owns. */
typedef struct raft_digest_check raft_digest_check;

/** What one replica said in a comparison. Comes in arrays: its layout is frozen. */
typedef struct raft_replica_digest {
    /** The server's id. */
    uint64_t server;
    /** RAFT_ANSWER_... */
    uint32_t answer;
    /** 1 if it said something else than the majority: the group stops there; else 0. */
    uint32_t odd;
    /** With RAFT_ANSWER_GIVEN, what its `digest` wrote; else zeros. */
    uint8_t digest[RAFT_DIGEST_BYTES];
    /**
     * With RAFT_ANSWER_GIVEN, the CRC of the group's sessions, which the library keeps and which are compared as
     * well; else 0.
     */
    uint32_t sessions;
    /** Zero. */
    uint32_t reserved0;
    /** Zero. */
    uint64_t reserved[1];
} raft_replica_digest;

/**
 * Compares the replicas of the group, at its leader, and waits for what comes of it.
 *
 * An entry is appended. When a replica has applied everything up to it, its state machine's `digest` says what the
 * state comes down to, and the leader compares. Where replicas differ, a second entry tells everybody
 * (RAFT_NOTICE_DIVERGED). Where, besides, a majority of the voters agrees, the group stops at that entry wherever
 * the state is another, be it the leader or a learner, and again after every restart; the leader hands over first.
 * docs/operations.md says what to do then.
 *
 * - `patience_ms`: whoever has not answered by then is not waited for; -1: everybody is. Where his answer comes
 *   later, it is compared as well for as long as this leader leads.
 * - `timeout_ms`: how long to wait; -1 waits without limit. When it is over, the comparison goes on.
 * - `out`: receives what came of it, which the caller owns and releases with raft_digest_check_free; NULL on
 *   failure.
 *
 * Any thread, not in a callback; in host mode not the thread that should dispatch meanwhile. Blocks. It may be
 * asked again whatever the outcome: it changes nothing but what it finds.
 * Errors: those of raft_group_check_digests_submit and its completion, RAFT_ERR_TIMEOUT, RAFT_ERR_IN_CALLBACK.
 */
int32_t raft_group_check_digests(raft_group *group,
                                 int64_t patience_ms,
                                 int64_t timeout_ms,
                                 raft_digest_check **out,
                                 raft_error **error);

/**
 * As raft_group_check_digests, and returns without waiting.
 *
 * - `tag`: comes back with the completion, whose `index` is that of the entry; raft_group_digest_check then has
 *   what came of it.
 *
 * Any thread, also in a callback. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_OVERLOADED, RAFT_ERR_MODE, RAFT_ERR_STOPPED,
 * RAFT_ERR_CLOSED, RAFT_ERR_FORKED. The completion's: RAFT_ERR_NOT_LEADER, RAFT_ERR_BUSY (another comparison
 * waits), RAFT_ERR_GIVEN_UP (the entry was not applied here in time), RAFT_ERR_TRANSFERRING, RAFT_ERR_OVERLOADED,
 * RAFT_ERR_DISK_FULL, RAFT_ERR_FORMING, RAFT_ERR_UNKNOWN (leadership was lost).
 */
int32_t raft_group_check_digests_submit(raft_group *group,
                                        uint64_t tag,
                                        int64_t patience_ms,
                                        raft_error **error);

/**
 * The latest comparison that this server knows of since its start: one that it made as the leader, or one in which
 * replicas differ, which the log tells.
 *
 * - `out`: receives it; the caller owns it and releases it with raft_digest_check_free; NULL on failure.
 *
 * Any thread, also in a callback. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_BUSY (there is none), RAFT_ERR_CLOSED, RAFT_ERR_FORKED.
 */
int32_t raft_group_digest_check(raft_group *group,
                                raft_digest_check **out,
                                raft_error **error);

/** The entry at which replicas were compared; 0 for NULL. One thread at a time. Does not block. */
uint64_t raft_digest_check_index(const raft_digest_check *check);

/** What it comes to: RAFT_VERDICT_...; 0 for NULL. One thread at a time. Does not block. */
uint32_t raft_digest_check_verdict(const raft_digest_check *check);

/** How many replicas there are; 0 for NULL. One thread at a time. Does not block. */
size_t raft_digest_check_count(const raft_digest_check *check);

/**
 * What each replica said, as an array in order of id: raft_digest_check_count of them. It belongs to `check` and
 * lives as long. One thread at a time. Does not block.
 */
const raft_replica_digest *raft_digest_check_replicas(const raft_digest_check *check);

/** Releases a comparison. NULL is allowed. Any thread. Does not block. */
void raft_digest_check_free(raft_digest_check *check);

/* ---- Status ------------------------------------------------------------------------------------------------------ */

/** The length of a text in a status, its NUL included. What is longer is cut. */
#define RAFT_STATUS_TEXT_BYTES 256

/** The log is written from the library's loop by Linux AIO. */
#define RAFT_DISK_AIO 1

/** The log is written by a thread, directly and synchronously. */
#define RAFT_DISK_THREAD 2

/** The log is written by a thread, through the page cache, which it then syncs. */
#define RAFT_DISK_THREAD_BUFFERED 3

/** The group is not formed yet. */
#define RAFT_ROLE_FORMING 1

/** Follows a leader, or waits for one. */
#define RAFT_ROLE_FOLLOWER 2

/** Asks whether it would be voted for. */
#define RAFT_ROLE_PRE_CANDIDATE 3

/** Asks for votes. */
#define RAFT_ROLE_CANDIDATE 4

/** Leads. */
#define RAFT_ROLE_LEADER 5

/** No change of members is in progress. */
#define RAFT_PHASE_NONE 0

/** Those who are to vote catch up. The change may be given up or cancelled. */
#define RAFT_PHASE_LEARNING 1

/**
 * Every decision needs a majority of the voters before the change and one of those after it. There is no way but
 * forward.
 */
#define RAFT_PHASE_JOINT 2

/** The state of a server. Passed singly: it may grow at its end. */
typedef struct raft_server_info {
    /** Set it to sizeof(raft_server_info) before the call. The library stores how much of it is filled in. */
    size_t size;
    /** Its id in the cluster. */
    uint64_t id;
    /** Random bytes made with its data directory. */
    uint8_t identity[16];
    /** How many times the directory was opened. */
    uint64_t incarnation;
    /** The port that it listens on. */
    uint32_t port;
    /** RAFT_DISK_... */
    uint32_t disk;
    /** 1 when what it recovered is durable and it speaks with its peers; else 0. */
    uint32_t ready;
    /** 1 when it stopped by itself; else 0. */
    uint32_t stopped;
    /** 1 when it is closed; else 0. */
    uint32_t closed;
    /** Zero. */
    uint32_t reserved0;
    /** Bytes of proposals that its loop has not taken yet. */
    uint64_t queued_bytes;
    /** Peers that it has a connection to. */
    uint64_t connected_peers;
    /** Writes to the log since it was opened. */
    uint64_t log_writes;
    /** Bytes written to the log since it was opened. */
    uint64_t log_bytes;
    /** Why it stopped; NUL-terminated, else empty. */
    char stopped_reason[RAFT_STATUS_TEXT_BYTES];
} raft_server_info;

/** The state of a group on a server. Passed singly: it may grow at its end. */
typedef struct raft_group_info {
    /** Set it to sizeof(raft_group_info) before the call. The library stores how much of it is filled in. */
    size_t size;
    /** The group's id. */
    uint64_t group;
    /** RAFT_ROLE_... */
    uint32_t role;
    /** 1 when it stopped by itself on this server; else 0. */
    uint32_t stopped;
    /** The current term. */
    uint64_t term;
    /** Who leads, as far as this server knows; else 0. */
    uint64_t leader;
    /** The last entry of the log. */
    uint64_t last_index;
    /** The last entry on this server's own disk. */
    uint64_t durable_index;
    /** The last entry known to be committed. */
    uint64_t commit_index;
    /** The last entry that the state machine has applied. */
    uint64_t applied_index;
    /** The last entry that the latest snapshot includes; 0 if there is none. */
    uint64_t snapshot_index;
    /** Why it stopped; NUL-terminated, else empty. */
    char stopped_reason[RAFT_STATUS_TEXT_BYTES];
    /**
     * The entry that removed this server from the group, as far as it knows; else 0. It follows if a leader still
     * speaks to it, and campaigns no more.
     */
    uint64_t removed_index;
    /** To whom this leader is handing leadership over; else 0. */
    uint64_t transferring_to;
    /** The highest id that the group ever used: a server that is added needs a higher one. 0 before it is formed. */
    uint64_t highest_id;
    /**
     * How far the change of members in progress is: RAFT_PHASE_NONE, RAFT_PHASE_LEARNING or RAFT_PHASE_JOINT. What
     * each member becomes by it, raft_group_members tells.
     */
    uint32_t change_phase;
    /** Zero. */
    uint32_t reserved0;
    /**
     * When that change is given up, if it still is in RAFT_PHASE_LEARNING; in the group's own time, as
     * raft_entry.log_time. 0 without a change.
     */
    uint64_t change_deadline;
    /**
     * Where this server's state is not that of a majority: the entry at which they were compared. The group stopped for
     * it. Else 0.
     */
    uint64_t diverged_index;
    /** The entry of the latest comparison that raft_group_digest_check has; 0 if there is none. */
    uint64_t digest_index;
    /** What that came to: RAFT_VERDICT_...; 0 if there is none. */
    uint32_t digest_verdict;
    /** Zero. */
    uint32_t reserved1;
} raft_group_info;

/**
 * Tells the state of a server.
 *
 * - `info`: borrowed for the call; its `size` must be set.
 *
 * Any thread, also in a callback and after raft_server_close. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_STRUCT_SIZE, RAFT_ERR_FORKED.
 */
int32_t raft_server_status(raft_server *server, raft_server_info *info, raft_error **error);

/**
 * Tells the state of a group on this server.
 *
 * - `info`: borrowed for the call; its `size` must be set.
 *
 * Any thread, also in a callback. Does not block.
 * Errors: RAFT_ERR_HANDLE, RAFT_ERR_ARGUMENT, RAFT_ERR_STRUCT_SIZE, RAFT_ERR_CLOSED, RAFT_ERR_FORKED.
 */
int32_t raft_group_status(raft_group *group,
                          raft_group_info *info,
                          raft_error **error);

/* ---- Directories without a server -------------------------------------------------------------------------------- */

/** What a data directory holds of one group. Handed to the caller singly: it may grow at its end. */
typedef struct raft_directory_group {
    /** How much of it the library has filled in. */
    size_t size;
    /**
     * The cluster that the server of the directory belongs to; NUL-terminated. Lives for the call of `each`, as all
     * that is pointed to from here.
     */
    const char *cluster;
    /** The server's id. */
    uint64_t server;
    /** The group's id. */
    uint64_t group;
    /** The term of the last entry of the log. Servers are compared by (last_term, last_index), the term first. */
    uint64_t last_term;
    /** The index of the last entry of the log. */
    uint64_t last_index;
    /** How far entries are known here to be committed; more may be. */
    uint64_t commit_index;
    /** The latest term that the server knew of. */
    uint64_t term;
    /** The last entry that the latest snapshot includes; 0 if there is none. */
    uint64_t snapshot_index;
    /** The ids of those who vote, in the last configuration of the log. */
    const uint64_t *voters;
    /** How many. */
    size_t voter_count;
    /** The group's lineage: groups with another one under the same id do not talk to it. */
    uint8_t lineage[32];
    /** 1 when the group was once recovered from the loss of its quorum; else 0. */
    uint32_t recovered;
    /** Zero. */
    uint32_t reserved0;
} raft_directory_group;

/**
 * Tells what the data directory of a server that does not run holds, group by group. Changes nothing.
 *
 * - `directory`: NUL-terminated, borrowed for the call.
 * - `each`: called once a group, in order of their ids, on this thread and before the call returns.
 * - `user`: passed to `each`.
 *
 * Any thread, not in a callback. Blocks while it reads the log.
 * Errors: RAFT_ERR_ARGUMENT, RAFT_ERR_LOCKED (a server runs on it), RAFT_ERR_INVALID (it is no server's), RAFT_ERR_IO,
 * RAFT_ERR_STORAGE, RAFT_ERR_IN_CALLBACK, RAFT_ERR_FORKED.
 */
int32_t raft_directory_inspect(const char *directory,
                               void (*each)(void *user, const raft_directory_group *group),
                               void *user,
                               raft_error **error);

/**
 * Recovers a group whose majority is gone for good, from this directory alone: its server becomes the only member of
 * the group, and leads when it is started. Everything in its log is kept and becomes committed; what it does not have
 * is lost. The group has a new lineage from then on: nobody of the old group can ever take part in it, but as a new
 * server under a new id. Other groups in the directory are left alone. The log says what was done.
 *
 * Read raft_directory_risk first, and docs/operations.md: it says which server to choose, and what to do with the
 * others.
 *
 * - `directory`, `cluster`: NUL-terminated, borrowed for the call.
 * - `cluster`, `server`: whose directory it must be.
 * - `last_term`, `last_index`: the last entry of the log, as raft_directory_inspect told it: the caller has compared
 *   the servers that are left.
 *
 * If the power fails meanwhile, the group is as it was, or recovered; raft_directory_inspect tells which.
 *
 * Any thread, not in a callback. Blocks until it is durable.
 * Errors: RAFT_ERR_ARGUMENT, RAFT_ERR_SETTING (no name of a cluster), RAFT_ERR_LOCKED (a server runs on it),
 * RAFT_ERR_INVALID (the log ends elsewhere; no member; the only voter already; no such group), RAFT_ERR_STORAGE (also
 * where it is another cluster's or server's), RAFT_ERR_DISK_FULL, RAFT_ERR_IO, RAFT_ERR_IN_CALLBACK, RAFT_ERR_FORKED.
 */
int32_t raft_directory_recover(const char *directory,
                               const char *cluster,
                               uint64_t server,
                               uint64_t group,
                               uint64_t last_term,
                               uint64_t last_index,
                               raft_error **error);

/**
 * What an operator must know before raft_directory_recover, in some lines for people. Static, NUL-terminated; never
 * release it.
 *
 * Any thread, also in a callback. Does not block, cannot fail.
 */
const char *raft_directory_risk(void);

#ifdef __cplusplus
}
#endif

#endif /* RAFT_H */
