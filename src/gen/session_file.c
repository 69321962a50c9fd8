/* A read prompt on disk.
 *
 *     "KHPROMPT" | version | size of the head | head: identity, cache types, setting | token count |
 *     tokens (int32) | keys and values as kv/kv.h writes them
 *
 * All numbers are little-endian 64 bits. The file is written beside its name and renamed when whole, so
 * a full disk or a kill leaves the old one. What is read is never trusted: identity, setting and types
 * must equal the session's, counts must fit, ids must exist; only then are pages filled, in a cache of
 * their own that replaces the session's when everything was good. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "gen/engine.h"

#include <string.h>

static const char magic[8] = {'K', 'H', 'P', 'R', 'O', 'M', 'P', 'T'};
enum { VERSION = 1 };

typedef struct fixed_head {
    char magic[8];
    uint64_t version, head_size, tokens;
} fixed_head;

/* What must be equal for keys and values to mean the same. */
static kh_status describe(kh_buf *out, const kh_session *s)
{
    const kh_engine *e = s->engine;
    const kh_kv_shape *shape = kh_kv_pool_shape(e->pages);
    int dense = kh_ff_plan_is_dense(e->ff);
    if (e->encoder)
        KH_FAIL(KH_ERR_UNSUPPORTED, "what a %s model made of its source cannot be kept in a file",
                e->model->architecture);
    return kh_buf_format(out, "model %s; keys %s, values %s%s; attention %s; %s%s%s%s",
                         e->model->identity, kh_type_name(shape->k_type),
                         kh_type_name(shape->v_type), kh_engine_beyond(e) ? ", long positions" : "",
                         kh_attn_plan_text(e->plan), dense ? "" : "feed-forward ",
                         dense ? "" : kh_ff_plan_text(e->ff), dense ? "" : "; ",
                         e->compute == KH_COMPUTE_F32  ? "weights unpacked to f32"
                         : e->compute == KH_COMPUTE_Q8 ? "activations in 8 bits"
                                                       : "activations in f32");
}

static kh_status write_parts(const kh_session *s, kh_outfile *file, const kh_buf *head)
{
    size_t n = kh_session_length(s);
    fixed_head fixed = {.version = VERSION, .head_size = head->size, .tokens = n};
    memcpy(fixed.magic, magic, sizeof magic);
    KH_TRY(kh_outfile_write(file, &fixed, sizeof fixed));
    KH_TRY(kh_outfile_write(file, head->data, head->size));
    KH_TRY(kh_outfile_write(file, s->tokens, n * sizeof *s->tokens));
    return kh_kv_save(s->kv, file);
}

kh_status kh_session_save(const kh_session *s, const char *path)
{
    kh_buf head = {0};
    kh_outfile *file = NULL;
    kh_status status = describe(&head, s);
    if (status == KH_OK) status = kh_outfile_open(&file, path);
    if (status == KH_OK) status = write_parts(s, file, &head);
    if (status == KH_OK)
        status = kh_outfile_commit(file);
    else
        kh_outfile_abandon(file);
    kh_buf_free(&head);
    return status;
}

static kh_status load(kh_session *s, const kh_map *map, const char *path)
{
    fixed_head fixed;
    if (map->size < sizeof fixed || memcmp(map->data, magic, sizeof magic) != 0)
        KH_FAIL(KH_ERR_FORMAT, "%s: not a saved prompt of keyhole", path);
    memcpy(&fixed, map->data, sizeof fixed);
    size_t at = sizeof fixed, left = map->size - at;
    if (fixed.version != VERSION)
        KH_FAIL(KH_ERR_FORMAT, "%s: version %llu of a saved prompt, expected %d", path,
                (unsigned long long)fixed.version, VERSION);
    if (fixed.head_size > left || fixed.tokens > (left - fixed.head_size) / sizeof(int32_t))
        KH_FAIL(KH_ERR_FORMAT, "%s: the saved prompt is cut off", path);
    kh_buf head = {0};
    kh_status status = describe(&head, s);
    if (status == KH_OK &&
        (head.size != fixed.head_size || memcmp(head.data, map->data + at, head.size) != 0))
        status = kh_fail(KH_ERR_FORMAT, "%s: saved for \"%.*s\", this session is \"%s\"", path,
                         (int)(fixed.head_size < 300 ? fixed.head_size : 300),
                         (const char *)map->data + at, head.data);
    kh_buf_free(&head);
    KH_TRY(status);
    at += fixed.head_size;
    if (fixed.tokens > s->engine->context)
        KH_FAIL(KH_ERR_CONTEXT, "%s: %llu tokens were saved, the context holds %zu", path,
                (unsigned long long)fixed.tokens, s->engine->context);
    const uint8_t *ids = map->data + at;
    at += fixed.tokens * sizeof(int32_t);
    for (size_t i = 0; i < fixed.tokens; i++) {
        int32_t id;
        memcpy(&id, ids + i * sizeof id, sizeof id);
        if (id < 0 || id >= s->engine->model->d.V)
            KH_FAIL(KH_ERR_FORMAT, "%s: the saved prompt holds an unknown token", path);
    }
    kh_kv *kv = NULL;
    size_t used = 0;
    KH_TRY(kh_kv_rewind(s->kv, 0));
    s->has_logits = 0;
    KH_TRY(kh_kv_open(&kv, s->engine->pages, s->engine->context));
    status = kh_kv_load(kv, map->data + at, map->size - at, &used);
    if (status == KH_OK && kh_kv_length(kv) != fixed.tokens)
        status = kh_fail(KH_ERR_FORMAT, "the number of keys differs from the number of tokens");
    if (status != KH_OK) {
        kh_kv_close(kv);
        return kh_fail_context(status, "%s", path);
    }
    kh_kv_close(s->kv);
    s->kv = kv;
    memcpy(s->tokens, ids, fixed.tokens * sizeof(int32_t));
    return KH_OK;
}

kh_status kh_session_load(kh_session *s, const char *path)
{
    kh_map map;
    KH_TRY(kh_map_open(&map, path));
    kh_status status = load(s, &map, path);
    kh_map_close(&map);
    return status;
}
