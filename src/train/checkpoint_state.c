/* state.json: what a checkpoint says about itself.
 *
 *     {"format": 1, "library": "0.1.0", "step": 1200,
 *      "key": ["seed", "stream"], "best": 2.31 or null, "config": "digest",
 *      "files": {"model.safetensors": {"bytes": 1, "digest": "..."}, ...},
 *      "blobs": {"data": "00ff..."},
 *      "check": "digest of all bytes in front of this line"}
 *
 * Numbers of 64 bits are hexadecimal texts, because JSON's are doubles; doubles have 17 digits, which lead back to
 * the same bits. The last line guards the rest against a byte that changed: everything else would be noticed
 * later than here. The text is put together by hand (all that enters is known to need no escapes), so that
 * writing a checkpoint asks nobody else for memory.
 *
 * The digest runs over words of 8 bytes in four lanes, each word xor-ed in, multiplied by an odd number and
 * rotated: every step can be undone, so one word that changed always changes the result. It reads as fast as memory
 * does; a checkpoint of gigabytes is checked in full when it is opened. */
#include "train/checkpoint_impl.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"
#include "format/json.h"
#include "kh_version.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT = 1, LANES = 4, PIECE = 16 << 20 };

const char *const kh_checkpoint_files[KH_CHECKPOINT_FILES] = {"model.safetensors",
                                                              "optimizer.safetensors"};

/* ---- digests ---- */

static uint64_t mix(uint64_t lane, uint64_t word)
{
    uint64_t x = (lane ^ word) * 0x9E3779B97F4A7C15ull;
    return x << 29 | x >> 35;
}

/* Takes the whole groups of words of some bytes. */
static void take(uint64_t lanes[LANES], const uint8_t *bytes, size_t size)
{
    uint64_t words[LANES];
    for (; size >= sizeof words; size -= sizeof words, bytes += sizeof words) {
        memcpy(words, bytes, sizeof words);
        for (int l = 0; l < LANES; l++) lanes[l] = mix(lanes[l], words[l]);
    }
}

/* What is left behind the last whole group of `size` bytes, and the size itself. */
static uint64_t finish(const uint64_t lanes[LANES], const uint8_t *bytes, size_t size)
{
    uint64_t words[LANES] = {0}, all = size;
    size_t rest = size % sizeof words;
    if (rest) memcpy(words, bytes + size - rest, rest);
    for (int l = 0; l < LANES; l++) all = mix(all, mix(lanes[l], words[l]));
    return mix(all, all >> 32);
}

uint64_t kh_checkpoint_digest(const void *data, size_t size)
{
    uint64_t lanes[LANES] = {1, 2, 3, 4};
    take(lanes, data, size);
    return finish(lanes, data, size);
}

/* Pages are given back piece by piece: a model's file must not count as memory of the process. */
kh_status kh_checkpoint_measure(kh_checkpoint_file *out, const char *path)
{
    kh_map map;
    uint64_t lanes[LANES] = {1, 2, 3, 4};
    KH_TRY(kh_map_open(&map, path));
    for (size_t at = 0; at < map.size; at += PIECE) {
        size_t n = map.size - at < PIECE ? map.size - at : PIECE;
        take(lanes, map.data + at, n);
        kh_map_release(&map, at, n);
    }
    *out = (kh_checkpoint_file){map.size, finish(lanes, map.data, map.size)};
    kh_map_close(&map);
    return KH_OK;
}

/* ---- writing ---- */

static int plain(const char *name)
{
    static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    return *name && !name[strspn(name, good)];
}

static kh_status write_blobs(kh_buf *out, const kh_checkpoint_state *s)
{
    static const char digits[] = "0123456789abcdef";
    size_t total = 0;
    KH_TRY(kh_buf_text(out, " \"blobs\": {"));
    for (size_t i = 0; i < s->blob_count; i++) {
        const kh_checkpoint_blob *b = &s->blobs[i];
        if (!plain(b->name))
            KH_FAIL(KH_ERR_ARGUMENT,
                    "blob '%s': a name of letters, digits, '-', '_' and '.' is expected", b->name);
        for (size_t j = 0; j < i; j++)
            if (strcmp(s->blobs[j].name, b->name) == 0)
                KH_FAIL(KH_ERR_ARGUMENT, "blob '%s' is there twice", b->name);
        if (b->size > KH_CHECKPOINT_BLOBS - total)
            KH_FAIL(KH_ERR_ARGUMENT, "blob '%s' of %zu bytes is too large (at most %d in all)",
                    b->name, b->size, KH_CHECKPOINT_BLOBS);
        total += b->size;
        KH_TRY(kh_buf_format(out, "%s\"%s\": \"", i ? ", " : "", b->name));
        KH_TRY(kh_buf_reserve(out, out->size + 2 * b->size + 1));
        for (size_t j = 0; j < b->size; j++) {
            uint8_t byte = ((const uint8_t *)b->data)[j];
            char pair[2] = {digits[byte >> 4], digits[byte & 15]};
            KH_TRY(kh_buf_add(out, pair, 2));
        }
        KH_TRY(kh_buf_text(out, "\""));
    }
    return kh_buf_text(out, "},\n");
}

kh_status kh_checkpoint_write_state(kh_buf *out, const kh_checkpoint_state *s,
                                    const kh_checkpoint_file files[KH_CHECKPOINT_FILES])
{
    char best[40] = "null";
    if (isfinite(s->best)) snprintf(best, sizeof best, "%.17g", s->best);
    KH_TRY(kh_buf_format(out,
                         "{\"format\": %d, \"library\": \"%s\", \"step\": %" PRIu64 ",\n"
                         " \"key\": [\"%016" PRIx64 "\", \"%016" PRIx64 "\"], \"best\": %s, "
                         "\"config\": \"%016" PRIx64 "\",\n \"files\": {",
                         FORMAT, KH_VERSION_STRING, s->step, s->key.seed, s->key.stream, best,
                         s->config));
    for (int i = 0; i < KH_CHECKPOINT_FILES; i++)
        KH_TRY(
            kh_buf_format(out, "%s\"%s\": {\"bytes\": %" PRIu64 ", \"digest\": \"%016" PRIx64 "\"}",
                          i ? ", " : "", kh_checkpoint_files[i], files[i].size, files[i].digest));
    KH_TRY(kh_buf_text(out, "},\n"));
    KH_TRY(write_blobs(out, s));
    return kh_buf_format(out, " \"check\": \"%016" PRIx64 "\"}\n",
                         kh_checkpoint_digest(out->data, out->size));
}

/* ---- reading ---- */

static int hex(uint64_t *out, const json_t *value)
{
    const char *text = json_string_value(value);
    if (!text || strlen(text) != 16 || text[strspn(text, "0123456789abcdef")]) return 0;
    *out = strtoull(text, NULL, 16);
    return 1;
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static kh_status read_blob(kh_checkpoint_blob *to, const char *name, const json_t *value,
                           const char *path)
{
    const char *text = json_string_value(value);
    size_t n = text ? strlen(text) : 1;
    if (n % 2) KH_FAIL(KH_ERR_FORMAT, "%s: blob '%s' is no list of bytes", path, name);
    to->name = kh_strdup(name);
    if (!to->name) KH_FAIL(KH_ERR_MEMORY, "no memory for the state of a checkpoint");
    uint8_t *bytes;
    KH_TRY(kh_new(&bytes, n / 2 + 1, 1, "the state of a checkpoint"));
    to->data = bytes;
    to->size = n / 2;
    for (size_t i = 0; i < n / 2; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            KH_FAIL(KH_ERR_FORMAT, "%s: blob '%s' is no list of bytes", path, name);
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return KH_OK;
}

static kh_status read_blobs(kh_checkpoint_record *out, json_t *blobs, const char *path)
{
    const char *name;
    json_t *value;
    KH_TRY(kh_new(&out->blobs, json_object_size(blobs) + 1, sizeof *out->blobs,
                  "the state of a checkpoint"));
    out->state.blobs = out->blobs;
    json_object_foreach(blobs, name, value)
        KH_TRY(read_blob(&out->blobs[out->state.blob_count++], name, value, path));
    return KH_OK;
}

static kh_status read_fields(kh_checkpoint_record *out, const json_t *root, const char *path)
{
    kh_checkpoint_state *s = &out->state;
    const json_t *key = json_object_get(root, "key"), *step = json_object_get(root, "step");
    const json_t *files = json_object_get(root, "files");
    const char *library = json_string_value(json_object_get(root, "library"));
    json_int_t format = json_integer_value(json_object_get(root, "format"));
    if (format != FORMAT)
        KH_FAIL(KH_ERR_FORMAT, "%s: a checkpoint of format %d is expected, found %lld", path,
                FORMAT, (long long)format);
    s->best = (double)NAN;
    kh_json_number(json_object_get(root, "best"), &s->best);
    int good = library && json_is_integer(step) && json_integer_value(step) >= 0 &&
               hex(&s->key.seed, json_array_get(key, 0)) &&
               hex(&s->key.stream, json_array_get(key, 1)) &&
               hex(&s->config, json_object_get(root, "config"));
    for (int i = 0; i < KH_CHECKPOINT_FILES && good; i++) {
        const json_t *file = json_object_get(files, kh_checkpoint_files[i]);
        const json_t *bytes = json_object_get(file, "bytes");
        good = json_is_integer(bytes) &&
               hex(&out->files[i].digest, json_object_get(file, "digest"));
        out->files[i].size = (uint64_t)json_integer_value(bytes);
    }
    if (!good) KH_FAIL(KH_ERR_FORMAT, "%s: the state of a checkpoint is expected", path);
    s->step = (uint64_t)json_integer_value(step);
    snprintf(out->library, sizeof out->library, "%s", library);
    return read_blobs(out, json_object_get(root, "blobs"), path);
}

/* The text up to its last line must have the digest that stands there. */
static kh_status check_text(const char *text, size_t size, const char *path)
{
    static const char line[] = " \"check\": \"0123456789abcdef\"}\n";
    char expected[sizeof line];
    size_t n = sizeof line - 1, before = size > n ? size - n : 0;
    snprintf(expected, sizeof expected, " \"check\": \"%016" PRIx64 "\"}\n",
             kh_checkpoint_digest(text, before));
    if (size <= n || memcmp(text + before, expected, n) != 0)
        KH_FAIL(KH_ERR_FORMAT, "%s: damaged: its digest disagrees", path);
    return KH_OK;
}

kh_status kh_checkpoint_read_state(kh_checkpoint_record *out, const char *path)
{
    char *text;
    size_t size;
    json_t *root = NULL;
    *out = (kh_checkpoint_record){0};
    KH_TRY(kh_file_read(&text, &size, path, KH_CHECKPOINT_STATE));
    kh_status status = check_text(text, size, path);
    if (status == KH_OK) status = kh_json_parse(&root, text, size, path);
    if (status == KH_OK) status = read_fields(out, root, path);
    json_decref(root);
    kh_free(text);
    if (status != KH_OK) kh_checkpoint_record_free(out);
    return status;
}

void kh_checkpoint_record_free(kh_checkpoint_record *r)
{
    for (size_t i = 0; r->blobs && i < r->state.blob_count; i++) {
        char *name, *data;
        memcpy(&name, &r->blobs[i].name, sizeof name);
        memcpy(&data, &r->blobs[i].data, sizeof data);
        kh_free(name);
        kh_free(data);
    }
    kh_free(r->blobs);
    *r = (kh_checkpoint_record){0};
}
