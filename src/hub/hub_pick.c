/* Which files of a repository a name means.
 *
 * The same rule reads the list of a server and the listing of a snapshot, so the cache answers without
 * a network as the hub did. GGUF files are chosen as llama.cpp's -hf does it (read in its
 * common/download.cpp): a tag is looked for in the file's path in any case, followed by "." or "-";
 * without one Q4_K_M, then Q8_0, then the first file; never a projector, an importance matrix or a
 * draft head. One addition: a hit that begins a word goes first, so that Q4_0 does not find IQ4_0.
 * Parts of a split file belong together, and all must be there.
 *
 * A folder is what opening it needs and no more: weights in one set of safetensors (the set of the
 * index where there is one; many repositories hold a second copy in another layout), configuration,
 * tokenizer, chat templates, and how a sentence encoder pools. */
#include "hub/hub_impl.h"

#include "base/fail.h"

#include <ctype.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcasecmp(text + n - m, end) == 0;
}

static int is_model(const char *path)
{
    static const char *const others[] = {"mmproj",  "imatrix", "mtp-",
                                         "eagle3-", "dflash-", "dspark-"};
    if (!ends_with(path, ".gguf")) return 0;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strstr(base_name(path), others[i])) return 0;
    return 1;
}

typedef struct part {
    size_t prefix; /* bytes in front of "-00001-of-00003.gguf" */
    int index, count;
} part;

/* A file that is not split is part 1 of 1. */
static part split_of(const char *path)
{
    enum { TAIL = 20 }; /* "-00001-of-00003.gguf" */
    size_t n = strlen(path);
    part whole = {n, 1, 1};
    if (n <= TAIL) return whole;
    const char *tail = path + n - TAIL;
    static const char form[] = "-ddddd-of-ddddd.gguf";
    for (size_t i = 0; i < TAIL; i++)
        if (form[i] == 'd' && i < 15 ? !isdigit((unsigned char)tail[i])
                                     : tolower((unsigned char)tail[i]) != form[i])
            return whole;
    part p = {n - TAIL, (int)strtol(tail + 1, NULL, 10), (int)strtol(tail + 10, NULL, 10)};
    return p.count > 0 && p.index > 0 && p.index <= p.count ? p : whole;
}

/* The tag in the path, followed by "." or "-"; at the start of a word if `strict`. */
static int has_tag(const char *path, const char *tag, int strict)
{
    size_t n = strlen(tag);
    for (const char *at = path; (at = strcasestr(at, tag)); at++) {
        if (at[n] != '.' && at[n] != '-') continue;
        if (!strict || at == path || !isalnum((unsigned char)at[-1])) return 1;
    }
    return 0;
}

/* The first file that begins a model and has the tag (NULL: any); NULL if none. */
static kh_hub_entry *find_tag(kh_hub_list *list, const char *tag)
{
    for (int strict = tag != NULL; strict >= 0; strict--)
        for (size_t i = 0; i < list->count; i++) {
            kh_hub_entry *e = &list->entries[i];
            if (is_model(e->name) && split_of(e->name).index == 1 &&
                (!tag || has_tag(e->name, tag, strict)))
                return e;
        }
    return NULL;
}

/* Marks a file, and the other parts of a split one; of two files that are the same part, the first. */
static kh_status pick_parts(kh_hub_list *list, const kh_hub_entry *first)
{
    enum { MOST_PARTS = 1000 };
    unsigned char taken[MOST_PARTS + 1] = {0};
    part p = split_of(first->name);
    if (p.count > MOST_PARTS)
        KH_FAIL(KH_ERR_FORMAT, "%s: at most %d parts are expected", first->name, (int)MOST_PARTS);
    for (size_t i = 0; i < list->count; i++) {
        kh_hub_entry *e = &list->entries[i];
        part q = split_of(e->name);
        if (q.count != p.count || q.prefix != p.prefix || taken[q.index] ||
            memcmp(e->name, first->name, p.prefix) != 0)
            continue;
        taken[q.index] = 1;
        e->picked = q.index;
        list->picked++;
    }
    if (list->picked != (size_t)p.count)
        KH_FAIL(KH_ERR_NOT_FOUND, "%s: %d parts are expected, found %zu", first->name, p.count,
                list->picked);
    return KH_OK;
}

static void pick_one(kh_hub_list *list, kh_hub_entry *entry)
{
    if (!entry->picked) entry->picked = (int)++list->picked;
}

static size_t pick_pattern(kh_hub_list *list, const char *pattern)
{
    size_t found = 0;
    for (size_t i = 0; i < list->count; i++) {
        if (fnmatch(pattern, list->entries[i].name, FNM_PATHNAME) != 0) continue;
        pick_one(list, &list->entries[i]);
        found++;
    }
    return found;
}

static kh_status pick_folder(kh_hub_list *list)
{
    /* In this order each is a whole set of weights; the first that is there is taken. */
    static const char *const weights[] = {"model-*-of-*.safetensors", "model.safetensors",
                                          "*.safetensors"};
    static const char *const others[] = {"model.safetensors.index.json",
                                         "config.json",
                                         "generation_config.json",
                                         "tokenizer.json",
                                         "tokenizer_config.json",
                                         "tokenizer.model",
                                         "special_tokens_map.json",
                                         "added_tokens.json",
                                         "vocab.json",
                                         "vocab.txt",
                                         "merges.txt",
                                         "spiece.model",
                                         "sentencepiece.bpe.model",
                                         "chat_template.*",
                                         "additional_chat_templates/*.jinja",
                                         "modules.json",
                                         "sentence_bert_config.json",
                                         "config_sentence_transformers.json",
                                         "[0-9]_Pooling/config.json"};
    size_t sets = sizeof weights / sizeof *weights, found = 0;
    size_t first = kh_hub_list_find(list, "model.safetensors.index.json") ? 0 : 1;
    for (size_t i = first; i < sets && !found; i++) found = pick_pattern(list, weights[i]);
    if (!found) KH_FAIL(KH_ERR_NOT_FOUND, "no file of safetensors");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) pick_pattern(list, others[i]);
    list->is_folder = 1;
    return KH_OK;
}

/* "; there are: a.gguf, b.gguf, ..." */
static void name_some(char *out, size_t room, const kh_hub_list *list, int models)
{
    size_t used = 0, shown = 0, more = 0;
    out[0] = 0;
    for (size_t i = 0; i < list->count; i++) {
        const char *name = list->entries[i].name;
        if (models && (!is_model(name) || split_of(name).index != 1)) continue;
        if (shown == 12 || used + strlen(name) + 32 > room) {
            more++;
            continue;
        }
        int n = snprintf(out + used, room - used, "%s%s", shown++ ? ", " : "; there are: ", name);
        used += n > 0 ? (size_t)n : 0;
    }
    if (more) snprintf(out + used, room - used, " and %zu more", more);
}

kh_status kh_hub_pick(kh_hub_list *list, const kh_hub_name *name)
{
    static const char *const usual[] = {"Q4_K_M", "Q8_0", NULL /* any */};
    char some[640];
    const char *what = name->what;
    list->picked = 0;
    list->is_folder = 0;
    for (size_t i = 0; i < list->count; i++) list->entries[i].picked = 0;

    kh_hub_entry *found = *what ? kh_hub_list_find(list, what) : NULL;
    if (found && is_model(what)) return pick_parts(list, found);
    if (found) {
        pick_one(list, found);
        return KH_OK;
    }
    if (strcasecmp(what, "latest") == 0) what = "";
    if (*what && strcasecmp(what, "safetensors") != 0) {
        for (size_t i = 0; i < list->count && !found; i++)
            if (strcasecmp(list->entries[i].name, what) == 0) found = &list->entries[i];
        if (!found && !ends_with(what, ".gguf")) found = find_tag(list, what);
        if (found) return pick_parts(list, found);
        name_some(some, sizeof some, list, find_tag(list, NULL) != NULL);
        KH_FAIL(KH_ERR_NOT_FOUND, "%s: no file or quantisation is called '%.80s'%s",
                name->repository, what, some);
    }
    for (size_t i = 0; !*what && i < 3 && !found; i++) found = find_tag(list, usual[i]);
    if (found) return pick_parts(list, found);
    if (pick_folder(list) == KH_OK) return KH_OK;
    name_some(some, sizeof some, list, 0);
    KH_FAIL(KH_ERR_NOT_FOUND, "%s: a GGUF file or weights in safetensors are expected%s",
            name->repository, some);
}

size_t kh_hub_pick_next(kh_hub_list *list, size_t from)
{
    for (size_t i = from; i < list->count; i++)
        if (is_model(list->entries[i].name) && split_of(list->entries[i].name).index == 1) return i;
    return list->count;
}
