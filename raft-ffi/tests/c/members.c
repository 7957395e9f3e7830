/* A group of two grows, hands leadership over, changes what can be changed, and lets servers go. */
#include "support.h"

static raft_server *servers[8];
static raft_group *groups[8];
static journal journals[8];

static void form(uint64_t id) {
    raft_settings settings = {.size = sizeof settings, .lease_ms = 200, .max_sessions = 7};
    raft_member members[2] = {{.id = 1, .address = address_of(1), .priority = 9}, {.id = 2, .address = address_of(2)}};
    raft_start start = {.size = sizeof start, .group = 1, .how = RAFT_START_BOOTSTRAP, .members = members,
                        .member_count = 2, .settings = &settings};
    journal_init(&journals[id]);
    raft_state_machine machine = journal_machine(&journals[id]);
    servers[id] = open_server(id);
    OK(raft_server_start_group(servers[id], &start, &machine, &groups[id], &error));
}

static void join(uint64_t id) {
    const char *contacts[] = {"127.0.0.1:1", address_of(1), address_of(2)};
    raft_start start = {.size = sizeof start, .group = 1, .how = RAFT_START_JOIN, .contacts = contacts, .contact_count = 3};
    journal_init(&journals[id]);
    raft_state_machine machine = journal_machine(&journals[id]);
    servers[id] = open_server(id);
    OK(raft_server_start_group(servers[id], &start, &machine, &groups[id], &error));
}

static void stop(uint64_t id) {
    OK(raft_server_free(servers[id], &error));
    servers[id] = NULL;
    journal_end(&journals[id]);
}

/* The server that leads, by its own word; waits for one. */
static uint64_t leader(void) {
    struct timespec pause = {.tv_sec = 0, .tv_nsec = 1000000};
    for (int round = 0; round < LIMIT_SECONDS * 1000; round++) {
        for (uint64_t id = 1; id < 8; id++) {
            if (servers[id] != NULL && group_info(groups[id]).role == RAFT_ROLE_LEADER) return id;
        }
        nanosleep(&pause, NULL);
    }
    abort();
}

/* Changes members at whoever leads, as often as nothing can come of it. */
static uint64_t change(const raft_member_change *changes, size_t count) {
    uint64_t index = 0;
    raft_error *error = NULL;
    while (raft_group_change_members(groups[leader()], changes, count, 30000, -1, &index, &error) != RAFT_OK) {
        if (!raft_error_retriable(error)) {
            fprintf(stderr, "change: %s\n", raft_error_message(error));
            abort();
        }
        raft_error_free(error);
    }
    CHECK(index > 0);
    return index;
}

/* The change is refused, and the message has this. */
static void refused(int32_t expected, raft_member_change part, const char *text) {
    raft_error *error = NULL;
    uint64_t index = 9;
    int32_t status;
    while ((status = raft_group_change_members(groups[leader()], &part, 1, 30000, -1, &index, &error)) == RAFT_ERR_BUSY ||
           status == RAFT_ERR_NOT_LEADER) {
        raft_error_free(error);
    }
    if (status != expected || strstr(raft_error_message(error), text) == NULL) {
        fprintf(stderr, "%s: %s, expected: %s\n", raft_error_name(status), raft_error_message(error), text);
        abort();
    }
    CHECK(raft_error_outcome(error) == RAFT_OUTCOME_NOT_APPLIED && index == 0);
    raft_error_free(error);
}

static raft_member member(uint64_t at, uint64_t id) {
    raft_members *members = NULL;
    raft_member found = {0};
    OK(raft_group_members(groups[at], &members, &error));
    const raft_member *place = raft_members_find(members, id);
    if (place != NULL) found = *place;
    raft_members_free(members);
    return found;
}

static void what_cannot_be(void) {
    raft_settings settings = {.size = sizeof settings, .lease_ms = 100000};
    refused(RAFT_ERR_INVALID, (raft_member_change){.kind = RAFT_CHANGE_REMOVE, .id = 9}, "not a member");
    refused(RAFT_ERR_INVALID, (raft_member_change){.kind = RAFT_CHANGE_SET_ROLE, .id = 1, .role = RAFT_MEMBER_VOTER}, "nothing");
    refused(RAFT_ERR_INVALID, (raft_member_change){.kind = RAFT_CHANGE_SET_SETTINGS, .settings = &settings}, "lease");
    settings.size = 1;
    refused(RAFT_ERR_STRUCT_SIZE, (raft_member_change){.kind = RAFT_CHANGE_SET_SETTINGS, .settings = &settings}, "size");
    refused(RAFT_ERR_ARGUMENT, (raft_member_change){.kind = 0, .id = 1}, "kind");
    refused(RAFT_ERR_ARGUMENT, (raft_member_change){.kind = 8, .id = 1}, "kind");
    refused(RAFT_ERR_ARGUMENT, (raft_member_change){.kind = RAFT_CHANGE_REMOVE}, "never 0");
    refused(RAFT_ERR_ARGUMENT, (raft_member_change){.kind = RAFT_CHANGE_REMOVE, .id = 1, .role = 1}, "does not name");
    refused(RAFT_ERR_ARGUMENT, (raft_member_change){.kind = RAFT_CHANGE_REMOVE, .id = 1, .reserved = {0, 1, 0}}, "reserved");
    refused(RAFT_ERR_ARGUMENT, (raft_member_change){.kind = RAFT_CHANGE_SET_ROLE, .id = 1}, "role");
    refused(RAFT_ERR_ARGUMENT, (raft_member_change){.kind = RAFT_CHANGE_ADD, .id = 3, .role = 3, .address = "a:1"}, "role");
    refused(RAFT_ERR_ARGUMENT, (raft_member_change){.kind = RAFT_CHANGE_ADD, .id = 3}, "address");
    refused(RAFT_ERR_ARGUMENT, (raft_member_change){.kind = RAFT_CHANGE_SET_PRIORITY, .id = 1, .priority = -2}, "priority");
    refused(RAFT_ERR_ARGUMENT, (raft_member_change){.kind = RAFT_CHANGE_SET_SETTINGS}, "settings");
    FAILS(RAFT_ERR_ARGUMENT, raft_group_change_members(groups[1], NULL, 1, 0, -1, NULL, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_change_members(groups[1], NULL, 0, 0, -1, NULL, &error));
    raft_member_change remove = {.kind = RAFT_CHANGE_REMOVE, .id = 2};
    FAILS(RAFT_ERR_ARGUMENT, raft_group_change_members(groups[1], &remove, 1, -2, -1, NULL, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_change_members(groups[1], &remove, 1, 0, -2, NULL, &error));
    FAILS(RAFT_ERR_INVALID, raft_group_cancel_change(groups[leader()], -1, NULL, &error));
    FAILS(RAFT_ERR_INVALID, raft_group_transfer_leadership(groups[leader()], 77, 1000, -1, &error));
    FAILS(RAFT_ERR_INVALID, raft_group_transfer_leadership(groups[leader()], leader(), 1000, -1, &error));
    FAILS(RAFT_ERR_NOT_LEADER, raft_group_change_members(groups[3 - leader()], &remove, 1, 0, -1, NULL, &error));
    FAILS(RAFT_ERR_NOT_LEADER, raft_group_cancel_change(groups[3 - leader()], -1, NULL, &error));
    FAILS(RAFT_ERR_NOT_LEADER, raft_group_transfer_leadership(groups[3 - leader()], 1, 1000, -1, &error));
}

/* A server that nobody answers for is waited for, and not for ever; or until the operator cancels. */
static void absent(void) {
    raft_member_change add = {.kind = RAFT_CHANGE_ADD, .id = 6, .address = address_of(6)};
    raft_error *failure = NULL;
    CHECK(raft_group_change_members(groups[leader()], &add, 1, 50, -1, NULL, &failure) == RAFT_ERR_GIVEN_UP);
    CHECK(strstr(raft_error_message(failure), "was not met") != NULL && raft_error_retriable(failure));
    CHECK(raft_error_outcome(failure) == RAFT_OUTCOME_NOT_APPLIED);
    raft_error_free(failure);
    uint64_t at = leader();
    size_t before = journals[at].completed;
    OK(raft_group_change_members_submit(groups[at], 41, &add, 1, -1, &error));
    OK(raft_group_cancel_change_submit(groups[at], 42, &error));
    WAIT(&journals[at], journals[at].completed == before + 2);
    for (size_t i = before; i < before + 2; i++) {
        const raft_completion *end = &journals[at].completions[i];
        CHECK(end->status == (end->tag == 41 ? RAFT_ERR_CANCELLED : RAFT_OK));
        CHECK(end->tag == 41 || end->index > 0);
    }
    CHECK(group_info(groups[at]).highest_id == 2);
}

/* Reads by lease are right whether there is one or not. */
static void reads(void) {
    uint64_t index = 0;
    raft_settings settings = {.size = sizeof settings};
    OK(raft_group_settings(groups[leader()], &settings, &error));
    CHECK(settings.size == sizeof settings && settings.lease_ms == 200 && settings.max_sessions == 7);
    CHECK(settings.session_expiry_ms == 3600000 && settings.session_reply_bytes == 65536);
    uint64_t written = propose_text(groups[leader()], "read ");
    OK(raft_group_read(groups[leader()], RAFT_READ_LEASE, 0, -1, &index, &error));
    CHECK(index >= written);
    settings.lease_ms = 0;
    change(&(raft_member_change){.kind = RAFT_CHANGE_SET_SETTINGS, .settings = &settings}, 1);
    OK(raft_group_settings(groups[leader()], &settings, &error));
    CHECK(settings.lease_ms == 0 && settings.max_sessions == 7);
    OK(raft_group_read(groups[leader()], RAFT_READ_LEASE, 0, -1, &index, &error));
    CHECK(index > written);
    OK(raft_group_read(groups[3 - leader()], RAFT_READ_LEASE, 0, -1, NULL, &error));
}

int main(void) {
    form(1);
    form(2);
    leader();
    propose_text(groups[leader()], "two ");
    what_cannot_be();
    absent();
    reads();
    CHECK(member(1, 1).priority == 9 && member(1, 2).priority == RAFT_PRIORITY_USUAL);
    CHECK(member(1, 1).becomes == RAFT_MEMBER_VOTER && member(1, 1).votes == 1 && member(1, 1).durable_index == 0);

    /* A server that waits is nobody yet; added, it has everything. */
    join(3);
    CHECK(group_info(groups[3]).role == RAFT_ROLE_FORMING && group_info(groups[3]).highest_id == 0);
    raft_members *none = NULL;
    FAILS(RAFT_ERR_FORMING, raft_group_members(groups[3], &none, &error));
    /* At an address where another server is, it is not; and the right one is taken afterwards. */
    refused(RAFT_ERR_INVALID, (raft_member_change){.kind = RAFT_CHANGE_ADD, .id = 3, .address = address_of(1)}, "cannot be added");
    uint64_t added = change(&(raft_member_change){.kind = RAFT_CHANGE_ADD, .id = 3, .address = address_of(3),
                                                  .priority = RAFT_PRIORITY_LAST, .context = (const uint8_t *)"third",
                                                  .context_length = 5}, 1);
    OK(raft_group_read(groups[3], RAFT_READ_AT_LEAST, propose_text(groups[leader()], "three "), -1, NULL, &error));
    CHECK(strcmp(journals[3].text, "two read three ") == 0);
    raft_member third = member(3, 3);
    CHECK(third.role == RAFT_MEMBER_VOTER && third.priority == RAFT_PRIORITY_LAST && third.context_length == 5);
    CHECK(group_info(groups[3]).applied_index > added && group_info(groups[leader()]).highest_id == 3);
    refused(RAFT_ERR_INVALID, (raft_member_change){.kind = RAFT_CHANGE_ADD, .id = 3, .address = address_of(3)}, "already");

    /* Leadership goes where it is sent; what was acknowledged before is there. */
    uint64_t to = 3 - leader();
    OK(raft_group_transfer_leadership(groups[leader()], to, 30000, -1, &error));
    CHECK(leader() == to);
    propose_text(groups[to], "handed ");
    size_t before = journals[to].completed;
    OK(raft_group_transfer_leadership_submit(groups[to], 43, 0, 30000, &error));
    WAIT(&journals[to], journals[to].completed == before + 1);
    CHECK(journals[to].completions[before].tag == 43 && journals[to].completions[before].status == RAFT_OK);
    CHECK(journals[to].completions[before].index == 0);
    while (leader() == 3) {
        /* It is wanted last: where it was the first to be heard of, it hands over in turn. */
    }

    /* A learner has the log and no vote; a member is told otherwise of itself. */
    join(4);
    raft_member_change several[] = {
        {.kind = RAFT_CHANGE_ADD, .id = 4, .role = RAFT_MEMBER_LEARNER, .address = address_of(4)},
        {.kind = RAFT_CHANGE_SET_PRIORITY, .id = 3},
        {.kind = RAFT_CHANGE_SET_CONTEXT, .id = 2, .context = (const uint8_t *)"moved", .context_length = 5},
        {.kind = RAFT_CHANGE_SET_ADDRESS, .id = 2, .address = "127.0.0.1:9"},
    };
    change(several, 4);
    uint64_t index = propose_text(groups[leader()], "four ");
    WAIT(&journals[4], journals[4].formed); /* A learner is not waited for. */
    OK(raft_group_read(groups[4], RAFT_READ_AT_LEAST, index, -1, NULL, &error));
    raft_member fourth;
    do {
        fourth = member(leader(), 4);
    } while (fourth.durable_index == 0); /* Its acknowledgement is on its way. */
    CHECK(fourth.role == RAFT_MEMBER_LEARNER && fourth.votes == 0 && fourth.becomes == RAFT_MEMBER_LEARNER);
    CHECK(member(4, 4).durable_index == 0);
    CHECK(member(4, 3).priority == RAFT_PRIORITY_USUAL && member(4, 2).context_length == 5);
    change(&(raft_member_change){.kind = RAFT_CHANGE_SET_ADDRESS, .id = 2, .address = address_of(2)}, 1);
    change(&(raft_member_change){.kind = RAFT_CHANGE_SET_ROLE, .id = 4, .role = RAFT_MEMBER_VOTER}, 1);
    CHECK(member(leader(), 4).votes == 1);

    /* The founders go, the leader among them, and their ids with them. */
    raft_member_change founders[] = {{.kind = RAFT_CHANGE_REMOVE, .id = 1}, {.kind = RAFT_CHANGE_REMOVE, .id = 2}};
    change(founders, 2);
    for (uint64_t id = 1; id <= 2; id++) {
        WAIT(&journals[id], journals[id].removed);
        CHECK(group_info(groups[id]).removed_index > 0);
        stop(id);
    }
    index = propose_text(groups[leader()], "left");
    for (uint64_t id = 3; id <= 4; id++) {
        OK(raft_group_read(groups[id], RAFT_READ_AT_LEAST, index, -1, NULL, &error));
        CHECK(strcmp(journals[id].text, "two read three handed four left") == 0);
    }
    refused(RAFT_ERR_INVALID, (raft_member_change){.kind = RAFT_CHANGE_ADD, .id = 2, .address = address_of(2)}, "never used again");

    /* One is left, and a restart by the same words finds the group. */
    change(&(raft_member_change){.kind = RAFT_CHANGE_REMOVE, .id = 3}, 1);
    stop(3);
    uint64_t last = propose_text(groups[4], ", one");
    stop(4);
    join(4);
    leader();
    OK(raft_group_read(groups[4], RAFT_READ_AT_LEAST, last, -1, NULL, &error));
    CHECK(strcmp(journals[4].text, "two read three handed four left, one") == 0);
    stop(4);
    return 0;
}
