/*
 * raft.h: the C interface of libraft, a Raft consensus engine that other programs embed.
 *
 * SPDX-License-Identifier: Apache-2.0 OR MIT
 * Made by `cargo run -p raft-header` from raft-ffi/src. Do not edit.
 *
 * WHAT IT DOES
 *
 *   You write a state machine: apply, query, snapshot, restore. The library makes it fault tolerant: it elects a
 *   leader, keeps the log on disk, carries it to the other servers, and calls you with every entry that is committed,
 *   in the same order on every server. A server is one process's endpoint: a data directory and a listen address. A
 *   group is one log and the state machine that it drives; a server has one or many.
 *
 * IN FIVE CALLS
 *
 *   raft_config_new            cluster, id, data directory, listen address; raft_config_set for the rest
 *   raft_server_open           recovers what the directory holds
 *   raft_server_start_group    with your state machine and, the first time, the members
 *   raft_group_propose         an array of items; they come back as an array of completions
 *   raft_server_free           closes, and answers everything that is still open
 *
 * OUTCOMES
 *
 *   Every accepted request completes exactly once, also when the server is closed: it was applied; or it was certainly
 *   not applied, and doing it again is safe; or nobody can know here, and doing it again may do it twice. A time that
 *   runs out is the last of these.
 *
 * RULES
 *
 *   - A function returns RAFT_OK (0) or a negative RAFT_ERR_..., and takes as its last argument where to put an error
 *     object (may be NULL). Functions that cannot fail return what they are asked for.
 *   - What goes in is copied, or borrowed until the call returns. What comes out belongs to the caller and is released
 *     by its own _free, unless its comment says whom it belongs to. Out pointers are NULL after a failure.
 *   - Structs passed singly begin with their size and grow only at the end: zero them, then set `size`. Structs in
 *     arrays never change. docs/abi.md has them all.
 *   - A byte range may be NULL where its length is 0. Texts are UTF-8 and end with NUL.
 *   - Every function may be called from any thread unless its comment says otherwise. Callbacks are described at
 *     raft_state_machine: they may propose, and they may not wait.
 *   - The library never exits, aborts on an error, handles a signal, writes to a terminal or looks at a clock of
 *     yours. It belongs to the process that opened a server: after fork(2), the child's calls are refused.
 *   - NULL, released and foreign handles are told wherever they can be.
 *
 * A COMPLETE PROGRAM: a counter on one server. docs/embedding.md says how to build it, and how to make it three.
 *
 *   #include <inttypes.h>
 *   #include <stdio.h>
 *   #include <string.h>
 *   #include <raft/raft.h>
 *
 *   static size_t apply(void *user, const raft_entry *entries, size_t count, raft_results *results) {
 *       uint64_t *counter = user;
 *       for (size_t i = 0; i < count; i++) {
 *           *counter += entries[i].length;
 *           raft_results_set(results, i, (const uint8_t *)counter, sizeof *counter);
 *       }
 *       return count;
 *   }
 *
 *   static int failed(const char *what, raft_error *error) {
 *       fprintf(stderr, "%s: %s\n", what, raft_error_message(error));
 *       raft_error_free(error);
 *       return 1;
 *   }
 *
 *   int main(void) {
 *       uint64_t counter = 0;
 *       raft_error *error = NULL;
 *       raft_config *config = NULL;
 *       raft_server *server = NULL;
 *       raft_group *group = NULL;
 *       raft_result *result = NULL;
 *       raft_member member;
 *       raft_start start;
 *       raft_state_machine machine;
 *
 *       if (raft_config_new("example", 1, "counter-data", "127.0.0.1:7001", &config, &error))
 *           return failed("configuration", error);
 *       if (raft_server_open(config, &server, &error)) return failed("open", error);
 *
 *       memset(&member, 0, sizeof member);
 *       member.id = 1;
 *       member.address = "127.0.0.1:7001";
 *       memset(&start, 0, sizeof start);
 *       start.size = sizeof start;
 *       start.group = 1;
 *       start.how = RAFT_START_BOOTSTRAP;
 *       start.members = &member;
 *       start.member_count = 1;
 *       memset(&machine, 0, sizeof machine);
 *       machine.size = sizeof machine;
 *       machine.user = &counter;
 *       machine.apply = apply;
 *       if (raft_server_start_group(server, &start, &machine, &group, &error)) return failed("start", error);
 *
 *       while (raft_group_propose_wait(group, (const uint8_t *)"+", 1, 5000, &result, &error)) {
 *           if (!raft_error_retriable(error))
 *               return failed("propose", error);
 *           raft_error_free(error);
 *       }
 *       printf("counter is %" PRIu64 " at index %" PRIu64 "\n", counter, raft_result_index(result));
 *       raft_result_free(result);
 *       raft_config_free(config);
 *       return raft_server_free(server, NULL);
 *   }
 */
#ifndef RAFT_H
#define RAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
