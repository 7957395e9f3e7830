#include "submission.h"

#include "machine.h"
#include "operation.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What an item costs beside its command, at most. */
#define ITEM_EXTRA_BYTES ((size_t)64)

/* Requests that one linearizable read answers. Its address is the read's tag. */
struct read_round {
    struct request *first;
    struct request *last;
};

/* Tags are the addresses of requests and rounds: each completes exactly once, and lives until then. Addresses are
 * multiples of four: a round's tag is made odd, and that of an operation's request has the second bit set. */
static uint64_t request_tag(const struct request *request) {
    return (uint64_t)(uintptr_t)request;
}

static struct request *request_of(uint64_t tag) {
    return (struct request *)(uintptr_t)tag;
}

static uint64_t round_tag(const struct read_round *round) {
    return (uint64_t)(uintptr_t)round | 1;
}

static struct read_round *round_of(uint64_t tag) {
    return (tag & 1) != 0 ? (struct read_round *)(uintptr_t)(tag - 1) : NULL;
}

static uint64_t operation_tag(const struct request *request) {
    return (uint64_t)(uintptr_t)request | 2;
}

static bool is_operation(uint64_t tag) {
    return (tag & 2) != 0;
}

void submission_free(struct submission *submission) {
    assert(submission->item_count == 0 && submission->gathering == NULL);
    buffer_free(&submission->commands);
    buffer_free(&submission->result);
    free(submission->items);
    submission->items = NULL;
}

static void answer_error(struct request *request, const char *code, struct slice why) {
    struct buffer text = {0};
    buffer_append_text(&text, code);
    buffer_append(&text, why.data, why.length);
    resp_error(request_answer(request), (struct slice){text.data, text.length});
    buffer_free(&text);
    request_answered(request);
}

static void answer_not_leader(struct submission *submission, struct request *request, uint64_t leader) {
    reply_not_leader(submission->server, leader, request_answer(request));
    request_answered(request);
}

/* The library's message without the outcome that some begin with: the error's code says that already. */
static struct slice reason(struct slice message) {
    static const char *const outcomes[] = {"not applied: ", "unknown: "};
    for (size_t at = 0; at < sizeof outcomes / sizeof outcomes[0]; at++) {
        struct slice outcome = slice_of(outcomes[at]);
        if (message.length >= outcome.length && memcmp(message.data, outcome.data, outcome.length) == 0) {
            return (struct slice){message.data + outcome.length, message.length - outcome.length};
        }
    }
    return message;
}

/* Answers a request that was certainly not applied. */
static void answer_not_applied(struct submission *submission, struct request *request, int32_t status,
                               uint64_t leader, struct slice why) {
    switch (status) {
    case RAFT_ERR_NOT_LEADER:
        answer_not_leader(submission, request, leader);
        break;
    case RAFT_ERR_FORMING:
        answer_error(request, "CLUSTERDOWN ", slice_of("the group is not formed yet"));
        break;
    case RAFT_ERR_TOO_LARGE:
    case RAFT_ERR_INVALID:
    case RAFT_ERR_ARGUMENT:
    case RAFT_ERR_CANCELLED:
        answer_error(request, "ERR ", reason(why));
        break;
    default:
        answer_error(request, "TRYAGAIN ", reason(why));
        break;
    }
}

static void open_item(struct submission *submission, size_t command_bytes) {
    submission->open_count++;
    submission->open_bytes += command_bytes;
    submission->open_cost_bytes += command_bytes + ITEM_EXTRA_BYTES;
}

static void close_item(struct submission *submission, size_t command_bytes) {
    assert(submission->open_count > 0);
    submission->open_count--;
    submission->open_bytes -= command_bytes;
    submission->open_cost_bytes -= command_bytes + ITEM_EXTRA_BYTES;
}

bool submission_has_room(const struct submission *submission, size_t command_bytes) {
    size_t cost_bytes = command_bytes + ITEM_EXTRA_BYTES;
    return submission->open_count == 0 || submission->open_cost_bytes + cost_bytes <= submission->open_cost_bytes_max;
}

static bool add_item(struct submission *submission, struct request *request, struct slice command) {
    if (submission->item_count == submission->item_capacity) {
        size_t capacity = submission->item_capacity < 64 ? 64 : submission->item_capacity * 2;
        raft_item *items = realloc(submission->items, capacity * sizeof *items);
        if (items == NULL) {
            return false;
        }
        submission->items = items;
        submission->item_capacity = capacity;
    }
    buffer_append(&submission->commands, command.data, command.length);
    if (submission->commands.failed) {
        submission->commands.failed = false;
        return false;
    }
    /* Where the bytes are is filled in when the batch goes: until then they may move. */
    raft_item item = {.tag = request_tag(request), .length = command.length};
    if (request->session.use == SESSION_COMMAND) {
        /* Which replies its client still wants is not known here: the engine bounds them. */
        item.session = request->session.id;
        item.sequence = request->session.sequence;
    }
    submission->items[submission->item_count++] = item;
    return true;
}

static void propose(struct submission *submission) {
    size_t offset = 0;
    for (size_t at = 0; at < submission->item_count; at++) {
        submission->items[at].data = submission->commands.data + offset;
        offset += submission->items[at].length;
    }
    size_t count = submission->item_count;
    submission->item_count = 0;
    submission->batch_bytes = 0;
    raft_error *error = NULL;
    int32_t status = raft_group_propose(submission->replica->group, submission->items, count, &error);
    buffer_clear(&submission->commands, submission->batch_bytes_max);
    if (status == RAFT_OK) {
        return;
    }
    for (size_t at = 0; at < count; at++) {
        struct request *request = request_of(submission->items[at].tag);
        close_item(submission, submission->items[at].length);
        answer_not_applied(submission, request, status, 0, slice_of(raft_error_message(error)));
    }
    raft_error_free(error);
}

/* Opens, renews or closes a session, behind what gathered before. */
static void submit_session(struct submission *submission, struct request *request) {
    if (submission->item_count > 0) {
        propose(submission);
    }
    raft_group *group = submission->replica->group;
    uint64_t tag = request_tag(request), id = request->session.id;
    raft_error *error = NULL;
    int32_t status = request->session.use == SESSION_OPEN    ? raft_group_open_session_submit(group, tag, &error)
                     : request->session.use == SESSION_RENEW ? raft_group_renew_session_submit(group, tag, id, &error)
                                                             : raft_group_close_session_submit(group, tag, id, &error);
    if (status == RAFT_OK) {
        open_item(submission, 0);
        return;
    }
    answer_not_applied(submission, request, status, 0, slice_of(raft_error_message(error)));
    raft_error_free(error);
}

void submission_write(struct submission *submission, struct request *request, struct slice command) {
    if (!submission->leads && !submission->is_forwarding) {
        answer_not_leader(submission, request, submission->server->leader);
        return;
    }
    if (request->session.use != SESSION_NOTHING && request->session.use != SESSION_COMMAND) {
        submit_session(submission, request);
        return;
    }
    if (command.length > submission->entry_bytes_max) {
        answer_error(request, "ERR ", slice_of("the request is longer than an entry may be (max_entry_bytes)"));
        return;
    }
    size_t cost_bytes = command.length + ITEM_EXTRA_BYTES;
    if (submission->item_count > 0 && submission->batch_bytes + cost_bytes > submission->batch_bytes_max) {
        propose(submission);
    }
    if (!add_item(submission, request, command)) {
        answer_error(request, "TRYAGAIN ", slice_of("no memory"));
        return;
    }
    submission->batch_bytes += cost_bytes;
    open_item(submission, command.length);
}

void submission_read(struct submission *submission, struct request *request, struct slice command) {
    if (!submission->leads && !submission->is_forwarding) {
        answer_not_leader(submission, request, submission->server->leader);
        return;
    }
    if (submission->gathering == NULL) {
        submission->gathering = calloc(1, sizeof *submission->gathering);
    }
    buffer_append(&request->bytes, command.data, command.length);
    struct read_round *round = submission->gathering;
    if (round == NULL || request->bytes.failed) {
        answer_error(request, "TRYAGAIN ", slice_of("no memory"));
        return;
    }
    if (round->last != NULL) {
        round->last->next_in_round = request;
    } else {
        round->first = request;
    }
    round->last = request;
}

static const char *verdict_name(uint32_t verdict) {
    switch (verdict) {
    case RAFT_VERDICT_AGREED:
        return "agreed";
    case RAFT_VERDICT_DIVERGED:
        return "diverged";
    case RAFT_VERDICT_SPLIT:
        return "split";
    default:
        return "undecided";
    }
}

static const char *answer_name(const raft_replica_digest *replica) {
    switch (replica->answer) {
    case RAFT_ANSWER_GIVEN:
        return replica->odd != 0 ? "odd" : "given";
    case RAFT_ANSWER_UNABLE:
        return "unable";
    default:
        return "missing";
    }
}

/* Index, verdict, and a row a replica: id, what it did, and the digest as RAFT.STATUS shows it. */
static void append_digest_check(struct buffer *answer, const raft_digest_check *check) {
    size_t count = raft_digest_check_count(check);
    const raft_replica_digest *replicas = raft_digest_check_replicas(check);
    resp_array(answer, 2 + count);
    resp_integer(answer, (int64_t)raft_digest_check_index(check));
    resp_bulk_text(answer, verdict_name(raft_digest_check_verdict(check)));
    for (size_t at = 0; at < count; at++) {
        char digest[17] = "";
        for (int byte = 0; replicas[at].answer == RAFT_ANSWER_GIVEN && byte < 8; byte++) {
            snprintf(digest + 2 * byte, 3, "%02x", replicas[at].digest[byte]);
        }
        resp_array(answer, 3);
        resp_integer(answer, (int64_t)replicas[at].server);
        resp_bulk_text(answer, answer_name(&replicas[at]));
        resp_bulk_text(answer, digest);
    }
}

/* Answers an operation that was done. */
static void answer_operation(const struct submission *submission, struct request *request, uint64_t index) {
    struct operation operation = operation_read((struct slice){request->bytes.data, request->bytes.length});
    /* The bytes of the operation end where the answer begins. */
    struct buffer *answer = request_answer(request);
    if (operation.kind == OPERATION_TRANSFER) {
        resp_simple(answer, "OK");
    } else if (operation.kind == OPERATION_DIGEST) {
        raft_digest_check *check = replica_digest_check(submission->replica);
        append_digest_check(answer, check);
        raft_digest_check_free(check);
    } else {
        resp_integer(answer, (int64_t)index);
    }
    request_answered(request);
}

void submission_operate(struct submission *submission, struct request *request, struct slice operation) {
    bool is_local = operation_read(operation).kind == OPERATION_SNAPSHOT;
    if (!submission->leads && !is_local) {
        answer_not_leader(submission, request, submission->server->leader);
        return;
    }
    buffer_append(&request->bytes, operation.data, operation.length);
    if (request->bytes.failed) {
        answer_error(request, "TRYAGAIN ", slice_of("no memory"));
        return;
    }
    raft_error *error = NULL;
    int32_t status = replica_operate(submission->replica, operation_tag(request), operation, &error);
    if (status != RAFT_OK) {
        answer_not_applied(submission, request, status, 0, slice_of(raft_error_message(error)));
        raft_error_free(error);
    }
}

static void operation_completed(struct submission *submission, const raft_completion *completion) {
    struct request *request = request_of(completion->tag & ~UINT64_C(2));
    struct slice message = {completion->result, completion->result_length};
    if (completion->outcome == RAFT_OUTCOME_APPLIED) {
        answer_operation(submission, request, completion->index);
    } else if (completion->outcome == RAFT_OUTCOME_NOT_APPLIED) {
        answer_not_applied(submission, request, completion->status, completion->leader, message);
    } else {
        struct buffer why = {0};
        struct slice text = reason(message);
        buffer_append(&why, text.data, text.length);
        buffer_append_text(&why, "; RAFT.MEMBERS tells what became of it");
        answer_error(request, "UNKNOWN ", (struct slice){why.data, why.length});
        buffer_free(&why);
    }
}

size_t submission_answer_bytes(const struct submission *submission, struct slice command) {
    struct slice value = {NULL, 0};
    if (command.data[0] == COMMAND_GET) {
        store_get(submission->replica->store, (struct slice){command.data + 5, command.length - 5}, &value);
    }
    return value.length;
}

bool submission_fits_log(const struct submission *submission, struct slice command) {
    switch (command.data[0]) {
    case COMMAND_EXISTS:
    case COMMAND_LENGTH:
    case COMMAND_COUNT:
        return true;
    case COMMAND_GET:
        /* The open writes cannot make the value longer by more than their own bytes. Where another server leads, it may
         * have grown unseen. */
        return submission->leads &&
               submission_answer_bytes(submission, command) + submission->open_bytes + 1 <= RESULT_BYTES_MAX;
    default:
        return false;
    }
}

void submission_look_up(struct submission *submission, const struct request *request, struct buffer *answer) {
    struct buffer *result = &submission->result;
    struct slice command = {request->bytes.data, request->bytes.length};
    buffer_clear(result, RESULT_BYTES_MAX);
    if (machine_query(submission->replica->store, command, result) == MACHINE_APPLIED) {
        machine_reply((struct slice){result->data, result->length}, request->version, answer);
    } else {
        resp_error(answer, slice_of("TRYAGAIN no memory for the answer"));
    }
}

/* Ends a round: what waited for it can be looked up, or is answered with why not. */
static void end_round(struct submission *submission, struct read_round *round, int32_t status, uint64_t leader,
                      struct slice why) {
    for (struct request *request = round->first; request != NULL;) {
        struct request *next = request->next_in_round;
        if (status != RAFT_OK) {
            answer_not_applied(submission, request, status, leader, why);
        } else {
            request->place = REQUEST_READY;
            connection_look_up(request->connection, submission);
        }
        request = next;
    }
    free(round);
}

static void read_state(struct submission *submission) {
    struct read_round *round = submission->gathering;
    submission->gathering = NULL;
    raft_error *error = NULL;
    int32_t status =
        raft_group_read_submit(submission->replica->group, round_tag(round), RAFT_READ_LINEARIZABLE, 0, &error);
    if (status == RAFT_OK) {
        submission->rounds_in_flight++;
        return;
    }
    end_round(submission, round, status, 0, slice_of(raft_error_message(error)));
    raft_error_free(error);
}

void submission_flush(struct submission *submission) {
    if (submission->item_count > 0) {
        propose(submission);
    }
    if (submission->gathering != NULL && submission->rounds_in_flight < READS_IN_FLIGHT_MAX) {
        read_state(submission);
    }
}

static void proposal_completed(struct submission *submission, const raft_completion *completion) {
    struct request *request = request_of(completion->tag);
    close_item(submission, request->command_bytes);
    struct slice result = {completion->result, completion->result_length};
    if (completion->outcome == RAFT_OUTCOME_APPLIED && request->session.use == SESSION_OPEN) {
        resp_integer(request_answer(request), (int64_t)completion->index);
        request_answered(request);
    } else if (completion->outcome == RAFT_OUTCOME_APPLIED && completion->result_length == 0) {
        resp_simple(request_answer(request), "OK"); /* a session was renewed or closed: a command has a result */
        request_answered(request);
    } else if (completion->outcome == RAFT_OUTCOME_APPLIED) {
        if (!machine_reply(result, request->version, request_answer(request))) {
            resp_error(request_answer(request), slice_of("UNKNOWN applied, but its result is not one"));
        }
        request_answered(request);
    } else if (completion->outcome == RAFT_OUTCOME_NOT_APPLIED) {
        answer_not_applied(submission, request, completion->status, completion->leader, result);
    } else if (request->is_write) {
        answer_error(request, "UNKNOWN ", reason(result));
    } else {
        /* Whether a read in the log was applied makes no difference to anyone. */
        answer_error(request, "TRYAGAIN ", reason(result));
    }
}

void submission_completed(struct submission *submission, const raft_completion *completions, size_t count) {
    for (size_t at = 0; at < count; at++) {
        const raft_completion *completion = &completions[at];
        struct read_round *round = round_of(completion->tag);
        if (round == NULL && is_operation(completion->tag)) {
            operation_completed(submission, completion);
        } else if (round == NULL) {
            proposal_completed(submission, completion);
        } else {
            submission->rounds_in_flight--;
            end_round(submission, round, completion->status, completion->leader,
                      (struct slice){completion->result, completion->result_length});
        }
    }
}
