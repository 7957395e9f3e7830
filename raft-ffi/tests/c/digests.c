/* Three servers in one process compare their states; the one whose state is another stops, and the rest go on. */
#include "support.h"

static raft_server *servers[4];
static raft_group *groups[4];
static journal journals[4];

static void start(uint64_t id) {
    journal_init(&journals[id]);
    servers[id] = open_server(id);
    groups[id] = start_group(servers[id], 3, &journals[id]);
}

static void stop(uint64_t id) {
    OK(raft_server_free(servers[id], &error));
    servers[id] = NULL;
    journal_end(&journals[id]);
}

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

/* Compares at whoever leads, as often as nothing came of it. */
static raft_digest_check *compare(int64_t patience_ms) {
    for (;;) {
        raft_digest_check *check = NULL;
        raft_error *error = NULL;
        int32_t status = raft_group_check_digests(groups[find_leader()], patience_ms, -1, &check, &error);
        if (status == RAFT_OK) {
            CHECK(check != NULL && error == NULL);
            return check;
        }
        CHECK(check == NULL && (raft_error_retriable(error) || status == RAFT_ERR_UNKNOWN));
        raft_error_free(error);
    }
}

int main(void) {
    for (uint64_t id = 1; id <= 3; id++) start(id);
    uint64_t leader = find_leader();
    uint64_t index = propose_text(groups[leader], "some state");
    raft_digest_check *none = NULL;
    FAILS(RAFT_ERR_BUSY, raft_group_digest_check(groups[leader], &none, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_check_digests(groups[leader], -2, -1, &none, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_check_digests(groups[leader], -1, -1, NULL, &error));
    CHECK(raft_digest_check_index(NULL) == 0 && raft_digest_check_count(NULL) == 0);
    raft_digest_check_free(NULL);

    /* Healthy replicas agree. */
    raft_digest_check *check = compare(-1);
    CHECK(raft_digest_check_verdict(check) == RAFT_VERDICT_AGREED);
    CHECK(raft_digest_check_index(check) > index && raft_digest_check_count(check) == 3);
    const raft_replica_digest *replicas = raft_digest_check_replicas(check);
    for (uint64_t id = 1; id <= 3; id++) {
        const raft_replica_digest *replica = &replicas[id - 1];
        CHECK(replica->server == id && replica->answer == RAFT_ANSWER_GIVEN && replica->odd == 0);
        CHECK(memcmp(replica->digest, replicas[0].digest, RAFT_DIGEST_BYTES) == 0);
        CHECK(replica->sessions == replicas[0].sessions && replica->reserved0 == 0 && replica->reserved[0] == 0);
    }
    raft_digest_check_free(check);

    /* The same by completion; then the library has what came of it. */
    leader = find_leader();
    size_t before = journals[leader].completed;
    OK(raft_group_check_digests_submit(groups[leader], 77, 5000, &error));
    WAIT(&journals[leader], journals[leader].completed > before);
    const raft_completion *end = &journals[leader].completions[before];
    if (end->status == RAFT_OK) {
        CHECK(end->tag == 77 && end->outcome == RAFT_OUTCOME_APPLIED && end->index > index);
        OK(raft_group_digest_check(groups[leader], &check, &error));
        CHECK(raft_digest_check_index(check) == end->index);
        raft_digest_check_free(check);
        raft_group_info info = group_info(groups[leader]);
        CHECK(info.digest_index == end->index && info.digest_verdict == RAFT_VERDICT_AGREED && info.diverged_index == 0);
    }

    /* One whose callback fails has nothing to say. */
    uint64_t unable = find_leader() % 3 + 1;
    journals[unable].skew = 1;
    check = compare(-1);
    CHECK(raft_digest_check_verdict(check) == RAFT_VERDICT_AGREED);
    CHECK(raft_digest_check_replicas(check)[unable - 1].answer == RAFT_ANSWER_UNABLE);
    raft_digest_check_free(check);
    journals[unable].skew = 0;

    /* One state is another: that server's group stops, and all are told. */
    uint64_t odd = find_leader();
    journals[odd].skew = 1000;
    check = compare(-1);
    index = raft_digest_check_index(check);
    CHECK(raft_digest_check_verdict(check) == RAFT_VERDICT_DIVERGED);
    for (uint64_t id = 1; id <= 3; id++) CHECK(raft_digest_check_replicas(check)[id - 1].odd == (id == odd));
    raft_digest_check_free(check);
    WAIT(&journals[odd], journals[odd].stopped);
    CHECK(strstr(journals[odd].reason, "differs from the majority") != NULL);
    raft_group_info info = group_info(groups[odd]);
    CHECK(info.stopped == 1 && info.diverged_index == index && info.digest_index == index);
    CHECK(info.digest_verdict == RAFT_VERDICT_DIVERGED);
    for (uint64_t id = 1; id <= 3; id++) WAIT(&journals[id], journals[id].diverged_index == index);

    /* The leader was the odd one, and another leads. */
    leader = find_leader();
    CHECK(leader != odd);
    propose_text(groups[leader], ", and more");
    check = compare(50);
    CHECK(raft_digest_check_verdict(check) == RAFT_VERDICT_AGREED);
    CHECK(raft_digest_check_replicas(check)[odd - 1].answer == RAFT_ANSWER_MISSING);
    raft_digest_check_free(check);
    for (uint64_t id = 1; id <= 3; id++) stop(id);
    return 0;
}
