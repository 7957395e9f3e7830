/*
 * Bytes that grow, and views of bytes.
 *
 * Memory that runs out does not end the program: a buffer that could not grow remembers it (`failed`), ignores what is
 * appended after that, and its owner looks once, where it can do something about it.
 */
#ifndef KV_BUFFER_H
#define KV_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A view of bytes that somebody else owns. */
struct slice {
    const unsigned char *data;
    size_t length;
};

struct buffer {
    unsigned char *data;
    size_t length;
    size_t capacity;
    bool failed;
};

/* An empty buffer is all zeros: `struct buffer b = {0};`. */

void buffer_free(struct buffer *buffer);

/* Forgets the bytes, keeps the memory up to `keep_bytes`. Also forgets a failure. */
void buffer_clear(struct buffer *buffer, size_t keep_bytes);

/* Room for `bytes` more after the end, or NULL; the caller then adds to `length` what it wrote. */
unsigned char *buffer_reserve(struct buffer *buffer, size_t bytes);

/* Drops `bytes` from the front. */
void buffer_consume(struct buffer *buffer, size_t bytes);

void buffer_append(struct buffer *buffer, const void *data, size_t length);
void buffer_append_text(struct buffer *buffer, const char *text);
void buffer_append_u8(struct buffer *buffer, uint8_t value);
void buffer_append_u32(struct buffer *buffer, uint32_t value);
void buffer_append_u64(struct buffer *buffer, uint64_t value);
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void buffer_append_format(struct buffer *buffer, const char *format, ...);

/* Little-endian numbers. */
uint32_t load_u32(const unsigned char *data);
uint64_t load_u64(const unsigned char *data);
void store_u32(unsigned char *data, uint32_t value);
void store_u64(unsigned char *data, uint64_t value);

struct slice slice_of(const char *text);
bool slice_equal(struct slice a, struct slice b);
/* Compares with a word, ignoring ASCII case: command names and options. */
bool slice_is_word(struct slice slice, const char *word);
/* A decimal integer as the replicated format writes it (FORMAT.md, "add"); false if it is not one. */
bool slice_to_integer(struct slice slice, int64_t *value);

#endif
