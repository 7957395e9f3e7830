/* Host mode: one thread, poll(2) on the descriptor, callbacks in dispatch, completions by poll. */
#include "support.h"

#include <poll.h>

int main(void) {
    journal j;
    raft_config *config = config_of(1);
    raft_server *server = NULL;
    raft_completion completions[7];
    raft_item items[100];
    int32_t descriptor = -1;
    size_t count = 0, ended = 0, rounds = 0;

    journal_init(&j);
    OK(raft_config_set(config, "dispatch", "host", &error));
    OK(raft_config_set(config, "completions", "poll", &error));
    OK(raft_server_open(config, &server, &error));
    raft_config_free(config);
    OK(raft_server_descriptor(server, &descriptor, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_server_descriptor(server, NULL, &error));
    raft_group *group = start_group(server, 1, &j);

    struct pollfd wait = {.fd = descriptor, .events = POLLIN};
    while (j.role != RAFT_ROLE_LEADER) {
        CHECK(poll(&wait, 1, LIMIT_SECONDS * 1000) == 1);
        OK(raft_server_dispatch(server, 1, 0, &count, &error));
        CHECK(count <= 1);
    }
    OK(raft_server_dispatch(server, 0, 0, NULL, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_server_dispatch(server, 0, -7, NULL, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_poll(group, completions, 0, &count, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_poll(group, completions, 7, NULL, &error));

    memset(items, 0, sizeof items);
    for (size_t i = 0; i < 100; i++) {
        items[i].tag = i;
        items[i].data = (const uint8_t *)"0123456789" + i % 10;
        items[i].length = 1;
    }
    OK(raft_group_propose(group, items, 100, &error));
    while (ended < 100) {
        CHECK(poll(&wait, 1, LIMIT_SECONDS * 1000) == 1);
        OK(raft_server_dispatch(server, 0, 0, NULL, &error));
        do {
            OK(raft_group_poll(group, completions, 7, &count, &error));
            CHECK(count <= 7);
            for (size_t i = 0; i < count; i++, ended++) {
                uint64_t length;
                CHECK(completions[i].tag == ended && completions[i].status == RAFT_OK);
                CHECK(completions[i].result_length == sizeof length);
                memcpy(&length, completions[i].result, sizeof length);
                CHECK(length == ended + 1);
            }
        } while (count > 0);
        CHECK(++rounds < 10000);
    }
    CHECK(j.length == 100 && j.completed == 0);

    /* A snapshot is written step by step, in dispatch. */
    OK(raft_group_snapshot_submit(group, 500, &error));
    for (count = 0; count == 0;) {
        CHECK(poll(&wait, 1, LIMIT_SECONDS * 1000) == 1);
        OK(raft_server_dispatch(server, 1, 0, NULL, &error));
        OK(raft_group_poll(group, completions, 7, &count, &error));
    }
    CHECK(count == 1 && completions[0].tag == 500 && completions[0].status == RAFT_OK);

    /* Nobody dispatches any more: what is open is answered by close, into the queue, until its end. */
    OK(raft_group_propose(group, items, 100, &error));
    OK(raft_server_close(server, &error));
    FAILS(RAFT_ERR_CLOSED, raft_server_dispatch(server, 0, -1, NULL, &error));
    CHECK(poll(&wait, 1, 0) == 1);
    for (ended = 0; raft_group_poll(group, completions, 7, &count, NULL) == RAFT_OK; ended += count) {
        CHECK(count > 0);
        for (size_t i = 0; i < count; i++) CHECK(completions[i].outcome != RAFT_OUTCOME_NONE);
    }
    CHECK(ended == 100);
    FAILS(RAFT_ERR_END, raft_group_poll(group, completions, 7, &count, &error));
    OK(raft_server_free(server, &error));
    FAILS(RAFT_ERR_HANDLE, raft_group_poll(group, completions, 7, &count, &error));
    journal_end(&j);
    return 0;
}
