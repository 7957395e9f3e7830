/* Threads propose, ask and look while the server is closed and freed under them: everything accepted ends exactly once,
 * and what comes too late is told so. */
#include "support.h"

#define THREADS 4
#define BATCH 16

static raft_server *server;
static raft_group *group;
static size_t accepted[THREADS];
static _Atomic size_t ended;
static _Atomic size_t applied;

static void count_ends(void *user, const raft_completion *completions, size_t count) {
    journal *j = user;
    for (size_t i = 0; i < count; i++) {
        CHECK(completions[i].outcome >= RAFT_OUTCOME_APPLIED && completions[i].outcome <= RAFT_OUTCOME_UNKNOWN);
        CHECK((completions[i].status == RAFT_OK) == (completions[i].outcome == RAFT_OUTCOME_APPLIED));
        if (completions[i].tag < THREADS && completions[i].status == RAFT_OK) applied++;
    }
    ended += count;
    pthread_cond_broadcast(&j->changed);
}

static void *propose(void *argument) {
    size_t me = (size_t)(uintptr_t)argument;
    raft_item items[BATCH];
    raft_group_info info = {.size = sizeof info};
    memset(items, 0, sizeof items);
    for (size_t i = 0; i < BATCH; i++) {
        items[i].tag = me;
        items[i].data = (const uint8_t *)"x";
        items[i].length = 1;
    }
    for (;;) {
        int32_t status = raft_group_propose(group, items, BATCH, NULL);
        if (status == RAFT_OK) accepted[me] += BATCH;
        if (status == RAFT_ERR_OVERLOADED) continue;
        if (status == RAFT_ERR_HANDLE) return NULL;
        CHECK(status == RAFT_OK || status == RAFT_ERR_CLOSED);
        status = raft_group_query_submit(group, THREADS, RAFT_READ_LINEARIZABLE, 0, (const uint8_t *)"?", 1, NULL);
        if (status == RAFT_OK) accepted[me]++;
        status = raft_group_propose_wait(group, NULL, 0, -1, NULL, NULL);
        CHECK(status == RAFT_OK || status == RAFT_ERR_CLOSED || status == RAFT_ERR_HANDLE || status == RAFT_ERR_OVERLOADED);
        status = raft_group_status(group, &info, NULL);
        CHECK(status == RAFT_OK || status == RAFT_ERR_CLOSED || status == RAFT_ERR_HANDLE);
    }
}

static void *close_it(void *argument) {
    (void)argument;
    OK(raft_server_close(server, &error));
    return NULL;
}

int main(void) {
    for (int round = 0; round < 5; round++) {
        journal j;
        raft_config *config = config_of(1);
        pthread_t threads[THREADS], closers[2];
        raft_member member = {.id = 1, .address = address_of(1)};
        raft_start start = {.size = sizeof start, .group = 1, .how = RAFT_START_BOOTSTRAP, .members = &member, .member_count = 1};
        size_t sum = 0;
        journal_init(&j);
        raft_state_machine machine = journal_machine(&j);
        machine.completed = count_ends;
        OK(raft_server_open(config, &server, &error));
        raft_config_free(config);
        OK(raft_server_start_group(server, &start, &machine, &group, &error));
        WAIT(&j, j.role == RAFT_ROLE_LEADER);
        ended = applied = 0;
        memset(accepted, 0, sizeof accepted);
        for (size_t i = 0; i < THREADS; i++) {
            CHECK(pthread_create(&threads[i], NULL, propose, (void *)(uintptr_t)i) == 0);
        }
        WAIT(&j, applied >= 1000 * (size_t)(round + 1));
        for (size_t i = 0; i < 2; i++) CHECK(pthread_create(&closers[i], NULL, close_it, NULL) == 0);
        for (size_t i = 0; i < 2; i++) CHECK(pthread_join(closers[i], NULL) == 0);
        OK(raft_server_free(server, &error));
        for (size_t i = 0; i < THREADS; i++) {
            CHECK(pthread_join(threads[i], NULL) == 0);
            sum += accepted[i];
        }
        CHECK(ended == sum);
        journal_end(&j);
    }
    return 0;
}
