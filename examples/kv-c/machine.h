/*
 * The replicated state machine: commands, results and snapshots as FORMAT.md defines them, over a store.
 *
 * Everything here is the same on every replica, whatever language it is written in. Knows nothing of clients or Raft.
 */
#ifndef KV_MACHINE_H
#define KV_MACHINE_H

#include "buffer.h"
#include "resp.h"
#include "store.h"

/* The first byte of a command. */
enum command_kind {
    COMMAND_SET = 0x01,
    COMMAND_DELETE = 0x02,
    COMMAND_ADD = 0x03,
    COMMAND_APPEND = 0x04,
    COMMAND_SET_MANY = 0x05,
    COMMAND_CLEAR = 0x06,
    /* Reads from here on. */
    COMMAND_GET = 0x41,
    COMMAND_GET_MANY = 0x42,
    COMMAND_EXISTS = 0x43,
    COMMAND_LENGTH = 0x44,
    COMMAND_KEYS = 0x45,
    COMMAND_COUNT = 0x46,
};

enum set_flag { SET_IF_MISSING = 1, SET_IF_PRESENT = 2, SET_AND_GET = 4 };

/* The first byte of a result. */
enum result_kind {
    RESULT_OK = 0x01,
    RESULT_NIL = 0x02,
    RESULT_INTEGER = 0x03,
    RESULT_BYTES = 0x04,
    RESULT_ARRAY = 0x05,
    RESULT_ERROR = 0x06,
};

/* The longest result of a command in the log, in bytes, and the longest answer to a read outside of it. */
#define RESULT_BYTES_MAX ((size_t)1 << 20)
#define ANSWER_BYTES_MAX ((size_t)128 << 20)

enum machine_outcome {
    MACHINE_APPLIED,       /* the result was appended */
    MACHINE_NOT_A_COMMAND, /* nothing changed */
    MACHINE_NO_MEMORY,     /* the state may have changed in part: the state machine must stop */
};

/* Applies one command and appends its result. */
enum machine_outcome machine_apply(struct store *store, struct slice command, struct buffer *result);

/* Answers a read without changing anything. A write is MACHINE_NOT_A_COMMAND here. */
enum machine_outcome machine_query(const struct store *store, struct slice command, struct buffer *result);

/* Writes a result as a RESP reply; false if it is none. */
bool machine_reply(struct slice result, enum resp_version version, struct buffer *reply);

/* A snapshot being written: a step at a time, while the store changes. */
struct snapshot_writer {
    struct store *store;
    unsigned char header[16];
    size_t header_offset;
    size_t pair_offset; /* how much of the pair that is next has been written */
};

/* Begins one, in constant time, of the state as it is now. One at a time for a store. */
void snapshot_writer_begin(struct snapshot_writer *writer, struct store *store);
/* Fills the room with what comes next; fewer bytes than `capacity` mean that it is complete. */
size_t snapshot_writer_fill(struct snapshot_writer *writer, unsigned char *room, size_t capacity);
void snapshot_writer_end(struct snapshot_writer *writer);

/* Gives the next bytes of a snapshot: up to `capacity`, none at its end. False if they cannot be read. */
typedef bool snapshot_source(void *user, unsigned char *room, size_t capacity, size_t *length);

/* Reads a snapshot of so many bytes into a store of its own; NULL with the problem if it is none or memory runs out. */
struct store *snapshot_read(snapshot_source *source, void *user, uint64_t total_bytes, const char **problem);

#endif
