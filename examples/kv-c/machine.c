#include "machine.h"

#include "glob.h"

#include <string.h>

static const char TOO_LONG[] = "ERR value would exceed 67108864 bytes";
static const char RESULT_TOO_LONG[] = "ERR result would exceed 1048576 bytes";
static const char ANSWER_TOO_LONG[] = "ERR answer would exceed 134217728 bytes";
static const char NOT_AN_INTEGER[] = "ERR value is not an integer or out of range";
static const char OVERFLOWS[] = "ERR increment or decrement would overflow";

/* Takes fields off the front of a command; `bad` once one was not there. */
struct reader {
    struct slice rest;
    bool bad;
};

static const unsigned char *take(struct reader *reader, size_t bytes) {
    if (reader->bad || reader->rest.length < bytes) {
        reader->bad = true;
        return NULL;
    }
    const unsigned char *data = reader->rest.data;
    reader->rest.data += bytes;
    reader->rest.length -= bytes;
    return data;
}

static uint8_t take_u8(struct reader *reader) {
    const unsigned char *data = take(reader, 1);
    return data != NULL ? data[0] : 0;
}

static uint32_t take_u32(struct reader *reader) {
    const unsigned char *data = take(reader, 4);
    return data != NULL ? load_u32(data) : 0;
}

static int64_t take_i64(struct reader *reader) {
    const unsigned char *data = take(reader, 8);
    return data != NULL ? (int64_t)load_u64(data) : 0;
}

static struct slice take_bytes(struct reader *reader) {
    uint32_t length = take_u32(reader);
    const unsigned char *data = take(reader, length);
    return data != NULL ? (struct slice){data, length} : (struct slice){NULL, 0};
}

static bool ended_well(const struct reader *reader) {
    return !reader->bad && reader->rest.length == 0;
}

/* Reads a list of `fields` byte strings an item through a copy, so that a command is known to be whole before any of
 * it is applied. Says how many items it has. */
static bool check_list(struct reader reader, unsigned fields, uint32_t *count, bool *too_long) {
    *count = take_u32(&reader);
    for (uint32_t item = 0; item < *count && !reader.bad; item++) {
        struct slice last = {NULL, 0};
        for (unsigned field = 0; field < fields; field++) {
            last = take_bytes(&reader);
        }
        *too_long = *too_long || last.length > VALUE_BYTES_MAX;
    }
    return ended_well(&reader);
}

static void result_integer(struct buffer *result, int64_t value) {
    buffer_append_u8(result, RESULT_INTEGER);
    buffer_append_u64(result, (uint64_t)value);
}

static void result_bytes(struct buffer *result, struct slice value) {
    buffer_append_u8(result, RESULT_BYTES);
    buffer_append(result, value.data, value.length);
}

static void result_error(struct buffer *result, const char *text) {
    buffer_append_u8(result, RESULT_ERROR);
    buffer_append_text(result, text);
}

static enum machine_outcome applied(const struct buffer *result) {
    return result->failed ? MACHINE_NO_MEMORY : MACHINE_APPLIED;
}

static enum machine_outcome apply_set(struct store *store, struct reader reader, struct buffer *result) {
    uint8_t flags = take_u8(&reader);
    struct slice key = take_bytes(&reader);
    struct slice value = take_bytes(&reader);
    uint8_t both = SET_IF_MISSING | SET_IF_PRESENT;
    if (!ended_well(&reader) || (flags & ~(both | SET_AND_GET)) != 0 || (flags & both) == both) {
        return MACHINE_NOT_A_COMMAND;
    }
    if (value.length > VALUE_BYTES_MAX) {
        result_error(result, TOO_LONG);
        return applied(result);
    }
    struct slice old = {NULL, 0};
    bool exists = flags != 0 && store_get(store, key, &old);
    if ((flags & SET_AND_GET) != 0 && old.length + 1 > RESULT_BYTES_MAX) {
        result_error(result, RESULT_TOO_LONG);
        return applied(result);
    }
    bool sets = !((flags & SET_IF_MISSING) != 0 && exists) && !((flags & SET_IF_PRESENT) != 0 && !exists);
    if ((flags & SET_AND_GET) != 0 && exists) {
        result_bytes(result, old);
    } else if ((flags & SET_AND_GET) != 0 || !sets) {
        buffer_append_u8(result, RESULT_NIL);
    } else {
        buffer_append_u8(result, RESULT_OK);
    }
    if (sets && !store_set(store, key, value)) {
        return MACHINE_NO_MEMORY;
    }
    return applied(result);
}

static enum machine_outcome apply_delete(struct store *store, struct reader reader, struct buffer *result) {
    uint32_t count;
    bool too_long = false;
    if (!check_list(reader, 1, &count, &too_long)) {
        return MACHINE_NOT_A_COMMAND;
    }
    take_u32(&reader);
    int64_t deleted = 0;
    for (uint32_t item = 0; item < count; item++) {
        deleted += store_delete(store, take_bytes(&reader));
    }
    result_integer(result, deleted);
    return applied(result);
}

static enum machine_outcome apply_add(struct store *store, struct reader reader, struct buffer *result) {
    int64_t delta = take_i64(&reader);
    struct slice key = take_bytes(&reader);
    if (!ended_well(&reader)) {
        return MACHINE_NOT_A_COMMAND;
    }
    struct slice old;
    int64_t value = 0;
    if (store_get(store, key, &old) && !slice_to_integer(old, &value)) {
        result_error(result, NOT_AN_INTEGER);
        return applied(result);
    }
    if (delta > 0 ? value > INT64_MAX - delta : value < INT64_MIN - delta) {
        result_error(result, OVERFLOWS);
        return applied(result);
    }
    value += delta;
    struct buffer text = {0};
    buffer_append_format(&text, "%lld", (long long)value);
    bool set = !text.failed && store_set(store, key, (struct slice){text.data, text.length});
    buffer_free(&text);
    if (!set) {
        return MACHINE_NO_MEMORY;
    }
    result_integer(result, value);
    return applied(result);
}

static enum machine_outcome apply_append(struct store *store, struct reader reader, struct buffer *result) {
    struct slice key = take_bytes(&reader);
    struct slice value = take_bytes(&reader);
    if (!ended_well(&reader)) {
        return MACHINE_NOT_A_COMMAND;
    }
    struct slice old = {NULL, 0};
    store_get(store, key, &old);
    if (value.length > VALUE_BYTES_MAX || old.length > VALUE_BYTES_MAX - value.length) {
        result_error(result, TOO_LONG);
        return applied(result);
    }
    if (!store_append(store, key, value)) {
        return MACHINE_NO_MEMORY;
    }
    result_integer(result, (int64_t)(old.length + value.length));
    return applied(result);
}

static enum machine_outcome apply_set_many(struct store *store, struct reader reader, struct buffer *result) {
    uint32_t count;
    bool too_long = false;
    if (!check_list(reader, 2, &count, &too_long)) {
        return MACHINE_NOT_A_COMMAND;
    }
    if (too_long) {
        result_error(result, TOO_LONG);
        return applied(result);
    }
    take_u32(&reader);
    for (uint32_t item = 0; item < count; item++) {
        struct slice key = take_bytes(&reader);
        struct slice value = take_bytes(&reader);
        if (!store_set(store, key, value)) {
            return MACHINE_NO_MEMORY;
        }
    }
    buffer_append_u8(result, RESULT_OK);
    return applied(result);
}

static void array_item(struct buffer *result, struct slice value) {
    buffer_append_u8(result, 1);
    buffer_append_u32(result, (uint32_t)value.length);
    buffer_append(result, value.data, value.length);
}

/* Puts an error in the place of an answer that began at `start` and is longer than allowed; true if it is. */
static bool is_cut(struct buffer *result, size_t start, size_t bytes_max) {
    if (result->length - start <= bytes_max) {
        return false;
    }
    result->length = start;
    result_error(result, bytes_max == RESULT_BYTES_MAX ? RESULT_TOO_LONG : ANSWER_TOO_LONG);
    return true;
}

static enum machine_outcome query_many(const struct store *store, bool values, struct reader reader,
                                       struct buffer *result, size_t bytes_max) {
    size_t start = result->length;
    uint32_t count;
    bool too_long = false;
    if (!check_list(reader, 1, &count, &too_long)) {
        return MACHINE_NOT_A_COMMAND;
    }
    take_u32(&reader);
    int64_t found = 0;
    if (values) {
        buffer_append_u8(result, RESULT_ARRAY);
        buffer_append_u32(result, count);
    }
    for (uint32_t item = 0; item < count; item++) {
        struct slice value;
        bool exists = store_get(store, take_bytes(&reader), &value);
        found += exists;
        if (values && exists) {
            array_item(result, value);
        } else if (values) {
            buffer_append_u8(result, 0);
        }
        if (is_cut(result, start, bytes_max)) {
            return applied(result);
        }
    }
    if (!values) {
        result_integer(result, found);
    }
    return applied(result);
}

static enum machine_outcome query_keys(const struct store *store, struct slice pattern, struct buffer *result,
                                       size_t bytes_max) {
    size_t start = result->length;
    buffer_append_u8(result, RESULT_ARRAY);
    size_t count_at = result->length;
    buffer_append_u32(result, 0);
    uint32_t count = 0;
    const void *cursor = NULL;
    struct slice key;
    while (store_next_key(store, &cursor, &key)) {
        if (glob_matches(pattern, key)) {
            array_item(result, key);
            count++;
        }
        if (is_cut(result, start, bytes_max)) {
            return applied(result);
        }
    }
    if (!result->failed) {
        store_u32(result->data + count_at, count);
    }
    return applied(result);
}

static enum machine_outcome query_one(const struct store *store, uint8_t kind, struct slice key,
                                      struct buffer *result, size_t bytes_max) {
    size_t start = result->length;
    struct slice value = {NULL, 0};
    bool exists = store_get(store, key, &value);
    if (kind == COMMAND_LENGTH) {
        result_integer(result, (int64_t)value.length);
    } else if (exists) {
        result_bytes(result, value);
    } else {
        buffer_append_u8(result, RESULT_NIL);
    }
    is_cut(result, start, bytes_max);
    return applied(result);
}

static enum machine_outcome query(const struct store *store, struct slice command, struct buffer *result,
                                  size_t bytes_max) {
    struct reader reader = {command, false};
    uint8_t kind = take_u8(&reader);
    if (kind == COMMAND_GET_MANY || kind == COMMAND_EXISTS) {
        return query_many(store, kind == COMMAND_GET_MANY, reader, result, bytes_max);
    }
    bool takes_word = kind == COMMAND_GET || kind == COMMAND_LENGTH || kind == COMMAND_KEYS;
    struct slice word = takes_word ? take_bytes(&reader) : (struct slice){NULL, 0};
    if (!ended_well(&reader)) {
        return MACHINE_NOT_A_COMMAND;
    }
    switch (kind) {
    case COMMAND_GET:
    case COMMAND_LENGTH:
        return query_one(store, kind, word, result, bytes_max);
    case COMMAND_KEYS:
        return query_keys(store, word, result, bytes_max);
    case COMMAND_COUNT:
        result_integer(result, (int64_t)store_count(store));
        return applied(result);
    default:
        return MACHINE_NOT_A_COMMAND;
    }
}

enum machine_outcome machine_apply(struct store *store, struct slice command, struct buffer *result) {
    struct reader reader = {command, false};
    switch (take_u8(&reader)) {
    case COMMAND_SET:
        return apply_set(store, reader, result);
    case COMMAND_DELETE:
        return apply_delete(store, reader, result);
    case COMMAND_ADD:
        return apply_add(store, reader, result);
    case COMMAND_APPEND:
        return apply_append(store, reader, result);
    case COMMAND_SET_MANY:
        return apply_set_many(store, reader, result);
    case COMMAND_CLEAR:
        if (!ended_well(&reader)) {
            return MACHINE_NOT_A_COMMAND;
        }
        store_clear(store);
        buffer_append_u8(result, RESULT_OK);
        return applied(result);
    default:
        return query(store, command, result, RESULT_BYTES_MAX);
    }
}

enum machine_outcome machine_query(const struct store *store, struct slice command, struct buffer *result) {
    return query(store, command, result, ANSWER_BYTES_MAX);
}

bool machine_reply(struct slice result, enum resp_version version, struct buffer *reply) {
    struct reader reader = {result, false};
    uint8_t kind = take_u8(&reader);
    struct slice rest = reader.rest;
    switch (kind) {
    case RESULT_OK:
        resp_simple(reply, "OK");
        return rest.length == 0;
    case RESULT_NIL:
        resp_nil(reply, version);
        return rest.length == 0;
    case RESULT_INTEGER:
        resp_integer(reply, take_i64(&reader));
        return ended_well(&reader);
    case RESULT_BYTES:
        resp_bulk(reply, rest);
        return true;
    case RESULT_ERROR:
        resp_error(reply, rest);
        return true;
    case RESULT_ARRAY:
        break;
    default:
        return false;
    }
    uint32_t count = take_u32(&reader);
    resp_array(reply, count);
    for (uint32_t item = 0; item < count && !reader.bad; item++) {
        if (take_u8(&reader) == 0) {
            resp_nil(reply, version);
        } else {
            resp_bulk(reply, take_bytes(&reader));
        }
    }
    return ended_well(&reader);
}
