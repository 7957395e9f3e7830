/*
 * The floor: what physics asks of a replicated batch, and nothing else.
 *
 * Three processes without consensus. The leader sends a batch of raw bytes to two followers over loopback TCP, writes
 * it to its own file meanwhile and syncs that; each follower writes what it received, syncs, and answers with how
 * much it has. The leader's own sync and one answer make a commit (two of three), and the next batch leaves then: a
 * closed loop with one batch outstanding. There is no term, no index, no header, no checksum, no memory of what was
 * sent and no recovery.
 *
 * Every log is a segment of written zeros that was synced beforehand and is overwritten from its start again when it is
 * full, so that no sync pays for allocating blocks. Writes are pwrite and fdatasync.
 *
 * A follower that fell behind writes and syncs small batches that wait in its socket together, up to 128 KiB; gathering
 * more was measured to be slower.
 *
 * Usage: floor --dir DIR --entries N --bytes N [--ms N]
 * Prints one line of JSON: entries a second, and the latency of a batch at several percentiles, in microseconds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FOLLOWERS = 2 };

static const size_t SEGMENT_BYTES = 64u << 20;
static const size_t ZEROS_BYTES = 1u << 20;
static const size_t GATHER_BYTES = 128u << 10;
static const uint64_t WARM_UP_NS = 200000000;

static void fail(const char *what) {
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *allocate(size_t bytes) {
    void *memory = NULL;
    int error = posix_memalign(&memory, 4096, bytes);
    if (error != 0) {
        errno = error;
        fail("allocate");
    }
    memset(memory, 0x5a, bytes);
    return memory;
}

/* A log: a file of synced zeros, overwritten round and round. */
struct log {
    int fd;
    off_t end;
};

static struct log log_open(const char *dir, int number) {
    char path[4096];
    snprintf(path, sizeof path, "%s/floor-%d", dir, number);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || unlink(path) != 0) fail(path);
    char *zeros = allocate(ZEROS_BYTES);
    memset(zeros, 0, ZEROS_BYTES);
    for (size_t at = 0; at < SEGMENT_BYTES; at += ZEROS_BYTES) {
        if (pwrite(fd, zeros, ZEROS_BYTES, (off_t)at) != (ssize_t)ZEROS_BYTES) fail("fill the segment");
    }
    if (fsync(fd) != 0) fail("sync the filled segment");
    free(zeros);
    return (struct log){.fd = fd, .end = 0};
}

static void log_append(struct log *log, const char *data, size_t bytes) {
    if ((size_t)log->end + bytes > SEGMENT_BYTES) log->end = 0;
    if (pwrite(log->fd, data, bytes, log->end) != (ssize_t)bytes) fail("write");
    if (fdatasync(log->fd) != 0) fail("sync");
    log->end += (off_t)bytes;
}

static void no_delay(int socket_fd) {
    int one = 1;
    if (setsockopt(socket_fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) != 0) fail("TCP_NODELAY");
}

/* Receives batches, writes and syncs all whole ones that are there, and answers with how many it has. */
static void follow(int leader, struct log log, size_t batch_bytes) {
    size_t room = batch_bytes > GATHER_BYTES ? batch_bytes : GATHER_BYTES / batch_bytes * batch_bytes;
    char *buffer = allocate(room);
    size_t have = 0;
    uint64_t batches = 0;
    for (;;) {
        ssize_t got = recv(leader, buffer + have, room - have, 0);
        if (got == 0 || (got < 0 && errno == ECONNRESET)) exit(0);
        if (got < 0) fail("receive a batch");
        have += (size_t)got;
        size_t whole = have / batch_bytes;
        if (whole == 0) continue;
        log_append(&log, buffer, whole * batch_bytes);
        batches += whole;
        if (send(leader, &batches, sizeof batches, MSG_NOSIGNAL) != (ssize_t)sizeof batches) exit(0);
        have -= whole * batch_bytes;
        memmove(buffer, buffer + whole * batch_bytes, have);
    }
}

/* Forks a follower and returns the leader's end of the connection to it. */
static int start_follower(const char *dir, int number, size_t batch_bytes) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0) {
        fail("listen");
    }
    struct log log = log_open(dir, number);
    pid_t leader = getpid();
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail("prctl");
        if (getppid() != leader) exit(1);
        int connection = accept(listener, NULL, NULL);
        if (connection < 0) fail("accept");
        no_delay(connection);
        follow(connection, log, batch_bytes);
    }
    int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection < 0 || connect(connection, (struct sockaddr *)&address, length) != 0) fail("connect");
    no_delay(connection);
    close(listener);
    close(log.fd);
    return connection;
}

static void send_all(int connection, const char *data, size_t bytes) {
    while (bytes > 0) {
        ssize_t sent = send(connection, data, bytes, MSG_NOSIGNAL);
        if (sent < 0) fail("send a batch");
        data += sent;
        bytes -= (size_t)sent;
    }
}

/* Waits until one follower has `batches`. Answers are eight bytes, so they arrive whole. */
static void wait_for_one(const int *followers, uint64_t batches, uint64_t *acknowledged) {
    struct pollfd waiting[FOLLOWERS];
    for (int i = 0; i < FOLLOWERS; i++) waiting[i] = (struct pollfd){.fd = followers[i], .events = POLLIN};
    for (;;) {
        for (int i = 0; i < FOLLOWERS; i++) {
            if (acknowledged[i] >= batches) return;
        }
        if (poll(waiting, FOLLOWERS, -1) < 0) fail("poll");
        for (int i = 0; i < FOLLOWERS; i++) {
            uint64_t answers[64];
            if (waiting[i].revents == 0) continue;
            ssize_t got = recv(followers[i], answers, sizeof answers, 0);
            if (got <= 0 || got % (ssize_t)sizeof answers[0] != 0) fail("receive an answer");
            acknowledged[i] = answers[(size_t)got / sizeof answers[0] - 1];
        }
    }
}

static int ascending(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static double percentile_us(const uint32_t *sorted, size_t count, double share) {
    size_t at = (size_t)((double)count * share);
    return (double)sorted[at < count ? at : count - 1] / 1000.0;
}

static size_t number(const char *text) {
    char *end = NULL;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end != 0 || value == 0 || value > (1u << 30)) {
        fprintf(stderr, "floor: %s is not a number from 1 to 2^30\n", text);
        exit(2);
    }
    return (size_t)value;
}

int main(int argc, char **argv) {
    const char *dir = NULL;
    size_t entries = 0, bytes = 0, ms = 2000;
    static const struct option options[] = {{"dir", required_argument, NULL, 'd'},
                                            {"entries", required_argument, NULL, 'e'},
                                            {"bytes", required_argument, NULL, 'b'},
                                            {"ms", required_argument, NULL, 'm'},
                                            {NULL, 0, NULL, 0}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'd': dir = optarg; break;
        case 'e': entries = number(optarg); break;
        case 'b': bytes = number(optarg); break;
        case 'm': ms = number(optarg); break;
        default: return 2;
        }
    }
    size_t batch_bytes = entries * bytes;
    if (dir == NULL || entries == 0 || bytes == 0 || batch_bytes > SEGMENT_BYTES / 4) {
        fprintf(stderr, "usage: floor --dir DIR --entries N --bytes N [--ms N]; a batch is at most %zu bytes\n",
                SEGMENT_BYTES / 4);
        return 2;
    }

    int followers[FOLLOWERS];
    for (int i = 0; i < FOLLOWERS; i++) followers[i] = start_follower(dir, i + 2, batch_bytes);
    struct log log = log_open(dir, 1);
    char *batch = allocate(batch_bytes);
    size_t room = 1u << 20, count = 0;
    uint32_t *latencies_ns = allocate(room * sizeof *latencies_ns);

    uint64_t acknowledged[FOLLOWERS] = {0}, batches = 0;
    uint64_t begin = now_ns() + WARM_UP_NS, end = begin + (uint64_t)ms * 1000000u;
    uint64_t start = now_ns(), first = 0, last = 0;
    while (start < end && count < room) {
        batches++;
        for (int i = 0; i < FOLLOWERS; i++) send_all(followers[i], batch, batch_bytes);
        log_append(&log, batch, batch_bytes);
        wait_for_one(followers, batches, acknowledged);
        uint64_t done = now_ns();
        if (start >= begin) {
            if (first == 0) first = start;
            last = done;
            latencies_ns[count++] = (uint32_t)(done - start);
        }
        start = done;
    }
    for (int i = 0; i < FOLLOWERS; i++) close(followers[i]);
    while (wait(NULL) > 0) {}

    if (count == 0) {
        fprintf(stderr, "floor: no batch was committed in %zu ms\n", ms);
        return 1;
    }
    qsort(latencies_ns, count, sizeof *latencies_ns, ascending);
    printf("{\"entries\": %zu, \"bytes\": %zu, \"batches\": %zu, \"entries_per_s\": %.0f, \"p50_us\": %.1f, "
           "\"p90_us\": %.1f, \"p99_us\": %.1f}\n",
           entries, bytes, count, (double)(count * entries) * 1e9 / (double)(last - first),
           percentile_us(latencies_ns, count, 0.5), percentile_us(latencies_ns, count, 0.9),
           percentile_us(latencies_ns, count, 0.99));
    return 0;
}
