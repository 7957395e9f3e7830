#include "vectors.h"

#include <stdlib.h>
#include <string.h>

void vectors_open(struct vectors *vectors, const char *folder, const char *name) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    *vectors = (struct vectors){.file = fopen(path, "r"), .name = name};
    if (vectors->file == NULL) {
        fprintf(stderr, "%s: cannot be opened\n", path);
        exit(1);
    }
}

static bool read_line(struct vectors *vectors) {
    size_t length = 0;
    for (int byte = getc(vectors->file); byte != EOF && byte != '\n'; byte = getc(vectors->file)) {
        if (length + 2 > vectors->line_capacity) {
            vectors->line_capacity = vectors->line_capacity * 2 + 256;
            vectors->line = realloc(vectors->line, vectors->line_capacity);
            vectors_require(vectors, "memory", vectors->line != NULL);
        }
        vectors->line[length++] = (char)byte;
        vectors->line[length] = '\0';
    }
    vectors->line_number++;
    if (length == 0 && vectors->line != NULL) {
        vectors->line[0] = '\0';
    }
    return length > 0 || !feof(vectors->file);
}

bool vectors_next(struct vectors *vectors) {
    do {
        if (!read_line(vectors)) {
            return false;
        }
    } while (vectors->line == NULL || vectors->line[0] == '\0' || vectors->line[0] == '#');
    size_t length = strcspn(vectors->line, " ");
    vectors_require(vectors, "a directive of usual length", length < sizeof vectors->directive);
    memcpy(vectors->directive, vectors->line, length);
    vectors->directive[length] = '\0';
    vectors->rest = vectors->line + length + (vectors->line[length] == ' ');
    return true;
}

void vectors_close(struct vectors *vectors) {
    fclose(vectors->file);
    free(vectors->line);
    buffer_free(&vectors->bytes);
}

static unsigned hex_digit(const struct vectors *vectors, char digit) {
    static const char digits[] = "0123456789abcdef";
    const char *found = digit == '\0' ? NULL : strchr(digits, digit);
    vectors_require(vectors, "a hexadecimal digit", found != NULL);
    return (unsigned)(found - digits);
}

/* One escaped byte or plain one; moves on. */
static unsigned char take_byte(const struct vectors *vectors, const char **at) {
    char byte = *(*at)++;
    if (byte != '\\') {
        return (unsigned char)byte;
    }
    char escaped = *(*at)++;
    switch (escaped) {
    case 'r':
        return '\r';
    case 'n':
        return '\n';
    case '\\':
        return '\\';
    default:
        vectors_require(vectors, "a known escape", escaped == 'x');
        unsigned high = hex_digit(vectors, *(*at)++);
        return (unsigned char)(high * 16 + hex_digit(vectors, *(*at)++));
    }
}

void vectors_words(struct vectors *vectors) {
    size_t offsets[WORDS_MAX + 1];
    vectors->word_count = 0;
    buffer_clear(&vectors->bytes, vectors->bytes.capacity);
    buffer_reserve(&vectors->bytes, 1);
    for (const char *at = vectors->rest; *at != '\0'; at += *at == ' ') {
        vectors_require(vectors, "not too many words", vectors->word_count < WORDS_MAX);
        offsets[vectors->word_count++] = vectors->bytes.length;
        if (strncmp(at, "\"\"", 2) == 0) {
            at += 2;
        }
        while (*at != '\0' && *at != ' ') {
            buffer_append_u8(&vectors->bytes, take_byte(vectors, &at));
        }
    }
    offsets[vectors->word_count] = vectors->bytes.length;
    for (size_t word = 0; word < vectors->word_count; word++) {
        vectors->words[word] =
            (struct slice){vectors->bytes.data + offsets[word], offsets[word + 1] - offsets[word]};
    }
}

struct slice vectors_rest(struct vectors *vectors) {
    buffer_clear(&vectors->bytes, vectors->bytes.capacity);
    for (const char *at = vectors->rest; *at != '\0';) {
        buffer_append_u8(&vectors->bytes, take_byte(vectors, &at));
    }
    return (struct slice){vectors->bytes.data, vectors->bytes.length};
}

struct slice vectors_hex(struct vectors *vectors) {
    buffer_clear(&vectors->bytes, vectors->bytes.capacity);
    for (const char *at = strcmp(vectors->rest, "\"\"") == 0 ? "" : vectors->rest; *at != '\0'; at += 2) {
        unsigned high = hex_digit(vectors, at[0]);
        buffer_append_u8(&vectors->bytes, (uint8_t)(high * 16 + hex_digit(vectors, at[1])));
    }
    return (struct slice){vectors->bytes.data, vectors->bytes.length};
}

static void print_bytes(const char *label, struct slice bytes) {
    fprintf(stderr, "  %s ", label);
    for (size_t at = 0; at < bytes.length; at++) {
        fprintf(stderr, bytes.data[at] > ' ' && bytes.data[at] < 0x7f ? "%c" : "\\x%02x", bytes.data[at]);
    }
    fputc('\n', stderr);
}

void vectors_expect(const struct vectors *vectors, const char *what, struct slice seen, struct slice wanted) {
    if (!slice_equal(seen, wanted)) {
        fprintf(stderr, "%s:%d: %s\n", vectors->name, vectors->line_number, what);
        print_bytes("seen  ", seen);
        print_bytes("wanted", wanted);
        exit(1);
    }
}

void vectors_require(const struct vectors *vectors, const char *what, bool holds) {
    if (!holds) {
        fprintf(stderr, "%s:%d: expected %s\n", vectors->name, vectors->line_number, what);
        exit(1);
    }
}
