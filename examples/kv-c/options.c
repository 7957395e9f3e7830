#include "options.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Those of the engine. */
#define DEFAULT_MAX_ENTRY_BYTES (UINT64_C(8) << 20)
#define DEFAULT_QUEUE_BYTES (UINT64_C(16) << 20)

void options_print_usage(void) {
    fputs("usage: kv --cluster NAME --id N --data DIR --raft HOST:PORT --resp HOST:PORT\n"
          "          --member ID=RAFT_HOST:PORT/RESP_HOST:PORT ... | --join HOST:PORT ...\n"
          "          [--peer ID=HOST:PORT ...] [--config KEY=VALUE ...]\n"
          "\n"
          "  --cluster NAME   the name that all servers of the cluster share\n"
          "  --id N           this server's id, never used before for another directory\n"
          "  --data DIR       where its log and snapshots are\n"
          "  --raft           where it listens for its peers\n"
          "  --resp           where it listens for Redis clients\n"
          "  --member         a member of the new group; the same list on every server\n"
          "  --join           a member of the group that runs, where its peers dial it: wait to be added (RAFT.ADD)\n"
          "  --peer           dial that member here, and not at its address\n"
          "  --config         an engine setting, such as election_timeout_ms=1000\n",
          stderr);
}

static bool wrong(const char *what, const char *argument) {
    fprintf(stderr, "kv: %s: %s\n", what, argument);
    return false;
}

static char *copy_text(const char *text, size_t length) {
    char *copy = malloc(length + 1);
    if (copy != NULL) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

static bool is_address(const char *text) {
    struct slice host;
    uint16_t port;
    return address_split(text, &host, &port);
}

/* The id before `=`, and what follows. */
static bool split_id(const char *argument, uint64_t *id, const char **rest) {
    const char *equals = strchr(argument, '=');
    int64_t number;
    if (equals == NULL ||
        !slice_to_integer((struct slice){(const unsigned char *)argument, (size_t)(equals - argument)}, &number) ||
        number <= 0) {
        return false;
    }
    *id = (uint64_t)number;
    *rest = equals + 1;
    return true;
}

static bool add_member(struct options *options, const char *argument) {
    uint64_t id;
    const char *addresses;
    if (!split_id(argument, &id, &addresses)) {
        return wrong("--member must be ID=RAFT_HOST:PORT/RESP_HOST:PORT", argument);
    }
    const char *slash = strchr(addresses, '/');
    if (slash == NULL) {
        return wrong("--member must be ID=RAFT_HOST:PORT/RESP_HOST:PORT", argument);
    }
    for (size_t at = 0; at < options->member_count; at++) {
        if (options->members[at].id == id) {
            return wrong("--member names this id twice", argument);
        }
    }
    struct member_view *members = realloc(options->members, (options->member_count + 1) * sizeof *members);
    if (members == NULL) {
        return wrong("no memory", argument);
    }
    options->members = members;
    char *raft = copy_text(addresses, (size_t)(slash - addresses));
    char *resp = copy_text(slash + 1, strlen(slash + 1));
    members[options->member_count++] = (struct member_view){
        .id = id, .raft_address = raft, .resp_address = resp, .role = "voter", .becomes = "voter", .priority = 1};
    if (raft == NULL || resp == NULL) {
        return wrong("no memory", argument);
    }
    if (!is_address(raft) || !is_address(resp)) {
        return wrong("--member must be ID=RAFT_HOST:PORT/RESP_HOST:PORT", argument);
    }
    return true;
}

static bool add_contact(struct options *options, const char *argument) {
    if (!is_address(argument)) {
        return wrong("--join must be HOST:PORT", argument);
    }
    const char **contacts = realloc(options->contacts, (options->contact_count + 1) * sizeof *contacts);
    if (contacts == NULL) {
        return wrong("no memory", argument);
    }
    options->contacts = contacts;
    contacts[options->contact_count++] = argument;
    return true;
}

static bool add_setting(struct options *options, char *key, char *value) {
    struct setting *settings = realloc(options->settings, (options->setting_count + 1) * sizeof *settings);
    if (settings != NULL) {
        options->settings = settings;
    }
    if (settings == NULL || key == NULL || value == NULL) {
        free(key);
        free(value);
        return wrong("no memory", "");
    }
    settings[options->setting_count++] = (struct setting){key, value};
    return true;
}

static bool add_peer(struct options *options, const char *argument) {
    uint64_t id;
    const char *address;
    if (!split_id(argument, &id, &address) || !is_address(address)) {
        return wrong("--peer must be ID=HOST:PORT", argument);
    }
    char key[32];
    snprintf(key, sizeof key, "peer.%" PRIu64, id);
    return add_setting(options, copy_text(key, strlen(key)), copy_text(address, strlen(address)));
}

static bool add_config(struct options *options, const char *argument) {
    const char *equals = strchr(argument, '=');
    if (equals == NULL || equals == argument) {
        return wrong("--config must be KEY=VALUE", argument);
    }
    struct slice key = {(const unsigned char *)argument, (size_t)(equals - argument)};
    if (slice_equal(key, slice_of("dispatch")) || slice_equal(key, slice_of("completions"))) {
        return wrong("--config cannot change what this program is built on", argument);
    }
    if (slice_equal(key, slice_of("forwarding"))) {
        options->is_forwarding = strcmp(equals + 1, "on") == 0;
    }
    uint64_t *known = slice_equal(key, slice_of("max_entry_bytes")) ? &options->max_entry_bytes
                      : slice_equal(key, slice_of("queue_bytes"))   ? &options->queue_bytes
                                                                    : NULL;
    if (known != NULL) {
        int64_t bytes;
        if (!slice_to_integer(slice_of(equals + 1), &bytes) || bytes <= 0) {
            return wrong("--config needs a whole number above 0 here", argument);
        }
        *known = (uint64_t)bytes;
    }
    return add_setting(options, copy_text(argument, key.length), copy_text(equals + 1, strlen(equals + 1)));
}

static bool take_option(struct options *options, const char *name, const char *value) {
    if (strcmp(name, "--cluster") == 0) {
        options->cluster = value;
    } else if (strcmp(name, "--data") == 0) {
        options->data = value;
    } else if (strcmp(name, "--raft") == 0) {
        options->raft_address = value;
    } else if (strcmp(name, "--resp") == 0) {
        options->resp_address = value;
    } else if (strcmp(name, "--id") == 0) {
        int64_t id;
        if (!slice_to_integer(slice_of(value), &id) || id <= 0) {
            return wrong("--id must be a whole number above 0", value);
        }
        options->id = (uint64_t)id;
    } else if (strcmp(name, "--member") == 0) {
        return add_member(options, value);
    } else if (strcmp(name, "--join") == 0) {
        return add_contact(options, value);
    } else if (strcmp(name, "--peer") == 0) {
        return add_peer(options, value);
    } else if (strcmp(name, "--config") == 0) {
        return add_config(options, value);
    } else {
        return wrong("no such option", name);
    }
    return true;
}

static int by_id(const void *first, const void *second) {
    uint64_t a = ((const struct member_view *)first)->id;
    uint64_t b = ((const struct member_view *)second)->id;
    return (a > b) - (a < b);
}

static bool check(struct options *options) {
    if (options->cluster == NULL) {
        return wrong("missing", "--cluster NAME");
    }
    if (options->id == 0) {
        return wrong("missing", "--id N");
    }
    if (options->data == NULL) {
        return wrong("missing", "--data DIR");
    }
    if (options->raft_address == NULL || !is_address(options->raft_address)) {
        return wrong("missing or not HOST:PORT", "--raft");
    }
    if (options->resp_address == NULL || !is_address(options->resp_address)) {
        return wrong("missing or not HOST:PORT", "--resp");
    }
    if (options->contact_count > 0) {
        return options->member_count == 0 ||
               wrong("a group that exists has its members", "--join goes without --member");
    }
    for (size_t at = 0; at < options->member_count; at++) {
        if (options->members[at].id == options->id) {
            qsort(options->members, options->member_count, sizeof *options->members, by_id);
            return true;
        }
    }
    return wrong("missing", "--member for this server's own id, or --join");
}

bool options_parse(struct options *options, int argument_count, char **arguments) {
    *options = (struct options){.max_entry_bytes = DEFAULT_MAX_ENTRY_BYTES, .queue_bytes = DEFAULT_QUEUE_BYTES};
    for (int at = 1; at < argument_count; at += 2) {
        if (strcmp(arguments[at], "--help") == 0) {
            return false;
        }
        if (at + 1 == argument_count) {
            return wrong("the option needs a value", arguments[at]);
        }
        if (!take_option(options, arguments[at], arguments[at + 1])) {
            return false;
        }
    }
    return check(options);
}

void options_free(struct options *options) {
    for (size_t at = 0; at < options->member_count; at++) {
        free((char *)options->members[at].raft_address);
        free((char *)options->members[at].resp_address);
    }
    for (size_t at = 0; at < options->setting_count; at++) {
        free(options->settings[at].key);
        free(options->settings[at].value);
    }
    free(options->members);
    free(options->contacts);
    free(options->settings);
    *options = (struct options){0};
}
