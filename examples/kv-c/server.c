#include "server.h"

#include "replica.h"
#include "submission.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 4096
#define BATCH_BYTES_MAX ((size_t)1 << 20)
/* What a request is made of beside what goes into the entry. */
#define REQUEST_EXTRA_BYTES ((size_t)64 << 10)
/* How long a server that ends waits for what was proposed, and then for its clients to take their answers. */
#define END_MS 2000

enum { POLL_SIGNAL, POLL_RAFT, POLL_LISTEN, POLL_FIRST_CONNECTION };

struct server {
    const struct options *options;
    struct replica replica;
    struct server_view view;
    struct submission submission;
    int signal_pipe[2];
    int listener;
    struct pollfd *polled;
    size_t poll_capacity;
    struct connection **connections;
    size_t connection_capacity;
    size_t connection_count;
    size_t first_served; /* takes its turn, so that no connection always finds the room that another left */
    uint64_t last_client_id;
    uint64_t started_ms;
    uint32_t printed_role;
    uint64_t printed_term;
    struct member_view *members; /* what the view shows, once the group is formed */
    bool is_ending;
    bool has_stopped; /* by itself */
    char stopped_reason[512];
};

static int signal_writer = -1;

/* A signal becomes a byte in a pipe that the loop polls. */
static void on_signal(int number) {
    int saved = errno;
    unsigned char byte = (unsigned char)number;
    ssize_t written = write(signal_writer, &byte, 1);
    (void)written;
    errno = saved;
}

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static bool set_nonblocking(int descriptor) {
    int flags = fcntl(descriptor, F_GETFL);
    return flags >= 0 && fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) == 0 &&
           fcntl(descriptor, F_SETFD, FD_CLOEXEC) == 0;
}

/* ---- What the replica tells ---- */

static void on_completed(void *user, const raft_completion *completions, size_t count) {
    struct server *server = user;
    submission_completed(&server->submission, completions, count);
}

static void on_role_changed(void *user, uint32_t role, uint64_t term, uint64_t leader) {
    struct server *server = user;
    server->view.role = role_name(role);
    server->view.term = term;
    server->view.leader = leader;
    server->submission.leads = role == RAFT_ROLE_LEADER;
    if (role != server->printed_role || term != server->printed_term) {
        printf("role %s term=%" PRIu64 "\n", role_name(role), term);
        fflush(stdout);
        server->printed_role = role;
        server->printed_term = term;
    }
}

/* Shows the members that are in force. */
static void update_members(struct server *server) {
    size_t count = 0;
    struct member_view *members = replica_members(&server->replica, &count);
    if (members != NULL) {
        free(server->members);
        server->members = members;
        server->view.members = members;
        server->view.member_count = count;
    }
}

static void on_members_changed(void *user) {
    update_members(user);
}

static void on_removed(void *user, const char *why) {
    struct server *server = user;
    printf("removed\n");
    fflush(stdout);
    fprintf(stderr, "kv: %s: this server ends; its directory may go, and its id is never used again\n", why);
    server->is_ending = true;
}

static void on_stopped(void *user, const char *why) {
    struct server *server = user;
    if (!server->has_stopped) {
        snprintf(server->stopped_reason, sizeof server->stopped_reason, "%s", why);
        fprintf(stderr, "kv: stopped: %s\n", why);
    }
    server->has_stopped = true;
    server->submission.leads = false;
    server->submission.is_forwarding = false;
}

static void on_noticed(void *user, const char *message) {
    (void)user;
    fprintf(stderr, "kv: %s\n", message);
}

static void refresh(struct server_view *view) {
    struct server *server = view->user;
    replica_describe(&server->replica, view);
    update_members(server);
    view->clients = server->connection_count;
    view->uptime_seconds = (now_ms() - server->started_ms) / 1000;
}

/* ---- Opening ---- */

static bool open_signals(struct server *server) {
    if (pipe(server->signal_pipe) != 0 || !set_nonblocking(server->signal_pipe[0]) ||
        !set_nonblocking(server->signal_pipe[1])) {
        fprintf(stderr, "kv: pipe: %s\n", strerror(errno));
        return false;
    }
    signal_writer = server->signal_pipe[1];
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&ignore.sa_mask);
    return sigaction(SIGTERM, &action, NULL) == 0 && sigaction(SIGINT, &action, NULL) == 0 &&
           sigaction(SIGPIPE, &ignore, NULL) == 0;
}

static int listen_on(const struct addrinfo *address) {
    int descriptor = socket(address->ai_family, address->ai_socktype, address->ai_protocol);
    int yes = 1;
    if (descriptor < 0) {
        return -1;
    }
    if (!set_nonblocking(descriptor) ||
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) != 0 ||
        bind(descriptor, address->ai_addr, address->ai_addrlen) != 0 || listen(descriptor, 511) != 0) {
        int saved = errno;
        close(descriptor);
        errno = saved;
        return -1;
    }
    return descriptor;
}

static bool open_listener(struct server *server) {
    struct slice host;
    uint16_t port;
    char host_text[256];
    char port_text[8];
    if (!address_split(server->options->resp_address, &host, &port) || host.length >= sizeof host_text) {
        fprintf(stderr, "kv: --resp %s: not HOST:PORT\n", server->options->resp_address);
        return false;
    }
    memcpy(host_text, host.data, host.length);
    host_text[host.length] = '\0';
    snprintf(port_text, sizeof port_text, "%u", port);
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found = NULL;
    int problem = getaddrinfo(host_text, port_text, &hints, &found);
    if (problem != 0) {
        fprintf(stderr, "kv: --resp %s: %s\n", server->options->resp_address, gai_strerror(problem));
        return false;
    }
    for (const struct addrinfo *address = found; address != NULL && server->listener < 0; address = address->ai_next) {
        server->listener = listen_on(address);
    }
    if (server->listener < 0) {
        fprintf(stderr, "kv: listening on %s: %s\n", server->options->resp_address, strerror(errno));
    }
    freeaddrinfo(found);
    return server->listener >= 0;
}

/* ---- The loop ---- */

static bool add_connection(struct server *server, struct connection *connection) {
    if (server->connection_count == server->connection_capacity) {
        size_t capacity = server->connection_capacity * 2 + 16;
        struct connection **connections = realloc(server->connections, capacity * sizeof *connections);
        if (connections == NULL) {
            return false;
        }
        server->connections = connections;
        server->connection_capacity = capacity;
    }
    server->connections[server->connection_count++] = connection;
    return true;
}

static void accept_connections(struct server *server) {
    for (;;) {
        int descriptor = accept(server->listener, NULL, NULL);
        if (descriptor < 0) {
            return;
        }
        int yes = 1;
        struct connection *connection = NULL;
        if (server->connection_count < CONNECTIONS_MAX && set_nonblocking(descriptor) &&
            setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0) {
            size_t request_bytes_max = (size_t)server->options->max_entry_bytes + REQUEST_EXTRA_BYTES;
            connection = connection_new(descriptor, ++server->last_client_id, request_bytes_max);
        }
        if (connection != NULL && !add_connection(server, connection)) {
            connection->descriptor = -1;
            connection_free(connection);
            connection = NULL;
        }
        if (connection == NULL) {
            static const char full[] = "-ERR max number of clients reached\r\n";
            ssize_t sent = send(descriptor, full, sizeof full - 1, MSG_NOSIGNAL);
            (void)sent;
            close(descriptor);
        }
    }
}

/* What to poll for, in the order of the connections; how many. */
static size_t prepare_poll(struct server *server) {
    size_t count = POLL_FIRST_CONNECTION + server->connection_count;
    if (count > server->poll_capacity) {
        struct pollfd *polled = realloc(server->polled, count * 2 * sizeof *polled);
        if (polled == NULL) {
            fputs("kv: no memory\n", stderr);
            server->has_stopped = true;
            return 0;
        }
        server->polled = polled;
        server->poll_capacity = count * 2;
    }
    server->polled[POLL_SIGNAL] = (struct pollfd){.fd = server->signal_pipe[0], .events = POLLIN};
    server->polled[POLL_RAFT] = (struct pollfd){.fd = replica_descriptor(&server->replica), .events = POLLIN};
    server->polled[POLL_LISTEN] = (struct pollfd){.fd = server->listener, .events = POLLIN};
    for (size_t at = 0; at < server->connection_count; at++) {
        const struct connection *connection = server->connections[at];
        bool reads = !server->is_ending && connection_wants_input(connection);
        short events = (short)((reads ? POLLIN : 0) | (connection_wants_output(connection) ? POLLOUT : 0));
        server->polled[POLL_FIRST_CONNECTION + at] = (struct pollfd){.fd = connection->descriptor, .events = events};
    }
    return count;
}

static void handle_connections(struct server *server) {
    for (size_t at = 0; at < server->connection_count; at++) {
        short found = server->polled[POLL_FIRST_CONNECTION + at].revents;
        if ((found & POLLIN) != 0) {
            connection_receive(server->connections[at]);
        } else if ((found & (POLLHUP | POLLERR)) != 0) {
            connection_hang_up(server->connections[at]); /* nobody is there to be answered */
        }
    }
    server->first_served++;
    for (size_t at = 0; at < server->connection_count && !server->is_ending; at++) {
        size_t turn = (server->first_served + at) % server->connection_count;
        connection_process(server->connections[turn], &server->submission, &server->view);
    }
}

/* Sends what there is to send, and forgets who is gone. True if there is more to do at once. */
static bool settle_connections(struct server *server) {
    bool again = false;
    for (size_t at = 0; at < server->connection_count;) {
        struct connection *connection = server->connections[at];
        connection_send(connection);
        /* Room that a refused batch left is seen by nobody else. */
        bool may_retry = server->submission.open_count == 0 && connection->is_held && connection->first == NULL;
        again = again || may_retry || connection_can_go_on(connection);
        if (connection_is_over(connection)) {
            connection_free(connection);
            server->connections[at] = server->connections[--server->connection_count];
        } else {
            at++;
        }
    }
    return again;
}

/* Waits for something to happen and does everything that then can be done. False if polling failed. */
static bool turn(struct server *server, int timeout_ms) {
    size_t count = prepare_poll(server);
    if (count == 0) {
        return false;
    }
    if (poll(server->polled, (nfds_t)count, timeout_ms) < 0) {
        if (errno == EINTR) {
            return true;
        }
        fprintf(stderr, "kv: poll: %s\n", strerror(errno));
        return false;
    }
    if (server->polled[POLL_SIGNAL].revents != 0) {
        unsigned char bytes[16];
        ssize_t drained = read(server->signal_pipe[0], bytes, sizeof bytes);
        (void)drained;
        server->is_ending = true;
    }
    if (server->polled[POLL_RAFT].revents != 0) {
        replica_dispatch(&server->replica);
    }
    handle_connections(server);
    submission_flush(&server->submission);
    if (server->polled[POLL_LISTEN].revents != 0 && !server->is_ending) {
        accept_connections(server);
    }
    return true;
}

static void close_everything(struct server *server) {
    for (size_t at = 0; at < server->connection_count; at++) {
        connection_free(server->connections[at]);
    }
    free(server->connections);
    free(server->members);
    submission_free(&server->submission);
    free(server->polled);
    if (server->listener >= 0) {
        close(server->listener);
    }
    close(server->signal_pipe[0]);
    close(server->signal_pipe[1]);
}

static bool has_output(const struct server *server) {
    for (size_t at = 0; at < server->connection_count; at++) {
        if (connection_wants_output(server->connections[at])) {
            return true;
        }
    }
    return false;
}

/* Takes nothing more; gives what was proposed some time to end well, then ends it anyhow, and sends the answers. */
static bool end(struct server *server) {
    server->is_ending = true;
    close(server->listener);
    server->listener = -1;
    uint64_t deadline_ms = now_ms() + END_MS;
    uint64_t at_ms = now_ms();
    while (!server->has_stopped && at_ms < deadline_ms &&
           (server->submission.open_count > 0 || server->submission.rounds_in_flight > 0)) {
        if (!turn(server, (int)(deadline_ms - at_ms))) {
            break;
        }
        for (size_t at = 0; at < server->connection_count; at++) {
            connection_look_up(server->connections[at], &server->submission);
        }
        settle_connections(server);
        at_ms = now_ms();
    }
    bool closed = replica_close(&server->replica);
    for (at_ms = now_ms(); at_ms < deadline_ms && has_output(server); at_ms = now_ms()) {
        prepare_poll(server);
        server->polled[POLL_RAFT].fd = -1;
        server->polled[POLL_SIGNAL].fd = -1;
        nfds_t count = POLL_FIRST_CONNECTION + (nfds_t)server->connection_count;
        if (poll(server->polled, count, (int)(deadline_ms - at_ms)) < 0) {
            break;
        }
        settle_connections(server);
    }
    return closed;
}

static void init(struct server *server, const struct options *options) {
    *server = (struct server){.options = options, .signal_pipe = {-1, -1}, .listener = -1, .started_ms = now_ms()};
    server->view = (struct server_view){.refresh = refresh,
                                        .user = server,
                                        .cluster = options->cluster,
                                        .language = "c",
                                        .id = options->id,
                                        .members = options->members,
                                        .member_count = options->member_count,
                                        .role = "forming",
                                        .disk = "unknown",
                                        .change = "none",
                                        .stopped = server->stopped_reason};
    size_t queue_half_bytes = (size_t)options->queue_bytes / 2;
    size_t batch_bytes_max = queue_half_bytes < BATCH_BYTES_MAX ? queue_half_bytes : BATCH_BYTES_MAX;
    server->submission = (struct submission){.replica = &server->replica,
                                             .server = &server->view,
                                             .is_forwarding = options->is_forwarding,
                                             .entry_bytes_max = (size_t)options->max_entry_bytes,
                                             .open_cost_bytes_max = queue_half_bytes,
                                             .batch_bytes_max = batch_bytes_max};
}

int server_run(const struct options *options) {
    struct server server;
    init(&server, options);
    if (!open_signals(&server) || !open_listener(&server)) {
        close_everything(&server);
        return 1;
    }
    struct replica_listener listener = {&server,    on_completed, on_role_changed, on_members_changed,
                                        on_removed, on_stopped,   on_noticed};
    enum replica_start started = replica_open(&server.replica, options, listener);
    if (started != REPLICA_STARTED) {
        close_everything(&server);
        return started == REPLICA_BAD_SETTING ? 2 : 1;
    }
    printf("ready id=%" PRIu64 " resp=%s\n", options->id, options->resp_address);
    fflush(stdout);
    bool again = false;
    while (!server.is_ending && !server.has_stopped) {
        if (!turn(&server, again ? 0 : -1)) {
            server.has_stopped = true;
            break;
        }
        again = settle_connections(&server);
    }
    bool closed = end(&server);
    close_everything(&server);
    return closed && !server.has_stopped ? 0 : 1;
}
