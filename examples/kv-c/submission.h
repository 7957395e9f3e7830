/*
 * From requests to Raft and back: what all clients asked within one turn of the loop becomes one proposed batch and one
 * linearizable read.
 */
#ifndef KV_SUBMISSION_H
#define KV_SUBMISSION_H

#include "connection.h"
#include "replica.h"

/* Reads under way. What comes meanwhile gathers for the next one. */
#define READS_IN_FLIGHT_MAX 4

struct read_round;

struct submission {
    struct replica *replica;
    struct server_view *server;
    bool leads;
    /* Where another server leads, the engine asks it. */
    bool is_forwarding;
    size_t entry_bytes_max;
    size_t batch_bytes_max;

    /* The batch that gathers. */
    struct buffer commands;
    size_t batch_bytes; /* what the queue counts them for, and a little more */
    raft_item *items;
    size_t item_count;
    size_t item_capacity;
    /* Commands that are proposed, or about to be, and not yet completed. */
    size_t open_count;
    size_t open_bytes;
    size_t open_cost_bytes; /* as `batch_bytes` counts */
    size_t open_cost_bytes_max;

    struct buffer result; /* of the read that is being looked up */
    struct read_round *gathering;
    size_t rounds_in_flight;
};

void submission_free(struct submission *submission);

/* Whether another command may be proposed; else its connection is to wait until some have been completed. */
bool submission_has_room(const struct submission *submission, size_t command_bytes);

/* These take a request on, or answer it at once with why not. The command is copied. */
void submission_write(struct submission *submission, struct request *request, struct slice command);
void submission_read(struct submission *submission, struct request *request, struct slice command);
void submission_operate(struct submission *submission, struct request *request, struct slice operation);

/* Whether the result of a read is sure to be short enough for the log, whatever the open writes do. */
bool submission_fits_log(const struct submission *submission, struct slice command);

/* About how long the result of such a read is going to be. */
size_t submission_answer_bytes(const struct submission *submission, struct slice command);

/* Answers a read that is ready from the state as it is now. */
void submission_look_up(struct submission *submission, const struct request *request, struct buffer *answer);

/* Hands everything that gathered to Raft. */
void submission_flush(struct submission *submission);

/* Answers what these were the ends of. */
void submission_completed(struct submission *submission, const raft_completion *completions, size_t count);

#endif
