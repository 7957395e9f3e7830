/*
 * The state: keys and values in memory, in the order in which the keys were first set (FORMAT.md, "State").
 *
 * One snapshot can be read while the state changes, at no cost to begin it. Every entry has a number, given when its
 * key is set; a snapshot is the entries numbered up to the last one at its beginning, walked in order. A change to an
 * entry that the walk has yet to pass leaves the old value beside the new one (`frozen`), and a deletion leaves the
 * entry in the order without a value, until the walk has passed it.
 *
 * Not for several threads at once. Knows nothing of commands, RESP or Raft.
 */
#ifndef KV_STORE_H
#define KV_STORE_H

#include "buffer.h"

/* The longest value, in bytes: a rule of the replicated format, the same on every replica. */
#define VALUE_BYTES_MAX ((size_t)64 << 20)

struct store;

/* An empty store, or NULL without memory. */
struct store *store_new(void);
void store_free(struct store *store);

uint64_t store_count(const struct store *store);

/* Equal for equal states (FORMAT.md, "Digest"). Kept as the state changes, so asking costs nothing. */
uint64_t store_digest(const struct store *store);

/* The value of a key; false if there is none. It is valid until the next change. */
bool store_get(const struct store *store, struct slice key, struct slice *value);

/* These say false without memory, and then changed nothing. The value must be within VALUE_BYTES_MAX. */
bool store_set(struct store *store, struct slice key, struct slice value);
bool store_append(struct store *store, struct slice key, struct slice value);

/* Whether there was such a key. */
bool store_delete(struct store *store, struct slice key);
void store_clear(struct store *store);

/* Walks the keys in order: `*cursor` is NULL at first; false at the end. No change may happen in between. */
bool store_next_key(const struct store *store, const void **cursor, struct slice *key);

/* The snapshot's walk; one at a time. `peek` gives the pair that is next, until `pass` goes on to the one after it;
 * false at the end. `end` may come early. */
void store_snapshot_begin(struct store *store);
bool store_snapshot_peek(const struct store *store, struct slice *key, struct slice *value);
void store_snapshot_pass(struct store *store);
void store_snapshot_end(struct store *store);
bool store_snapshot_is_active(const struct store *store);

#endif
