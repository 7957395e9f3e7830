#include "glob.h"

/* Whether the pattern's element at `*at` matches the byte; moves `*at` behind the element. Not for `*`. */
static bool element_matches(struct slice pattern, size_t *at, unsigned char byte) {
    unsigned char first = pattern.data[(*at)++];
    if (first == '?') {
        return true;
    }
    if (first == '\\' && *at < pattern.length) {
        return pattern.data[(*at)++] == byte;
    }
    if (first != '[') {
        return first == byte;
    }
    bool negated = *at < pattern.length && pattern.data[*at] == '^';
    *at += negated;
    bool found = false;
    while (*at < pattern.length && pattern.data[*at] != ']') {
        if (pattern.data[*at] == '\\' && *at + 1 < pattern.length) {
            found = found || pattern.data[*at + 1] == byte;
            *at += 2;
        } else if (*at + 2 < pattern.length && pattern.data[*at + 1] == '-') {
            unsigned char low = pattern.data[*at];
            unsigned char high = pattern.data[*at + 2];
            if (low > high) {
                unsigned char swap = low;
                low = high;
                high = swap;
            }
            found = found || (byte >= low && byte <= high);
            *at += 3;
        } else {
            found = found || pattern.data[*at] == byte;
            *at += 1;
        }
    }
    *at += *at < pattern.length; /* the closing bracket, if there is one */
    return found != negated;
}

/* Goes back to the latest `*` only: an earlier one could not match more. So the time is at most the product of the
 * lengths, whatever the client sends. */
bool glob_matches(struct slice pattern, struct slice text) {
    size_t in_pattern = 0;
    size_t in_text = 0;
    size_t star_pattern = 0; /* behind the latest star; 0: none yet */
    size_t star_text = 0;
    for (;;) {
        if (in_pattern < pattern.length && pattern.data[in_pattern] == '*') {
            star_pattern = ++in_pattern;
            star_text = in_text;
            continue;
        }
        if (in_text == text.length && in_pattern == pattern.length) {
            return true;
        }
        if (in_text < text.length && in_pattern < pattern.length &&
            element_matches(pattern, &in_pattern, text.data[in_text])) {
            in_text++;
            continue;
        }
        if (star_pattern == 0 || star_text == text.length) {
            return false;
        }
        in_pattern = star_pattern;
        in_text = ++star_text;
    }
}
