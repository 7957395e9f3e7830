/* The program's one loop: sockets, clients and Raft on one thread. */
#ifndef KV_SERVER_H
#define KV_SERVER_H

#include "options.h"

/* Runs until SIGTERM or SIGINT, or until it cannot go on. Returns the program's exit code. */
int server_run(const struct options *options);

#endif
