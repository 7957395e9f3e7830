/* Snapshots to and from bytes (FORMAT.md, "Snapshots"). */
#include "machine.h"

#include <stdlib.h>
#include <string.h>

#define MAGIC "KVSNAP01"
#define MAGIC_BYTES ((size_t)8)
#define HEADER_BYTES ((size_t)16)
#define PAIR_HEADER_BYTES ((size_t)8)

void snapshot_writer_begin(struct snapshot_writer *writer, struct store *store) {
    *writer = (struct snapshot_writer){.store = store};
    memcpy(writer->header, MAGIC, MAGIC_BYTES);
    store_u64(writer->header + MAGIC_BYTES, store_count(store));
    store_snapshot_begin(store);
}

/* Copies what of `part` lies behind `*offset`, as much as there is room for; moves all three on. */
static void copy_part(struct slice part, size_t *offset, unsigned char **room, size_t *capacity) {
    if (*offset >= part.length) {
        *offset -= part.length;
        return;
    }
    size_t bytes = part.length - *offset < *capacity ? part.length - *offset : *capacity;
    if (bytes > 0) {
        memcpy(*room, part.data + *offset, bytes);
    }
    *room += bytes;
    *capacity -= bytes;
    *offset = 0;
}

size_t snapshot_writer_fill(struct snapshot_writer *writer, unsigned char *room, size_t capacity) {
    size_t left = capacity;
    if (writer->header_offset < HEADER_BYTES) {
        size_t offset = writer->header_offset;
        size_t before = left;
        copy_part((struct slice){writer->header, HEADER_BYTES}, &offset, &room, &left);
        writer->header_offset += before - left;
    }
    struct slice key;
    struct slice value;
    while (left > 0 && store_snapshot_peek(writer->store, &key, &value)) {
        unsigned char lengths[PAIR_HEADER_BYTES];
        store_u32(lengths, (uint32_t)key.length);
        store_u32(lengths + 4, (uint32_t)value.length);
        size_t offset = writer->pair_offset;
        size_t before = left;
        copy_part((struct slice){lengths, sizeof lengths}, &offset, &room, &left);
        copy_part(key, &offset, &room, &left);
        copy_part(value, &offset, &room, &left);
        writer->pair_offset += before - left;
        if (writer->pair_offset == sizeof lengths + key.length + value.length) {
            store_snapshot_pass(writer->store);
            writer->pair_offset = 0;
        }
    }
    return capacity - left;
}

void snapshot_writer_end(struct snapshot_writer *writer) {
    if (writer->store != NULL) {
        store_snapshot_end(writer->store);
    }
    *writer = (struct snapshot_writer){0};
}

/* A snapshot being read, in pieces of a size that the disk likes. */
struct snapshot_input {
    snapshot_source *source;
    void *user;
    uint64_t bytes_left; /* by its total length, what was buffered included */
    unsigned char *piece;
    size_t piece_length;
    size_t piece_offset;
};

#define PIECE_BYTES ((size_t)256 << 10)

static const char *input_take(struct snapshot_input *input, unsigned char *room, size_t bytes) {
    if (bytes > input->bytes_left) {
        return "it ends early";
    }
    input->bytes_left -= bytes;
    while (bytes > 0) {
        if (input->piece_offset == input->piece_length) {
            input->piece_offset = 0;
            if (!input->source(input->user, input->piece, PIECE_BYTES, &input->piece_length)) {
                return "it cannot be read";
            }
            if (input->piece_length == 0) {
                return "it ends early";
            }
        }
        size_t there = input->piece_length - input->piece_offset;
        size_t copied = there < bytes ? there : bytes;
        memcpy(room, input->piece + input->piece_offset, copied);
        input->piece_offset += copied;
        room += copied;
        bytes -= copied;
    }
    return NULL;
}

static const char *read_pair(struct snapshot_input *input, struct store *store, struct buffer *pair) {
    unsigned char lengths[PAIR_HEADER_BYTES];
    const char *problem = input_take(input, lengths, sizeof lengths);
    if (problem != NULL) {
        return problem;
    }
    size_t key_length = load_u32(lengths);
    size_t value_length = load_u32(lengths + 4);
    if (value_length > VALUE_BYTES_MAX) {
        return "a value is longer than values may be";
    }
    if ((uint64_t)key_length + value_length > input->bytes_left) {
        return "it ends early";
    }
    buffer_clear(pair, (size_t)1 << 20);
    unsigned char *room = buffer_reserve(pair, key_length + value_length + 1);
    if (room == NULL) {
        return "there is no memory for it";
    }
    problem = input_take(input, room, key_length + value_length);
    if (problem != NULL) {
        return problem;
    }
    struct slice key = {room, key_length};
    struct slice value = {room + key_length, value_length};
    struct slice present;
    if (store_get(store, key, &present)) {
        return "a key occurs twice";
    }
    return store_set(store, key, value) ? NULL : "there is no memory for it";
}

static const char *read_all(struct snapshot_input *input, struct store *store) {
    unsigned char header[HEADER_BYTES];
    if (input->bytes_left < HEADER_BYTES) {
        return "it is not a snapshot of this program";
    }
    const char *problem = input_take(input, header, sizeof header);
    if (problem != NULL) {
        return problem;
    }
    if (memcmp(header, MAGIC, MAGIC_BYTES) != 0) {
        return "it is not a snapshot of this program";
    }
    uint64_t count = load_u64(header + MAGIC_BYTES);
    struct buffer pair = {0};
    for (uint64_t at = 0; at < count && problem == NULL; at++) {
        problem = read_pair(input, store, &pair);
    }
    buffer_free(&pair);
    if (problem == NULL && input->bytes_left != 0) {
        problem = "there are bytes after its last pair";
    }
    return problem;
}

struct store *snapshot_read(snapshot_source *source, void *user, uint64_t total_bytes, const char **problem) {
    struct store *store = store_new();
    struct snapshot_input input = {
        .source = source, .user = user, .bytes_left = total_bytes, .piece = malloc(PIECE_BYTES)};
    *problem = store == NULL || input.piece == NULL ? "there is no memory for it" : read_all(&input, store);
    free(input.piece);
    if (*problem != NULL) {
        store_free(store);
        return NULL;
    }
    return store;
}
