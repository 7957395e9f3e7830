#include "local.h"

#include "glob.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* What clients take us for: the version whose protocol this is. */
#define REDIS_VERSION "7.4.0"
#define SLOT_LAST 16383
#define NODE_ID_BYTES 41

static void refresh(struct server_view *server) {
    if (server->refresh != NULL) {
        server->refresh(server);
    }
}

const struct member_view *member_find(const struct server_view *server, uint64_t id) {
    for (size_t at = 0; at < server->member_count; at++) {
        if (server->members[at].id == id) {
            return &server->members[at];
        }
    }
    return NULL;
}

bool address_split(const char *address, struct slice *host, uint16_t *port) {
    const char *colon = strrchr(address, ':');
    int64_t number;
    if (colon == NULL || colon == address || !slice_to_integer(slice_of(colon + 1), &number) || number < 0 ||
        number > UINT16_MAX) {
        return false;
    }
    size_t length = (size_t)(colon - address);
    bool bracketed = length > 2 && address[0] == '[' && address[length - 1] == ']';
    *host = (struct slice){(const unsigned char *)address + bracketed, length - 2 * bracketed};
    *port = (uint16_t)number;
    return true;
}

/* An address as clients want it: of IPv6 ones, without the brackets. */
static void append_address(struct buffer *text, const char *address) {
    struct slice host;
    uint16_t port;
    if (address_split(address, &host, &port)) {
        buffer_append(text, host.data, host.length);
        buffer_append_format(text, ":%u", port);
    } else {
        buffer_append_text(text, address);
    }
}

/* The leader, as clients may dial it; NULL if none is known that they may. */
static const struct member_view *client_find(const struct server_view *server, uint64_t id) {
    const struct member_view *member = member_find(server, id);
    return member != NULL && member->resp_address[0] != '\0' ? member : NULL;
}

void reply_not_leader(struct server_view *server, uint64_t leader, struct buffer *reply) {
    const struct member_view *member = leader == server->id ? NULL : client_find(server, leader);
    if (member == NULL && leader != 0 && leader != server->id) {
        refresh(server); /* it may be a member since a moment ago */
        member = client_find(server, leader);
    }
    if (member == NULL) {
        static const char text[] =
            "CLUSTERDOWN no leader is known: there is an election, or no majority is connected";
        resp_error(reply, slice_of(text));
        return;
    }
    struct buffer text = {0};
    buffer_append_text(&text, "MOVED 0 ");
    append_address(&text, member->resp_address);
    resp_error(reply, (struct slice){text.data, text.length});
    buffer_free(&text);
}

enum command_route local_ping(struct command_call *call) {
    if (call->argument_count > 2) {
        return reply_failure(call, "ERR wrong number of arguments for 'ping' command");
    }
    if (call->argument_count == 2) {
        resp_bulk(call->reply, call->arguments[1]);
    } else {
        resp_simple(call->reply, "PONG");
    }
    return ROUTE_DONE;
}

enum command_route local_echo(struct command_call *call) {
    resp_bulk(call->reply, call->arguments[1]);
    return ROUTE_DONE;
}

enum command_route local_quit(struct command_call *call) {
    resp_simple(call->reply, "OK");
    return ROUTE_CLOSE;
}

enum command_route local_select(struct command_call *call) {
    int64_t database;
    if (!slice_to_integer(call->arguments[1], &database)) {
        return reply_failure(call, "ERR value is not an integer or out of range");
    }
    if (database != 0) {
        return reply_failure(call, "ERR DB index is out of range");
    }
    resp_simple(call->reply, "OK");
    return ROUTE_DONE;
}

static bool set_name(struct client_view *client, struct slice name) {
    for (size_t at = 0; at < name.length; at++) {
        if (name.data[at] < '!' || name.data[at] > '~') {
            return false;
        }
    }
    buffer_clear(&client->name, 0);
    buffer_append(&client->name, name.data, name.length);
    return true;
}

static const char BAD_NAME[] = "ERR Client names cannot contain spaces, newlines or special characters.";

enum command_route local_client(struct command_call *call) {
    struct slice subcommand = call->arguments[1];
    if (slice_is_word(subcommand, "id") && call->argument_count == 2) {
        resp_integer(call->reply, (int64_t)call->client->id);
    } else if (slice_is_word(subcommand, "getname") && call->argument_count == 2) {
        if (call->client->name.length > 0) {
            resp_bulk(call->reply, (struct slice){call->client->name.data, call->client->name.length});
        } else {
            resp_nil(call->reply, call->client->version);
        }
    } else if (slice_is_word(subcommand, "setname") && call->argument_count == 3) {
        if (!set_name(call->client, call->arguments[2])) {
            return reply_failure(call, BAD_NAME);
        }
        resp_simple(call->reply, "OK");
    } else if (slice_is_word(subcommand, "setinfo") && call->argument_count == 4) {
        if (!slice_is_word(call->arguments[2], "lib-name") && !slice_is_word(call->arguments[2], "lib-ver")) {
            return reply_failure(call, "ERR Unrecognized option");
        }
        resp_simple(call->reply, "OK");
    } else {
        return reply_unknown_subcommand(call);
    }
    return ROUTE_DONE;
}

enum command_route local_hello(struct command_call *call) {
    enum resp_version version = call->client->version;
    size_t at = 1;
    if (call->argument_count > 1) {
        int64_t number;
        if (!slice_to_integer(call->arguments[at++], &number)) {
            return reply_failure(call, "ERR Protocol version is not an integer or out of range");
        }
        if (number != 2 && number != 3) {
            return reply_failure(call, "NOPROTO unsupported protocol version");
        }
        version = number == 3 ? RESP_3 : RESP_2;
    }
    while (at < call->argument_count) {
        struct slice option = call->arguments[at];
        if (slice_is_word(option, "AUTH") && at + 2 < call->argument_count) {
            return reply_failure(call, "ERR AUTH <password> called without any password configured for the default "
                                       "user. Are you sure your configuration is correct?");
        }
        if (!slice_is_word(option, "SETNAME") || at + 1 >= call->argument_count) {
            return reply_failure(call, "ERR Syntax error in HELLO");
        }
        if (!set_name(call->client, call->arguments[at + 1])) {
            return reply_failure(call, BAD_NAME);
        }
        at += 2;
    }
    call->client->version = version;
    struct buffer *reply = call->reply;
    resp_map(reply, version, 7);
    resp_bulk_text(reply, "server");
    resp_bulk_text(reply, "redis");
    resp_bulk_text(reply, "version");
    resp_bulk_text(reply, REDIS_VERSION);
    resp_bulk_text(reply, "proto");
    resp_integer(reply, version);
    resp_bulk_text(reply, "id");
    resp_integer(reply, (int64_t)call->client->id);
    resp_bulk_text(reply, "mode");
    resp_bulk_text(reply, "cluster");
    resp_bulk_text(reply, "role");
    resp_bulk_text(reply, call->server->leader == call->server->id ? "master" : "replica");
    resp_bulk_text(reply, "modules");
    resp_array(reply, 0);
    return ROUTE_DONE;
}

/* What redis-benchmark and client libraries ask for. Nothing here can be set. */
static const char *const CONFIG[][2] = {
    {"appendonly", "yes"},      {"appendfsync", "always"},           {"databases", "1"},
    {"maxmemory", "0"},         {"maxmemory-policy", "noeviction"},  {"proto-max-bulk-len", "536870912"},
    {"save", ""},               {"timeout", "0"},
};

enum command_route local_config(struct command_call *call) {
    if (!slice_is_word(call->arguments[1], "get") || call->argument_count < 3) {
        return reply_unknown_subcommand(call);
    }
    size_t chosen[sizeof CONFIG / sizeof CONFIG[0]];
    size_t count = 0;
    for (size_t row = 0; row < sizeof CONFIG / sizeof CONFIG[0]; row++) {
        bool matches = false;
        for (size_t at = 2; at < call->argument_count && !matches; at++) {
            matches = glob_matches(call->arguments[at], slice_of(CONFIG[row][0]));
        }
        if (matches) {
            chosen[count++] = row;
        }
    }
    resp_map(call->reply, call->client->version, count);
    for (size_t at = 0; at < count; at++) {
        resp_bulk_text(call->reply, CONFIG[chosen[at]][0]);
        resp_bulk_text(call->reply, CONFIG[chosen[at]][1]);
    }
    return ROUTE_DONE;
}

/* Cluster clients know nodes by forty hexadecimal digits. */
static void node_id(uint64_t id, char text[NODE_ID_BYTES]) {
    snprintf(text, NODE_ID_BYTES, "%040" PRIx64, id);
}

/* The members that clients may dial, the one that owns all slots first: the leader, or, at `position` 0 without one,
 * NULL. */
static const struct member_view *member_at(const struct server_view *server, size_t position) {
    const struct member_view *leader = client_find(server, server->leader);
    if (position == 0 || leader == NULL) {
        return leader;
    }
    for (size_t at = 0; at < server->member_count; at++) {
        const struct member_view *member = &server->members[at];
        if (member != leader && member->resp_address[0] != '\0' && --position == 0) {
            return member;
        }
    }
    return NULL;
}

/* How many there are. */
static size_t client_count(const struct server_view *server) {
    size_t count = 0;
    for (size_t at = 0; at < server->member_count; at++) {
        count += server->members[at].resp_address[0] != '\0';
    }
    return count;
}

static void reply_host_and_port(struct buffer *reply, const struct member_view *member) {
    struct slice host;
    uint16_t port;
    if (!address_split(member->resp_address, &host, &port)) {
        host = slice_of(member->resp_address);
        port = 0;
    }
    resp_bulk(reply, host);
    resp_integer(reply, port);
}

static void cluster_slots(struct command_call *call) {
    struct buffer *reply = call->reply;
    resp_array(reply, 1);
    size_t count = client_count(call->server);
    resp_array(reply, 2 + count);
    resp_integer(reply, 0);
    resp_integer(reply, SLOT_LAST);
    for (size_t at = 0; at < count; at++) {
        const struct member_view *member = member_at(call->server, at);
        char id[NODE_ID_BYTES];
        node_id(member->id, id);
        resp_array(reply, 4);
        reply_host_and_port(reply, member);
        resp_bulk_text(reply, id);
        resp_array(reply, 0);
    }
}

static void cluster_shards(struct command_call *call) {
    struct buffer *reply = call->reply;
    enum resp_version version = call->client->version;
    resp_array(reply, 1);
    resp_map(reply, version, 2);
    resp_bulk_text(reply, "slots");
    resp_array(reply, 2);
    resp_integer(reply, 0);
    resp_integer(reply, SLOT_LAST);
    resp_bulk_text(reply, "nodes");
    size_t count = client_count(call->server);
    resp_array(reply, count);
    for (size_t at = 0; at < count; at++) {
        const struct member_view *member = member_at(call->server, at);
        struct slice host = slice_of(member->resp_address);
        uint16_t port = 0;
        address_split(member->resp_address, &host, &port);
        char id[NODE_ID_BYTES];
        node_id(member->id, id);
        resp_map(reply, version, 7);
        resp_bulk_text(reply, "id");
        resp_bulk_text(reply, id);
        resp_bulk_text(reply, "port");
        resp_integer(reply, port);
        resp_bulk_text(reply, "ip");
        resp_bulk(reply, host);
        resp_bulk_text(reply, "endpoint");
        resp_bulk(reply, host);
        resp_bulk_text(reply, "role");
        resp_bulk_text(reply, at == 0 ? "master" : "replica");
        resp_bulk_text(reply, "replication-offset");
        resp_integer(reply, (int64_t)call->server->commit);
        resp_bulk_text(reply, "health");
        resp_bulk_text(reply, "online");
    }
}

static void cluster_nodes(struct command_call *call) {
    struct buffer text = {0};
    char leader_id[NODE_ID_BYTES];
    node_id(call->server->leader, leader_id);
    size_t count = client_count(call->server);
    for (size_t at = 0; at < count; at++) {
        const struct member_view *member = member_at(call->server, at);
        char id[NODE_ID_BYTES];
        node_id(member->id, id);
        const char *myself = member->id == call->server->id ? "myself," : "";
        buffer_append_format(&text, "%s ", id);
        append_address(&text, member->resp_address);
        buffer_append_format(&text, "@0 %s%s %s 0 0 %" PRIu64 " connected%s\n", myself, at == 0 ? "master" : "slave",
                             at == 0 ? "-" : leader_id, call->server->term, at == 0 ? " 0-16383" : "");
    }
    resp_text(call->reply, call->client->version, (struct slice){text.data, text.length});
    buffer_free(&text);
}

enum command_route local_cluster(struct command_call *call) {
    struct slice subcommand = call->arguments[1];
    struct server_view *server = call->server;
    if (call->argument_count != 2) {
        return reply_unknown_subcommand(call);
    }
    refresh(server);
    bool has_leader = client_find(server, server->leader) != NULL;
    if (slice_is_word(subcommand, "myid")) {
        char id[NODE_ID_BYTES];
        node_id(server->id, id);
        resp_bulk_text(call->reply, id);
        return ROUTE_DONE;
    }
    if (slice_is_word(subcommand, "info")) {
        struct buffer text = {0};
        buffer_append_format(&text,
                             "cluster_enabled:1\r\ncluster_state:%s\r\ncluster_slots_assigned:%d\r\n"
                             "cluster_slots_ok:%d\r\ncluster_known_nodes:%zu\r\ncluster_size:1\r\n"
                             "cluster_current_epoch:%" PRIu64 "\r\n",
                             has_leader ? "ok" : "fail", SLOT_LAST + 1, has_leader ? SLOT_LAST + 1 : 0,
                             client_count(server), server->term);
        resp_text(call->reply, call->client->version, (struct slice){text.data, text.length});
        buffer_free(&text);
        return ROUTE_DONE;
    }
    bool slots = slice_is_word(subcommand, "slots");
    bool shards = slice_is_word(subcommand, "shards");
    if (!slots && !shards && !slice_is_word(subcommand, "nodes")) {
        return reply_unknown_subcommand(call);
    }
    if (!has_leader) {
        reply_not_leader(server, 0, call->reply);
    } else if (slots) {
        cluster_slots(call);
    } else if (shards) {
        cluster_shards(call);
    } else {
        cluster_nodes(call);
    }
    return ROUTE_DONE;
}

static bool wants(const struct command_call *call, const char *section) {
    for (size_t at = 1; at < call->argument_count; at++) {
        struct slice word = call->arguments[at];
        if (slice_is_word(word, section) || slice_is_word(word, "all") || slice_is_word(word, "default") ||
            slice_is_word(word, "everything")) {
            return true;
        }
    }
    return call->argument_count == 1;
}

enum command_route local_info(struct command_call *call) {
    struct server_view *server = call->server;
    refresh(server);
    struct buffer text = {0};
    if (wants(call, "server")) {
        buffer_append_format(&text,
                             "# Server\r\nredis_version:%s\r\nredis_mode:cluster\r\nkv_language:%s\r\n"
                             "uptime_in_seconds:%" PRIu64 "\r\n\r\n",
                             REDIS_VERSION, server->language, server->uptime_seconds);
    }
    if (wants(call, "clients")) {
        buffer_append_format(&text, "# Clients\r\nconnected_clients:%" PRIu64 "\r\n\r\n", server->clients);
    }
    if (wants(call, "stats")) {
        buffer_append_format(&text, "# Stats\r\ntotal_commands_processed:%" PRIu64 "\r\n\r\n", server->requests);
    }
    if (wants(call, "replication")) {
        buffer_append_format(&text, "# Replication\r\nrole:%s\r\n\r\n",
                             server->leader == server->id ? "master" : "slave");
    }
    if (wants(call, "cluster")) {
        buffer_append_text(&text, "# Cluster\r\ncluster_enabled:1\r\n\r\n");
    }
    if (wants(call, "raft")) {
        buffer_append_format(&text,
                             "# Raft\r\nraft_id:%" PRIu64 "\r\nraft_role:%s\r\nraft_term:%" PRIu64
                             "\r\nraft_leader:%" PRIu64 "\r\nraft_commit:%" PRIu64
                             "\r\nraft_applied:%" PRIu64 "\r\n\r\n",
                             server->id, server->role, server->term, server->leader, server->commit,
                             server->applied);
    }
    if (wants(call, "keyspace")) {
        buffer_append_text(&text, "# Keyspace\r\n");
        if (server->keys > 0) {
            buffer_append_format(&text, "db0:keys=%" PRIu64 ",expires=0,avg_ttl=0\r\n", server->keys);
        }
    }
    resp_text(call->reply, call->client->version, (struct slice){text.data, text.length});
    buffer_free(&text);
    return ROUTE_DONE;
}

static void status_text(struct command_call *call, const char *name, const char *value) {
    resp_bulk_text(call->reply, name);
    resp_bulk_text(call->reply, value);
}

static void status_number(struct command_call *call, const char *name, uint64_t value) {
    resp_bulk_text(call->reply, name);
    resp_integer(call->reply, (int64_t)value);
}

enum command_route local_raft_status(struct command_call *call) {
    struct server_view *server = call->server;
    refresh(server);
    const struct member_view *leader = member_find(server, server->leader);
    struct buffer members = {0};
    for (size_t at = 0; at < server->member_count; at++) {
        buffer_append_format(&members, "%s%" PRIu64 "=%s/%s", at > 0 ? " " : "", server->members[at].id,
                             server->members[at].raft_address, server->members[at].resp_address);
    }
    char digest[17];
    snprintf(digest, sizeof digest, "%016" PRIx64, server->digest);
    resp_map(call->reply, call->client->version, 21);
    status_text(call, "cluster", server->cluster);
    status_number(call, "id", server->id);
    status_text(call, "language", server->language);
    status_text(call, "role", server->role);
    status_number(call, "term", server->term);
    status_number(call, "leader", server->leader);
    status_text(call, "leader_address", leader != NULL ? leader->resp_address : "");
    status_number(call, "last", server->last);
    status_number(call, "durable", server->durable);
    status_number(call, "commit", server->commit);
    status_number(call, "applied", server->applied);
    status_number(call, "snapshot", server->snapshot);
    status_number(call, "log_writes", server->log_writes);
    status_text(call, "disk", server->disk);
    status_text(call, "stopped", server->stopped);
    status_text(call, "change", server->change);
    status_number(call, "transferring_to", server->transferring_to);
    status_number(call, "removed", server->removed);
    status_number(call, "keys", server->keys);
    status_text(call, "digest", digest);
    resp_bulk_text(call->reply, "members");
    resp_bulk(call->reply, (struct slice){members.data, members.length});
    buffer_free(&members);
    return ROUTE_DONE;
}
