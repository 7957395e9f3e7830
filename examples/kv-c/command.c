#include "command.h"

#include "local.h"
#include "machine.h"

#include <string.h>

struct command_entry {
    const char *name;
    /* How many arguments with the name; negative: at least so many. */
    int arity;
    const char *flags; /* words, for COMMAND */
    int first_key;
    int last_key;
    int key_step;
    command_handler *handler;
    const char *group;
    const char *since;
    const char *summary;
};

static command_handler route_append;
static command_handler route_add;
static command_handler route_clear;
static command_handler route_command;
static command_handler route_count;
static command_handler route_keys;
static command_handler route_list;
static command_handler route_session;
static command_handler route_set;
static command_handler route_set_many;
static command_handler route_word;

static const struct command_entry COMMANDS[] = {
    {"append", 3, "write fast", 1, 1, 1, route_append, "string", "2.0.0", "Appends to the value of a key."},
    {"client", -2, "fast", 0, 0, 0, local_client, "connection", "2.4.0", "SETINFO, SETNAME, GETNAME, ID."},
    {"cluster", -2, "", 0, 0, 0, local_cluster, "cluster", "3.0.0", "SLOTS, SHARDS, NODES, INFO, MYID."},
    {"command", -1, "loading stale", 0, 0, 0, route_command, "server", "2.8.13", "COUNT, DOCS, INFO, LIST."},
    {"config", -2, "", 0, 0, 0, local_config, "server", "2.0.0", "GET."},
    {"dbsize", 1, "readonly fast", 0, 0, 0, route_count, "server", "1.0.0", "Returns the number of keys."},
    {"decr", 2, "write fast", 1, 1, 1, route_add, "string", "1.0.0", "Subtracts one from the integer value of a key."},
    {"decrby", 3, "write fast", 1, 1, 1, route_add, "string", "1.0.0", "Subtracts from the integer value of a key."},
    {"del", -2, "write", 1, -1, 1, route_list, "generic", "1.0.0", "Deletes keys."},
    {"echo", 2, "fast", 0, 0, 0, local_echo, "connection", "1.0.0", "Returns the given string."},
    {"exists", -2, "readonly fast", 1, -1, 1, route_list, "generic", "1.0.0", "Counts which of the keys exist."},
    {"flushall", -1, "write", 0, 0, 0, route_clear, "server", "1.0.0", "Deletes all keys."},
    {"flushdb", -1, "write", 0, 0, 0, route_clear, "server", "1.0.0", "Deletes all keys."},
    {"get", 2, "readonly fast", 1, 1, 1, route_word, "string", "1.0.0", "Returns the value of a key, linearizably."},
    {"hello", -1, "fast", 0, 0, 0, local_hello, "connection", "6.0.0", "Chooses the protocol's version."},
    {"incr", 2, "write fast", 1, 1, 1, route_add, "string", "1.0.0", "Adds one to the integer value of a key."},
    {"incrby", 3, "write fast", 1, 1, 1, route_add, "string", "1.0.0", "Adds to the integer value of a key."},
    {"info", -1, "loading stale", 0, 0, 0, local_info, "server", "1.0.0", "Tells about the server."},
    {"keys", 2, "readonly", 0, 0, 0, route_keys, "generic", "1.0.0", "Returns the keys that match a pattern."},
    {"mget", -2, "readonly fast", 1, -1, 1, route_list, "string", "1.0.0", "Returns the values of keys."},
    {"mset", -3, "write", 1, -1, 2, route_set_many, "string", "1.0.1", "Sets keys to values, all at once."},
    {"ping", -1, "fast", 0, 0, 0, local_ping, "connection", "1.0.0", "Answers PONG, or its argument."},
    {"quit", -1, "fast", 0, 0, 0, local_quit, "connection", "1.0.0", "Ends the connection."},
    {"raft.add", -3, "admin", 0, 0, 0, operator_add, "server", "1.0.0",
     "Adds a server to the group: ID HOST:PORT [CLIENT_HOST:PORT] [VOTER|LEARNER]."},
    {"raft.cancel", 1, "admin", 0, 0, 0, operator_cancel, "server", "1.0.0",
     "Gives up the change of members in progress."},
    {"raft.digest", 1, "admin", 0, 0, 0, operator_digest, "server", "1.0.0", "Compares the replicas."},
    {"raft.members", 1, "loading stale", 0, 0, 0, operator_members, "server", "1.0.0",
     "Tells the members of the group."},
    {"raft.remove", 2, "admin", 0, 0, 0, operator_remove, "server", "1.0.0", "Removes a server from the group: ID."},
    {"raft.session", -2, "write", 0, 0, 0, route_session, "server", "1.0.0",
     "OPEN, RENEW id, CLOSE id, or id sequence and a write: applied once, however often it is sent."},
    {"raft.snapshot", 1, "admin", 0, 0, 0, operator_snapshot, "server", "1.0.0",
     "Takes a snapshot at this server now."},
    {"raft.status", 1, "loading stale", 0, 0, 0, local_raft_status, "server", "1.0.0", "Tells how this server stands."},
    {"raft.transfer", -1, "admin", 0, 0, 0, operator_transfer, "server", "1.0.0", "Hands leadership over: [ID]."},
    {"select", 2, "fast", 0, 0, 0, local_select, "connection", "1.0.0", "Chooses the database: there is one, 0."},
    {"set", -3, "write", 1, 1, 1, route_set, "string", "1.0.0", "Sets a key to a value: [NX|XX] [GET]."},
    {"strlen", 2, "readonly fast", 1, 1, 1, route_word, "string", "2.2.0", "Returns the length of a value."},
};

#define COMMAND_COUNT_ALL (sizeof COMMANDS / sizeof COMMANDS[0])

enum command_route reply_failure(struct command_call *call, const char *text) {
    resp_error(call->reply, slice_of(text));
    return ROUTE_DONE;
}

enum command_route reply_unknown_subcommand(struct command_call *call) {
    struct buffer text = {0};
    buffer_append_text(&text, "ERR unknown subcommand or wrong number of arguments for '");
    struct slice word = call->arguments[1];
    buffer_append(&text, word.data, word.length < 128 ? word.length : 128);
    buffer_append_text(&text, "'");
    resp_error(call->reply, (struct slice){text.data, text.length});
    buffer_free(&text);
    return ROUTE_DONE;
}

static void append_bytes(struct buffer *command, struct slice bytes) {
    buffer_append_u32(command, (uint32_t)bytes.length);
    buffer_append(command, bytes.data, bytes.length);
}

static enum command_route route_set(struct command_call *call) {
    uint8_t flags = 0;
    for (size_t at = 3; at < call->argument_count; at++) {
        struct slice option = call->arguments[at];
        if (slice_is_word(option, "NX") && (flags & SET_IF_PRESENT) == 0) {
            flags |= SET_IF_MISSING;
        } else if (slice_is_word(option, "XX") && (flags & SET_IF_MISSING) == 0) {
            flags |= SET_IF_PRESENT;
        } else if (slice_is_word(option, "GET")) {
            flags |= SET_AND_GET;
        } else {
            return reply_failure(call, "ERR syntax error");
        }
    }
    buffer_append_u8(call->command, COMMAND_SET);
    buffer_append_u8(call->command, flags);
    append_bytes(call->command, call->arguments[1]);
    append_bytes(call->command, call->arguments[2]);
    return ROUTE_WRITE;
}

static enum command_route route_append(struct command_call *call) {
    buffer_append_u8(call->command, COMMAND_APPEND);
    append_bytes(call->command, call->arguments[1]);
    append_bytes(call->command, call->arguments[2]);
    return ROUTE_WRITE;
}

/* INCR, DECR, INCRBY, DECRBY. */
static enum command_route route_add(struct command_call *call) {
    int64_t delta = 1;
    if (call->argument_count == 3 && !slice_to_integer(call->arguments[2], &delta)) {
        return reply_failure(call, "ERR value is not an integer or out of range");
    }
    struct slice name = call->arguments[0];
    if (slice_is_word(name, "decr") || slice_is_word(name, "decrby")) {
        if (delta == INT64_MIN) {
            return reply_failure(call, "ERR decrement would overflow");
        }
        delta = -delta;
    }
    buffer_append_u8(call->command, COMMAND_ADD);
    buffer_append_u64(call->command, (uint64_t)delta);
    append_bytes(call->command, call->arguments[1]);
    return ROUTE_WRITE;
}

static enum command_route route_set_many(struct command_call *call) {
    if (call->argument_count % 2 == 0) {
        return reply_failure(call, "ERR wrong number of arguments for 'mset' command");
    }
    buffer_append_u8(call->command, COMMAND_SET_MANY);
    buffer_append_u32(call->command, (uint32_t)(call->argument_count / 2));
    for (size_t at = 1; at < call->argument_count; at++) {
        append_bytes(call->command, call->arguments[at]);
    }
    return ROUTE_WRITE;
}

static enum command_route route_clear(struct command_call *call) {
    bool plain = call->argument_count == 1;
    if (!plain && (call->argument_count > 2 || (!slice_is_word(call->arguments[1], "SYNC") &&
                                                !slice_is_word(call->arguments[1], "ASYNC")))) {
        return reply_failure(call, "ERR syntax error");
    }
    buffer_append_u8(call->command, COMMAND_CLEAR);
    return ROUTE_WRITE;
}

/* DEL, EXISTS, MGET. */
static enum command_route route_list(struct command_call *call) {
    struct slice name = call->arguments[0];
    enum command_kind kind = slice_is_word(name, "del")      ? COMMAND_DELETE
                             : slice_is_word(name, "exists") ? COMMAND_EXISTS
                                                             : COMMAND_GET_MANY;
    buffer_append_u8(call->command, (uint8_t)kind);
    buffer_append_u32(call->command, (uint32_t)(call->argument_count - 1));
    for (size_t at = 1; at < call->argument_count; at++) {
        append_bytes(call->command, call->arguments[at]);
    }
    return kind == COMMAND_DELETE ? ROUTE_WRITE : ROUTE_READ;
}

/* GET, STRLEN. */
static enum command_route route_word(struct command_call *call) {
    bool is_get = slice_is_word(call->arguments[0], "get");
    buffer_append_u8(call->command, is_get ? COMMAND_GET : COMMAND_LENGTH);
    append_bytes(call->command, call->arguments[1]);
    return ROUTE_READ;
}

static enum command_route route_keys(struct command_call *call) {
    buffer_append_u8(call->command, COMMAND_KEYS);
    append_bytes(call->command, call->arguments[1]);
    return ROUTE_READ;
}

static enum command_route route_count(struct command_call *call) {
    buffer_append_u8(call->command, COMMAND_COUNT);
    return ROUTE_READ;
}

static const struct command_entry *find(struct slice name) {
    for (size_t at = 0; at < COMMAND_COUNT_ALL; at++) {
        if (slice_is_word(name, COMMANDS[at].name)) {
            return &COMMANDS[at];
        }
    }
    return NULL;
}

/* One row of COMMAND, in the ten fields of Redis 7. */
static void reply_row(struct buffer *reply, const struct command_entry *entry) {
    resp_array(reply, 10);
    resp_bulk_text(reply, entry->name);
    resp_integer(reply, entry->arity);
    uint64_t flag_count = entry->flags[0] != '\0';
    for (const char *at = entry->flags; *at != '\0'; at++) {
        flag_count += *at == ' ';
    }
    resp_array(reply, flag_count);
    for (const char *flag = entry->flags; *flag != '\0';) {
        size_t length = strcspn(flag, " ");
        buffer_append_format(reply, "+%.*s\r\n", (int)length, flag);
        flag += length + (flag[length] == ' ');
    }
    resp_integer(reply, entry->first_key);
    resp_integer(reply, entry->last_key);
    resp_integer(reply, entry->key_step);
    for (int empty = 0; empty < 4; empty++) {
        resp_array(reply, 0);
    }
}

static void reply_docs(struct buffer *reply, enum resp_version version, const struct command_entry *entry) {
    resp_bulk_text(reply, entry->name);
    resp_map(reply, version, 3);
    resp_bulk_text(reply, "summary");
    resp_bulk_text(reply, entry->summary);
    resp_bulk_text(reply, "since");
    resp_bulk_text(reply, entry->since);
    resp_bulk_text(reply, "group");
    resp_bulk_text(reply, entry->group);
}

static enum command_route command_docs(struct command_call *call) {
    enum resp_version version = call->client->version;
    if (call->argument_count == 2) {
        resp_map(call->reply, version, COMMAND_COUNT_ALL);
        for (size_t at = 0; at < COMMAND_COUNT_ALL; at++) {
            reply_docs(call->reply, version, &COMMANDS[at]);
        }
        return ROUTE_DONE;
    }
    uint64_t known = 0;
    for (size_t at = 2; at < call->argument_count; at++) {
        known += find(call->arguments[at]) != NULL;
    }
    resp_map(call->reply, version, known);
    for (size_t at = 2; at < call->argument_count; at++) {
        const struct command_entry *entry = find(call->arguments[at]);
        if (entry != NULL) {
            reply_docs(call->reply, version, entry);
        }
    }
    return ROUTE_DONE;
}

static enum command_route route_command(struct command_call *call) {
    struct buffer *reply = call->reply;
    struct slice subcommand = call->argument_count > 1 ? call->arguments[1] : slice_of("info");
    if (slice_is_word(subcommand, "docs")) {
        return command_docs(call);
    }
    if (slice_is_word(subcommand, "count") && call->argument_count == 2) {
        resp_integer(reply, COMMAND_COUNT_ALL);
        return ROUTE_DONE;
    }
    bool is_list = slice_is_word(subcommand, "list") && call->argument_count == 2;
    if (!is_list && !slice_is_word(subcommand, "info")) {
        return reply_unknown_subcommand(call);
    }
    if (call->argument_count > 2) {
        resp_array(reply, call->argument_count - 2);
        for (size_t at = 2; at < call->argument_count; at++) {
            const struct command_entry *entry = find(call->arguments[at]);
            if (entry == NULL) {
                resp_nil(reply, call->client->version);
            } else {
                reply_row(reply, entry);
            }
        }
        return ROUTE_DONE;
    }
    resp_array(reply, COMMAND_COUNT_ALL);
    for (size_t at = 0; at < COMMAND_COUNT_ALL; at++) {
        if (is_list) {
            resp_bulk_text(reply, COMMANDS[at].name);
        } else {
            reply_row(reply, &COMMANDS[at]);
        }
    }
    return ROUTE_DONE;
}

/* A session's number. */
static bool session_id(struct slice word, uint64_t *id) {
    int64_t number = 0;
    bool is_one = slice_to_integer(word, &number) && number > 0;
    *id = is_one ? (uint64_t)number : 0;
    return is_one;
}

/* RAFT.SESSION OPEN, RENEW id, CLOSE id, and id sequence command ... */
static enum command_route route_session(struct command_call *call) {
    const struct slice *words = call->arguments + 1;
    size_t count = call->argument_count - 1;
    struct session_part part = {SESSION_NOTHING, 0, 0};
    if (count == 1 && slice_is_word(words[0], "open")) {
        call->client->session.use = SESSION_OPEN;
        return ROUTE_SESSION;
    }
    bool renews = slice_is_word(words[0], "renew");
    if (count == 2 && (renews || slice_is_word(words[0], "close"))) {
        if (!session_id(words[1], &part.id)) {
            return reply_failure(call, "ERR a session is a positive integer");
        }
        part.use = renews ? SESSION_RENEW : SESSION_CLOSE;
        call->client->session = part;
        return ROUTE_SESSION;
    }
    if (count < 3) {
        return reply_unknown_subcommand(call);
    }
    int64_t sequence = 0;
    if (!session_id(words[0], &part.id) || !slice_to_integer(words[1], &sequence) || sequence < 0) {
        return reply_failure(call, "ERR a session is a positive integer, and a sequence one that is not negative");
    }
    const struct command_entry *entry = find(words[2]);
    if (entry != NULL && (strncmp(entry->flags, "write", 5) != 0 || entry->handler == route_session)) {
        return reply_failure(call, "ERR only a write can be a command of a session");
    }
    part.use = SESSION_COMMAND;
    part.sequence = (uint64_t)sequence;
    enum command_route route =
        command_route(words + 2, count - 2, call->client, call->server, call->command, call->reply);
    if (route == ROUTE_WRITE) {
        call->client->session = part;
    }
    return route;
}

static void reply_unknown_command(const struct slice *arguments, size_t argument_count, struct buffer *reply) {
    struct buffer text = {0};
    buffer_append_text(&text, "ERR unknown command '");
    buffer_append(&text, arguments[0].data, arguments[0].length < 128 ? arguments[0].length : 128);
    buffer_append_text(&text, "', with args beginning with: ");
    for (size_t at = 1; at < argument_count && text.length < 256; at++) {
        buffer_append_text(&text, "'");
        buffer_append(&text, arguments[at].data, arguments[at].length < 128 ? arguments[at].length : 128);
        buffer_append_text(&text, "' ");
    }
    resp_error(reply, (struct slice){text.data, text.length});
    buffer_free(&text);
}

enum command_route command_route(const struct slice *arguments, size_t argument_count, struct client_view *client,
                                 struct server_view *server, struct buffer *command, struct buffer *reply) {
    client->session = (struct session_part){SESSION_NOTHING, 0, 0};
    const struct command_entry *entry = find(arguments[0]);
    if (entry == NULL) {
        reply_unknown_command(arguments, argument_count, reply);
        return ROUTE_DONE;
    }
    if (entry->arity > 0 ? argument_count != (size_t)entry->arity : argument_count < (size_t)-entry->arity) {
        struct buffer text = {0};
        buffer_append_format(&text, "ERR wrong number of arguments for '%s' command", entry->name);
        resp_error(reply, (struct slice){text.data, text.length});
        buffer_free(&text);
        return ROUTE_DONE;
    }
    struct command_call call = {arguments, argument_count, client, server, command, reply};
    return entry->handler(&call);
}
