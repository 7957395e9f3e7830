/*
 * One client: its socket, what it asked, and what it will be answered, in the order of its requests.
 *
 * Requests are read ahead, so that a pipeline becomes one batch, within bounds: a client that asks without reading
 * its answers, or asks faster than they come, is not read from until it has caught up.
 *
 * Order within a connection is kept by two rules. A write waits for the reads before it, so that they cannot see it.
 * A read behind writes that are still open goes through the log like these, so that it sees them and nothing later;
 * where its answer might be too long for a result, it waits for them instead.
 */
#ifndef KV_CONNECTION_H
#define KV_CONNECTION_H

#include "command.h"

/* Requests that are read ahead of the first one without an answer. */
#define CONNECTION_REQUESTS_MAX 4096
#define CONNECTION_REQUEST_BYTES_MAX ((size_t)1 << 20)
/* Nothing more is read from a client, or looked up for it, while there is so much to be sent to it. */
#define CONNECTION_OUTPUT_BYTES_PAUSE ((size_t)1 << 20)

struct connection;
struct submission;

enum request_place {
    REQUEST_ANSWERED,
    REQUEST_IN_LOG,  /* proposed, or about to be */
    REQUEST_IN_READ, /* waits until the state is fresh enough */
    REQUEST_IN_OPERATION, /* an operator's, being done; counted with the reads */
    REQUEST_READY,   /* the state is: looked up when it is this request's turn and there is room for the answer */
};

/* One request that could not be answered at once. Whoever will answer it holds its address. */
struct request {
    struct request *next;          /* of the connection, in order */
    struct request *next_in_round; /* of those that one read answers */
    struct connection *connection;
    enum request_place place;
    enum resp_version version;
    bool is_write;
    struct session_part session;
    size_t command_bytes;
    size_t cost_bytes; /* what the connection's bound counts it for */
    struct buffer bytes; /* the command while it is to be read, then the answer */
};

struct connection {
    int descriptor; /* -1: closed, and kept only until its last request is answered */
    struct client_view client;
    struct buffer input;
    struct resp_parser parser;
    bool is_held;    /* the parser's present request waits: for those before it, or for room */
    bool is_stalled; /* there may be more in the input, but the client must read its answers first */
    bool has_ended;  /* the client will send nothing more, but may wait for its answers */
    bool is_ending;  /* to be closed once everything is answered and sent */
    struct buffer output;
    size_t output_sent;
    struct request *first;
    struct request *last;
    size_t request_count;
    size_t request_bytes;
    size_t in_log;
    size_t in_read; /* the ready ones too: until they are looked up, no later write may be applied */
};

struct connection *connection_new(int descriptor, uint64_t id, size_t request_bytes_max);
/* Not while requests are with Raft. */
void connection_free(struct connection *connection);
/* Closes the socket now. Open requests are still answered, to nobody. */
void connection_hang_up(struct connection *connection);

bool connection_wants_input(const struct connection *connection);
bool connection_wants_output(const struct connection *connection);
/* Whether something can be done for the client now, without anything new from its socket. */
bool connection_can_go_on(const struct connection *connection);
/* Whether it can be freed. */
bool connection_is_over(const struct connection *connection);

/* Reads what the socket has, up to a bound. */
void connection_receive(struct connection *connection);
/* Takes requests from the input and hands them on, as far as the bounds and the order allow. */
void connection_process(struct connection *connection, struct submission *submission, struct server_view *server);
/* Writes what the socket takes. */
void connection_send(struct connection *connection);

/* Looks up what is ready and next in turn, while there is room. */
void connection_look_up(struct connection *connection, struct submission *submission);

/* Where to put the answer of a request; then `request_answered`, which may free the request. */
struct buffer *request_answer(struct request *request);
void request_answered(struct request *request);

#endif
