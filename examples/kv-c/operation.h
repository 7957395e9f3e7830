/*
 * What an operator wants done: on its way from the table of commands to the engine, as bytes.
 *
 * One byte for the kind; the server's id; for an addition one byte that says whether it is to be a learner, and two
 * texts, each with its NUL: where its peers dial it, and where clients do.
 */
#ifndef KV_OPERATION_H
#define KV_OPERATION_H

#include "buffer.h"

enum operation_kind {
    OPERATION_ADD = 1,
    OPERATION_REMOVE = 2,
    OPERATION_CANCEL = 3,
    OPERATION_TRANSFER = 4, /* id 0: to the best voter */
    OPERATION_SNAPSHOT = 5, /* of this server, whoever leads */
    OPERATION_DIGEST = 6,   /* compares the replicas */
};

struct operation {
    enum operation_kind kind;
    uint64_t id;
    bool is_learner;
    const char *raft_address;
    const char *resp_address;
};

void operation_append(struct buffer *bytes, const struct operation *operation);

/* What `operation_append` wrote; the texts are views into the bytes. */
struct operation operation_read(struct slice bytes);

#endif
