#include "replica.h"

#include "machine.h"
#include "operation.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GROUP_ID 1
/* A server that is added has so long to be met and to catch up. */
#define ADD_PATIENCE_MS 60000
/* And a voter so long to take leadership over. */
#define TRANSFER_PATIENCE_MS 10000
/* And who does not say by then what its state comes down to is not waited for. */
#define DIGEST_PATIENCE_MS 5000

const char *role_name(uint32_t role) {
    switch (role) {
    case RAFT_ROLE_FORMING:
        return "forming";
    case RAFT_ROLE_FOLLOWER:
        return "follower";
    case RAFT_ROLE_PRE_CANDIDATE:
        return "pre-candidate";
    case RAFT_ROLE_CANDIDATE:
        return "candidate";
    case RAFT_ROLE_LEADER:
        return "leader";
    default:
        return "unknown";
    }
}

static size_t apply(void *user, const raft_entry *entries, size_t count, raft_results *results) {
    struct replica *replica = user;
    for (size_t at = 0; at < count; at++) {
        buffer_clear(&replica->result, RESULT_BYTES_MAX);
        struct slice command = {entries[at].data, entries[at].length};
        enum machine_outcome outcome = machine_apply(replica->store, command, &replica->result);
        if (outcome != MACHINE_APPLIED) {
            char message[128];
            snprintf(message, sizeof message, "entry %" PRIu64 " (first byte %d): %s", entries[at].index,
                     command.length > 0 ? command.data[0] : -1,
                     outcome == MACHINE_NO_MEMORY ? "no memory to apply it" : "not a command that this version knows");
            raft_results_set_failure(results, message);
            return at;
        }
        if (raft_results_set(results, at, replica->result.data, replica->result.length) != RAFT_OK) {
            raft_results_set_failure(results, "no memory for a result");
            return at;
        }
        replica->applied = entries[at].index;
    }
    return count;
}

static int32_t snapshot_begin(void *user, void **snapshot) {
    struct replica *replica = user;
    struct snapshot_writer *writer = malloc(sizeof *writer);
    if (writer == NULL || store_snapshot_is_active(replica->store)) {
        free(writer);
        return 1;
    }
    snapshot_writer_begin(writer, replica->store);
    *snapshot = writer;
    return 0;
}

static int32_t snapshot_write(void *user, void *snapshot, uint8_t *buffer, size_t capacity, size_t *written,
                              bool *done) {
    (void)user;
    *written = snapshot_writer_fill(snapshot, buffer, capacity);
    *done = *written < capacity;
    return 0;
}

static void snapshot_release(void *user, void *snapshot) {
    struct replica *replica = user;
    snapshot_writer_end(snapshot);
    free(snapshot);
    store_free(replica->retired);
    replica->retired = NULL;
}

static bool read_piece(void *user, unsigned char *room, size_t capacity, size_t *length) {
    return raft_snapshot_reader_read(user, room, capacity, length) == RAFT_OK;
}

static int32_t restore(void *user, raft_snapshot_reader *reader) {
    struct replica *replica = user;
    struct store *store =
        snapshot_read(read_piece, reader, raft_snapshot_reader_length(reader), &replica->restore_problem);
    if (store == NULL) {
        return 1;
    }
    if (store_snapshot_is_active(replica->store)) {
        replica->retired = replica->store;
    } else {
        store_free(replica->store);
    }
    replica->store = store;
    replica->applied = raft_snapshot_reader_index(reader);
    return 0;
}

/* As RAFT.STATUS shows it. */
static int32_t digest(void *user, uint8_t *bytes) {
    struct replica *replica = user;
    uint64_t number = store_digest(replica->store);
    for (int at = 0; at < 8; at++) {
        bytes[at] = (uint8_t)(number >> (56 - 8 * at));
    }
    return 0;
}

static void completed(void *user, const raft_completion *completions, size_t count) {
    struct replica *replica = user;
    replica->listener.completed(replica->listener.user, completions, count);
}

static void notice(void *user, const raft_notice *notice) {
    struct replica *replica = user;
    struct replica_listener *listener = &replica->listener;
    switch (notice->kind) {
    case RAFT_NOTICE_ROLE:
        listener->role_changed(listener->user, notice->role, notice->term, notice->leader);
        break;
    case RAFT_NOTICE_MEMBERS:
        listener->members_changed(listener->user);
        break;
    case RAFT_NOTICE_REMOVED:
        listener->removed(listener->user, notice->message);
        break;
    case RAFT_NOTICE_GROUP_STOPPED:
    case RAFT_NOTICE_SERVER_STOPPED:
        if (replica->restore_problem != NULL) {
            listener->noticed(listener->user, replica->restore_problem);
        }
        listener->stopped(listener->user, notice->message);
        break;
    case RAFT_NOTICE_DIVERGED:
    case RAFT_NOTICE_REFUSED:
    case RAFT_NOTICE_WARNING:
        listener->noticed(listener->user, notice->message);
        break;
    default:
        break;
    }
}

static enum replica_start failed(const char *what, int32_t status, raft_error *error) {
    fprintf(stderr, "kv: %s: %s\n", what, error != NULL ? raft_error_message(error) : raft_error_name(status));
    raft_error_free(error);
    return status == RAFT_ERR_SETTING ? REPLICA_BAD_SETTING : REPLICA_FAILED;
}

static enum replica_start configure(const struct options *options, raft_config **config) {
    raft_error *error = NULL;
    int32_t status =
        raft_config_new(options->cluster, options->id, options->data, options->raft_address, config, &error);
    if (status != RAFT_OK) {
        failed("configuration", status, error);
        return REPLICA_BAD_SETTING;
    }
    status = raft_config_set(*config, "dispatch", "host", &error);
    const char *key = "dispatch";
    /* Clients of Redis expect to be sent to the leader; whoever wants it otherwise says so. */
    if (status == RAFT_OK) {
        status = raft_config_set(*config, "forwarding", "off", &error);
    }
    for (size_t at = 0; at < options->setting_count && status == RAFT_OK; at++) {
        key = options->settings[at].key;
        status = raft_config_set(*config, key, options->settings[at].value, &error);
    }
    return status == RAFT_OK ? REPLICA_STARTED : failed(key, status, error);
}

static enum replica_start start_group(struct replica *replica, const struct options *options) {
    raft_member *members = calloc(options->member_count + 1, sizeof *members);
    if (members == NULL) {
        fputs("kv: no memory\n", stderr);
        return REPLICA_FAILED;
    }
    for (size_t at = 0; at < options->member_count; at++) {
        const struct member_view *member = &options->members[at];
        members[at].id = member->id;
        members[at].address = member->raft_address;
        members[at].context = (const uint8_t *)member->resp_address;
        members[at].context_length = strlen(member->resp_address);
    }
    /* Where the directory holds the group already, either continues it. */
    raft_start start = {.size = sizeof start,
                        .group = GROUP_ID,
                        .how = options->contact_count > 0 ? RAFT_START_JOIN : RAFT_START_BOOTSTRAP,
                        .members = options->member_count > 0 ? members : NULL,
                        .member_count = options->member_count,
                        .contacts = options->contacts,
                        .contact_count = options->contact_count};
    raft_state_machine machine = {.size = sizeof machine,
                                  .user = replica,
                                  .apply = apply,
                                  .snapshot_begin = snapshot_begin,
                                  .snapshot_write = snapshot_write,
                                  .snapshot_release = snapshot_release,
                                  .restore = restore,
                                  .completed = completed,
                                  .notice = notice,
                                  .digest = digest};
    raft_error *error = NULL;
    int32_t status = raft_server_start_group(replica->server, &start, &machine, &replica->group, &error);
    free(members);
    return status == RAFT_OK ? REPLICA_STARTED : failed("starting the group", status, error);
}

enum replica_start replica_open(struct replica *replica, const struct options *options,
                                struct replica_listener listener) {
    *replica = (struct replica){.listener = listener};
    raft_config *config = NULL;
    enum replica_start outcome = configure(options, &config);
    if (outcome == REPLICA_STARTED) {
        raft_error *error = NULL;
        int32_t status = raft_server_open(config, &replica->server, &error);
        outcome = status == RAFT_OK ? REPLICA_STARTED : failed("opening the server", status, error);
    }
    raft_config_free(config);
    if (outcome == REPLICA_STARTED) {
        replica->store = store_new();
        if (replica->store == NULL) {
            fputs("kv: no memory\n", stderr);
            outcome = REPLICA_FAILED;
        } else {
            outcome = start_group(replica, options);
        }
    }
    if (outcome != REPLICA_STARTED) {
        replica_close(replica);
    }
    return outcome;
}

int replica_descriptor(const struct replica *replica) {
    int32_t descriptor = -1;
    return raft_server_descriptor(replica->server, &descriptor, NULL) == RAFT_OK ? descriptor : -1;
}

void replica_dispatch(struct replica *replica) {
    raft_error *error = NULL;
    int32_t status = raft_server_dispatch(replica->server, 0, 0, NULL, &error);
    if (status != RAFT_OK) {
        replica->listener.stopped(replica->listener.user,
                                  error != NULL ? raft_error_message(error) : raft_error_name(status));
        raft_error_free(error);
    }
}

static const char *disk_name(uint32_t disk) {
    switch (disk) {
    case RAFT_DISK_AIO:
        return "aio";
    case RAFT_DISK_THREAD:
        return "thread-direct";
    case RAFT_DISK_THREAD_BUFFERED:
        return "thread-buffered";
    default:
        return "unknown";
    }
}

static const char *change_name(uint32_t phase) {
    switch (phase) {
    case RAFT_PHASE_NONE:
        return "none";
    case RAFT_PHASE_LEARNING:
        return "learning";
    case RAFT_PHASE_JOINT:
        return "joint";
    default:
        return "unknown";
    }
}

static const char *member_role_name(uint32_t role) {
    return role == RAFT_MEMBER_VOTER ? "voter" : role == RAFT_MEMBER_LEARNER ? "learner" : "none";
}

/* The list, with the texts behind it. */
static struct member_view *copy_members(const raft_member *members, size_t count) {
    size_t text_bytes = 0;
    for (size_t at = 0; at < count; at++) {
        text_bytes += strlen(members[at].address) + members[at].context_length + 2;
    }
    struct member_view *views = malloc(count * sizeof *views + text_bytes);
    if (views == NULL) {
        return NULL;
    }
    char *text = (char *)(views + count);
    for (size_t at = 0; at < count; at++) {
        const raft_member *member = &members[at];
        views[at] = (struct member_view){.id = member->id,
                                         .role = member_role_name(member->role),
                                         .becomes = member_role_name(member->becomes),
                                         .priority = member->priority,
                                         .durable = member->durable_index};
        size_t address_length = strlen(member->address);
        views[at].raft_address = memcpy(text, member->address, address_length + 1);
        text += address_length + 1;
        views[at].resp_address = text;
        if (member->context_length > 0) {
            memcpy(text, member->context, member->context_length);
        }
        text += member->context_length;
        *text++ = '\0';
    }
    return views;
}

struct member_view *replica_members(const struct replica *replica, size_t *count) {
    raft_members *members = NULL;
    if (raft_group_members(replica->group, &members, NULL) != RAFT_OK) {
        return NULL;
    }
    *count = raft_members_count(members);
    struct member_view *views = copy_members(raft_members_array(members), *count);
    raft_members_free(members);
    return views;
}

int32_t replica_operate(struct replica *replica, uint64_t tag, struct slice bytes, raft_error **error) {
    struct operation operation = operation_read(bytes);
    raft_member_change change = {.id = operation.id};
    switch (operation.kind) {
    case OPERATION_ADD:
        change.kind = RAFT_CHANGE_ADD;
        change.role = operation.is_learner ? RAFT_MEMBER_LEARNER : RAFT_MEMBER_VOTER;
        change.address = operation.raft_address;
        change.context = (const uint8_t *)operation.resp_address;
        change.context_length = strlen(operation.resp_address);
        return raft_group_change_members_submit(replica->group, tag, &change, 1, ADD_PATIENCE_MS, error);
    case OPERATION_REMOVE:
        change.kind = RAFT_CHANGE_REMOVE;
        return raft_group_change_members_submit(replica->group, tag, &change, 1, ADD_PATIENCE_MS, error);
    case OPERATION_CANCEL:
        return raft_group_cancel_change_submit(replica->group, tag, error);
    case OPERATION_TRANSFER:
        return raft_group_transfer_leadership_submit(replica->group, tag, operation.id, TRANSFER_PATIENCE_MS, error);
    case OPERATION_DIGEST:
        return raft_group_check_digests_submit(replica->group, tag, DIGEST_PATIENCE_MS, error);
    default:
        return raft_group_snapshot_submit(replica->group, tag, error);
    }
}

raft_digest_check *replica_digest_check(const struct replica *replica) {
    raft_digest_check *check = NULL;
    raft_group_digest_check(replica->group, &check, NULL);
    return check;
}

void replica_describe(const struct replica *replica, struct server_view *view) {
    raft_group_info group = {.size = sizeof group};
    raft_server_info server = {.size = sizeof server};
    if (raft_group_status(replica->group, &group, NULL) == RAFT_OK) {
        view->last = group.last_index;
        view->durable = group.durable_index;
        view->commit = group.commit_index;
        /* The engine also counts entries of its own, and may not yet count the latest of ours: the digest shown is
         * that of the later of the two. */
        view->applied = group.applied_index > replica->applied ? group.applied_index : replica->applied;
        view->snapshot = group.snapshot_index;
        view->change = change_name(group.change_phase);
        view->transferring_to = group.transferring_to;
        view->removed = group.removed_index;
    }
    if (raft_server_status(replica->server, &server, NULL) == RAFT_OK) {
        view->log_writes = server.log_writes;
        view->disk = disk_name(server.disk);
    }
    view->keys = store_count(replica->store);
    view->digest = store_digest(replica->store);
}

bool replica_close(struct replica *replica) {
    bool closed = true;
    if (replica->server != NULL) {
        raft_error *error = NULL;
        int32_t status = raft_server_free(replica->server, &error);
        if (status != RAFT_OK) {
            failed("closing the server", status, error);
            closed = false;
        }
        replica->server = NULL;
    }
    if (closed) {
        store_free(replica->retired);
        store_free(replica->store);
        buffer_free(&replica->result);
        replica->retired = NULL;
        replica->store = NULL;
    }
    return closed;
}
