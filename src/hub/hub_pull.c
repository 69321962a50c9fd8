/* From a name to files: what the cache holds, what the hub has, and what is missing between them.
 *
 * The cache is looked at first and costs no request. A hub that is asked answers with a commit and its
 * files; the same rule picks among them (hub_pick.c). What the snapshot of that commit lacks is fetched,
 * a blob that another commit has brought is only linked. The ref moves last: until then, and without a
 * network, the name means the old commit, whole.
 *
 * With KH_HUB_FALL_BACK a copy in the cache beats every failure but a stop: the hub is asked once, with
 * a short timeout, and its sentence becomes a notice. This is what -hf needs, on a train too. */
#include "hub/hub_impl.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

kh_status kh_hub_tell(kh_hub_pulling *pulling, kh_hub_stage stage)
{
    pulling->progress.stage = stage;
    const kh_hub_options *o = pulling->options;
    if (o->progress && o->progress(o->context, &pulling->progress) != 0)
        KH_FAIL(KH_ERR_STOPPED, "stopped");
    return KH_OK;
}

/* ---- the result ---- */

static kh_status copy(const char **out, const char *text)
{
    *out = kh_strdup(text);
    if (!*out) KH_FAIL(KH_ERR_MEMORY, "no memory for a name");
    return KH_OK;
}

static kh_status fill_files(kh_hub_model *m, const kh_hub_cache *cache, const kh_hub_list *list)
{
    kh_hub_file *files = NULL;
    kh_buf path = {0};
    KH_TRY(kh_new(&files, list->picked, sizeof *files, "a list of files"));
    m->files = files;
    kh_status status = KH_OK;
    for (size_t i = 0; i < list->picked && status == KH_OK; i++) {
        const kh_hub_entry *e = kh_hub_list_picked(list, i + 1);
        m->count = i + 1;
        files[i].size = e->size;
        files[i].cached = e->cached;
        m->bytes += e->size;
        if (!e->cached) m->fetched += e->size;
        status = kh_hub_cache_pointer(&path, cache, list->commit, e->name);
        if (status == KH_OK) status = copy(&files[i].path, path.data);
        if (status == KH_OK) status = copy(&files[i].name, e->name);
    }
    kh_buf_free(&path);
    return status;
}

static kh_status make_model(kh_hub_model **out, const kh_hub_cache *cache, const char *revision,
                            const kh_hub_list *list)
{
    kh_hub_model *m = NULL;
    kh_buf path = {0};
    *out = NULL;
    KH_TRY(kh_new(&m, 1, sizeof *m, "a model's files"));
    kh_status status = fill_files(m, cache, list);
    m->is_folder = list->is_folder;
    if (status == KH_OK) status = copy(&m->repository, cache->repository);
    if (status == KH_OK) status = copy(&m->revision, revision);
    if (status == KH_OK) status = copy(&m->commit, list->commit);
    if (status == KH_OK) status = copy(&m->notice, "");
    if (status == KH_OK) status = kh_hub_cache_pointer(&path, cache, list->commit, NULL);
    if (status == KH_OK) status = copy(&m->path, m->is_folder ? path.data : m->files[0].path);
    kh_buf_free(&path);
    if (status != KH_OK) {
        kh_hub_model_free(m);
        return status;
    }
    *out = m;
    return KH_OK;
}

static void drop(const char *text)
{
    char *mine;
    memcpy(&mine, &text, sizeof mine); /* const for the reader; the memory is ours */
    kh_free(mine);
}

void kh_hub_model_free(kh_hub_model *m)
{
    if (!m) return;
    for (size_t i = 0; i < m->count; i++) {
        drop(m->files[i].name);
        drop(m->files[i].path);
    }
    kh_hub_file *files;
    memcpy(&files, &m->files, sizeof files);
    kh_free(files);
    drop(m->repository);
    drop(m->revision);
    drop(m->commit);
    drop(m->path);
    drop(m->notice);
    kh_free(m);
}

/* ---- the cache alone ---- */

static kh_status from_cache(kh_hub_model **out, const kh_hub_name *name, const kh_hub_cache *cache)
{
    kh_hub_list list = {0};
    char commit[KH_HUB_COMMIT + 1];
    *out = NULL;
    kh_status status = kh_hub_cache_read_ref(cache, name->revision, commit);
    if (status == KH_OK) status = kh_hub_cache_list(&list, cache, commit);
    if (status == KH_OK) status = kh_hub_pick(&list, name);
    if (status == KH_OK) status = make_model(out, cache, name->revision, &list);
    kh_hub_list_free(&list);
    return status;
}

/* ---- with the hub ---- */

/* Which of the picked files the snapshot has already; returns how many it lacks. */
static kh_status look(kh_hub_list *list, const kh_hub_cache *cache, size_t *missing)
{
    kh_buf path = {0};
    kh_status status = KH_OK;
    struct stat info;
    *missing = 0;
    for (size_t i = 0; i < list->count && status == KH_OK; i++) {
        kh_hub_entry *e = &list->entries[i];
        if (!e->picked) continue;
        status = kh_hub_cache_pointer(&path, cache, list->commit, e->name);
        e->cached = status == KH_OK && stat(path.data, &info) == 0 && S_ISREG(info.st_mode);
        if (e->cached) {
            e->size = (uint64_t)info.st_size;
            e->sized = 1;
        }
        *missing += !e->cached;
    }
    kh_buf_free(&path);
    return status;
}

/* For the missing files: whether their blob is there, or how much of it. */
static kh_status look_for_blobs(kh_hub_list *list, const kh_hub_cache *cache, int link)
{
    kh_buf path = {0};
    kh_status status = KH_OK;
    struct stat info;
    for (size_t i = 0; i < list->count && status == KH_OK; i++) {
        kh_hub_entry *e = &list->entries[i];
        if (!e->picked || e->cached) continue;
        status = kh_hub_cache_blob(&path, cache, e->etag, "");
        if (status == KH_OK && stat(path.data, &info) == 0 && (uint64_t)info.st_size == e->size) {
            e->cached = 1;
            if (link) status = kh_hub_cache_link(cache, list->commit, e->name, e->etag);
            continue;
        }
        if (status == KH_OK) status = kh_hub_cache_blob(&path, cache, e->etag, ".incomplete");
        if (status == KH_OK && stat(path.data, &info) == 0 && (uint64_t)info.st_size <= e->size)
            e->there = (uint64_t)info.st_size;
    }
    kh_buf_free(&path);
    return status;
}

static kh_status check_space(const kh_hub_list *list, const kh_hub_cache *cache)
{
    uint64_t needed = 0, room = 0;
    for (size_t i = 0; i < list->count; i++)
        if (list->entries[i].picked && !list->entries[i].cached)
            needed += list->entries[i].size - list->entries[i].there;
    KH_TRY(kh_hub_cache_space(cache, &room));
    if (needed > room)
        KH_FAIL(KH_ERR_IO, "%s: %.1f MB are to be fetched, and the disk has room for %.1f MB",
                cache->folder.data, (double)needed / 1e6, (double)room / 1e6);
    return KH_OK;
}

static kh_status fetch_missing(kh_hub_list *list, kh_hub_pulling *pulling)
{
    kh_hub_progress *p = &pulling->progress;
    *p = (kh_hub_progress){.file = "", .reason = ""};
    for (size_t i = 0; i < list->count; i++) {
        if (!list->entries[i].picked || list->entries[i].cached) continue;
        p->count++;
        p->all_size += list->entries[i].size;
    }
    uint64_t before = 0;
    for (size_t i = 1; i <= list->picked; i++) {
        kh_hub_entry *e = kh_hub_list_picked(list, i);
        if (e->cached) continue;
        p->file = e->name;
        p->size = e->size;
        p->done = 0;
        p->all_done = before;
        KH_TRY(kh_hub_get(pulling, list->commit, e));
        before += e->size;
        p->index++;
    }
    return KH_OK;
}

static kh_status from_hub(kh_hub_model **out, kh_hub_pulling *pulling)
{
    kh_hub_list list = {0};
    const kh_hub_cache *cache = pulling->cache;
    unsigned dry = pulling->options->flags & KH_HUB_DRY;
    size_t missing = 0;
    kh_status status = kh_hub_ask(&list, pulling);
    pulling->hasty = 0; /* it answers: what is new is worth some patience */
    if (status == KH_OK) status = kh_hub_pick(&list, pulling->name);
    if (status == KH_OK) status = look(&list, cache, &missing);
    if (status == KH_OK && missing) {
        status = kh_hub_ask_sizes(&list, pulling);
        if (status == KH_OK) status = look_for_blobs(&list, cache, !dry);
        if (status == KH_OK && !dry) status = check_space(&list, cache);
    }
    /* Built before the transfer, so that `cached` says what was there. */
    if (status == KH_OK) status = make_model(out, cache, pulling->name->revision, &list);
    if (status == KH_OK && !dry) status = fetch_missing(&list, pulling);
    if (status == KH_OK && !dry) {
        kh_status moved = kh_hub_cache_write_ref(cache, pulling->name->revision, list.commit);
        if (missing) status = moved; /* a cache that may only be read serves what is in it */
    }
    if (status != KH_OK) {
        kh_hub_model_free(*out);
        *out = NULL;
    }
    kh_hub_list_free(&list);
    return status;
}

/* Takes `cached`, which may be NULL. */
static kh_status pull(kh_hub_model **out, kh_hub_pulling *pulling, kh_hub_model *cached)
{
    kh_status status = kh_http_open(&pulling->http, pulling);
    if (status == KH_OK) status = from_hub(out, pulling);
    kh_http_close(pulling->http);
    pulling->http = NULL;
    if (status == KH_OK || !cached || status == KH_ERR_STOPPED || status == KH_ERR_MEMORY) {
        kh_hub_model_free(cached);
        return status;
    }
    drop(cached->notice);
    cached->notice = NULL;
    /* A build that can never ask has nothing to say each time. */
    status = copy(&cached->notice, status == KH_ERR_UNSUPPORTED ? "" : kh_last_error());
    if (status == KH_OK)
        *out = cached;
    else
        kh_hub_model_free(cached);
    return status;
}

kh_status kh_hub_pull(kh_hub_model **out, const char *text, const kh_hub_options *given)
{
    static const kh_hub_options usual = {0};
    const kh_hub_options *options = given ? given : &usual;
    kh_hub_name name;
    kh_hub_cache cache;
    kh_hub_model *cached = NULL;
    *out = NULL;
    KH_TRY(kh_hub_name_parse(&name, text));
    KH_TRY(kh_hub_cache_open(&cache, options->cache, name.repository));
    int offline = options->flags & KH_HUB_OFFLINE || kh_hub_env_is_set("HF_HUB_OFFLINE") ||
                  kh_hub_env_is_set("TRANSFORMERS_OFFLINE");
    kh_status status = KH_OK;
    if (offline) {
        status = from_cache(out, &name, &cache);
        if (status == KH_ERR_NOT_FOUND)
            status = kh_fail(status, "%s is not in the cache (%s), and HF_HUB_OFFLINE is set", text,
                             cache.folder.data);
    } else {
        kh_hub_pulling pulling = {.options = options, .name = &name, .cache = &cache};
        pulling.progress = (kh_hub_progress){.file = "", .reason = ""};
        if (options->flags & KH_HUB_FALL_BACK) from_cache(&cached, &name, &cache);
        pulling.hasty = cached != NULL;
        status = pull(out, &pulling, cached);
    }
    kh_hub_cache_close(&cache);
    return status;
}

/* ---- what the cache holds ---- */

typedef struct visit {
    int (*each)(void *context, const kh_hub_model *model);
    void *context;
} visit;

static kh_status show(const visit *v, const kh_hub_cache *cache, const char *revision,
                      kh_hub_list *list, const char *what)
{
    kh_hub_name name = {.what = ""};
    kh_hub_model *model = NULL;
    size_t n = strlen(what);
    memcpy(name.what, what, n + 1);
    if (kh_hub_pick(list, &name) != KH_OK) return KH_OK; /* a part is missing: not a model */
    KH_TRY(make_model(&model, cache, revision, list));
    int enough = v->each(v->context, model);
    kh_hub_model_free(model);
    if (enough) KH_FAIL(KH_ERR_STOPPED, "stopped");
    return KH_OK;
}

static kh_status show_snapshot(void *context, const kh_hub_cache *cache, const char *revision,
                               const char *commit)
{
    const visit *v = context;
    kh_hub_list list = {0};
    kh_status status = kh_hub_cache_list(&list, cache, commit);
    for (size_t i = kh_hub_pick_next(&list, 0); i < list.count && status == KH_OK;
         i = kh_hub_pick_next(&list, i + 1))
        status = show(v, cache, revision, &list, list.entries[i].name);
    if (status == KH_OK) status = show(v, cache, revision, &list, "safetensors");
    kh_hub_list_free(&list);
    return status;
}

kh_status kh_hub_cached(const kh_hub_options *options,
                        int (*each)(void *context, const kh_hub_model *model), void *context)
{
    visit v = {each, context};
    kh_status status = kh_hub_cache_walk(options ? options->cache : NULL, show_snapshot, &v);
    return status == KH_ERR_STOPPED ? KH_OK : status;
}
