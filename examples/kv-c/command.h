/*
 * What a client may ask: the table of commands, their arguments, and where each one goes.
 *
 * A request that concerns the data is translated into a replicated command (FORMAT.md); every other one is answered
 * here. Knows no sockets and no Raft: what it tells of the cluster comes from a `struct server_view`.
 */
#ifndef KV_COMMAND_H
#define KV_COMMAND_H

#include "buffer.h"
#include "resp.h"

enum command_route {
    ROUTE_DONE,  /* the reply was appended */
    ROUTE_WRITE, /* a replicated command was appended: propose it */
    ROUTE_READ,  /* a replicated command was appended: answer it from state that is fresh enough */
    ROUTE_CLOSE, /* the reply was appended, and the connection ends with it */
    ROUTE_SESSION, /* something is to be done to a session: the client's view says what */
    ROUTE_OPERATE, /* an operation of the operator's was appended (operation.h): have it done */
};

/* What a request has to do with a session. */
enum session_use {
    SESSION_NOTHING,
    SESSION_COMMAND, /* it is one of its commands */
    SESSION_OPEN,
    SESSION_RENEW,
    SESSION_CLOSE,
};

struct session_part {
    enum session_use use;
    uint64_t id;
    uint64_t sequence;
};

/* What a command may know and change of its connection. */
struct client_view {
    uint64_t id;
    enum resp_version version;
    struct buffer name;
    struct session_part session; /* of the request that was routed last */
};

struct member_view {
    uint64_t id;
    const char *raft_address;
    const char *resp_address; /* host:port, or empty: no client is sent there */
    const char *role;         /* "voter" or "learner" */
    const char *becomes;      /* by the change in progress: the same, or "none" if it leaves */
    int priority;
    uint64_t durable; /* at the leader, of a learner: how much of the log it holds */
};

/* What a command may tell of the server. `refresh` brings the rest up to date; it may be NULL. */
struct server_view {
    void (*refresh)(struct server_view *view);
    void *user;

    const char *cluster;
    const char *language;
    uint64_t id;
    const struct member_view *members;
    size_t member_count;

    const char *role;
    uint64_t term;
    uint64_t leader; /* 0: not known */
    uint64_t last;
    uint64_t durable;
    uint64_t commit;
    uint64_t applied;
    uint64_t snapshot;
    uint64_t log_writes;
    const char *disk;
    const char *change; /* of the members: "none", "learning" or "joint" */
    uint64_t transferring_to; /* 0: leadership is not being handed over */
    uint64_t removed;         /* the entry that removed this server from the group; 0: none */
    const char *stopped; /* why the server or its group stopped; empty if it runs */
    uint64_t keys;
    uint64_t digest;
    uint64_t clients;
    uint64_t requests;
    uint64_t uptime_seconds;
};

/* Checks a request and says where it goes. Replicated commands are appended to `command`, replies to `reply`. */
enum command_route command_route(const struct slice *arguments, size_t argument_count, struct client_view *client,
                                 struct server_view *server, struct buffer *command, struct buffer *reply);

/* The member with this id; NULL if there is none. */
const struct member_view *member_find(const struct server_view *server, uint64_t id);

/* Splits host:port; false if it is none. The host is a view into the address. */
bool address_split(const char *address, struct slice *host, uint16_t *port);

/* Writes why a request that only the leader can answer was certainly not applied: MOVED or CLUSTERDOWN. */
void reply_not_leader(struct server_view *server, uint64_t leader, struct buffer *reply);

#endif
