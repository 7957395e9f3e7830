/* The operator's requests, RAFT.*: checked here, and done by the engine. */
#include "local.h"

#include "operation.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The longest address that the engine takes, in bytes. */
#define ADDRESS_BYTES_MAX 512

static enum command_route operate(struct command_call *call, struct operation operation) {
    if (operation.raft_address == NULL) {
        operation.raft_address = "";
    }
    if (operation.resp_address == NULL) {
        operation.resp_address = "";
    }
    operation_append(call->command, &operation);
    return ROUTE_OPERATE;
}

static bool to_id(struct slice word, uint64_t *id) {
    int64_t number;
    if (!slice_to_integer(word, &number) || number <= 0) {
        return false;
    }
    *id = (uint64_t)number;
    return true;
}

/* An address as text of its own; false if it is none. */
static bool to_address(struct slice word, char text[ADDRESS_BYTES_MAX + 1]) {
    struct slice host;
    uint16_t port;
    if (word.length > ADDRESS_BYTES_MAX || memchr(word.data, 0, word.length) != NULL) {
        return false;
    }
    memcpy(text, word.data, word.length);
    text[word.length] = '\0';
    return address_split(text, &host, &port) && port != 0;
}

static const char BAD_ID[] = "ERR a server's id is a whole number above 0";

enum command_route operator_add(struct command_call *call) {
    struct operation operation = {.kind = OPERATION_ADD};
    char raft_address[ADDRESS_BYTES_MAX + 1];
    char resp_address[ADDRESS_BYTES_MAX + 1] = "";
    size_t count = call->argument_count;
    struct slice last = call->arguments[count - 1];
    bool is_voter = slice_is_word(last, "VOTER");
    operation.is_learner = slice_is_word(last, "LEARNER");
    if (is_voter || operation.is_learner) {
        count--;
    }
    if (count < 3 || count > 4) {
        return reply_failure(call, "ERR syntax error: RAFT.ADD ID HOST:PORT [CLIENT_HOST:PORT] [VOTER|LEARNER]");
    }
    if (!to_id(call->arguments[1], &operation.id)) {
        return reply_failure(call, BAD_ID);
    }
    if (!to_address(call->arguments[2], raft_address) ||
        (count == 4 && !to_address(call->arguments[3], resp_address))) {
        return reply_failure(call, "ERR an address is HOST:PORT");
    }
    operation.raft_address = raft_address;
    operation.resp_address = resp_address;
    return operate(call, operation);
}

enum command_route operator_remove(struct command_call *call) {
    struct operation operation = {.kind = OPERATION_REMOVE};
    if (!to_id(call->arguments[1], &operation.id)) {
        return reply_failure(call, BAD_ID);
    }
    return operate(call, operation);
}

enum command_route operator_transfer(struct command_call *call) {
    struct operation operation = {.kind = OPERATION_TRANSFER};
    if (call->argument_count > 2) {
        return reply_failure(call, "ERR syntax error: RAFT.TRANSFER [ID]");
    }
    if (call->argument_count == 2 && !to_id(call->arguments[1], &operation.id)) {
        return reply_failure(call, BAD_ID);
    }
    return operate(call, operation);
}

enum command_route operator_cancel(struct command_call *call) {
    return operate(call, (struct operation){.kind = OPERATION_CANCEL});
}

enum command_route operator_snapshot(struct command_call *call) {
    return operate(call, (struct operation){.kind = OPERATION_SNAPSHOT});
}

enum command_route operator_digest(struct command_call *call) {
    return operate(call, (struct operation){.kind = OPERATION_DIGEST});
}

static void text_field(struct command_call *call, const char *name, const char *value) {
    resp_bulk_text(call->reply, name);
    resp_bulk_text(call->reply, value);
}

enum command_route operator_members(struct command_call *call) {
    struct server_view *server = call->server;
    if (server->refresh != NULL) {
        server->refresh(server);
    }
    resp_array(call->reply, server->member_count);
    for (size_t at = 0; at < server->member_count; at++) {
        const struct member_view *member = &server->members[at];
        resp_map(call->reply, call->client->version, 7);
        resp_bulk_text(call->reply, "id");
        resp_integer(call->reply, (int64_t)member->id);
        text_field(call, "raft", member->raft_address);
        text_field(call, "resp", member->resp_address);
        text_field(call, "role", member->role);
        text_field(call, "becomes", member->becomes);
        resp_bulk_text(call->reply, "priority");
        resp_integer(call->reply, member->priority);
        resp_bulk_text(call->reply, "durable");
        resp_integer(call->reply, (int64_t)member->durable);
    }
    return ROUTE_DONE;
}
