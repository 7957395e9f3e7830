#include "connection.h"

#include "submission.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECEIVE_BYTES ((size_t)64 << 10)
/* Room that an idle connection keeps. */
#define BUFFER_BYTES_KEPT ((size_t)64 << 10)

struct connection *connection_new(int descriptor, uint64_t id, size_t request_bytes_max) {
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection != NULL) {
        connection->descriptor = descriptor;
        connection->client.id = id;
        connection->client.version = RESP_2;
        resp_parser_init(&connection->parser, request_bytes_max);
    }
    return connection;
}

void connection_free(struct connection *connection) {
    connection_hang_up(connection);
    while (connection->first != NULL) {
        struct request *request = connection->first;
        assert(request->place == REQUEST_ANSWERED || request->place == REQUEST_READY); /* nobody holds it */
        connection->first = request->next;
        buffer_free(&request->bytes);
        free(request);
    }
    resp_parser_free(&connection->parser);
    buffer_free(&connection->client.name);
    buffer_free(&connection->input);
    buffer_free(&connection->output);
    free(connection);
}

void connection_hang_up(struct connection *connection) {
    if (connection->descriptor >= 0) {
        close(connection->descriptor);
        connection->descriptor = -1;
    }
}

static size_t unsent(const struct connection *connection) {
    return connection->output.length - connection->output_sent;
}

/* Whether the bounds allow another request. */
static bool has_room(const struct connection *connection) {
    return connection->request_count < CONNECTION_REQUESTS_MAX &&
           connection->request_bytes < CONNECTION_REQUEST_BYTES_MAX &&
           unsent(connection) < CONNECTION_OUTPUT_BYTES_PAUSE;
}

bool connection_wants_input(const struct connection *connection) {
    return connection->descriptor >= 0 && !connection->is_ending && !connection->has_ended && !connection->is_held &&
           has_room(connection);
}

bool connection_can_go_on(const struct connection *connection) {
    bool may_look_up = connection->first != NULL && connection->first->place == REQUEST_READY &&
                       unsent(connection) < CONNECTION_OUTPUT_BYTES_PAUSE;
    bool may_process = !connection->is_ending && connection->is_stalled && has_room(connection);
    return connection->descriptor >= 0 && (may_look_up || may_process);
}

bool connection_wants_output(const struct connection *connection) {
    return connection->descriptor >= 0 && unsent(connection) > 0;
}

bool connection_is_over(const struct connection *connection) {
    bool is_quiet = connection->in_log == 0 && connection->in_read == 0;
    return is_quiet && (connection->descriptor < 0 || (connection->is_ending && unsent(connection) == 0));
}

void connection_receive(struct connection *connection) {
    if (!connection_wants_input(connection)) {
        return;
    }
    unsigned char *room = buffer_reserve(&connection->input, RECEIVE_BYTES);
    if (room == NULL) {
        connection_hang_up(connection);
        return;
    }
    ssize_t received = recv(connection->descriptor, room, connection->input.capacity - connection->input.length, 0);
    if (received > 0) {
        connection->input.length += (size_t)received;
    } else if (received == 0) {
        connection->has_ended = true;
    } else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        connection_hang_up(connection);
    }
}

/* A request at the end of the queue; NULL, and the connection closed, without memory. */
static struct request *add_request(struct connection *connection, enum resp_version version) {
    struct request *request = calloc(1, sizeof *request);
    if (request == NULL) {
        connection_hang_up(connection);
        return NULL;
    }
    request->connection = connection;
    request->version = version;
    if (connection->last != NULL) {
        connection->last->next = request;
    } else {
        connection->first = request;
    }
    connection->last = request;
    connection->request_count++;
    return request;
}

/* Moves the answers at the front of the queue to the output. */
static void release_answers(struct connection *connection) {
    while (connection->first != NULL && connection->first->place == REQUEST_ANSWERED) {
        struct request *request = connection->first;
        connection->first = request->next;
        if (connection->first == NULL) {
            connection->last = NULL;
        }
        connection->request_count--;
        connection->output.failed = connection->output.failed || request->bytes.failed;
        buffer_append(&connection->output, request->bytes.data, request->bytes.length);
        buffer_free(&request->bytes);
        free(request);
    }
    if (connection->output.failed) {
        connection_hang_up(connection);
    }
}

void connection_look_up(struct connection *connection, struct submission *submission) {
    while (connection->first != NULL && connection->first->place == REQUEST_READY &&
           (connection->descriptor < 0 || unsent(connection) < CONNECTION_OUTPUT_BYTES_PAUSE)) {
        if (connection->descriptor >= 0) {
            submission_look_up(submission, connection->first, &connection->output);
        }
        request_answered(connection->first);
    }
}

struct buffer *request_answer(struct request *request) {
    struct connection *connection = request->connection;
    if (connection->first == request) {
        return &connection->output;
    }
    buffer_clear(&request->bytes, 0);
    return &request->bytes;
}

void request_answered(struct request *request) {
    struct connection *connection = request->connection;
    assert(request->place != REQUEST_ANSWERED);
    if (request->place == REQUEST_IN_LOG) {
        connection->in_log--;
    } else {
        connection->in_read--;
    }
    connection->request_bytes -= request->cost_bytes;
    if (connection->first == request) {
        buffer_clear(&request->bytes, 0); /* the answer is in the output already */
    }
    request->place = REQUEST_ANSWERED;
    release_answers(connection);
}

/* Answers a request by itself: at once, or in a place of its own behind those that are open. */
static void answer_locally(struct connection *connection, enum resp_version version, const struct buffer *reply) {
    connection->output.failed = connection->output.failed || reply->failed;
    if (connection->first == NULL) {
        buffer_append(&connection->output, reply->data, reply->length);
        return;
    }
    struct request *request = add_request(connection, version);
    if (request != NULL) {
        request->place = REQUEST_ANSWERED;
        buffer_append(&request->bytes, reply->data, reply->length);
    }
}

/* Hands a request on, unless it has to wait for those before it or for room: then false. */
static bool submit(struct connection *connection, struct submission *submission, bool is_write,
                   enum resp_version version, struct slice command) {
    bool through_log = is_write;
    if (is_write && connection->in_read > 0) {
        return false;
    }
    if (!is_write && connection->in_log > 0) {
        if (!submission_fits_log(submission, command)) {
            return false;
        }
        through_log = true;
    }
    if (through_log && !submission_has_room(submission, command.length)) {
        return false;
    }
    struct request *request = add_request(connection, version);
    if (request == NULL) {
        return true;
    }
    request->is_write = is_write;
    request->session = connection->client.session;
    request->command_bytes = command.length;
    request->cost_bytes = command.length;
    if (through_log && !is_write) {
        request->cost_bytes += submission_answer_bytes(submission, command);
    }
    connection->request_bytes += request->cost_bytes;
    if (through_log) {
        request->place = REQUEST_IN_LOG;
        connection->in_log++;
        submission_write(submission, request, command);
    } else {
        request->place = REQUEST_IN_READ;
        connection->in_read++;
        submission_read(submission, request, command);
    }
    return true;
}

/* Hands an operation on. It stands alone: nothing of its connection comes before it, and no write goes on behind it. */
static bool operate(struct connection *connection, struct submission *submission, enum resp_version version,
                    struct slice operation) {
    if (connection->first != NULL) {
        return false;
    }
    struct request *request = add_request(connection, version);
    if (request != NULL) {
        request->place = REQUEST_IN_OPERATION;
        connection->in_read++;
        submission_operate(submission, request, operation);
    }
    return true;
}

/* One request of the parser's. False if it has to wait. */
static bool take_request(struct connection *connection, struct submission *submission, struct server_view *server,
                         struct buffer *command, struct buffer *reply) {
    const struct resp_parser *parser = &connection->parser;
    enum resp_version version = connection->client.version;
    buffer_clear(command, BUFFER_BYTES_KEPT);
    buffer_clear(reply, BUFFER_BYTES_KEPT);
    enum command_route route =
        command_route(parser->arguments, parser->argument_count, &connection->client, server, command, reply);
    if (command->failed || reply->failed) {
        connection_hang_up(connection);
        return true;
    }
    if (route == ROUTE_WRITE || route == ROUTE_READ || route == ROUTE_SESSION) {
        struct slice bytes = {command->data, command->length};
        return submit(connection, submission, route != ROUTE_READ, version, bytes);
    }
    if (route == ROUTE_OPERATE) {
        return operate(connection, submission, version, (struct slice){command->data, command->length});
    }
    answer_locally(connection, version, reply);
    connection->is_ending = connection->is_ending || route == ROUTE_CLOSE;
    return true;
}

static void refuse(struct connection *connection, const char *text, bool ends) {
    struct buffer reply = {0};
    resp_error(&reply, slice_of(text));
    answer_locally(connection, connection->client.version, &reply);
    buffer_free(&reply);
    connection->is_ending = connection->is_ending || ends;
}

static void refuse_too_large(struct connection *connection) {
    struct buffer text = {0};
    buffer_append_format(&text, "ERR a request of %llu bytes is longer than an entry may be (max_entry_bytes)%c",
                         (unsigned long long)connection->parser.request_bytes, '\0');
    refuse(connection, text.failed ? "ERR request too large" : (const char *)text.data, false);
    buffer_free(&text);
}

void connection_process(struct connection *connection, struct submission *submission, struct server_view *server) {
    struct buffer command = {0};
    struct buffer reply = {0};
    connection->is_stalled = false;
    connection_look_up(connection, submission);
    while (connection->descriptor >= 0 && !connection->is_ending) {
        if (!has_room(connection)) {
            connection->is_stalled = true;
            break;
        }
        enum resp_progress progress =
            connection->is_held ? RESP_REQUEST : resp_parse(&connection->parser, &connection->input);
        if (progress == RESP_MORE) {
            connection->is_ending = connection->has_ended;
            break;
        }
        if (progress == RESP_REQUEST && connection->parser.argument_count > 0) {
            connection->is_held = !take_request(connection, submission, server, &command, &reply);
            if (connection->is_held) {
                break;
            }
            server->requests++;
        } else if (progress == RESP_TOO_LARGE) {
            refuse_too_large(connection);
        } else if (progress == RESP_BROKEN) {
            refuse(connection, connection->parser.error, true);
        } else if (progress == RESP_NO_MEMORY) {
            connection_hang_up(connection);
        }
    }
    if (!connection->is_held) {
        resp_parser_release(&connection->parser, &connection->input);
        if (connection->input.length == 0) {
            buffer_clear(&connection->input, BUFFER_BYTES_KEPT * 2);
        }
    }
    buffer_free(&command);
    buffer_free(&reply);
}

void connection_send(struct connection *connection) {
    while (connection_wants_output(connection)) {
        ssize_t sent = send(connection->descriptor, connection->output.data + connection->output_sent,
                            unsent(connection), MSG_NOSIGNAL);
        if (sent > 0) {
            connection->output_sent += (size_t)sent;
        } else if (sent < 0 && errno == EINTR) {
            continue;
        } else {
            if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
                connection_hang_up(connection);
            }
            break;
        }
    }
    if (unsent(connection) == 0) {
        buffer_clear(&connection->output, BUFFER_BYTES_KEPT);
        connection->output_sent = 0;
    } else if (connection->output_sent > connection->output.length / 2) {
        buffer_consume(&connection->output, connection->output_sent);
        connection->output_sent = 0;
    }
}
