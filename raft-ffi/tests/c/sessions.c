/* Sessions: what is proposed again is applied once, also after a restart, and answered as at first. */
#include "support.h"

static raft_group *group;
static uint64_t session;

/* What a waiting call gave: the length of the journal's text, and the index. */
typedef struct answer {
    uint64_t length;
    uint64_t index;
} answer;

static raft_item item_of(uint64_t sequence, const char *text) {
    return (raft_item){.data = (const uint8_t *)text,
                       .length = strlen(text),
                       .session = session,
                       .sequence = sequence,
                       .lowest_outstanding = 1};
}

static answer propose(raft_item item) {
    raft_result *result = NULL;
    answer a;
    OK(raft_group_propose_item_wait(group, &item, -1, &result, &error));
    CHECK(raft_result_length(result) == sizeof a.length);
    memcpy(&a.length, raft_result_data(result), sizeof a.length);
    a.index = raft_result_index(result);
    raft_result_free(result);
    return a;
}

static void is_same(answer one, answer other) {
    CHECK(one.length == other.length && one.index == other.index);
}

/* Calls that cannot be. */
static void misuse(void) {
    raft_item item = item_of(1, "x");
    FAILS(RAFT_ERR_ARGUMENT, raft_group_open_session(group, -1, NULL, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_propose_item_wait(group, NULL, -1, NULL, &error));
    item.session = 0;
    FAILS(RAFT_ERR_ARGUMENT, raft_group_propose_item_wait(group, &item, -1, NULL, &error));
    FAILS(RAFT_ERR_ARGUMENT, raft_group_propose(group, &item, 1, &error));
    item = item_of(1, "x");
    item.reserved[1] = 1;
    FAILS(RAFT_ERR_ARGUMENT, raft_group_propose(group, &item, 1, &error));
    item = item_of(1, "x");
    item.length = 8388609;
    FAILS(RAFT_ERR_TOO_LARGE, raft_group_propose_item_wait(group, &item, -1, NULL, &error));
    uint64_t none = 1;
    FAILS(RAFT_ERR_HANDLE, raft_group_open_session(NULL, -1, &none, &error));
    CHECK(none == 0);
    FAILS(RAFT_ERR_HANDLE, raft_group_renew_session_submit(NULL, 1, session, &error));
}

/* In one array: commands of the session, a repetition, and what is of no session. */
static void in_arrays(journal *j, answer first) {
    raft_item items[4] = {item_of(1, "one"), item_of(2, "two"), item_of(2, "two"),
                          {.tag = 13, .data = (const uint8_t *)"!", .length = 1}};
    for (uint64_t i = 0; i < 3; i++) items[i].tag = 10 + i;
    OK(raft_group_propose(group, items, 4, &error));
    WAIT(j, j->completed == 4);
    CHECK(j->completions[0].index == first.index && j->results[0] == first.length);
    CHECK(j->completions[1].status == RAFT_OK && j->completions[2].status == RAFT_OK);
    CHECK(j->completions[1].index == j->completions[2].index && j->results[1] == j->results[2]);
    CHECK(strcmp(j->text, "onetwo!") == 0);

    OK(raft_group_open_session_submit(group, 20, &error));
    OK(raft_group_renew_session_submit(group, 21, session, &error));
    WAIT(j, j->completed == 6);
    uint64_t other = j->completions[4].index;
    CHECK(j->completions[4].outcome == RAFT_OUTCOME_APPLIED && other > session);
    OK(raft_group_close_session_submit(group, 22, other, &error));
    OK(raft_group_renew_session_submit(group, 23, other, &error));
    WAIT(j, j->completed == 8);
    CHECK(j->completions[6].outcome == RAFT_OUTCOME_APPLIED);
    CHECK(j->completions[7].status == RAFT_ERR_SESSION_EXPIRED && j->completions[7].outcome == RAFT_OUTCOME_UNKNOWN);
}

int main(void) {
    journal first, second;
    journal_init(&first);
    raft_server *server = open_server(1);
    group = start_group(server, 1, &first);
    WAIT(&first, first.role == RAFT_ROLE_LEADER && first.formed);
    OK(raft_group_open_session(group, -1, &session, &error));
    CHECK(session != 0);
    answer one = propose(item_of(1, "one"));
    is_same(propose(item_of(1, "one")), one);
    CHECK(one.length == 3);
    misuse();
    in_arrays(&first, one);

    /* The sessions are part of a snapshot, and of what comes after it. */
    OK(raft_group_snapshot(group, -1, NULL, &error));
    answer three = propose(item_of(3, "three"));
    OK(raft_server_free(server, &error));
    journal_end(&first);
    journal_init(&second);
    server = open_server(1);
    group = start_group(server, 1, &second);
    WAIT(&second, second.role == RAFT_ROLE_LEADER);
    is_same(propose(item_of(1, "one")), one);
    is_same(propose(item_of(3, "three")), three);
    CHECK(second.restored == 1 && strcmp(second.text, "onetwo!three") == 0);

    /* What the client has, it is not told again; and what has ended, has ended. */
    raft_item four = item_of(4, "four");
    four.lowest_outstanding = 2;
    propose(four);
    raft_item again = item_of(1, "one");
    FAILS(RAFT_ERR_REPLY_FORGOTTEN, raft_group_propose_item_wait(group, &again, -1, NULL, &error));
    OK(raft_group_renew_session(group, session, -1, &error));
    OK(raft_group_close_session(group, session, -1, &error));
    OK(raft_group_close_session(group, session, -1, &error));
    FAILS(RAFT_ERR_SESSION_EXPIRED, raft_group_renew_session(group, session, -1, &error));
    FAILS(RAFT_ERR_SESSION_EXPIRED, raft_group_propose_item_wait(group, &four, -1, NULL, &error));
    CHECK(strcmp(second.text, "onetwo!threefour") == 0);
    OK(raft_server_free(server, &error));
    journal_end(&second);
    return 0;
}
