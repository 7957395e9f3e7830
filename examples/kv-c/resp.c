#include "resp.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An argument's place, from the beginning of the request: the input may move while the request arrives. */
struct place {
    size_t offset;
    size_t length;
};

/* Room for so many arguments is kept from one request to the next. */
#define PLACES_KEPT 1024

void resp_parser_init(struct resp_parser *parser, size_t request_bytes_max) {
    *parser = (struct resp_parser){.request_bytes_max = request_bytes_max, .bulk_bytes = -1};
}

void resp_parser_free(struct resp_parser *parser) {
    free(parser->arguments);
    free(parser->places);
    *parser = (struct resp_parser){0};
}

static enum resp_progress broken(struct resp_parser *parser, const char *why) {
    snprintf(parser->error, sizeof parser->error, "ERR Protocol error: %s", why);
    return RESP_BROKEN;
}

/* The next line, without its CRLF (or, inline, LF). RESP_REQUEST says that there is one. */
static enum resp_progress take_line(struct resp_parser *parser, const struct buffer *input, const char *too_long,
                                    struct slice *line) {
    size_t left = input->length - parser->position;
    unsigned char *start = input->data + parser->position;
    unsigned char *end = left == 0 ? NULL : memchr(start, '\n', left);
    if ((end == NULL ? left : (size_t)(end - start)) > RESP_LINE_BYTES_MAX) {
        return broken(parser, too_long);
    }
    if (end == NULL) {
        return RESP_MORE;
    }
    size_t length = (size_t)(end - start);
    parser->position += length + 1;
    *line = (struct slice){start, length > 0 && start[length - 1] == '\r' ? length - 1 : length};
    return RESP_REQUEST;
}

static bool add_place(struct resp_parser *parser, size_t offset, size_t length) {
    if (parser->place_count == parser->place_capacity) {
        size_t capacity = parser->place_capacity < 8 ? 8 : parser->place_capacity * 2;
        struct place *places = realloc(parser->places, capacity * sizeof *places);
        if (places == NULL) {
            return false;
        }
        parser->places = places;
        parser->place_capacity = capacity;
    }
    parser->places[parser->place_count++] = (struct place){offset, length};
    return true;
}

static enum resp_progress finish(struct resp_parser *parser, const struct buffer *input) {
    if (parser->place_count > parser->slice_capacity) {
        struct slice *arguments = realloc(parser->arguments, parser->place_capacity * sizeof *arguments);
        if (arguments == NULL) {
            return RESP_NO_MEMORY;
        }
        parser->arguments = arguments;
        parser->slice_capacity = parser->place_capacity;
    }
    for (size_t at = 0; at < parser->place_count; at++) {
        struct place place = parser->places[at];
        parser->arguments[at] = (struct slice){input->data + parser->request_start + place.offset, place.length};
    }
    parser->argument_count = parser->place_count;
    parser->arguments_expected = 0;
    return RESP_REQUEST;
}

static int from_hex(unsigned char digit) {
    if (digit >= '0' && digit <= '9') {
        return digit - '0';
    }
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static unsigned char unescape(unsigned char byte) {
    switch (byte) {
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'b':
        return '\b';
    case 'a':
        return '\a';
    default:
        return byte;
    }
}

static bool is_space(unsigned char byte) {
    return byte == ' ' || (byte >= '\t' && byte <= '\r');
}

/* Splits an inline request into words, quotes and escapes as redis-cli has them. Words are never longer than how they
 * are written, so they are put in place, over the line. */
static enum resp_progress split_inline(struct resp_parser *parser, struct buffer *input, struct slice line) {
    unsigned char *text = input->data + (line.data - input->data);
    size_t at = 0;
    for (;;) {
        while (at < line.length && is_space(text[at])) {
            at++;
        }
        if (at == line.length) {
            return finish(parser, input);
        }
        size_t start = at;
        size_t end = at;
        unsigned char quote = text[at] == '"' || text[at] == '\'' ? text[at++] : 0;
        for (; at < line.length && (quote != 0 ? text[at] != quote : !is_space(text[at])); at++) {
            unsigned char byte = text[at];
            if (byte == '\\' && at + 1 < line.length) {
                if (quote == '"' && text[at + 1] == 'x' && at + 3 < line.length && from_hex(text[at + 2]) >= 0 &&
                    from_hex(text[at + 3]) >= 0) {
                    byte = (unsigned char)(from_hex(text[at + 2]) * 16 + from_hex(text[at + 3]));
                    at += 3;
                } else if (quote == '"') {
                    byte = unescape(text[++at]);
                } else if (quote == '\'' && text[at + 1] == '\'') {
                    byte = text[++at];
                }
            }
            text[end++] = byte;
        }
        if (quote != 0) {
            if (at == line.length || (at + 1 < line.length && !is_space(text[at + 1]))) {
                return broken(parser, "unbalanced quotes in request");
            }
            at++;
        }
        if (!add_place(parser, (size_t)(text - input->data) - parser->request_start + start, end - start)) {
            return RESP_NO_MEMORY;
        }
    }
}

static enum resp_progress begin(struct resp_parser *parser, struct buffer *input) {
    parser->request_start = parser->position;
    parser->place_count = 0;
    parser->request_bytes = 0;
    parser->skipping = false;
    parser->bulk_bytes = -1;
    if (parser->position == input->length) {
        return RESP_MORE;
    }
    bool is_inline = input->data[parser->position] != '*';
    struct slice line;
    enum resp_progress progress =
        take_line(parser, input, is_inline ? "too big inline request" : "too big mbulk count string", &line);
    if (progress != RESP_REQUEST) {
        return progress;
    }
    if (is_inline) {
        parser->request_bytes = line.length;
        return split_inline(parser, input, line);
    }
    int64_t count;
    if (!slice_to_integer((struct slice){line.data + 1, line.length - 1}, &count) || count > RESP_ARGUMENTS_MAX) {
        return broken(parser, "invalid multibulk length");
    }
    if (count <= 0) {
        return finish(parser, input);
    }
    parser->arguments_expected = count;
    return RESP_MORE;
}

static enum resp_progress take_bulk_header(struct resp_parser *parser, struct buffer *input) {
    if (parser->position == input->length) {
        return RESP_MORE;
    }
    unsigned char kind = input->data[parser->position];
    if (kind != '$') {
        char why[32];
        snprintf(why, sizeof why, "expected '$', got '%c'", kind >= 0x20 && kind < 0x7f ? kind : '?');
        return broken(parser, why);
    }
    struct slice line;
    enum resp_progress progress = take_line(parser, input, "too big bulk count string", &line);
    if (progress != RESP_REQUEST) {
        return progress;
    }
    int64_t length;
    if (!slice_to_integer((struct slice){line.data + 1, line.length - 1}, &length) || length < 0 ||
        length > RESP_BULK_BYTES_MAX) {
        return broken(parser, "invalid bulk length");
    }
    parser->bulk_bytes = length;
    parser->request_bytes += (uint64_t)length;
    parser->skipping = parser->skipping || parser->request_bytes > parser->request_bytes_max;
    return RESP_REQUEST;
}

/* The bulk string and its CRLF. While skipping, what is there of it is dropped at once. */
static enum resp_progress take_bulk(struct resp_parser *parser, struct buffer *input) {
    size_t left = input->length - parser->position;
    size_t length = (size_t)parser->bulk_bytes;
    if (parser->skipping && left < length + 2 && length > 0) {
        size_t skipped = left < length ? left : length;
        parser->position += skipped;
        parser->bulk_bytes -= (int64_t)skipped;
        return RESP_MORE;
    }
    if (left < length + 2) {
        return RESP_MORE;
    }
    const unsigned char *end = input->data + parser->position + length;
    if (end[0] != '\r' || end[1] != '\n') {
        return broken(parser, "expected CRLF after a bulk string");
    }
    if (!parser->skipping && !add_place(parser, parser->position - parser->request_start, length)) {
        return RESP_NO_MEMORY;
    }
    parser->position += length + 2;
    parser->bulk_bytes = -1;
    parser->arguments_expected--;
    return RESP_REQUEST;
}

enum resp_progress resp_parse(struct resp_parser *parser, struct buffer *input) {
    assert(parser->position <= input->length);
    parser->argument_count = 0;
    if (parser->arguments_expected == 0) {
        enum resp_progress progress = begin(parser, input);
        if (progress != RESP_MORE || parser->arguments_expected == 0) {
            return progress;
        }
    }
    while (parser->arguments_expected > 0) {
        enum resp_progress progress = RESP_REQUEST;
        if (parser->bulk_bytes < 0) {
            progress = take_bulk_header(parser, input);
        }
        if (progress == RESP_REQUEST) {
            progress = take_bulk(parser, input);
        }
        if (progress != RESP_REQUEST) {
            if (parser->skipping) {
                resp_parser_release(parser, input);
            }
            return progress;
        }
    }
    if (parser->skipping) {
        return RESP_TOO_LARGE;
    }
    return finish(parser, input);
}

void resp_parser_release(struct resp_parser *parser, struct buffer *input) {
    /* Within a request its beginning must stay, unless it is being skipped. */
    size_t done = parser->arguments_expected > 0 && !parser->skipping ? parser->request_start : parser->position;
    buffer_consume(input, done);
    parser->position -= done;
    parser->request_start = 0;
    if (parser->arguments_expected == 0 && parser->place_capacity > PLACES_KEPT) {
        size_t position = parser->position;
        size_t request_bytes_max = parser->request_bytes_max;
        resp_parser_free(parser);
        resp_parser_init(parser, request_bytes_max);
        parser->position = position;
    }
}

void resp_simple(struct buffer *out, const char *text) {
    buffer_append_u8(out, '+');
    buffer_append_text(out, text);
    buffer_append(out, "\r\n", 2);
}

void resp_error(struct buffer *out, struct slice text) {
    buffer_append_u8(out, '-');
    size_t start = out->length;
    buffer_append(out, text.data, text.length);
    for (size_t at = start; at < out->length; at++) {
        if (out->data[at] == '\r' || out->data[at] == '\n') {
            out->data[at] = ' ';
        }
    }
    buffer_append(out, "\r\n", 2);
}

static void number_line(struct buffer *out, char kind, int64_t value) {
    char line[32];
    int length = snprintf(line, sizeof line, "%c%" PRId64 "\r\n", kind, value);
    buffer_append(out, line, (size_t)length);
}

void resp_integer(struct buffer *out, int64_t value) {
    number_line(out, ':', value);
}

void resp_bulk(struct buffer *out, struct slice value) {
    number_line(out, '$', (int64_t)value.length);
    buffer_append(out, value.data, value.length);
    buffer_append(out, "\r\n", 2);
}

void resp_bulk_text(struct buffer *out, const char *text) {
    resp_bulk(out, slice_of(text));
}

void resp_nil(struct buffer *out, enum resp_version version) {
    buffer_append_text(out, version == RESP_3 ? "_\r\n" : "$-1\r\n");
}

void resp_array(struct buffer *out, uint64_t count) {
    number_line(out, '*', (int64_t)count);
}

void resp_map(struct buffer *out, enum resp_version version, uint64_t count) {
    if (version == RESP_3) {
        number_line(out, '%', (int64_t)count);
    } else {
        number_line(out, '*', (int64_t)count * 2);
    }
}

void resp_text(struct buffer *out, enum resp_version version, struct slice text) {
    if (version == RESP_2) {
        resp_bulk(out, text);
        return;
    }
    number_line(out, '=', (int64_t)text.length + 4);
    buffer_append_text(out, "txt:");
    buffer_append(out, text.data, text.length);
    buffer_append(out, "\r\n", 2);
}
