/* The requests that a server answers by itself: about the connection, the server and the cluster. */
#ifndef KV_LOCAL_H
#define KV_LOCAL_H

#include "command.h"

/* One request on its way through the table; the arguments begin with the command's name. */
struct command_call {
    const struct slice *arguments;
    size_t argument_count;
    struct client_view *client;
    struct server_view *server;
    struct buffer *command;
    struct buffer *reply;
};

typedef enum command_route command_handler(struct command_call *call);

command_handler local_client;
command_handler local_cluster;
command_handler local_config;
command_handler local_echo;
command_handler local_hello;
command_handler local_info;
command_handler local_ping;
command_handler local_quit;
command_handler local_raft_status;
command_handler local_select;

/* The operator's, in operator.c. */
command_handler operator_add;
command_handler operator_cancel;
command_handler operator_digest;
command_handler operator_members;
command_handler operator_remove;
command_handler operator_snapshot;
command_handler operator_transfer;

enum command_route reply_failure(struct command_call *call, const char *text);
enum command_route reply_unknown_subcommand(struct command_call *call);

#endif
