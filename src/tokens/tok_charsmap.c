/* The precompiled character map of SentencePiece ("nmt_nfkc" and its relatives).
 *
 *     u32 bytes of the trie | units of the trie, 4 bytes each | replacement texts, each ended by 0
 *
 * The trie is a double array (Darts): node -> unit; a unit holds
 *     bits 0-7   the byte that leads here     bit 31  set in leaves, so that no byte equals it
 *     bit 8      a value hangs below          bits 10-30  the offset, times 256 if bit 9 is set
 * From a node at `at`, byte c leads to at ^ offset ^ c; a value is the unit at the node's own at ^
 * offset.
 *
 * Every index is checked: a file may say anything. A replacement that is no well-formed text is as
 * if it were not there, because all later stages rely on text being text. */
#include "tokens/tok_charsmap.h"

#include "base/fail.h"
#include "format/utf8.h"

#include <string.h>

static uint32_t read_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

kh_status kh_charsmap_init(kh_charsmap *map, const void *data, size_t size)
{
    *map = (kh_charsmap){0};
    const uint8_t *bytes = data;
    if (size < 4)
        KH_FAIL(KH_ERR_FORMAT, "the character map has %zu bytes (expected: 4 at least)", size);
    size_t trie = read_u32(bytes);
    if (trie > size - 4 || trie % 4)
        KH_FAIL(KH_ERR_FORMAT, "the character map's tree has %zu bytes of %zu", trie, size - 4);
    map->units = bytes + 4;
    map->n_units = trie / 4;
    map->texts = (kh_slice){(const char *)bytes + 4 + trie, size - 4 - trie};
    return KH_OK;
}

static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
}

static int find_text(const kh_charsmap *map, uint32_t value, kh_slice *by)
{
    size_t start = value & 0x7FFFFFFF;
    if (start >= map->texts.size) return 0;
    const char *end = memchr(map->texts.data + start, 0, map->texts.size - start);
    if (!end) return 0;
    by->data = map->texts.data + start;
    by->size = (size_t)(end - by->data);
    return kh_utf8_valid(by->data, by->size) == by->size;
}

size_t kh_charsmap_match(const kh_charsmap *map, const char *text, size_t size, int longest,
                         kh_slice *by)
{
    size_t found = 0;
    if (!map->n_units) return 0;
    size_t at = offset_of(read_u32(map->units));
    for (size_t i = 0; i < size && text[i]; ++i) {
        unsigned char byte = (unsigned char)text[i];
        at ^= byte;
        if (at >= map->n_units) break;
        uint32_t unit = read_u32(map->units + 4 * at);
        if ((unit & 0x800000FFu) != byte) break;
        at ^= offset_of(unit);
        if (!(unit >> 8 & 1)) continue;
        kh_slice text_of = {0};
        if (at < map->n_units && find_text(map, read_u32(map->units + 4 * at), &text_of)) {
            *by = text_of;
            found = i + 1;
        }
        if (!longest) break;
    }
    return found;
}

static int digit64(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

size_t kh_base64_decode(uint8_t *out, const char *text, size_t size)
{
    uint32_t bits = 0;
    size_t n = 0, digits = 0;
    while (size && text[size - 1] == '=') --size;
    for (size_t i = 0; i < size; ++i) {
        int digit = digit64(text[i]);
        if (digit < 0) return (size_t)-1;
        bits = bits << 6 | (uint32_t)digit;
        if (++digits % 4 == 0) {
            out[n++] = (uint8_t)(bits >> 16);
            out[n++] = (uint8_t)(bits >> 8);
            out[n++] = (uint8_t)bits;
        }
    }
    if (digits % 4 == 1) return (size_t)-1;
    if (digits % 4 == 2) out[n++] = (uint8_t)(bits >> 4);
    if (digits % 4 == 3) {
        out[n++] = (uint8_t)(bits >> 10);
        out[n++] = (uint8_t)(bits >> 2);
    }
    return n;
}
