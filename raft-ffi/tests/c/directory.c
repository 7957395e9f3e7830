/* Three servers of which one is left: it is looked at and recovered while nothing runs on it, and leads alone. */
#include "support.h"

static raft_server *servers[4];
static raft_group *groups[4];
static journal journals[4];
static raft_directory_group found;
static size_t found_count;

static void keep(void *user, const raft_directory_group *group) {
    CHECK(user == &found_count);
    CHECK(group->size == sizeof *group && group->reserved0 == 0);
    CHECK(strcmp(group->cluster, "test") == 0);
    CHECK(group->voter_count == 1 || group->voter_count == 3);
    CHECK(group->voters[group->voter_count - 1] == 3);
    /* What waits is refused in here. */
    FAILS(RAFT_ERR_IN_CALLBACK, raft_directory_inspect("server-3", keep, user, &error));
    FAILS(RAFT_ERR_IN_CALLBACK, raft_directory_recover("server-3", "test", 3, 1, 1, 1, &error));
    found = *group;
    found_count++;
}

static void inspect(uint64_t id) {
    char directory[32];
    snprintf(directory, sizeof directory, "server-%" PRIu64, id);
    found_count = 0;
    OK(raft_directory_inspect(directory, keep, &found_count, &error));
    CHECK(found_count == 1 && found.server == id && found.group == 1);
}

static void start(uint64_t id) {
    journal_init(&journals[id]);
    servers[id] = open_server(id);
    groups[id] = start_group(servers[id], 3, &journals[id]);
}

static void stop(uint64_t id) {
    OK(raft_server_free(servers[id], &error));
    journal_end(&journals[id]);
}

/* Waits until one of the servers from `first` on leads. */
static uint64_t find_leader(uint64_t first) {
    struct timespec pause = {.tv_sec = 0, .tv_nsec = 1000000};
    for (int round = 0; round < LIMIT_SECONDS * 1000; round++) {
        for (uint64_t id = first; id <= 3; id++) {
            if (group_info(groups[id]).role == RAFT_ROLE_LEADER) return id;
        }
        nanosleep(&pause, NULL);
    }
    abort();
}

int main(void) {
    CHECK(strstr(raft_directory_risk(), "BECOMES COMMITTED") != NULL);
    FAILS(RAFT_ERR_ARGUMENT, raft_directory_inspect(NULL, keep, &found_count, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_directory_inspect(".", NULL, &found_count, &error));
    FAILS(RAFT_ERR_IO, raft_directory_inspect("missing", keep, &found_count, &error));
    FAILS(RAFT_ERR_INVALID, raft_directory_inspect(".", keep, &found_count, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_directory_recover(".", NULL, 1, 1, 1, 1, &error));
    FAILS(RAFT_ERR_INVALID, raft_directory_recover(".", "test", 1, 1, 1, 1, &error));

    for (uint64_t id = 1; id <= 3; id++) start(id);
    uint64_t index = propose_text(groups[find_leader(1)], "kept ");
    WAIT(&journals[3], journals[3].last_index >= index);
    FAILS(RAFT_ERR_LOCKED, raft_directory_inspect("server-3", keep, &found_count, &error));
    FAILS(RAFT_ERR_LOCKED, raft_directory_recover("server-3", "test", 3, 1, 1, 1, &error));
    for (uint64_t id = 1; id <= 3; id++) stop(id);

    inspect(3);
    raft_directory_group before = found;
    CHECK(before.voter_count == 3 && before.recovered == 0);
    CHECK(before.last_index >= index && before.term >= before.last_term && before.last_term > 0);
    uint64_t term = before.last_term;
    index = before.last_index;
    FAILS(RAFT_ERR_INVALID, raft_directory_recover("server-3", "test", 3, 1, term, index - 1, &error));
    FAILS(RAFT_ERR_INVALID, raft_directory_recover("server-3", "test", 3, 2, term, index, &error));
    FAILS(RAFT_ERR_STORAGE, raft_directory_recover("server-3", "other", 3, 1, term, index, &error));
    FAILS(RAFT_ERR_STORAGE, raft_directory_recover("server-3", "test", 2, 1, term, index, &error));
    inspect(3);
    CHECK(memcmp(&found.lineage, &before.lineage, sizeof found.lineage) == 0 && found.last_index == index);

    OK(raft_directory_recover("server-3", "test", 3, 1, term, index, &error));
    FAILS(RAFT_ERR_INVALID, raft_directory_recover("server-3", "test", 3, 1, term, index, &error));
    inspect(3);
    CHECK(found.voter_count == 1 && found.recovered == 1 && found.last_index == index + 1 && found.last_term > term);
    CHECK(memcmp(&found.lineage, &before.lineage, sizeof found.lineage) != 0);

    start(3);
    CHECK(find_leader(3) == 3);
    propose_text(groups[3], "new");
    CHECK(strcmp(journals[3].text, "kept new") == 0);
    stop(3);
    return 0;
}
