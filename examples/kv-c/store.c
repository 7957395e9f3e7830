#include "store.h"

#include "digest.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct value {
    uint32_t crc;
    size_t length;
    size_t capacity;
    unsigned char data[];
};

struct entry {
    struct entry *bucket_next;
    struct entry *older;
    struct entry *newer;
    /* Grows along the order; never used twice. */
    uint64_t number;
    uint64_t hash;
    /* NULL once the key is deleted: then only a snapshot's walk still knows this entry. */
    struct value *value;
    /* What the snapshot must see where that is no longer `value`. */
    struct value *frozen;
    uint32_t key_crc;
    size_t key_length;
    unsigned char key[];
};

struct store {
    struct entry **buckets;
    size_t bucket_count; /* a power of two */
    uint64_t count;
    uint64_t digest;
    uint64_t next_number;
    uint64_t hash_seed;
    struct entry *oldest;
    struct entry *newest;
    /* The snapshot: the next entry of the walk (NULL: it is at its end) and the last number that belongs to it. */
    bool snapshot_active;
    struct entry *snapshot_next;
    uint64_t snapshot_last_number;
};

/* Clients choose the keys, so where they land is not theirs to know. Never leaves this process. */
static uint64_t random_seed(const void *fallback) {
    uint64_t seed = (uint64_t)(uintptr_t)fallback;
    FILE *source = fopen("/dev/urandom", "rb");
    if (source != NULL) {
        uint64_t bytes;
        if (fread(&bytes, sizeof bytes, 1, source) == 1) {
            seed ^= bytes;
        }
        fclose(source);
    }
    return seed;
}

static uint64_t hash_of(const struct store *store, struct slice key) {
    uint64_t hash = store->hash_seed ^ (key.length * UINT64_C(0x9e3779b97f4a7c15));
    size_t at = 0;
    for (; key.length - at >= 8; at += 8) {
        uint64_t word;
        memcpy(&word, key.data + at, 8);
        hash = (hash ^ word) * UINT64_C(0xff51afd7ed558ccd);
        hash ^= hash >> 32;
    }
    uint64_t tail = 0;
    for (; at < key.length; at++) {
        tail = tail << 8 | key.data[at];
    }
    hash = (hash ^ tail) * UINT64_C(0xc4ceb9fe1a85ec53);
    return hash ^ hash >> 29;
}

struct store *store_new(void) {
    struct store *store = calloc(1, sizeof *store);
    if (store == NULL) {
        return NULL;
    }
    store->bucket_count = 1024;
    store->buckets = calloc(store->bucket_count, sizeof *store->buckets);
    if (store->buckets == NULL) {
        free(store);
        return NULL;
    }
    store->hash_seed = random_seed(store);
    return store;
}

static void entry_free(struct entry *entry) {
    free(entry->value);
    free(entry->frozen);
    free(entry);
}

void store_free(struct store *store) {
    if (store == NULL) {
        return;
    }
    for (struct entry *entry = store->oldest; entry != NULL;) {
        struct entry *newer = entry->newer;
        entry_free(entry);
        entry = newer;
    }
    free(store->buckets);
    free(store);
}

uint64_t store_count(const struct store *store) {
    return store->count;
}

uint64_t store_digest(const struct store *store) {
    return store->digest;
}

/* What the entry's pair adds to the digest. */
static uint64_t digest_of(const struct entry *entry) {
    return digest_of_pair(entry->key_crc, entry->value->crc);
}

/* The link that points at the key's entry, or the bucket's last link, which is NULL. */
static struct entry **link_of(const struct store *store, struct slice key, uint64_t hash) {
    struct entry **link = &store->buckets[hash & (store->bucket_count - 1)];
    while (*link != NULL) {
        struct entry *entry = *link;
        if (entry->hash == hash && slice_equal(key, (struct slice){entry->key, entry->key_length})) {
            break;
        }
        link = &entry->bucket_next;
    }
    return link;
}

bool store_get(const struct store *store, struct slice key, struct slice *value) {
    struct entry *entry = *link_of(store, key, hash_of(store, key));
    if (entry == NULL) {
        return false;
    }
    *value = (struct slice){entry->value->data, entry->value->length};
    return true;
}

/* Whether the snapshot's walk has yet to pass the entry. */
static bool is_awaited(const struct store *store, const struct entry *entry) {
    return store->snapshot_active && store->snapshot_next != NULL && entry->number >= store->snapshot_next->number &&
           entry->number <= store->snapshot_last_number;
}

/* Takes the entry's value away: into `frozen` where the snapshot needs it, else for ever. */
static void drop_value(struct store *store, struct entry *entry) {
    if (is_awaited(store, entry) && entry->frozen == NULL) {
        entry->frozen = entry->value;
    } else {
        free(entry->value);
    }
    entry->value = NULL;
}

static void replace_value(struct store *store, struct entry *entry, struct value *value) {
    store->digest -= digest_of(entry);
    drop_value(store, entry);
    entry->value = value;
    store->digest += digest_of(entry);
}

static void unlink_from_order(struct store *store, struct entry *entry) {
    *(entry->older != NULL ? &entry->older->newer : &store->oldest) = entry->newer;
    *(entry->newer != NULL ? &entry->newer->older : &store->newest) = entry->older;
}

/* Doubles the buckets when they are full. Without memory the chains just get longer. */
static void grow_buckets(struct store *store) {
    if (store->count < store->bucket_count || store->bucket_count > SIZE_MAX / 4 / sizeof *store->buckets) {
        return;
    }
    size_t bucket_count = store->bucket_count * 2;
    struct entry **buckets = calloc(bucket_count, sizeof *buckets);
    if (buckets == NULL) {
        return;
    }
    for (size_t bucket = 0; bucket < store->bucket_count; bucket++) {
        for (struct entry *entry = store->buckets[bucket]; entry != NULL;) {
            struct entry *next = entry->bucket_next;
            struct entry **head = &buckets[entry->hash & (bucket_count - 1)];
            entry->bucket_next = *head;
            *head = entry;
            entry = next;
        }
    }
    free(store->buckets);
    store->buckets = buckets;
    store->bucket_count = bucket_count;
}

static struct value *value_new(struct slice first, struct slice second, size_t capacity) {
    assert(capacity >= first.length + second.length);
    struct value *value = malloc(sizeof *value + capacity);
    if (value == NULL) {
        return NULL;
    }
    value->length = first.length + second.length;
    value->capacity = capacity;
    value->crc = crc32_of(crc32_of(0, first), second);
    if (first.length > 0) {
        memcpy(value->data, first.data, first.length);
    }
    if (second.length > 0) {
        memcpy(value->data + first.length, second.data, second.length);
    }
    return value;
}

/* Makes an entry at the end of the order; takes the value, or frees it and says false without memory. */
static bool insert(struct store *store, struct slice key, uint64_t hash, struct value *value) {
    struct entry *entry = malloc(sizeof *entry + key.length);
    if (entry == NULL) {
        free(value);
        return false;
    }
    grow_buckets(store);
    struct entry **bucket = &store->buckets[hash & (store->bucket_count - 1)];
    *entry = (struct entry){.bucket_next = *bucket,
                            .older = store->newest,
                            .number = store->next_number,
                            .hash = hash,
                            .value = value,
                            .key_crc = crc32_of(0, key),
                            .key_length = key.length};
    if (key.length > 0) {
        memcpy(entry->key, key.data, key.length);
    }
    *bucket = entry;
    *(store->newest != NULL ? &store->newest->newer : &store->oldest) = entry;
    store->newest = entry;
    store->next_number++;
    store->count++;
    store->digest += digest_of(entry);
    return true;
}

bool store_set(struct store *store, struct slice key, struct slice value) {
    assert(value.length <= VALUE_BYTES_MAX);
    uint64_t hash = hash_of(store, key);
    struct entry *entry = *link_of(store, key, hash);
    if (entry != NULL && !is_awaited(store, entry) && value.length <= entry->value->capacity &&
        entry->value->capacity <= value.length * 2 + 64) {
        store->digest -= digest_of(entry);
        entry->value->length = value.length;
        entry->value->crc = crc32_of(0, value);
        store->digest += digest_of(entry);
        if (value.length > 0) {
            memcpy(entry->value->data, value.data, value.length);
        }
        return true;
    }
    struct value *fresh = value_new(value, (struct slice){NULL, 0}, value.length);
    if (fresh == NULL) {
        return false;
    }
    if (entry == NULL) {
        return insert(store, key, hash, fresh);
    }
    replace_value(store, entry, fresh);
    return true;
}

bool store_append(struct store *store, struct slice key, struct slice value) {
    uint64_t hash = hash_of(store, key);
    struct entry *entry = *link_of(store, key, hash);
    if (entry == NULL) {
        return store_set(store, key, value);
    }
    struct value *old = entry->value;
    size_t length = old->length + value.length;
    assert(length <= VALUE_BYTES_MAX);
    if (length <= old->capacity && !is_awaited(store, entry)) {
        if (value.length > 0) {
            memcpy(old->data + old->length, value.data, value.length);
        }
        store->digest -= digest_of(entry);
        old->length = length;
        old->crc = crc32_of(old->crc, value);
        store->digest += digest_of(entry);
        return true;
    }
    /* Twice the room, so that many small appends copy each byte a bounded number of times. */
    struct value *fresh = value_new((struct slice){old->data, old->length}, value, length * 2);
    if (fresh == NULL) {
        return false;
    }
    replace_value(store, entry, fresh);
    return true;
}

bool store_delete(struct store *store, struct slice key) {
    struct entry **link = link_of(store, key, hash_of(store, key));
    struct entry *entry = *link;
    if (entry == NULL) {
        return false;
    }
    *link = entry->bucket_next;
    store->count--;
    store->digest -= digest_of(entry);
    drop_value(store, entry);
    if (!is_awaited(store, entry)) {
        unlink_from_order(store, entry);
        entry_free(entry);
    }
    return true;
}

void store_clear(struct store *store) {
    memset(store->buckets, 0, store->bucket_count * sizeof *store->buckets);
    store->count = 0;
    store->digest = 0;
    for (struct entry *entry = store->oldest; entry != NULL;) {
        struct entry *newer = entry->newer;
        drop_value(store, entry);
        if (!is_awaited(store, entry)) {
            unlink_from_order(store, entry);
            entry_free(entry);
        }
        entry = newer;
    }
}

bool store_next_key(const struct store *store, const void **cursor, struct slice *key) {
    const struct entry *last = *cursor;
    const struct entry *entry = last == NULL ? store->oldest : last->newer;
    while (entry != NULL && entry->value == NULL) {
        entry = entry->newer;
    }
    if (entry == NULL) {
        return false;
    }
    *cursor = entry;
    *key = (struct slice){entry->key, entry->key_length};
    return true;
}

void store_snapshot_begin(struct store *store) {
    assert(!store->snapshot_active);
    store->snapshot_active = true;
    store->snapshot_next = store->oldest;
    store->snapshot_last_number = store->newest != NULL ? store->newest->number : 0;
}

bool store_snapshot_peek(const struct store *store, struct slice *key, struct slice *value) {
    assert(store->snapshot_active);
    const struct entry *entry = store->snapshot_next;
    if (entry == NULL) {
        return false;
    }
    const struct value *seen = entry->frozen != NULL ? entry->frozen : entry->value;
    *key = (struct slice){entry->key, entry->key_length};
    *value = (struct slice){seen->data, seen->length};
    return true;
}

void store_snapshot_pass(struct store *store) {
    struct entry *entry = store->snapshot_next;
    assert(store->snapshot_active && entry != NULL);
    struct entry *newer = entry->newer;
    store->snapshot_next = newer != NULL && newer->number <= store->snapshot_last_number ? newer : NULL;
    free(entry->frozen);
    entry->frozen = NULL;
    if (entry->value == NULL) {
        unlink_from_order(store, entry);
        entry_free(entry);
    }
}

void store_snapshot_end(struct store *store) {
    while (store->snapshot_next != NULL) {
        store_snapshot_pass(store);
    }
    store->snapshot_active = false;
}

bool store_snapshot_is_active(const struct store *store) {
    return store->snapshot_active;
}
