/* Patterns, as FORMAT.md defines them ("Patterns of `keys`"). */
#ifndef KV_GLOB_H
#define KV_GLOB_H

#include "buffer.h"

bool glob_matches(struct slice pattern, struct slice text);

#endif
