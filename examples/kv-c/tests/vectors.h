/* Reads the files of examples/kv/vectors: lines of a directive and words, bytes escaped. */
#ifndef KV_TEST_VECTORS_H
#define KV_TEST_VECTORS_H

#include "../buffer.h"

#include <stdio.h>

#define WORDS_MAX 64

struct vectors {
    FILE *file;
    const char *name;
    int line_number;
    char *line; /* as it is in the file */
    size_t line_capacity;
    char directive[32];
    const char *rest; /* of the line, behind the directive */
    struct buffer bytes;
    struct slice words[WORDS_MAX];
    size_t word_count;
};

/* Ends the program where the file cannot be read. */
void vectors_open(struct vectors *vectors, const char *folder, const char *name);
/* Goes to the next line that says something; false at the end. */
bool vectors_next(struct vectors *vectors);
void vectors_close(struct vectors *vectors);

/* What stands behind the directive: words, one word to the end of the line, or hexadecimal digits. */
void vectors_words(struct vectors *vectors);
struct slice vectors_rest(struct vectors *vectors);
struct slice vectors_hex(struct vectors *vectors);

/* Ends the program, naming the line, where the two differ. */
void vectors_expect(const struct vectors *vectors, const char *what, struct slice seen, struct slice wanted);
void vectors_require(const struct vectors *vectors, const char *what, bool holds);

#endif
