/*
 * One server of the benchmark: a group with a trivial state machine, and on command the load on it.
 *
 * The main thread obeys lines on standard input (bench/README.md lists them) and answers each with one line of JSON.
 * The load is closed: the callback that brings completions proposes as many again, as one array, on the library's
 * thread; the main thread only begins a load and reports its end. End of input or SIGTERM closes the server.
 *
 * Usage: bench-node --cluster NAME --id N --data DIR --member ID=HOST:PORT ... [--config KEY=VALUE ...]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <raft/raft.h>

enum { MAX_MEMBERS = 16, MAX_SETTINGS = 64, MAX_LINE = 256, PROBE_AGAIN_MS = 1 };

static const uint64_t GROUP = 1;
static const uint64_t WARM_UP_NS = 200000000;
static const uint64_t PROBE_TAG = UINT64_C(1) << 63;

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (memory == NULL) {
        fprintf(stderr, "bench-node: out of memory\n");
        exit(1);
    }
    return memory;
}

static void answer(const char *format, ...) {
    va_list values;
    va_start(values, format);
    vprintf(format, values);
    va_end(values);
    putchar('\n');
    if (fflush(stdout) != 0) exit(1);
}

/* Latencies in buckets that are 0.4 % wide, so that a long run takes no more memory than a short one. */
enum { BUCKET_BITS = 8, BUCKETS = (64 - BUCKET_BITS + 1) << BUCKET_BITS };

struct histogram {
    uint64_t buckets[BUCKETS];
    uint64_t count;
};

static size_t bucket_of(uint64_t value) {
    if (value < (UINT64_C(1) << BUCKET_BITS)) return (size_t)value;
    int shift = 63 - __builtin_clzll(value) - BUCKET_BITS;
    return ((size_t)(shift + 1) << BUCKET_BITS) + (size_t)((value >> shift) - (UINT64_C(1) << BUCKET_BITS));
}

static uint64_t value_of(size_t bucket) {
    size_t row = bucket >> BUCKET_BITS, column = bucket & ((1u << BUCKET_BITS) - 1);
    if (row == 0) return column;
    uint64_t width = UINT64_C(1) << (row - 1);
    return ((UINT64_C(1) << BUCKET_BITS) + column) * width + width / 2;
}

static double percentile_us(const struct histogram *histogram, double share) {
    uint64_t rank = (uint64_t)((double)histogram->count * share), seen = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen > rank) return (double)value_of(i) / 1000.0;
    }
    return 0;
}

/* The state machine: how many entries there were, and a digest of their order and of both ends of each. */
struct state {
    uint64_t entries;
    uint64_t checksum;
};

/*
 * A load in progress. The main thread fills it in and proposes the first array; from then on it belongs to the
 * `completed` callback, until that says `ended`.
 */
struct load {
    size_t outstanding, bytes;
    uint64_t begin_ns, end_ns; /* what is measured */
    uint64_t limit;            /* proposals to make; UINT64_MAX where the time ends it */
    uint64_t proposed, in_flight;
    uint64_t first_ns, last_ns, measured;
    int32_t failed; /* RAFT_OK, or why it ended early */
    uint8_t *data;  /* `bytes` for every slot */
    uint64_t *since_ns;
    struct raft_item *items;
    struct histogram latencies;
    bool timed;
};

struct probe {
    bool active, waiting; /* waiting: proposed, not completed */
    uint64_t above_term, again_at_ns;
    uint64_t tag;
};

static struct {
    struct raft_server *server;
    struct raft_group *group;
    int wake; /* an eventfd: the callback has news for the main thread */

    pthread_mutex_t state_lock;
    struct state state;

    struct load load;
    bool loading;
    atomic_bool load_ended;

    struct probe probe; /* the main thread's */
    pthread_mutex_t probe_lock;
    struct { /* what the callback says of it */
        bool completed, applied;
        uint64_t tag, at_ns, term;
    } probed;
} node = {.state_lock = PTHREAD_MUTEX_INITIALIZER, .probe_lock = PTHREAD_MUTEX_INITIALIZER};

static void wake_main(void) {
    uint64_t one = 1;
    if (write(node.wake, &one, sizeof one) != (ssize_t)sizeof one) abort();
}

static uint64_t mix(uint64_t sum, uint64_t value) { return (sum ^ value) * UINT64_C(0x9e3779b97f4a7c15) + (sum >> 29); }

static size_t apply(void *user, const struct raft_entry *entries, size_t count, struct raft_results *results) {
    (void)user;
    pthread_mutex_lock(&node.state_lock);
    struct state state = node.state;
    for (size_t i = 0; i < count; i++) {
        uint64_t ends[2] = {0, 0};
        if (entries[i].length >= sizeof ends[0]) {
            memcpy(&ends[0], entries[i].data, sizeof ends[0]);
            memcpy(&ends[1], entries[i].data + entries[i].length - sizeof ends[1], sizeof ends[1]);
        }
        state.entries++;
        state.checksum = mix(mix(mix(state.checksum, ends[0]), ends[1]), entries[i].index);
        raft_results_set(results, i, (const uint8_t *)&state.entries, sizeof state.entries);
    }
    node.state = state;
    pthread_mutex_unlock(&node.state_lock);
    return count;
}

struct snapshot {
    struct state state;
};

static int32_t snapshot_begin(void *user, void **out) {
    (void)user;
    struct snapshot *snapshot = malloc(sizeof *snapshot);
    if (snapshot == NULL) return 1;
    snapshot->state = node.state;
    *out = snapshot;
    return 0;
}

static int32_t snapshot_write(void *user, void *from, uint8_t *buffer, size_t capacity, size_t *written, bool *done) {
    (void)user;
    const struct snapshot *snapshot = from;
    if (capacity < sizeof snapshot->state) return 1;
    memcpy(buffer, &snapshot->state, sizeof snapshot->state);
    *written = sizeof snapshot->state;
    *done = true;
    return 0;
}

static void snapshot_release(void *user, void *snapshot) {
    (void)user;
    free(snapshot);
}

static int32_t restore(void *user, struct raft_snapshot_reader *reader) {
    (void)user;
    struct state state;
    size_t have = 0;
    while (have < sizeof state) {
        size_t got = 0;
        uint8_t *at = (uint8_t *)&state + have;
        if (raft_snapshot_reader_read(reader, at, sizeof state - have, &got) != RAFT_OK || got == 0) return 1;
        have += got;
    }
    pthread_mutex_lock(&node.state_lock);
    node.state = state;
    pthread_mutex_unlock(&node.state_lock);
    return 0;
}

/*
 * Proposes the first `count` of load.items, which name their slots. What is in flight is raised first: completions may
 * come before the call is back, and after it the load is the callback's.
 */
static int32_t propose_items(struct load *load, size_t count) {
    uint64_t now = now_ns();
    for (size_t i = 0; i < count; i++) {
        struct raft_item *item = &load->items[i];
        size_t slot = (size_t)item->tag;
        uint8_t *data = load->data + slot * load->bytes;
        uint64_t number = load->proposed + i;
        if (load->bytes >= sizeof number) memcpy(data, &number, sizeof number);
        item->data = data;
        item->length = load->bytes;
        load->since_ns[slot] = now;
    }
    load->in_flight += count;
    load->proposed += count;
    return raft_group_propose(node.group, load->items, count, NULL);
}

static size_t load_completed(struct load *load, const struct raft_completion *completions, size_t count) {
    uint64_t now = now_ns();
    bool within = now >= load->begin_ns && now < load->end_ns;
    size_t taken = 0, again = 0;
    for (; taken < count && completions[taken].tag < PROBE_TAG; taken++) {
        const struct raft_completion *completion = &completions[taken];
        size_t slot = (size_t)completion->tag;
        if (completion->outcome != RAFT_OUTCOME_APPLIED) {
            load->failed = completion->status;
        } else if (within) {
            load->latencies.buckets[bucket_of(now - load->since_ns[slot])]++;
            load->latencies.count++;
        }
        if (load->proposed + again < load->limit) load->items[again++].tag = slot;
    }
    load->in_flight -= taken;
    if (within) {
        /* The clock runs from the first completions, so that the batch it began with is not counted. */
        if (load->first_ns == 0) {
            load->first_ns = now;
        } else {
            load->measured += taken;
        }
        load->last_ns = now;
    }
    if (load->failed == RAFT_OK && again > 0 && !(load->timed && now >= load->end_ns)) {
        load->failed = propose_items(load, again);
        if (load->failed != RAFT_OK) load->in_flight -= again;
    }
    if (load->in_flight == 0) {
        atomic_store_explicit(&node.load_ended, true, memory_order_release);
        wake_main();
    }
    return taken;
}

static void completed(void *user, const struct raft_completion *completions, size_t count) {
    (void)user;
    for (size_t i = 0; i < count;) {
        if (completions[i].tag < PROBE_TAG) {
            i += load_completed(&node.load, completions + i, count - i);
            continue;
        }
        pthread_mutex_lock(&node.probe_lock);
        node.probed.completed = true;
        node.probed.applied = completions[i].outcome == RAFT_OUTCOME_APPLIED;
        node.probed.tag = completions[i].tag;
        node.probed.term = completions[i].term;
        node.probed.at_ns = now_ns();
        pthread_mutex_unlock(&node.probe_lock);
        wake_main();
        i++;
    }
}

static void notice(void *user, const struct raft_notice *notice) {
    (void)user;
    fprintf(stderr,
            "%" PRIu64 ".%06" PRIu64 " notice %u: role %u term %" PRIu64 " leader %" PRIu64 " server %" PRIu64 " %s\n",
            now_ns() / 1000000000, now_ns() / 1000 % 1000000, notice->kind, notice->role, notice->term, notice->leader,
            notice->server, notice->message);
}

static const char *role_name(uint32_t role) {
    switch (role) {
    case RAFT_ROLE_FORMING: return "forming";
    case RAFT_ROLE_FOLLOWER: return "follower";
    case RAFT_ROLE_PRE_CANDIDATE: return "pre-candidate";
    case RAFT_ROLE_CANDIDATE: return "candidate";
    case RAFT_ROLE_LEADER: return "leader";
    default: return "?";
    }
}

static void say_status(void) {
    struct raft_group_info group = {.size = sizeof group};
    struct raft_server_info server = {.size = sizeof server};
    int32_t status = raft_group_status(node.group, &group, NULL);
    if (status == RAFT_OK) status = raft_server_status(node.server, &server, NULL);
    if (status != RAFT_OK) {
        answer("{\"reply\": \"status\", \"error\": \"%s\"}", raft_error_name(status));
        return;
    }
    if (group.stopped || server.stopped) {
        fprintf(stderr, "stopped: %s %s\n", group.stopped_reason, server.stopped_reason);
        answer("{\"reply\": \"status\", \"error\": \"stopped; its log says why\"}");
        return;
    }
    pthread_mutex_lock(&node.state_lock);
    struct state state = node.state;
    pthread_mutex_unlock(&node.state_lock);
    answer("{\"reply\": \"status\", \"role\": \"%s\", \"term\": %" PRIu64 ", \"leader\": %" PRIu64
           ", \"last\": %" PRIu64 ", \"durable\": %" PRIu64 ", \"commit\": %" PRIu64 ", \"applied\": %" PRIu64
           ", \"snapshot\": %" PRIu64 ", \"entries\": %" PRIu64 ", \"checksum\": \"%016" PRIx64
           "\", \"disk\": \"%s\", \"log_writes\": %" PRIu64 ", \"log_bytes\": %" PRIu64 "}",
           role_name(group.role), group.term, group.leader, group.last_index, group.durable_index, group.commit_index,
           group.applied_index, group.snapshot_index, state.entries, state.checksum,
           server.disk == RAFT_DISK_AIO ? "aio" : "thread", server.log_writes, server.log_bytes);
}

static void end_load(void) {
    struct load *load = &node.load;
    const char *reply = load->timed ? "run" : "load";
    double seconds = (double)(load->last_ns - load->first_ns) / 1e9;
    if (load->failed != RAFT_OK) {
        answer("{\"reply\": \"%s\", \"error\": \"%s\"}", reply, raft_error_name(load->failed));
    } else if (load->measured == 0) {
        answer("{\"reply\": \"%s\", \"error\": \"nothing was completed in the time\"}", reply);
    } else {
        answer("{\"reply\": \"%s\", \"entries\": %" PRIu64 ", \"entries_per_s\": %.0f, \"p50_us\": %.1f, "
               "\"p90_us\": %.1f, \"p99_us\": %.1f}",
               reply, load->measured, (double)load->measured / seconds, percentile_us(&load->latencies, 0.5),
               percentile_us(&load->latencies, 0.9), percentile_us(&load->latencies, 0.99));
    }
    free(load->data);
    free(load->since_ns);
    free(load->items);
    node.loading = false;
}

static void begin_load(size_t outstanding, size_t bytes, uint64_t limit, uint64_t duration_ns) {
    struct load *load = &node.load;
    *load = (struct load){.outstanding = outstanding, .bytes = bytes, .limit = limit, .timed = duration_ns != 0};
    load->data = allocate(outstanding, bytes);
    memset(load->data, 0x5a, outstanding * bytes);
    load->since_ns = allocate(outstanding, sizeof *load->since_ns);
    load->items = allocate(outstanding, sizeof *load->items);
    for (size_t i = 0; i < outstanding; i++) load->items[i].tag = i;
    load->begin_ns = now_ns() + (load->timed ? WARM_UP_NS : 0);
    load->end_ns = load->timed ? load->begin_ns + duration_ns : UINT64_MAX;
    node.loading = true;
    atomic_store_explicit(&node.load_ended, false, memory_order_relaxed);
    size_t first = limit < outstanding ? (size_t)limit : outstanding;
    int32_t status = propose_items(load, first);
    if (status != RAFT_OK) {
        /* Refused as a whole: no completion will end the load. */
        load->failed = status;
        end_load();
    }
}

/* A refusal that another try can outlive. */
static bool is_passing(int32_t status) {
    return status == RAFT_ERR_NOT_LEADER || status == RAFT_ERR_FORMING || status == RAFT_ERR_OVERLOADED;
}

static void propose_probe(void) {
    static const uint8_t data[16] = "probe";
    struct probe *probe = &node.probe;
    probe->tag++;
    struct raft_item item = {.tag = PROBE_TAG | probe->tag, .data = data, .length = sizeof data};
    int32_t status = raft_group_propose(node.group, &item, 1, NULL);
    if (status == RAFT_OK) {
        probe->waiting = true;
    } else if (is_passing(status)) {
        probe->again_at_ns = now_ns() + PROBE_AGAIN_MS * 1000000u;
    } else {
        probe->active = false;
        answer("{\"reply\": \"probe\", \"error\": \"%s\"}", raft_error_name(status));
    }
}

/* Looks at what became of the probe's proposal. */
static void follow_probe(void) {
    struct probe *probe = &node.probe;
    pthread_mutex_lock(&node.probe_lock);
    bool mine = node.probed.completed && node.probed.tag == (PROBE_TAG | probe->tag);
    bool applied = node.probed.applied;
    uint64_t at_ns = node.probed.at_ns, term = node.probed.term;
    node.probed.completed = false;
    pthread_mutex_unlock(&node.probe_lock);
    if (!mine || !probe->active) return;
    probe->waiting = false;
    if (applied && term > probe->above_term) {
        probe->active = false;
        answer("{\"reply\": \"probe\", \"at_ns\": %" PRIu64 ", \"term\": %" PRIu64 "}", at_ns, term);
    } else {
        probe->again_at_ns = now_ns() + PROBE_AGAIN_MS * 1000000u;
    }
}

static void obey(const char *line) {
    uint64_t first = 0, second = 0, third = 0;
    if (strcmp(line, "status") == 0) {
        say_status();
    } else if (sscanf(line, "run %" SCNu64 " %" SCNu64 " %" SCNu64, &first, &second, &third) == 3) {
        if (node.loading || first == 0 || second == 0) {
            answer("{\"reply\": \"run\", \"error\": \"not now, or not so\"}");
            return;
        }
        begin_load(first, second, UINT64_MAX, third * 1000000u);
    } else if (sscanf(line, "load %" SCNu64 " %" SCNu64 " %" SCNu64, &first, &second, &third) == 3) {
        if (node.loading || first == 0 || second == 0 || third == 0) {
            answer("{\"reply\": \"load\", \"error\": \"not now, or not so\"}");
            return;
        }
        begin_load(third, second, first, 0);
    } else if (sscanf(line, "probe %" SCNu64, &first) == 1) {
        node.probe.active = true;
        node.probe.above_term = first;
        propose_probe();
    } else if (strcmp(line, "cancel") == 0) {
        if (node.probe.active) answer("{\"reply\": \"probe\"}");
        node.probe.active = false;
        node.probe.waiting = false;
    } else {
        answer("{\"reply\": \"?\", \"error\": \"no such command\"}");
    }
}

static volatile sig_atomic_t terminated;

static void on_terminate(int number) {
    (void)number;
    terminated = 1;
}

static void obey_all(const sigset_t *while_waiting) {
    char line[MAX_LINE];
    size_t have = 0;
    while (!terminated) {
        struct timespec patience = {0, 0};
        bool again = node.probe.active && !node.probe.waiting;
        if (again) {
            uint64_t now = now_ns();
            if (now >= node.probe.again_at_ns) {
                propose_probe();
                continue;
            }
            patience.tv_nsec = (long)(node.probe.again_at_ns - now);
        }
        struct pollfd waiting[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = node.wake, .events = POLLIN}};
        int ready = ppoll(waiting, 2, again ? &patience : NULL, while_waiting);
        if (ready < 0 && errno != EINTR) exit(1);
        if (ready <= 0) continue;
        if (waiting[1].revents != 0) {
            uint64_t count;
            if (read(node.wake, &count, sizeof count) != (ssize_t)sizeof count) exit(1);
            if (node.loading && atomic_load_explicit(&node.load_ended, memory_order_acquire)) end_load();
            follow_probe();
        }
        if (waiting[0].revents != 0) {
            ssize_t got = read(STDIN_FILENO, line + have, sizeof line - have - 1);
            if (got <= 0) return;
            have += (size_t)got;
            for (char *end; (end = memchr(line, '\n', have)) != NULL;) {
                *end = 0;
                obey(line);
                size_t used = (size_t)(end - line) + 1;
                have -= used;
                memmove(line, line + used, have);
            }
            if (have == sizeof line - 1) {
                fprintf(stderr, "bench-node: a command is too long\n");
                return;
            }
        }
    }
}

/* Ends the program with what the library said. */
static void must(int32_t status, struct raft_error *error, const char *what) {
    if (status == RAFT_OK) return;
    fprintf(stderr, "bench-node: %s: %s: %s\n", what, raft_error_name(status),
            error == NULL ? "" : raft_error_message(error));
    exit(1);
}

static char *after(char *text, char separator, const char *what) {
    char *found = strchr(text, separator);
    if (found == NULL) {
        fprintf(stderr, "bench-node: %s: expected %s\n", text, what);
        exit(2);
    }
    *found = 0;
    return found + 1;
}

int main(int argc, char **argv) {
    const char *cluster = NULL, *data = NULL, *listen = NULL;
    uint64_t id = 0;
    struct raft_member members[MAX_MEMBERS] = {0};
    char *settings[MAX_SETTINGS][2];
    size_t member_count = 0, setting_count = 0;
    static const struct option options[] = {{"cluster", required_argument, NULL, 'c'},
                                            {"id", required_argument, NULL, 'i'},
                                            {"data", required_argument, NULL, 'd'},
                                            {"member", required_argument, NULL, 'm'},
                                            {"config", required_argument, NULL, 'k'},
                                            {NULL, 0, NULL, 0}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'c': cluster = optarg; break;
        case 'i': id = strtoull(optarg, NULL, 10); break;
        case 'd': data = optarg; break;
        case 'm':
            if (member_count == MAX_MEMBERS) return 2;
            members[member_count].address = after(optarg, '=', "ID=HOST:PORT");
            members[member_count++].id = strtoull(optarg, NULL, 10);
            break;
        case 'k':
            if (setting_count == MAX_SETTINGS) return 2;
            settings[setting_count][1] = after(optarg, '=', "KEY=VALUE");
            settings[setting_count++][0] = optarg;
            break;
        default: return 2;
        }
    }
    for (size_t i = 0; i < member_count; i++) {
        if (members[i].id == id) listen = members[i].address;
    }
    if (cluster == NULL || data == NULL || listen == NULL) {
        fprintf(stderr, "usage: bench-node --cluster NAME --id N --data DIR --member ID=HOST:PORT ... "
                        "[--config KEY=VALUE ...]\n");
        return 2;
    }

    node.wake = eventfd(0, EFD_CLOEXEC);
    if (node.wake < 0) return 1;
    /* SIGTERM is let in only while the main thread waits, and never reaches the library's threads. */
    sigset_t blocked, while_waiting;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &blocked, &while_waiting);
    sigdelset(&while_waiting, SIGTERM);
    struct sigaction action = {.sa_handler = on_terminate};
    sigaction(SIGTERM, &action, NULL);

    struct raft_error *error = NULL;
    struct raft_config *config = NULL;
    must(raft_config_new(cluster, id, data, listen, &config, &error), error, "the configuration");
    for (size_t i = 0; i < setting_count; i++) {
        must(raft_config_set(config, settings[i][0], settings[i][1], &error), error, settings[i][0]);
    }
    must(raft_server_open(config, &node.server, &error), error, "opening the server");
    raft_config_free(config);

    struct raft_state_machine machine = {.size = sizeof machine,
                                         .apply = apply,
                                         .snapshot_begin = snapshot_begin,
                                         .snapshot_write = snapshot_write,
                                         .snapshot_release = snapshot_release,
                                         .restore = restore,
                                         .completed = completed,
                                         .notice = notice};
    struct raft_start start = {.size = sizeof start,
                               .group = GROUP,
                               .how = RAFT_START_BOOTSTRAP,
                               .members = members,
                               .member_count = member_count};
    must(raft_server_start_group(node.server, &start, &machine, &node.group, &error), error, "starting the group");

    obey_all(&while_waiting);
    must(raft_server_free(node.server, &error), error, "closing the server");
    return 0;
}
