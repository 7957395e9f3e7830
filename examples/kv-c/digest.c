#include "digest.h"

#define POLYNOMIAL UINT32_C(0xedb88320)

/* tables[n][b]: the CRC of byte b followed by n zero bytes, so that eight bytes go in one step. */
static uint32_t tables[8][256];

static void make_tables(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ ((crc & 1) != 0 ? POLYNOMIAL : 0);
        }
        tables[0][byte] = crc;
    }
    for (int table = 1; table < 8; table++) {
        for (int byte = 0; byte < 256; byte++) {
            uint32_t before = tables[table - 1][byte];
            tables[table][byte] = before >> 8 ^ tables[0][before & 0xff];
        }
    }
}

uint32_t crc32_of(uint32_t crc, struct slice bytes) {
    if (tables[0][1] == 0) {
        make_tables();
    }
    const unsigned char *data = bytes.data;
    size_t left = bytes.length;
    crc = ~crc;
    for (; left >= 8; data += 8, left -= 8) {
        uint32_t low = crc ^ load_u32(data);
        uint32_t high = load_u32(data + 4);
        crc = tables[7][low & 0xff] ^ tables[6][low >> 8 & 0xff] ^ tables[5][low >> 16 & 0xff] ^ tables[4][low >> 24] ^
              tables[3][high & 0xff] ^ tables[2][high >> 8 & 0xff] ^ tables[1][high >> 16 & 0xff] ^
              tables[0][high >> 24];
    }
    for (; left > 0; data++, left--) {
        crc = crc >> 8 ^ tables[0][(crc ^ *data) & 0xff];
    }
    return ~crc;
}

uint64_t digest_of_pair(uint32_t key_crc, uint32_t value_crc) {
    uint64_t mixed = ((uint64_t)key_crc << 32 | value_crc) + UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ mixed >> 31;
}
