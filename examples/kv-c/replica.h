/*
 * This server's replica of the group: the state machine in the engine's hands.
 *
 * The engine runs in host mode: it calls the state machine only within `replica_dispatch`, so the whole program is one
 * thread and needs no lock. Heartbeats and the disk are on the engine's own threads.
 */
#ifndef KV_REPLICA_H
#define KV_REPLICA_H

#include "options.h"
#include "store.h"

#include <raft/raft.h>

/* Called within `replica_dispatch` and `replica_close`. */
struct replica_listener {
    void *user;
    void (*completed)(void *user, const raft_completion *completions, size_t count);
    void (*role_changed)(void *user, uint32_t role, uint64_t term, uint64_t leader);
    /* Other members, or another of their addresses. */
    void (*members_changed)(void *user);
    /* This server is no member any more. */
    void (*removed)(void *user, const char *why);
    /* The group or the server stopped by itself, for good. */
    void (*stopped)(void *user, const char *why);
    /* Something that the operator may want to know. */
    void (*noticed)(void *user, const char *message);
};

struct replica {
    struct store *store;
    struct replica_listener listener;
    raft_server *server;
    raft_group *group;
    uint64_t applied; /* the last entry that is in the store */
    struct buffer result; /* of the entry being applied */
    struct store *retired; /* replaced by a restore while a snapshot of it was being written */
    const char *restore_problem;
};

enum replica_start {
    REPLICA_STARTED,
    REPLICA_BAD_SETTING, /* the command line is at fault */
    REPLICA_FAILED,
};

/* Opens the data directory and starts the group: forms it, or continues it. What went wrong is then on stderr, and
 * there is nothing to close. */
enum replica_start replica_open(struct replica *replica, const struct options *options,
                                struct replica_listener listener);

/* Readable while there is something to dispatch; -1 if there is no such descriptor. */
int replica_descriptor(const struct replica *replica);

/* Applies what is committed and tells the listener what happened. Does not wait. */
void replica_dispatch(struct replica *replica);

/* Fills in what the engine knows. */
void replica_describe(const struct replica *replica, struct server_view *view);

/* The members in force, as an array of its own with its texts, released by free(); NULL before the group is formed, or
 * without memory. */
struct member_view *replica_members(const struct replica *replica, size_t *count);

/* Has an operation done (operation.h); its end is a completion with this tag, unless it is refused at once. */
int32_t replica_operate(struct replica *replica, uint64_t tag, struct slice operation, raft_error **error);

/* What came of the latest comparison of replicas, released by raft_digest_check_free; NULL if there is none. */
raft_digest_check *replica_digest_check(const struct replica *replica);

/* Ends it: everything open is completed, everything acknowledged is durable. False if the engine refused. */
bool replica_close(struct replica *replica);

const char *role_name(uint32_t role);

#endif
