/* Three servers in one process form a group, lose their leader, and take it back. */
#include "support.h"

static raft_server *servers[4];
static raft_group *groups[4];
static journal journals[4];
static bool is_forwarding = true;

static void start(uint64_t id) {
    raft_config *config = config_of(id);
    OK(raft_config_set(config, "max_entry_bytes", "4096", &error));
    OK(raft_config_set(config, "uncommitted_bytes", "65536", &error));
    OK(raft_config_set(config, "forwarding", is_forwarding ? "on" : "off", &error));
    journal_init(&journals[id]);
    OK(raft_server_open(config, &servers[id], &error));
    raft_config_free(config);
    groups[id] = start_group(servers[id], 3, &journals[id]);
}

static void stop(uint64_t id) {
    OK(raft_server_free(servers[id], &error));
    servers[id] = NULL;
    journal_end(&journals[id]);
}

/* The leader that an open server knows of, found by asking, which waits for one. */
static uint64_t find_leader(void) {
    struct timespec pause = {.tv_sec = 0, .tv_nsec = 1000000};
    for (int round = 0; round < LIMIT_SECONDS * 1000; round++) {
        for (uint64_t id = 1; id <= 3; id++) {
            if (servers[id] != NULL && group_info(groups[id]).role == RAFT_ROLE_LEADER) return id;
        }
        nanosleep(&pause, NULL);
    }
    abort();
}

/* Alone, the first of three has no group yet, and says so. */
static void alone(void) {
    raft_members *members = NULL;
    raft_result *result = NULL;
    FAILS(RAFT_ERR_FORMING, raft_group_members(groups[1], &members, &error));
    FAILS(RAFT_ERR_FORMING, raft_group_propose_wait(groups[1], NULL, 0, -1, &result, &error));
    FAILS(RAFT_ERR_FORMING, raft_group_read(groups[1], RAFT_READ_LINEARIZABLE, 0, -1, NULL, &error));
    FAILS(RAFT_ERR_FORMING, raft_group_snapshot(groups[1], -1, NULL, &error));
    CHECK(group_info(groups[1]).role == RAFT_ROLE_FORMING);
}

int main(void) {
    start(1);
    alone();
    start(2);
    start(3);
    uint64_t leader = find_leader();
    uint64_t follower = leader % 3 + 1;
    WAIT(&journals[follower], journals[follower].leader == leader);

    /* What a follower is asked, it asks the leader; and it has applied what it says is applied. */
    raft_result *result = NULL;
    OK(raft_group_propose_wait(groups[follower], (const uint8_t *)"zero ", 5, -1, &result, &error));
    CHECK(raft_result_index(result) > 0);
    raft_result_free(result);
    CHECK(strcmp(journals[follower].text, "zero ") == 0);
    OK(raft_group_read(groups[follower], RAFT_READ_LINEARIZABLE, 0, -1, NULL, &error));

    /* With forwarding off, it says who leads. */
    uint64_t other = 6 - leader - follower;
    stop(other);
    is_forwarding = false;
    start(other);
    is_forwarding = true;
    WAIT(&journals[other], journals[other].leader != 0);
    leader = find_leader();
    follower = other;
    raft_item item = {.tag = 5, .data = (const uint8_t *)"lost", .length = 4};
    OK(raft_group_propose(groups[follower], &item, 1, &error));
    WAIT(&journals[follower], journals[follower].completed == 1);
    const raft_completion *refused = &journals[follower].completions[0];
    CHECK(refused->tag == 5 && refused->status == RAFT_ERR_NOT_LEADER && refused->leader == leader);
    CHECK(refused->outcome == RAFT_OUTCOME_NOT_APPLIED && refused->index == 0);
    CHECK(refused->result_length > 0);

    raft_error *failure = NULL;
    CHECK(raft_group_propose_wait(groups[follower], item.data, 4, -1, &result, &failure) == RAFT_ERR_NOT_LEADER);
    CHECK(raft_error_leader(failure) == leader);
    CHECK(raft_error_outcome(failure) == RAFT_OUTCOME_NOT_APPLIED);
    CHECK(raft_error_retriable(failure));
    raft_error_free(failure);
    FAILS(RAFT_ERR_NOT_LEADER, raft_group_read(groups[follower], RAFT_READ_LINEARIZABLE, 0, -1, NULL, &error));

    /* What the leader acknowledged can be read at a follower, from the index on. */
    uint64_t index = propose_text(groups[leader], "one ");
    const uint8_t *text = (const uint8_t *)"text";
    OK(raft_group_query(groups[follower], RAFT_READ_AT_LEAST, index, text, 4, -1, &result, &error));
    CHECK(raft_result_length(result) == 9 && memcmp(raft_result_data(result), "zero one ", 9) == 0);
    raft_result_free(result);
    raft_members *members = NULL;
    OK(raft_group_members(groups[follower], &members, &error));
    CHECK(raft_members_count(members) == 3);
    raft_members_free(members);

    /* Another leads when the leader goes, and nothing is lost. */
    stop(leader);
    uint64_t next = find_leader();
    CHECK(next != leader);
    propose_text(groups[next], "two ");
    OK(raft_group_snapshot(groups[next], -1, NULL, &error));
    index = propose_text(groups[next], "three");

    start(leader);
    OK(raft_group_read(groups[leader], RAFT_READ_AT_LEAST, index, -1, NULL, &error));
    for (uint64_t id = 1; id <= 3; id++) {
        OK(raft_group_read(groups[id], RAFT_READ_AT_LEAST, index, -1, NULL, &error));
        CHECK(strcmp(journals[id].text, "zero one two three") == 0);
    }

    /* A leader without a majority answers everything when it closes: nobody waits for ever. */
    uint64_t last = find_leader();
    for (uint64_t id = 1; id <= 3; id++) {
        if (id != last) stop(id);
    }
    size_t before = journals[last].completed;
    size_t accepted = 0;
    char kibibyte[1024] = {0};
    int32_t status = raft_group_propose_wait(groups[last], (const uint8_t *)kibibyte, 1, 20, &result, &failure);
    CHECK(result == NULL);
    if (status == RAFT_ERR_TIMEOUT) {
        CHECK(raft_error_outcome(failure) == RAFT_OUTCOME_UNKNOWN && !raft_error_retriable(failure));
    } else {
        /* On a slow machine it has found out by now that nobody follows. */
        CHECK(status == RAFT_ERR_NOT_LEADER || status == RAFT_ERR_UNKNOWN);
    }
    raft_error_free(failure);
    item.data = (const uint8_t *)kibibyte;
    item.length = sizeof kibibyte;
    for (uint64_t i = 0; i < 100; i++) {
        item.tag = i;
        OK(raft_group_propose(groups[last], &item, 1, &error));
        accepted++;
    }
    /* What does not fit the budget is answered at once. */
    WAIT(&journals[last], journals[last].completed > before);
    OK(raft_server_close(servers[last], &error));
    CHECK(journals[last].completed == before + accepted);
    bool seen[100] = {false};
    for (size_t i = before; i < journals[last].completed; i++) {
        const raft_completion *end = &journals[last].completions[i];
        CHECK(!seen[end->tag]);
        seen[end->tag] = true;
        if (end->outcome == RAFT_OUTCOME_NOT_APPLIED) {
            CHECK(end->status == RAFT_ERR_OVERLOADED || end->status == RAFT_ERR_NOT_LEADER || end->status == RAFT_ERR_CLOSED);
        } else {
            CHECK(end->outcome == RAFT_OUTCOME_UNKNOWN);
            CHECK(end->status == RAFT_ERR_CLOSED || end->status == RAFT_ERR_UNKNOWN);
        }
    }
    stop(last);
    return 0;
}
