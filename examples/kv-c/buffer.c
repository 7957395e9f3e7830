#include "buffer.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buffer_free(struct buffer *buffer) {
    free(buffer->data);
    *buffer = (struct buffer){0};
}

void buffer_clear(struct buffer *buffer, size_t keep_bytes) {
    if (buffer->capacity > keep_bytes) {
        buffer_free(buffer);
    }
    buffer->length = 0;
    buffer->failed = false;
}

unsigned char *buffer_reserve(struct buffer *buffer, size_t bytes) {
    assert(buffer->length <= buffer->capacity);
    if (buffer->failed) {
        return NULL;
    }
    if (bytes > buffer->capacity - buffer->length) {
        size_t wanted = buffer->capacity < 64 ? 64 : buffer->capacity;
        while (wanted - buffer->length < bytes) {
            if (wanted > SIZE_MAX / 2) {
                buffer->failed = true;
                return NULL;
            }
            wanted *= 2;
        }
        unsigned char *data = realloc(buffer->data, wanted);
        if (data == NULL) {
            buffer->failed = true;
            return NULL;
        }
        buffer->data = data;
        buffer->capacity = wanted;
    }
    return buffer->data + buffer->length;
}

void buffer_consume(struct buffer *buffer, size_t bytes) {
    assert(bytes <= buffer->length);
    buffer->length -= bytes;
    if (bytes > 0 && buffer->length > 0) {
        memmove(buffer->data, buffer->data + bytes, buffer->length);
    }
}

void buffer_append(struct buffer *buffer, const void *data, size_t length) {
    if (length == 0) {
        return;
    }
    unsigned char *end = buffer_reserve(buffer, length);
    if (end != NULL) {
        memcpy(end, data, length);
        buffer->length += length;
    }
}

void buffer_append_text(struct buffer *buffer, const char *text) {
    buffer_append(buffer, text, strlen(text));
}

void buffer_append_u8(struct buffer *buffer, uint8_t value) {
    buffer_append(buffer, &value, 1);
}

void buffer_append_u32(struct buffer *buffer, uint32_t value) {
    unsigned char bytes[4];
    store_u32(bytes, value);
    buffer_append(buffer, bytes, sizeof bytes);
}

void buffer_append_u64(struct buffer *buffer, uint64_t value) {
    unsigned char bytes[8];
    store_u64(bytes, value);
    buffer_append(buffer, bytes, sizeof bytes);
}

void buffer_append_format(struct buffer *buffer, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    unsigned char *end = length < 0 ? NULL : buffer_reserve(buffer, (size_t)length + 1);
    if (end != NULL) {
        vsnprintf((char *)end, (size_t)length + 1, format, again);
        buffer->length += (size_t)length;
    } else {
        buffer->failed = true;
    }
    va_end(again);
}

uint32_t load_u32(const unsigned char *data) {
    return (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
}

uint64_t load_u64(const unsigned char *data) {
    return (uint64_t)load_u32(data) | (uint64_t)load_u32(data + 4) << 32;
}

void store_u32(unsigned char *data, uint32_t value) {
    for (int byte = 0; byte < 4; byte++) {
        data[byte] = (unsigned char)(value >> (8 * byte));
    }
}

void store_u64(unsigned char *data, uint64_t value) {
    store_u32(data, (uint32_t)value);
    store_u32(data + 4, (uint32_t)(value >> 32));
}

struct slice slice_of(const char *text) {
    return (struct slice){(const unsigned char *)text, strlen(text)};
}

bool slice_equal(struct slice a, struct slice b) {
    return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
}

static unsigned char lower(unsigned char byte) {
    return byte >= 'A' && byte <= 'Z' ? (unsigned char)(byte + ('a' - 'A')) : byte;
}

bool slice_is_word(struct slice slice, const char *word) {
    size_t at = 0;
    for (; at < slice.length && word[at] != '\0'; at++) {
        if (lower(slice.data[at]) != lower((unsigned char)word[at])) {
            return false;
        }
    }
    return at == slice.length && word[at] == '\0';
}

bool slice_to_integer(struct slice slice, int64_t *value) {
    size_t at = 0;
    bool negative = slice.length > 0 && slice.data[0] == '-';
    at += negative;
    if (at == slice.length || (slice.data[at] == '0' && slice.length > 1)) {
        return false;
    }
    uint64_t magnitude = 0;
    uint64_t bound = (uint64_t)INT64_MAX + (negative ? 1 : 0);
    for (; at < slice.length; at++) {
        if (slice.data[at] < '0' || slice.data[at] > '9') {
            return false;
        }
        uint64_t digit = slice.data[at] - (unsigned)'0';
        if (magnitude > (bound - digit) / 10) {
            return false;
        }
        magnitude = magnitude * 10 + digit;
    }
    /* Negating the unsigned number first keeps the lowest integer within what is defined. */
    *value = negative ? -(int64_t)(magnitude - 1) - 1 : (int64_t)magnitude;
    return true;
}
