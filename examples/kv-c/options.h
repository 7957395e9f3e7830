/* The command line: the same in every language (README.md of examples/kv). */
#ifndef KV_OPTIONS_H
#define KV_OPTIONS_H

#include "command.h"

struct setting {
    char *key;
    char *value;
};

struct options {
    const char *cluster;
    uint64_t id;
    const char *data;
    const char *raft_address;
    const char *resp_address;
    struct member_view *members;
    size_t member_count;
    /* Where some members of a group that runs are dialled, to be added to it; with none, the members form it. */
    const char **contacts;
    size_t contact_count;
    /* For the engine, --peer among them as `peer.ID`. */
    struct setting *settings;
    size_t setting_count;
    /* The engine's settings of these names, which bound what a client may send and what goes into a batch. */
    uint64_t max_entry_bytes;
    uint64_t queue_bytes;
    /* The engine's `forwarding`, here off unless it is set: any server answers any client. */
    bool is_forwarding;
};

/* False if the program is not called as it must be; what is wrong is then on stderr. */
bool options_parse(struct options *options, int argument_count, char **arguments);
void options_free(struct options *options);
void options_print_usage(void);

#endif
