/* What replicas compare: FORMAT.md, "Digest". */
#ifndef KV_DIGEST_H
#define KV_DIGEST_H

#include "buffer.h"

/* CRC-32 as zlib and Ethernet have it; continues `crc`, which is 0 at first. */
uint32_t crc32_of(uint32_t crc, struct slice bytes);

/* What one key adds to the digest of the state. */
uint64_t digest_of_pair(uint32_t key_crc, uint32_t value_crc);

#endif
