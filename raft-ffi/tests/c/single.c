/* One server, one group of one: every call, its outcomes, and what is left after a restart. */
#include "support.h"

static raft_server *server;
static raft_group *group;

static size_t apply_too_much(void *user, const raft_entry *entries, size_t count, raft_results *results) {
    (void)user, (void)entries, (void)results;
    return count + 1;
}

/* In a callback: what waits is refused, what does not wait is taken. */
static void from_callback(journal *j, const raft_completion *completion) {
    raft_server *other = NULL;
    raft_group *second = NULL;
    raft_result *result = NULL;
    raft_config *config = NULL;
    raft_state_machine machine;
    raft_start start = {.size = sizeof start, .group = 2, .how = RAFT_START_RESTART};
    if (completion->tag != 1000) return;
    FAILS(RAFT_ERR_IN_CALLBACK, raft_server_close(server, &error));
    FAILS(RAFT_ERR_IN_CALLBACK, raft_server_free(server, &error));
    FAILS(RAFT_ERR_IN_CALLBACK, raft_group_propose_wait(group, NULL, 0, -1, NULL, &error));
    FAILS(RAFT_ERR_IN_CALLBACK, raft_group_query(group, RAFT_READ_STALE, 0, NULL, 0, -1, &result, &error));
    FAILS(RAFT_ERR_IN_CALLBACK, raft_group_read(group, RAFT_READ_STALE, 0, -1, NULL, &error));
    FAILS(RAFT_ERR_IN_CALLBACK, raft_group_snapshot(group, -1, NULL, &error));
    raft_member_change change = {.kind = RAFT_CHANGE_REMOVE, .id = 1};
    FAILS(RAFT_ERR_IN_CALLBACK, raft_group_change_members(group, &change, 1, 0, -1, NULL, &error));
    FAILS(RAFT_ERR_IN_CALLBACK, raft_group_cancel_change(group, -1, NULL, &error));
    FAILS(RAFT_ERR_IN_CALLBACK, raft_group_transfer_leadership(group, 0, 0, -1, &error));
    FAILS(RAFT_ERR_IN_CALLBACK, raft_server_dispatch(server, 0, -1, NULL, &error));
    config = config_of(2);
    FAILS(RAFT_ERR_IN_CALLBACK, raft_server_open(config, &other, &error));
    raft_config_free(config);
    machine = journal_machine(j);
    machine.destroy = NULL;
    FAILS(RAFT_ERR_IN_CALLBACK, raft_server_start_group(server, &start, &machine, &second, &error));
    CHECK(group_info(group).role == RAFT_ROLE_LEADER);
    raft_item item = {.tag = 1001, .data = (const uint8_t *)"!", .length = 1};
    OK(raft_group_propose(group, &item, 1, &error));
    OK(raft_group_query_submit(group, 1002, RAFT_READ_LINEARIZABLE, 0, (const uint8_t *)"text", 4, &error));
}

static void proposing(journal *j) {
    raft_item items[300];
    raft_result *result = NULL;
    memset(items, 0, sizeof items);
    for (size_t i = 0; i < 300; i++) {
        items[i].tag = i;
        items[i].data = (const uint8_t *)"x";
        items[i].length = 1;
    }
    /* Nothing is taken of a batch with a bad item. */
    items[299].sequence = 1;
    FAILS(RAFT_ERR_ARGUMENT, raft_group_propose(group, items, 300, &error));
    items[299].sequence = 0;
    items[299].reserved[1] = 1;
    FAILS(RAFT_ERR_ARGUMENT, raft_group_propose(group, items, 300, &error));
    items[299].reserved[1] = 0;
    items[299].length = SIZE_MAX;
    FAILS(RAFT_ERR_TOO_LARGE, raft_group_propose(group, items, 300, &error));
    items[299].length = 8388609;
    FAILS(RAFT_ERR_TOO_LARGE, raft_group_propose(group, items, 300, &error));
    items[299].data = NULL;
    items[299].length = 1;
    FAILS(RAFT_ERR_ARGUMENT, raft_group_propose(group, items, 300, &error));
    items[299].data = (const uint8_t *)"x";
    FAILS(RAFT_ERR_ARGUMENT, raft_group_propose(group, NULL, 300, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_propose(group, items, SIZE_MAX, &error));
    OK(raft_group_propose(group, items, 0, &error));
    OK(raft_group_propose(group, NULL, 0, &error));
    CHECK(j->completed == 0 && j->length == 0);

    OK(raft_group_propose(group, items, 300, &error));
    WAIT(j, j->completed == 300);
    for (size_t i = 0; i < 300; i++) {
        CHECK(j->completions[i].tag == i);
        CHECK(j->completions[i].outcome == RAFT_OUTCOME_APPLIED);
        CHECK(j->completions[i].status == RAFT_OK);
        CHECK(j->completions[i].index == j->completions[0].index + i);
        CHECK(j->completions[i].term > 0);
        CHECK(j->results[i] == i + 1);
    }
    CHECK(j->length == 300);

    /* An empty entry is one. */
    OK(raft_group_propose_wait(group, NULL, 0, -1, &result, &error));
    CHECK(raft_result_index(result) == j->completions[299].index + 1);
    CHECK(raft_result_term(result) > 0);
    CHECK(raft_result_length(result) == sizeof(uint64_t));
    uint64_t length;
    memcpy(&length, raft_result_data(result), sizeof length);
    CHECK(length == 300);
    raft_result_free(result);
    OK(raft_group_propose_wait(group, (const uint8_t *)"y", 1, -1, NULL, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_propose_wait(group, NULL, 1, -1, &result, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_propose_wait(group, NULL, 0, -2, &result, &error));
    CHECK(result == NULL);
    FAILS(RAFT_ERR_TOO_LARGE, raft_group_propose_wait(group, (const uint8_t *)"", SIZE_MAX, 0, &result, &error));
    CHECK(j->length == 301);
}

static void reading(journal *j) {
    raft_result *result = NULL;
    raft_error *failure = NULL;
    uint64_t index = 0;
    const uint8_t *text = (const uint8_t *)"text";
    uint32_t fresh[] = {RAFT_READ_LINEARIZABLE, RAFT_READ_STALE, RAFT_READ_LEASE};
    for (size_t i = 0; i < 3; i++) {
        OK(raft_group_query(group, fresh[i], 0, text, 4, -1, &result, &error));
        CHECK(raft_result_length(result) == j->length);
        CHECK(memcmp(raft_result_data(result), j->text, j->length) == 0);
        CHECK(raft_result_term(result) == 0);
        raft_result_free(result);
        OK(raft_group_read(group, fresh[i], 0, -1, &index, &error));
        CHECK(index >= j->last_index);
        FAILS(RAFT_ERR_ARGUMENT, raft_group_read(group, fresh[i], 1, -1, &index, &error));
        CHECK(index == 0);
    }
    OK(raft_group_query(group, RAFT_READ_AT_LEAST, j->last_index, text, 4, -1, &result, &error));
    raft_result_free(result);
    FAILS(RAFT_ERR_TIMEOUT, raft_group_read(group, RAFT_READ_AT_LEAST, j->last_index + 1000, 10, &index, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_read(group, 0, 0, -1, &index, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_read(group, 99, 0, -1, &index, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_query(group, RAFT_READ_STALE, 0, NULL, 4, -1, &result, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_query(group, RAFT_READ_STALE, 0, text, 4, -1, NULL, &error));

    /* The state machine's own words reach the one who asked. */
    CHECK(raft_group_query(group, RAFT_READ_STALE, 0, (const uint8_t *)"?", 1, -1, &result, &failure) == RAFT_ERR_CALLBACK);
    CHECK(strstr(raft_error_message(failure), "no such question") != NULL);
    CHECK(raft_error_outcome(failure) == RAFT_OUTCOME_NOT_APPLIED);
    raft_error_free(failure);
    CHECK(result == NULL);
    FAILS(RAFT_ERR_CALLBACK, raft_group_query(group, RAFT_READ_STALE, 0, NULL, 0, -1, &result, &error));

    size_t before = j->completed;
    OK(raft_group_query_submit(group, 77, RAFT_READ_LINEARIZABLE, 0, text, 4, &error));
    WAIT(j, j->completed == before + 1);
    CHECK(j->completions[before].tag == 77 && j->completions[before].result_length == j->length);
    OK(raft_group_read_submit(group, 78, RAFT_READ_LINEARIZABLE, 0, &error));
    WAIT(j, j->completed == before + 2);
    CHECK(j->completions[before + 1].tag == 78 && j->completions[before + 1].index >= j->last_index);
    OK(raft_group_query_submit(group, 79, RAFT_READ_STALE, 0, (const uint8_t *)"?", 1, &error));
    WAIT(j, j->completed == before + 3);
    CHECK(j->completions[before + 2].status == RAFT_ERR_CALLBACK);
    CHECK(j->completions[before + 2].outcome == RAFT_OUTCOME_NOT_APPLIED);
}

static void looking(void) {
    raft_members *members = NULL;
    OK(raft_group_members(group, &members, &error));
    CHECK(raft_members_count(members) == 1);
    const raft_member *member = raft_members_array(members);
    CHECK(member == raft_members_find(members, 1));
    CHECK(raft_members_find(members, 2) == NULL);
    CHECK(strcmp(member->address, address_of(1)) == 0);
    CHECK(member->context_length == 7 && memcmp(member->context, "context", 7) == 0);
    CHECK(member->role == RAFT_MEMBER_VOTER);
    raft_members_free(members);
    FAILS(RAFT_ERR_ARGUMENT, raft_group_members(group, NULL, &error));

    raft_group_info info = group_info(group);
    CHECK(info.size == sizeof info && info.group == 1 && info.leader == 1 && !info.stopped);
    CHECK(info.commit_index == info.last_index && info.durable_index == info.last_index);
    /* A program of the first header gets what that had, and nothing behind it is touched. */
    info.size = offsetof(raft_group_info, removed_index);
    info.removed_index = 77;
    OK(raft_group_status(group, &info, &error));
    CHECK(info.size == offsetof(raft_group_info, removed_index) && info.removed_index == 77 && info.leader == 1);
    info.size--;
    FAILS(RAFT_ERR_STRUCT_SIZE, raft_group_status(group, &info, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_status(group, NULL, &error));

    raft_server_info state = {.size = sizeof state};
    OK(raft_server_status(server, &state, &error));
    CHECK(state.id == 1 && state.incarnation == 1 && state.ready && !state.stopped && !state.closed);
    CHECK(state.port == 7001 && state.disk >= RAFT_DISK_AIO && state.disk <= RAFT_DISK_THREAD_BUFFERED);
    CHECK(state.log_writes > 0 && state.log_bytes > 0);
    state.size = 0;
    FAILS(RAFT_ERR_STRUCT_SIZE, raft_server_status(server, &state, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_server_status(server, NULL, &error));
    FAILS(RAFT_ERR_MODE, raft_server_dispatch(server, 0, 0, NULL, &error));
    size_t count;
    raft_completion completion;
    FAILS(RAFT_ERR_MODE, raft_group_poll(group, &completion, 1, &count, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_poll(group, NULL, 1, &count, &error));
}

/* A second start of the group, and a second process on the directory, are refused. */
static void doubles(void) {
    journal other;
    journal_init(&other);
    raft_group *second = NULL;
    raft_server *twin = NULL;
    raft_state_machine machine = journal_machine(&other);
    raft_start start = {.size = sizeof start, .group = 1, .how = RAFT_START_RESTART};
    FAILS(RAFT_ERR_GROUP_EXISTS, raft_server_start_group(server, &start, &machine, &second, &error));
    CHECK(second == NULL);
    journal_end(&other);
    journal_init(&other);
    start.group = 9;
    FAILS(RAFT_ERR_GROUP_START, raft_server_start_group(server, &start, &machine, &second, &error));
    journal_end(&other);
    machine.destroy = NULL;
    start.group = 0;
    FAILS(RAFT_ERR_ARGUMENT, raft_server_start_group(server, &start, &machine, &second, &error));
    start.group = 2;
    start.how = RAFT_START_JOIN;
    raft_member member = {.id = 1, .address = address_of(1)};
    start.members = &member;
    start.member_count = 1;
    FAILS(RAFT_ERR_ARGUMENT, raft_server_start_group(server, &start, &machine, &second, &error));
    const char *contact = NULL;
    start.contacts = &contact;
    start.contact_count = 1;
    start.member_count = 0;
    FAILS(RAFT_ERR_ARGUMENT, raft_server_start_group(server, &start, &machine, &second, &error));
    start.how = RAFT_START_RESTART;
    FAILS(RAFT_ERR_ARGUMENT, raft_server_start_group(server, &start, &machine, &second, &error));
    start.contact_count = 0;
    start.how = RAFT_START_BOOTSTRAP;
    start.member_count = 1;
    member.priority = 256;
    FAILS(RAFT_ERR_ARGUMENT, raft_server_start_group(server, &start, &machine, &second, &error));
    member.priority = 0;
    member.votes = 1;
    FAILS(RAFT_ERR_ARGUMENT, raft_server_start_group(server, &start, &machine, &second, &error));
    member.votes = 0;
    raft_settings settings = {.size = 8};
    start.settings = &settings;
    FAILS(RAFT_ERR_STRUCT_SIZE, raft_server_start_group(server, &start, &machine, &second, &error));
    start.settings = NULL;
    start.members = NULL;
    start.member_count = 0;
    start.how = 77;
    FAILS(RAFT_ERR_ARGUMENT, raft_server_start_group(server, &start, &machine, &second, &error));
    start.how = RAFT_START_BOOTSTRAP;
    FAILS(RAFT_ERR_ARGUMENT, raft_server_start_group(server, &start, &machine, &second, &error));
    start.how = RAFT_START_RESTART;
    machine.restore = NULL;
    FAILS(RAFT_ERR_ARGUMENT, raft_server_start_group(server, &start, &machine, &second, &error));
    machine = journal_machine(&other);
    machine.destroy = NULL;
    machine.apply = NULL;
    FAILS(RAFT_ERR_ARGUMENT, raft_server_start_group(server, &start, &machine, &second, &error));

    raft_config *config = config_of(1);
    FAILS(RAFT_ERR_LOCKED, raft_server_open(config, &twin, &error));
    raft_config_free(config);
    /* The address is taken too. */
    OK(raft_config_new("test", 7, "elsewhere", address_of(1), &config, &error));
    FAILS(RAFT_ERR_ADDRESS, raft_server_open(config, &twin, &error));
    raft_config_free(config);
}

static void closed(journal *j) {
    raft_server_info state = {.size = sizeof state};
    raft_item item = {.tag = 1, .data = (const uint8_t *)"z", .length = 1};
    raft_result *result = NULL;
    OK(raft_server_close(server, &error));
    OK(raft_server_close(server, &error));
    CHECK(j->destroyed == 1);
    OK(raft_server_status(server, &state, &error));
    CHECK(state.closed);
    FAILS(RAFT_ERR_CLOSED, raft_group_propose(group, &item, 1, &error));
    FAILS(RAFT_ERR_CLOSED, raft_group_propose_wait(group, item.data, 1, -1, &result, &error));
    FAILS(RAFT_ERR_CLOSED, raft_group_query(group, RAFT_READ_STALE, 0, NULL, 0, -1, &result, &error));
    FAILS(RAFT_ERR_CLOSED, raft_group_read(group, RAFT_READ_STALE, 0, -1, NULL, &error));
    FAILS(RAFT_ERR_CLOSED, raft_group_snapshot(group, -1, NULL, &error));
    OK(raft_server_free(server, &error));
    FAILS(RAFT_ERR_HANDLE, raft_server_free(server, &error));
    FAILS(RAFT_ERR_HANDLE, raft_server_close(server, &error));
    FAILS(RAFT_ERR_HANDLE, raft_server_status(server, &state, &error));
    FAILS(RAFT_ERR_HANDLE, raft_group_propose(group, &item, 1, &error));
}

int main(void) {
    journal first, second, third;
    uint64_t covered = 0;
    journal_init(&first);
    server = open_server(1);
    group = start_group(server, 1, &first);
    WAIT(&first, first.role == RAFT_ROLE_LEADER && first.formed);
    proposing(&first);
    reading(&first);
    looking();
    doubles();

    size_t before = first.completed;
    first.on_completed = from_callback;
    raft_item item = {.tag = 1000, .data = (const uint8_t *)"!", .length = 1};
    OK(raft_group_propose(group, &item, 1, &error));
    WAIT(&first, first.completed == before + 3);

    OK(raft_group_snapshot(group, -1, &covered, &error));
    CHECK(covered >= first.last_index && group_info(group).snapshot_index == covered);
    FAILS(RAFT_ERR_BUSY, raft_group_snapshot(group, -1, NULL, &error));
    propose_text(group, "after the snapshot");
    before = first.completed;
    OK(raft_group_snapshot_submit(group, 55, &error));
    WAIT(&first, first.completed == before + 1);
    CHECK(first.completions[before].tag == 55 && first.completions[before].status == RAFT_OK);
    CHECK(first.completions[before].index > covered);
    propose_text(group, "after both");
    char *text = strdup(first.text);
    uint64_t last_index = first.last_index;
    closed(&first);
    journal_end(&first);

    /* Restarted, the state is the snapshot and what came after it; each entry once. */
    journal_init(&second);
    server = open_server(1);
    group = start_group(server, 1, &second);
    WAIT(&second, second.last_index == last_index);
    CHECK(second.restored == 1);
    CHECK(strcmp(second.text, text) == 0);
    propose_text(group, ", and once more");

    /* A state machine that fails stops its group, at the entry, and everyone is told. */
    size_t length = second.length;
    raft_item items[3] = {{.tag = 1, .data = (const uint8_t *)"a", .length = 1},
                          {.tag = 2, .data = (const uint8_t *)"!fail", .length = 5},
                          {.tag = 3, .data = (const uint8_t *)"b", .length = 1}};
    OK(raft_group_propose(group, items, 3, &error));
    WAIT(&second, second.stopped && second.completed == 3);
    CHECK(second.completions[0].outcome == RAFT_OUTCOME_APPLIED);
    CHECK(second.completions[1].outcome == RAFT_OUTCOME_UNKNOWN);
    CHECK(second.completions[2].outcome == RAFT_OUTCOME_UNKNOWN);
    CHECK(second.length == length + 1);
    CHECK(strstr(second.reason, "told to fail") != NULL);
    /* The status is that of the library's last turn, which may be on its way. */
    raft_group_info info;
    do {
        info = group_info(group);
    } while (!info.stopped);
    CHECK(info.stopped && strstr(info.stopped_reason, "told to fail") != NULL);
    CHECK(info.applied_index == second.last_index);
    OK(raft_server_free(server, &error));
    journal_end(&second);

    /* A directory that was formed otherwise, and a state machine ahead of the log, are refused. */
    journal_init(&third);
    server = open_server(1);
    raft_state_machine machine = journal_machine(&third);
    raft_member member = {.id = 1, .address = "127.0.0.1:1"};
    raft_start start = {.size = sizeof start, .group = 1, .how = RAFT_START_BOOTSTRAP, .members = &member, .member_count = 1};
    FAILS(RAFT_ERR_GROUP_START, raft_server_start_group(server, &start, &machine, &group, &error));
    start = (raft_start){.size = sizeof start, .group = 1, .how = RAFT_START_RESTART, .applied = UINT64_MAX};
    FAILS(RAFT_ERR_GROUP_START, raft_server_start_group(server, &start, &machine, &group, &error));
    CHECK(third.destroyed == 2);

    /* A second group on the same server, whose ends nobody would hear of: only waiting calls are taken. */
    machine.completed = NULL;
    machine.notice = NULL;
    machine.query = NULL;
    member.address = address_of(1);
    start = (raft_start){.size = sizeof start, .group = 2, .how = RAFT_START_BOOTSTRAP, .members = &member, .member_count = 1};
    OK(raft_server_start_group(server, &start, &machine, &group, &error));
    propose_text(group, "unheard");
    CHECK(strcmp(third.text, "unheard") == 0);
    FAILS(RAFT_ERR_MODE, raft_group_propose(group, items, 1, &error));
    FAILS(RAFT_ERR_MODE, raft_group_read_submit(group, 1, RAFT_READ_STALE, 0, &error));
    FAILS(RAFT_ERR_MODE, raft_group_snapshot_submit(group, 1, &error));
    raft_member_change change = {.kind = RAFT_CHANGE_REMOVE, .id = 1};
    FAILS(RAFT_ERR_MODE, raft_group_change_members_submit(group, 1, &change, 1, 0, &error));
    FAILS(RAFT_ERR_MODE, raft_group_cancel_change_submit(group, 1, &error));
    FAILS(RAFT_ERR_MODE, raft_group_transfer_leadership_submit(group, 1, 0, 0, &error));
    raft_result *result = NULL;
    FAILS(RAFT_ERR_ARGUMENT, raft_group_query(group, RAFT_READ_STALE, 0, NULL, 0, -1, &result, &error));

    /* A third that says more than can be: it stops, and the others go on. */
    raft_group *liar = NULL;
    machine = (raft_state_machine){.size = sizeof machine, .user = &third, .apply = apply_too_much};
    start.group = 3;
    OK(raft_server_start_group(server, &start, &machine, &liar, &error));
    raft_error *failure = NULL;
    int32_t status;
    while ((status = raft_group_propose_wait(liar, NULL, 0, -1, NULL, &failure)) == RAFT_ERR_FORMING ||
           status == RAFT_ERR_NOT_LEADER) {
        raft_error_free(failure);
    }
    CHECK(status == RAFT_ERR_STOPPED && raft_error_outcome(failure) == RAFT_OUTCOME_UNKNOWN);
    raft_error_free(failure);
    propose_text(group, ", and on");
    OK(raft_server_free(server, &error));
    CHECK(third.destroyed == 3);
    third.destroyed = 1;
    journal_end(&third);
    free(text);
    return 0;
}
