/*
 * RESP, the protocol of Redis clients: requests in (arrays of bulk strings, or inline words), replies out, in version
 * 2 or 3.
 *
 * The parser takes bytes as they come. A request's arguments are views into the input buffer, so a request is never
 * copied; a request longer than the bound is skipped as it arrives, without being kept, and reported when it ends.
 */
#ifndef KV_RESP_H
#define KV_RESP_H

#include "buffer.h"

/* Bounds of the protocol itself, those of Redis. */
#define RESP_BULK_BYTES_MAX ((int64_t)512 << 20)
#define RESP_ARGUMENTS_MAX ((int64_t)1 << 20)
#define RESP_LINE_BYTES_MAX ((size_t)64 << 10)

enum resp_version { RESP_2 = 2, RESP_3 = 3 };

enum resp_progress {
    RESP_MORE,      /* the input ends within a request */
    RESP_REQUEST,   /* a request: `arguments`, `argument_count`; perhaps none, which is to be ignored */
    RESP_TOO_LARGE, /* a request ended that was longer than the bound: `request_bytes` */
    RESP_BROKEN,    /* not RESP: `error`. The connection cannot go on */
    RESP_NO_MEMORY,
};

struct resp_parser {
    /* Set by the owner: the longest request to keep, in bytes of its arguments. */
    size_t request_bytes_max;

    /* The request that was last reported; valid until the next call and the next change of the input. */
    struct slice *arguments;
    size_t argument_count;
    uint64_t request_bytes;
    char error[96];

    /* Where in the input the parser stands, and the request within which it stands. */
    size_t position;
    size_t request_start;
    int64_t arguments_expected; /* 0: between requests */
    int64_t bulk_bytes;         /* -1: its length comes next */
    bool skipping;
    struct place *places;
    size_t place_count;
    size_t place_capacity;
    size_t slice_capacity;
};

void resp_parser_init(struct resp_parser *parser, size_t request_bytes_max);
void resp_parser_free(struct resp_parser *parser);

/* Goes on through the input, to the end of the next request at most. The owner then adds what it received to the input,
 * and calls `resp_parser_release` when it is done with a request and wants the room back. */
enum resp_progress resp_parse(struct resp_parser *parser, struct buffer *input);
void resp_parser_release(struct resp_parser *parser, struct buffer *input);

void resp_simple(struct buffer *out, const char *text);
/* The text begins with its code; line breaks within it become spaces. */
void resp_error(struct buffer *out, struct slice text);
void resp_integer(struct buffer *out, int64_t value);
void resp_bulk(struct buffer *out, struct slice value);
void resp_bulk_text(struct buffer *out, const char *text);
void resp_nil(struct buffer *out, enum resp_version version);
void resp_array(struct buffer *out, uint64_t count);
/* So many pairs follow: a map, or in RESP2 an array of twice as many. */
void resp_map(struct buffer *out, enum resp_version version, uint64_t count);
/* Text meant for people: verbatim in RESP3, bulk in RESP2. */
void resp_text(struct buffer *out, enum resp_version version, struct slice text);

#endif
