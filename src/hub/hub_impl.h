/* hub/hub_impl.h: names, lists, the cache and the transfers behind <keyhole/hub.h>.
 *
 *     name ──parse──> repository, revision, what
 *     server ──list──> commit, files ──pick──> files ──get──> blobs, links, ref
 *     cache  ──list──> files ──pick──> paths
 *
 * Everything that comes from a server is checked here before it becomes part of a path. */
#ifndef KH_HUB_HUB_IMPL_H
#define KH_HUB_HUB_IMPL_H

#include "base/buf.h"

#include <keyhole/hub.h>
#include <stddef.h>
#include <stdint.h>

enum {
    KH_HUB_COMMIT = 40,       /* hexadecimal digits of a commit */
    KH_HUB_MOST_ETAG = 128,   /* bytes; 40 or 64 hexadecimal digits on the hub */
    KH_HUB_MOST_PATH = 1024,  /* bytes of a file's name */
    KH_HUB_MOST_FILES = 50000 /* of a repository */
};
#define KH_HUB_MOST_SIZE ((int64_t)1 << 50) /* bytes of a file */

/* ---- names (hub_name.c) ---- */

typedef struct kh_hub_name {
    char repository[200]; /* "owner/model" */
    char revision[200];   /* "main" */
    char what[KH_HUB_MOST_PATH + 1];
} kh_hub_name;
kh_status kh_hub_name_parse(kh_hub_name *out, const char *text);

/* Whether a file's name stays inside its folder and can be shown: relative, no empty part, no "." or
 * "..", no control characters, no part over 240 bytes. */
int kh_hub_file_is_safe(const char *name);
/* Whether `text` is exactly `digits` small hexadecimal digits. */
int kh_hub_is_hex(const char *text, size_t digits);
/* Whether an etag can be the name of a blob: letters, digits, "-", "_", "." inside. */
int kh_hub_etag_is_safe(const char *etag);

/* ---- lists (hub_name.c) ---- */

typedef struct kh_hub_entry {
    char *name;
    char etag[KH_HUB_MOST_ETAG + 1]; /* "" while unknown */
    uint64_t size;
    int sized;      /* the size is known */
    int picked;     /* place among the picked ones, from 1; 0: not picked */
    int cached;     /* whole, in the snapshot */
    uint64_t there; /* bytes that an interrupted pull has left */
} kh_hub_entry;

typedef struct kh_hub_list {
    char commit[KH_HUB_COMMIT + 1];
    kh_hub_entry *entries; /* [count] */
    size_t count, room;
    size_t picked; /* how many */
    int is_folder; /* what was picked is a folder, not a GGUF file */
} kh_hub_list;
/* Refuses names that are not safe. */
kh_status kh_hub_list_add(kh_hub_list *list, const char *name);
kh_hub_entry *kh_hub_list_find(kh_hub_list *list, const char *name);
/* The entry at a place, from 1. */
kh_hub_entry *kh_hub_list_picked(const kh_hub_list *list, size_t place);
void kh_hub_list_free(kh_hub_list *list);

/* Marks the files that a name means (hub_pick.c). Failures say what there is instead. */
kh_status kh_hub_pick(kh_hub_list *list, const kh_hub_name *name);
/* For listing: the first file, from `from`, that begins a model; count if none. */
size_t kh_hub_pick_next(kh_hub_list *list, size_t from);

/* ---- the cache (hub_cache.c) ---- */

typedef struct kh_hub_cache {
    kh_buf root;   /* .../hub */
    kh_buf folder; /* .../hub/models--owner--model */
    char repository[200];
} kh_hub_cache;
/* Touches nothing on disk. */
kh_status kh_hub_cache_open(kh_hub_cache *cache, const char *root, const char *repository);
void kh_hub_cache_close(kh_hub_cache *cache);
/* $HF_HOME, $XDG_CACHE_HOME/huggingface, ~/.cache/huggingface. */
kh_status kh_hub_home(kh_buf *out);
/* Whether an environment variable says yes as the hub's other clients read it. */
int kh_hub_env_is_set(const char *name);

/* Paths; each replaces what `out` holds. */
kh_status kh_hub_cache_blob(kh_buf *out, const kh_hub_cache *cache, const char *etag,
                            const char *suffix);
kh_status kh_hub_cache_pointer(kh_buf *out, const kh_hub_cache *cache, const char *commit,
                               const char *file /* NULL: the folder */);

/* The commit of a branch or tag: KH_ERR_NOT_FOUND where the cache knows none. */
kh_status kh_hub_cache_read_ref(const kh_hub_cache *cache, const char *revision, char *commit);
kh_status kh_hub_cache_write_ref(const kh_hub_cache *cache, const char *revision,
                                 const char *commit);
/* Adds the files of a snapshot, in order of their names, with their sizes. */
kh_status kh_hub_cache_list(kh_hub_list *list, const kh_hub_cache *cache, const char *commit);
/* Makes snapshots/COMMIT/FILE point to a blob, in one step. */
kh_status kh_hub_cache_link(const kh_hub_cache *cache, const char *commit, const char *file,
                            const char *etag);
/* Makes the folders that a blob needs. */
kh_status kh_hub_cache_prepare(const kh_hub_cache *cache);
/* Takes the lock of a blob if nobody has it: *fd is -1 where somebody does. */
kh_status kh_hub_cache_try_lock(int *fd, const kh_hub_cache *cache, const char *etag);
void kh_hub_cache_unlock(int fd);
/* Bytes that may still be written there. */
kh_status kh_hub_cache_space(const kh_hub_cache *cache, uint64_t *bytes);
/* Calls `each` for every snapshot of a cache, in order of the repositories' names. */
typedef kh_status kh_hub_visit(void *context, const kh_hub_cache *cache, const char *revision,
                               const char *commit);
kh_status kh_hub_cache_walk(const char *root, kh_hub_visit *each, void *context);

/* ---- answers of a hub (hub_json.c) ---- */

/* Sets the commit and adds the files. */
kh_status kh_hub_parse_model(kh_hub_list *list, const char *json, size_t size);
/* Sets size and etag of the picked files that it names and that lack them. */
kh_status kh_hub_parse_tree(kh_hub_list *list, const char *json, size_t size);

/* ---- the network (hub_http.c, hub_list.c, hub_get.c; hub_none.c without libcurl) ---- */

/* What one pull needs to talk to a hub. */
typedef struct kh_http kh_http;
typedef struct kh_hub_pulling {
    const kh_hub_options *options;
    const kh_hub_name *name;
    const kh_hub_cache *cache;
    kh_http *http;
    int hasty; /* there is something to fall back on: one try, a short timeout */
    kh_hub_progress progress;
} kh_hub_pulling;

/* Tells the caller of kh_hub_pull; KH_ERR_STOPPED when he has had enough. */
kh_status kh_hub_tell(kh_hub_pulling *pulling, kh_hub_stage stage);

kh_status kh_http_open(kh_http **out, kh_hub_pulling *pulling);
void kh_http_close(kh_http *http);
/* "libcurl 7.88.1, OpenSSL 3.0.19", or "" in a build without. */
const char *kh_http_libraries(void);

/* Commit and files of the revision. */
kh_status kh_hub_ask(kh_hub_list *list, kh_hub_pulling *pulling);
/* Size and etag of the picked files that lack them. */
kh_status kh_hub_ask_sizes(kh_hub_list *list, kh_hub_pulling *pulling);
/* Brings one file into the cache, whole and checked. */
kh_status kh_hub_get(kh_hub_pulling *pulling, const char *commit, kh_hub_entry *entry);

#endif
