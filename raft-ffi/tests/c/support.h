/* What the test programs share: checks, a state machine that is easy to compare, and waiting for a condition. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include <inttypes.h>
#include <pthread.h>
#include <raft/raft.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Nothing that is waited for takes so long. */
#define LIMIT_SECONDS 60

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);     \
            abort();                                                            \
        }                                                                       \
    } while (0)

#define OK(call)                                                                \
    do {                                                                        \
        raft_error *error = NULL;                                               \
        int32_t status = (call);                                                \
        if (status != RAFT_OK) {                                                \
            fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call,   \
                    raft_error_name(status), raft_error_message(error));        \
            abort();                                                            \
        }                                                                       \
        CHECK(error == NULL);                                                   \
    } while (0)

/* The call fails with this status; the error object says the same. */
#define FAILS(expected, call)                                                   \
    do {                                                                        \
        raft_error *error = (raft_error *)-1;                                   \
        int32_t status = (call);                                                \
        if (status != (expected)) {                                             \
            fprintf(stderr, "%s:%d: %s: %s, expected %s\n", __FILE__, __LINE__, \
                    #call, raft_error_name(status), #expected);                 \
            abort();                                                            \
        }                                                                       \
        CHECK(raft_error_code(error) == (expected));                            \
        CHECK(raft_error_message(error)[0] != '\0');                            \
        raft_error_free(error);                                                 \
    } while (0)

/* A state machine whose state is all that was proposed, one after the other. */
typedef struct journal {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    char *text;
    size_t length;
    uint64_t last_index;
    uint64_t last_log_time;
    size_t restored;
    size_t destroyed;
    size_t snapshots_open;
    /* The completions so far; results are copied into `results`. */
    raft_completion completions[4096];
    uint64_t results[4096];
    size_t completed;
    uint32_t role;
    uint64_t leader;
    bool formed;
    bool removed;
    bool stopped;
    char reason[256];
    /* Added to what the state comes down to, as if it were another; a digest is refused where it is 1. */
    uint64_t skew;
    uint64_t diverged_index;
    /* Called with every completion, in the callback. */
    void (*on_completed)(struct journal *, const raft_completion *);
    void *context;
} journal;

static inline void journal_init(journal *j) {
    memset(j, 0, sizeof *j);
    pthread_condattr_t attributes;
    CHECK(pthread_mutex_init(&j->lock, NULL) == 0);
    CHECK(pthread_condattr_init(&attributes) == 0);
    CHECK(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(&j->changed, &attributes) == 0);
}

static inline void journal_append(journal *j, const void *data, size_t length) {
    j->text = realloc(j->text, j->length + length + 1);
    CHECK(j->text != NULL);
    if (length > 0) memcpy(j->text + j->length, data, length);
    j->length += length;
    j->text[j->length] = '\0';
}

static inline size_t journal_apply(void *user, const raft_entry *entries, size_t count, raft_results *results) {
    journal *j = user;
    size_t applied;
    CHECK(count > 0);
    CHECK(pthread_mutex_lock(&j->lock) == 0);
    for (applied = 0; applied < count; applied++) {
        const raft_entry *entry = &entries[applied];
        CHECK(entry->index > j->last_index);
        CHECK(entry->log_time >= j->last_log_time);
        CHECK(entry->term > 0);
        if (entry->length == 5 && memcmp(entry->data, "!fail", 5) == 0) {
            CHECK(raft_results_set_failure(results, "told to fail") == RAFT_OK);
            break;
        }
        journal_append(j, entry->data, entry->length);
        j->last_index = entry->index;
        j->last_log_time = entry->log_time;
        uint64_t length = j->length;
        CHECK(raft_results_set(results, applied, (const uint8_t *)&length, sizeof length) == RAFT_OK);
        CHECK(raft_results_set(results, count, NULL, 0) == RAFT_ERR_ARGUMENT);
    }
    pthread_cond_broadcast(&j->changed);
    CHECK(pthread_mutex_unlock(&j->lock) == 0);
    return applied;
}

/* "text" answers with the whole state; everything else is refused. */
static inline int32_t journal_query(void *user, const uint8_t *request, size_t length, raft_reply *reply) {
    journal *j = user;
    int32_t status = 7;
    CHECK(pthread_mutex_lock(&j->lock) == 0);
    if (length == 4 && memcmp(request, "text", 4) == 0) {
        CHECK(raft_reply_set(reply, (const uint8_t *)"overwritten", 11) == RAFT_OK);
        CHECK(raft_reply_set(reply, (const uint8_t *)j->text, j->length) == RAFT_OK);
        status = 0;
    } else if (length > 0) {
        CHECK(raft_reply_set(reply, (const uint8_t *)"no such question", 16) == RAFT_OK);
    }
    CHECK(pthread_mutex_unlock(&j->lock) == 0);
    return status;
}

typedef struct copy {
    size_t length;
    size_t written;
    char bytes[];
} copy;

static inline int32_t journal_snapshot_begin(void *user, void **snapshot) {
    journal *j = user;
    CHECK(pthread_mutex_lock(&j->lock) == 0);
    copy *c = malloc(sizeof *c + j->length + 1);
    CHECK(c != NULL);
    c->length = j->length;
    c->written = 0;
    if (j->length > 0) memcpy(c->bytes, j->text, j->length);
    j->snapshots_open++;
    *snapshot = c;
    CHECK(pthread_mutex_unlock(&j->lock) == 0);
    return 0;
}

/* In steps of at most 1,000 bytes, so that there are some. */
static inline int32_t journal_snapshot_write(void *user, void *snapshot, uint8_t *buffer, size_t capacity,
                                             size_t *written, bool *done) {
    copy *c = snapshot;
    size_t left = c->length - c->written;
    size_t step = left < 1000 ? left : 1000;
    (void)user;
    if (step > capacity) step = capacity;
    memcpy(buffer, c->bytes + c->written, step);
    c->written += step;
    *written = step;
    *done = c->written == c->length;
    return 0;
}

static inline void journal_snapshot_release(void *user, void *snapshot) {
    journal *j = user;
    CHECK(pthread_mutex_lock(&j->lock) == 0);
    j->snapshots_open--;
    CHECK(pthread_mutex_unlock(&j->lock) == 0);
    free(snapshot);
}

static inline int32_t journal_restore(void *user, raft_snapshot_reader *reader) {
    journal *j = user;
    uint8_t buffer[777];
    size_t length;
    CHECK(pthread_mutex_lock(&j->lock) == 0);
    j->length = 0;
    do {
        CHECK(raft_snapshot_reader_read(reader, buffer, sizeof buffer, &length) == RAFT_OK);
        journal_append(j, buffer, length);
    } while (length > 0);
    CHECK(j->length == raft_snapshot_reader_length(reader));
    CHECK(raft_snapshot_reader_term(reader) > 0);
    j->last_index = raft_snapshot_reader_index(reader);
    CHECK(j->last_index > 0);
    j->restored++;
    pthread_cond_broadcast(&j->changed);
    CHECK(pthread_mutex_unlock(&j->lock) == 0);
    return 0;
}

static inline int32_t journal_digest(void *user, uint8_t *digest) {
    journal *j = user;
    uint64_t sum = 14695981039346656037u;
    CHECK(pthread_mutex_lock(&j->lock) == 0);
    for (size_t i = 0; i < j->length; i++) sum = (sum ^ (uint8_t)j->text[i]) * 1099511628211u;
    sum += j->skew;
    int32_t status = j->skew == 1 ? 5 : 0;
    CHECK(pthread_mutex_unlock(&j->lock) == 0);
    memcpy(digest, &sum, sizeof sum);
    return status;
}

static inline void journal_completed(void *user, const raft_completion *completions, size_t count) {
    journal *j = user;
    CHECK(count > 0);
    for (size_t i = 0; i < count; i++) {
        CHECK(pthread_mutex_lock(&j->lock) == 0);
        CHECK(j->completed < sizeof j->completions / sizeof *j->completions);
        j->completions[j->completed] = completions[i];
        j->results[j->completed] = 0;
        if (completions[i].status == RAFT_OK && completions[i].result_length == sizeof(uint64_t)) {
            memcpy(&j->results[j->completed], completions[i].result, sizeof(uint64_t));
        }
        j->completed++;
        pthread_cond_broadcast(&j->changed);
        CHECK(pthread_mutex_unlock(&j->lock) == 0);
        if (j->on_completed != NULL) j->on_completed(j, &completions[i]);
    }
}

static inline void journal_notice(void *user, const raft_notice *notice) {
    journal *j = user;
    CHECK(notice->size == sizeof *notice);
    CHECK(notice->message != NULL);
    CHECK(pthread_mutex_lock(&j->lock) == 0);
    if (notice->kind == RAFT_NOTICE_FORMED) j->formed = true;
    if (notice->kind == RAFT_NOTICE_ROLE) {
        j->role = notice->role;
        j->leader = notice->leader;
    }
    if (notice->kind == RAFT_NOTICE_REMOVED) j->removed = true;
    if (notice->kind == RAFT_NOTICE_DIVERGED) j->diverged_index = notice->index;
    if (notice->kind == RAFT_NOTICE_GROUP_STOPPED) {
        j->stopped = true;
        snprintf(j->reason, sizeof j->reason, "%s", notice->message);
    }
    pthread_cond_broadcast(&j->changed);
    CHECK(pthread_mutex_unlock(&j->lock) == 0);
}

static inline void journal_destroy(void *user) {
    journal *j = user;
    j->destroyed++;
}

static inline raft_state_machine journal_machine(journal *j) {
    raft_state_machine machine;
    memset(&machine, 0, sizeof machine);
    machine.size = sizeof machine;
    machine.user = j;
    machine.destroy = journal_destroy;
    machine.apply = journal_apply;
    machine.query = journal_query;
    machine.snapshot_begin = journal_snapshot_begin;
    machine.snapshot_write = journal_snapshot_write;
    machine.snapshot_release = journal_snapshot_release;
    machine.restore = journal_restore;
    machine.completed = journal_completed;
    machine.notice = journal_notice;
    machine.digest = journal_digest;
    return machine;
}

/* What a group leaves behind is gone, and the journal was let go exactly once. */
static inline void journal_end(journal *j) {
    CHECK(j->destroyed == 1);
    CHECK(j->snapshots_open == 0);
    free(j->text);
    CHECK(pthread_cond_destroy(&j->changed) == 0);
    CHECK(pthread_mutex_destroy(&j->lock) == 0);
}

/* Waits with the lock held until the condition holds. */
#define WAIT(j, condition)                                                                     \
    do {                                                                                       \
        struct timespec until;                                                                 \
        CHECK(clock_gettime(CLOCK_MONOTONIC, &until) == 0);                                    \
        until.tv_sec += LIMIT_SECONDS;                                                         \
        CHECK(pthread_mutex_lock(&(j)->lock) == 0);                                            \
        while (!(condition)) CHECK(pthread_cond_timedwait(&(j)->changed, &(j)->lock, &until) == 0); \
        CHECK(pthread_mutex_unlock(&(j)->lock) == 0);                                          \
    } while (0)

/* A loopback address that no other test process uses. */
static inline const char *address_of(uint64_t id) {
    static char addresses[8][64];
    unsigned pid = (unsigned)getpid();
    CHECK(id < 8);
    snprintf(addresses[id], sizeof addresses[id], "127.%u.%u.%u:%u", 1 + (pid >> 16) % 250, (pid >> 8) % 256,
             1 + pid % 250, 7000 + (unsigned)id);
    return addresses[id];
}

/* A configuration of server `id` in the working directory, with timeouts for busy machines. */
static inline raft_config *config_of(uint64_t id) {
    raft_config *config = NULL;
    char directory[32];
    snprintf(directory, sizeof directory, "server-%" PRIu64, id);
    OK(raft_config_new("test", id, directory, address_of(id), &config, &error));
    OK(raft_config_set(config, "election_timeout_ms", "500", &error));
    OK(raft_config_set(config, "segment_bytes", "1048576", &error));
    OK(raft_config_set(config, "log_bytes", "8388608", &error));
    return config;
}

static inline raft_server *open_server(uint64_t id) {
    raft_config *config = config_of(id);
    raft_server *server = NULL;
    OK(raft_server_open(config, &server, &error));
    raft_config_free(config);
    return server;
}

/* Starts group 1 with servers 1 to `count`; the first start forms it. */
static inline raft_group *start_group(raft_server *server, uint64_t count, journal *j) {
    raft_member members[8];
    raft_start start;
    raft_group *group = NULL;
    raft_state_machine machine = journal_machine(j);
    memset(members, 0, sizeof members);
    for (uint64_t id = 1; id <= count; id++) {
        members[id - 1].id = id;
        members[id - 1].address = address_of(id);
        members[id - 1].context = (const uint8_t *)"context";
        members[id - 1].context_length = 7;
    }
    memset(&start, 0, sizeof start);
    start.size = sizeof start;
    start.group = 1;
    start.how = RAFT_START_BOOTSTRAP;
    start.members = members;
    start.member_count = count;
    OK(raft_server_start_group(server, &start, &machine, &group, &error));
    return group;
}

static inline raft_group_info group_info(raft_group *group) {
    raft_group_info info;
    memset(&info, 0, sizeof info);
    info.size = sizeof info;
    OK(raft_group_status(group, &info, &error));
    return info;
}

/* Proposes until it is applied, as long as it is certainly not. */
static inline uint64_t propose_text(raft_group *group, const char *text) {
    raft_result *result = NULL;
    raft_error *error = NULL;
    while (raft_group_propose_wait(group, (const uint8_t *)text, strlen(text), 30000, &result, &error) != RAFT_OK) {
        if (!raft_error_retriable(error)) {
            fprintf(stderr, "propose: %s\n", raft_error_message(error));
            abort();
        }
        raft_error_free(error);
    }
    uint64_t index = raft_result_index(result);
    CHECK(raft_result_length(result) == sizeof(uint64_t));
    raft_result_free(result);
    return index;
}

#endif
