/* Tests of what needs no cluster: the shared vectors, and what a snapshot sees while the store changes. Called with the
 * folder of the vectors. */
#undef NDEBUG

#include "../command.h"
#include "../glob.h"
#include "../machine.h"
#include "../operation.h"
#include "vectors.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static struct slice view(const struct buffer *buffer) {
    return (struct slice){buffer->data, buffer->length};
}

static const struct member_view MEMBERS[] = {
    {1, "127.0.0.1:7101", "127.0.0.1:7001", "voter", "voter", 1, 0},
    {2, "127.0.0.1:7102", "127.0.0.1:7002", "voter", "voter", 1, 0},
    {3, "[::1]:7103", "[::1]:7003", "voter", "voter", 1, 0},
};

static struct server_view server_2(void) {
    return (struct server_view){.cluster = "demo",
                                .language = "python", /* the vectors' */
                                .id = 2,
                                .members = MEMBERS,
                                .member_count = 3,
                                .role = "forming",
                                .disk = "unknown",
                                .change = "none",
                                .stopped = ""};
}

/* ---- Snapshots in memory ---- */

struct memory {
    struct slice bytes;
    size_t offset;
    size_t step;
};

static bool memory_source(void *user, unsigned char *room, size_t capacity, size_t *length) {
    struct memory *memory = user;
    size_t left = memory->bytes.length - memory->offset;
    *length = left < capacity ? left : capacity;
    *length = *length < memory->step ? *length : memory->step;
    if (*length > 0) {
        memcpy(room, memory->bytes.data + memory->offset, *length);
    }
    memory->offset += *length;
    return true;
}

static struct store *store_from(struct slice snapshot, size_t step, const char **problem) {
    struct memory memory = {snapshot, 0, step};
    return snapshot_read(memory_source, &memory, snapshot.length, problem);
}

static void write_snapshot(struct store *store, size_t step, struct buffer *out) {
    struct snapshot_writer writer;
    snapshot_writer_begin(&writer, store);
    size_t written = step;
    while (written == step) {
        unsigned char *room = buffer_reserve(out, step);
        assert(room != NULL);
        written = snapshot_writer_fill(&writer, room, step);
        out->length += written;
    }
    snapshot_writer_end(&writer);
}

static void a_snapshot_restores_to_the_same_state(struct store *store) {
    struct buffer first = {0};
    struct buffer second = {0};
    write_snapshot(store, 7, &first);
    const char *problem = NULL;
    struct store *restored = store_from(view(&first), 5, &problem);
    assert(restored != NULL && store_digest(restored) == store_digest(store));
    write_snapshot(restored, 4096, &second);
    assert(slice_equal(view(&first), view(&second)));
    store_free(restored);
    buffer_free(&first);
    buffer_free(&second);
}

/* ---- The shared vectors ---- */

static void expect_command(struct vectors *vectors, struct buffer *command) {
    struct buffer reply = {0};
    struct client_view client = {.id = 7, .version = RESP_2};
    struct server_view server = server_2();
    buffer_clear(command, 0);
    enum command_route route =
        command_route(vectors->words, vectors->word_count, &client, &server, command, &reply);
    vectors_require(vectors, "a replicated command", reply.length == 0 && command->length > 0);
    vectors_require(vectors, "the right route", route == (command->data[0] < 0x40 ? ROUTE_WRITE : ROUTE_READ));
    buffer_free(&reply);
}

static void expect_result(struct vectors *vectors, struct store *store, struct slice command, struct buffer *result) {
    struct slice wanted = vectors_hex(vectors);
    struct buffer answer = {0};
    if (machine_query(store, command, &answer) == MACHINE_APPLIED) {
        vectors_expect(vectors, "the answer to the query", view(&answer), wanted);
    } else {
        vectors_require(vectors, "that a read can be queried", command.data[0] < 0x40);
    }
    buffer_free(&answer);
    buffer_clear(result, 0);
    vectors_require(vectors, "a command", machine_apply(store, command, result) == MACHINE_APPLIED);
    vectors_expect(vectors, "the result", view(result), wanted);
}

static void expect_refused(struct vectors *vectors, struct store *store) {
    struct buffer result = {0};
    struct slice bytes = vectors_hex(vectors);
    /* In memory of its own, so that a sanitizer sees a read beyond the end. */
    unsigned char *copy = malloc(bytes.length + (bytes.length == 0));
    assert(copy != NULL);
    if (bytes.length > 0) {
        memcpy(copy, bytes.data, bytes.length);
    }
    enum machine_outcome outcome = machine_apply(store, (struct slice){copy, bytes.length}, &result);
    vectors_require(vectors, "that it is refused", outcome == MACHINE_NOT_A_COMMAND && result.length == 0);
    free(copy);
}

static void the_replicated_format_is_the_one_of_the_vectors(const char *folder) {
    struct vectors vectors;
    vectors_open(&vectors, folder, "machine.txt");
    struct store *store = store_new();
    struct buffer command = {0};
    struct buffer result = {0};
    while (vectors_next(&vectors)) {
        const char *directive = vectors.directive;
        if (strcmp(directive, "start") == 0) {
            store_free(store);
            store = store_new();
        } else if (strcmp(directive, "request") == 0) {
            vectors_words(&vectors);
            expect_command(&vectors, &command);
        } else if (strcmp(directive, "command") == 0) {
            struct slice wanted = vectors_hex(&vectors);
            if (command.length > 0) {
                vectors_expect(&vectors, "the command", view(&command), wanted);
            } else {
                buffer_append(&command, wanted.data, wanted.length);
            }
        } else if (strcmp(directive, "result") == 0) {
            expect_result(&vectors, store, view(&command), &result);
            buffer_clear(&command, 0);
        } else if (strcmp(directive, "reply2") == 0 || strcmp(directive, "reply3") == 0) {
            struct buffer reply = {0};
            enum resp_version version = directive[5] == '2' ? RESP_2 : RESP_3;
            vectors_require(&vectors, "a result", machine_reply(view(&result), version, &reply));
            vectors_expect(&vectors, "the reply", view(&reply), vectors_rest(&vectors));
            buffer_free(&reply);
        } else if (strcmp(directive, "snapshot") == 0) {
            struct buffer snapshot = {0};
            write_snapshot(store, 4096, &snapshot);
            vectors_expect(&vectors, "the snapshot", view(&snapshot), vectors_hex(&vectors));
            buffer_free(&snapshot);
            a_snapshot_restores_to_the_same_state(store);
        } else if (strcmp(directive, "digest") == 0) {
            char digest[17];
            snprintf(digest, sizeof digest, "%016" PRIx64, store_digest(store));
            vectors_expect(&vectors, "the digest", slice_of(digest), vectors_rest(&vectors));
        } else if (strcmp(directive, "refuse") == 0) {
            expect_refused(&vectors, store);
        } else {
            vectors_require(&vectors, "a known directive", strcmp(directive, "refuse-snapshot") == 0);
            const char *problem = NULL;
            vectors_require(&vectors, "that it is refused", store_from(vectors_hex(&vectors), 3, &problem) == NULL);
            assert(problem != NULL);
        }
    }
    store_free(store);
    buffer_free(&command);
    buffer_free(&result);
    vectors_close(&vectors);
}

static void patterns_match_as_in_the_vectors(const char *folder) {
    struct vectors vectors;
    vectors_open(&vectors, folder, "glob.txt");
    while (vectors_next(&vectors)) {
        vectors_words(&vectors);
        bool wanted = strcmp(vectors.directive, "matches") == 0;
        vectors_require(&vectors, vectors.directive, glob_matches(vectors.words[0], vectors.words[1]) == wanted);
    }
    vectors_close(&vectors);
}

/* An operation as the vectors write it. */
static void describe(struct operation operation, char *text, size_t length) {
    static const char *const names[] = {"", "add", "remove", "cancel", "transfer", "snapshot"};
    const char *name = names[operation.kind];
    if (operation.kind == OPERATION_ADD) {
        snprintf(text, length, "%s %" PRIu64 " %s %s %s", name, operation.id, operation.raft_address,
                 operation.resp_address[0] != '\0' ? operation.resp_address : "\"\"",
                 operation.is_learner ? "learner" : "voter");
    } else if (operation.kind == OPERATION_REMOVE || operation.kind == OPERATION_TRANSFER) {
        snprintf(text, length, "%s %" PRIu64, name, operation.id);
    } else {
        snprintf(text, length, "%s", name);
    }
}

static void the_server_answers_as_in_the_vectors(const char *folder) {
    struct vectors vectors;
    vectors_open(&vectors, folder, "local.txt");
    struct client_view client = {0};
    struct server_view server = server_2();
    struct buffer reply = {0};
    struct buffer command = {0};
    enum command_route route = ROUTE_DONE;
    while (vectors_next(&vectors)) {
        if (strcmp(vectors.directive, "client") == 0) {
            buffer_free(&client.name);
            client = (struct client_view){.id = 7, .version = RESP_2};
        } else if (strcmp(vectors.directive, "leader") == 0) {
            vectors_require(&vectors, "two numbers",
                            sscanf(vectors.rest, "%" SCNu64 " %" SCNu64, &server.leader, &server.term) == 2);
        } else if (strcmp(vectors.directive, "moved") == 0) {
            buffer_clear(&reply, 0);
            reply_not_leader(&server, strtoull(vectors.rest, NULL, 10), &reply);
        } else if (strcmp(vectors.directive, "request") == 0) {
            vectors_words(&vectors);
            buffer_clear(&reply, 0);
            route = command_route(vectors.words, vectors.word_count, &client, &server, &command, &reply);
            vectors_require(&vectors, "an answer", (command.length > 0) == (route == ROUTE_OPERATE));
        } else if (strcmp(vectors.directive, "operation") == 0) {
            char text[256];
            describe(operation_read(view(&command)), text, sizeof text);
            vectors_require(&vectors, text, strcmp(text, vectors.rest) == 0);
            buffer_clear(&command, 0);
        } else if (strcmp(vectors.directive, "reply") == 0) {
            vectors_expect(&vectors, "the reply", view(&reply), vectors_rest(&vectors));
        } else {
            vectors_require(&vectors, "a known directive", strcmp(vectors.directive, "closes") == 0);
            vectors_require(&vectors, "the end", route == ROUTE_CLOSE);
        }
    }
    buffer_free(&client.name);
    buffer_free(&reply);
    buffer_free(&command);
    vectors_close(&vectors);
}

/* Goes to the parser's next request, feeding it at most `step` bytes at a time. */
static enum resp_progress feed(struct resp_parser *parser, struct buffer *input, struct buffer *coming, size_t step) {
    for (;;) {
        enum resp_progress progress = resp_parse(parser, input);
        if (progress != RESP_MORE || coming->length == 0) {
            return progress;
        }
        resp_parser_release(parser, input);
        size_t bytes = coming->length < step ? coming->length : step;
        buffer_append(input, coming->data, bytes);
        buffer_consume(coming, bytes);
    }
}

static void requests_are_parsed_as_in_the_vectors(const char *folder, size_t step) {
    struct vectors vectors;
    vectors_open(&vectors, folder, "resp.txt");
    struct resp_parser parser;
    struct buffer input = {0};
    struct buffer coming = {0};
    resp_parser_init(&parser, 64);
    bool is_open = false;
    for (bool more = true; more;) {
        more = vectors_next(&vectors);
        if (!more || strcmp(vectors.directive, "input") == 0) {
            vectors_require(&vectors, "that nothing is left of the input before",
                            !is_open || feed(&parser, &input, &coming, step) == RESP_MORE);
            resp_parser_free(&parser);
            resp_parser_init(&parser, 64);
            buffer_clear(&input, 0);
            buffer_clear(&coming, 0);
            struct slice bytes = more ? vectors_rest(&vectors) : (struct slice){NULL, 0};
            buffer_append(&coming, bytes.data, bytes.length);
            is_open = true;
            continue;
        }
        enum resp_progress progress = feed(&parser, &input, &coming, step);
        if (strcmp(vectors.directive, "request") == 0) {
            vectors_words(&vectors);
            vectors_require(&vectors, "a request", progress == RESP_REQUEST);
            vectors_require(&vectors, "as many words", parser.argument_count == vectors.word_count);
            for (size_t at = 0; at < vectors.word_count; at++) {
                vectors_expect(&vectors, "a word", parser.arguments[at], vectors.words[at]);
            }
        } else if (strcmp(vectors.directive, "too-large") == 0) {
            vectors_require(&vectors, "a request too large",
                            progress == RESP_TOO_LARGE && parser.request_bytes == strtoull(vectors.rest, NULL, 10));
        } else {
            vectors_require(&vectors, "broken bytes", progress == RESP_BROKEN);
            vectors_expect(&vectors, "the error", slice_of(parser.error), vectors_rest(&vectors));
            is_open = false;
        }
        vectors_require(&vectors, "a small input", input.length <= 4096);
    }
    resp_parser_free(&parser);
    buffer_free(&input);
    buffer_free(&coming);
    vectors_close(&vectors);
}

/* ---- Properties ---- */

static uint64_t random_state = 88172645463325252u;

static uint64_t random_below(uint64_t bound) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % bound;
}

/* One change at random, among few keys, so that most of them meet. */
static void change(struct store *store) {
    char key[16];
    unsigned char value[64];
    snprintf(key, sizeof key, "key%" PRIu64, random_below(40));
    memset(value, (int)random_below(256), sizeof value);
    struct slice bytes = {value, (size_t)random_below(sizeof value)};
    switch (random_below(16)) {
    case 0:
        if (random_below(8) == 0) {
            store_clear(store);
        }
        break;
    case 1:
    case 2:
    case 3:
    case 4:
        store_delete(store, slice_of(key));
        break;
    case 5:
    case 6:
    case 7: {
        struct slice old = {NULL, 0};
        store_get(store, slice_of(key), &old);
        assert(old.length > 4096 || store_append(store, slice_of(key), bytes));
        break;
    }
    default:
        assert(store_set(store, slice_of(key), bytes));
        break;
    }
}

static void a_snapshot_sees_the_state_at_its_beginning(void) {
    struct store *store = store_new();
    for (int round = 0; round < 3000; round++) {
        for (uint64_t changes = random_below(30); changes > 0; changes--) {
            change(store);
        }
        struct buffer wanted = {0};
        write_snapshot(store, 1000, &wanted);
        struct snapshot_writer writer;
        snapshot_writer_begin(&writer, store);
        struct buffer seen = {0};
        bool gives_up = random_below(8) == 0;
        size_t step = 0;
        size_t written = 0;
        do {
            for (uint64_t changes = random_below(6); changes > 0; changes--) {
                change(store);
            }
            step = 1 + (size_t)random_below(200);
            unsigned char *room = buffer_reserve(&seen, step);
            assert(room != NULL);
            written = snapshot_writer_fill(&writer, room, step);
            seen.length += written;
        } while (written == step && !(gives_up && random_below(4) == 0));
        snapshot_writer_end(&writer);
        assert(written == step || slice_equal(view(&seen), view(&wanted)));
        buffer_free(&wanted);
        buffer_free(&seen);
    }
    a_snapshot_restores_to_the_same_state(store);
    store_free(store);
}

static void many_keys_are_all_found(void) {
    struct store *store = store_new();
    char key[16];
    for (int number = 0; number < 20000; number++) {
        int length = snprintf(key, sizeof key, "%d", number);
        assert(store_set(store, slice_of(key), (struct slice){(unsigned char *)key, (size_t)length}));
    }
    for (int number = 0; number < 20000; number += 2) {
        snprintf(key, sizeof key, "%d", number);
        assert(store_delete(store, slice_of(key)) && !store_delete(store, slice_of(key)));
    }
    assert(store_count(store) == 10000);
    for (int number = 0; number < 20000; number++) {
        struct slice value;
        snprintf(key, sizeof key, "%d", number);
        assert(store_get(store, slice_of(key), &value) == (number % 2 == 1));
        assert(number % 2 == 0 || slice_equal(value, slice_of(key)));
    }
    store_free(store);
}

static struct buffer set_command(uint8_t flags, const char *key, size_t value_bytes) {
    struct buffer command = {0};
    buffer_append_u8(&command, COMMAND_SET);
    buffer_append_u8(&command, flags);
    buffer_append_u32(&command, (uint32_t)strlen(key));
    buffer_append_text(&command, key);
    buffer_append_u32(&command, (uint32_t)value_bytes);
    unsigned char *room = buffer_reserve(&command, value_bytes + 1);
    assert(room != NULL);
    memset(room, 'v', value_bytes);
    command.length += value_bytes;
    return command;
}

static void expect_text(struct store *store, const struct buffer *command, bool as_query, const char *wanted) {
    struct buffer result = {0};
    enum machine_outcome outcome = as_query ? machine_query(store, view(command), &result)
                                            : machine_apply(store, view(command), &result);
    assert(outcome == MACHINE_APPLIED && slice_equal(view(&result), slice_of(wanted)));
    buffer_free(&result);
}

static void values_and_results_are_bounded(void) {
    struct store *store = store_new();
    struct buffer longest = set_command(0, "k", VALUE_BYTES_MAX);
    struct buffer too_long = set_command(SET_AND_GET, "k", VALUE_BYTES_MAX + 1);
    struct buffer with_get = set_command(SET_AND_GET, "k", 1);
    expect_text(store, &longest, false, "\x01");
    uint64_t digest = store_digest(store);
    expect_text(store, &too_long, false, "\x06" "ERR value would exceed 67108864 bytes");
    expect_text(store, &with_get, false, "\x06" "ERR result would exceed 1048576 bytes");
    struct buffer append = {0};
    buffer_append(&append, "\x04\x01\0\0\0k\x01\0\0\0x", 11);
    expect_text(store, &append, false, "\x06" "ERR value would exceed 67108864 bytes");
    struct buffer get = {0};
    buffer_append(&get, "\x41\x01\0\0\0k", 6);
    expect_text(store, &get, false, "\x06" "ERR result would exceed 1048576 bytes");
    struct buffer twice = {0};
    buffer_append(&twice, "\x42\x02\0\0\0\x01\0\0\0k\x01\0\0\0k", 15);
    expect_text(store, &twice, true, "\x06" "ERR answer would exceed 134217728 bytes");
    assert(store_digest(store) == digest);
    struct buffer *all[] = {&longest, &too_long, &with_get, &append, &get, &twice};
    for (size_t at = 0; at < sizeof all / sizeof all[0]; at++) {
        buffer_free(all[at]);
    }
    store_free(store);
}

int main(int argument_count, char **arguments) {
    assert(argument_count == 2);
    const char *folder = arguments[1];
    the_replicated_format_is_the_one_of_the_vectors(folder);
    patterns_match_as_in_the_vectors(folder);
    the_server_answers_as_in_the_vectors(folder);
    requests_are_parsed_as_in_the_vectors(folder, 1);
    requests_are_parsed_as_in_the_vectors(folder, 7);
    requests_are_parsed_as_in_the_vectors(folder, 1 << 20);
    a_snapshot_sees_the_state_at_its_beginning();
    many_keys_are_all_found();
    values_and_results_are_bounded();
    puts("kv-c: every test passed");
    return 0;
}
