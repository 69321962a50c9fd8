/* Opening a Hugging Face folder.
 *
 *     FOLDER/config.json                    numbers, and which family
 *            1_Pooling/config.json          how an encoder's rows become one vector
 *            model.safetensors              weights, or
 *            model.safetensors.index.json   the names of several files of them
 *
 * The result is one object, the same that opening a GGUF file gives: values under GGUF's keys and
 * tensors under GGUF's names, so nothing above knows where a model came from, and writing that object
 * is the conversion. What a family's folders look like is data (kh_hf_map in families/); this reader
 * and its siblings follow the tables:
 *
 *     hf_folder.c   files, family                 hf_rope.c       theta, scaling, factors
 *     hf_config.c   config.json -> values         hf_tensors.c    names, shapes, copies
 *
 * Tokens are not looked at here: tokenizer.json and the files about ids are the tokenizer's.
 *
 * Mappings pass to the composed file, so a tensor's pages can be released as those of a GGUF file.
 * Nothing of the folder is executed or followed elsewhere: names of shards are plain, pickles are not
 * read, code is not looked at. */
#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "model/hf_impl.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_CONFIG = 16 << 20 };

int kh_hf_next_word(const char **list, const char **word, size_t *size)
{
    if (!*list) return 0;
    const char *bar = strchr(*list, '|');
    *word = *list;
    *size = bar ? (size_t)(bar - *list) : strlen(*list);
    *list = bar ? bar + 1 : NULL;
    return 1;
}

int kh_hf_has_word(const char *list, const char *word)
{
    const char *one;
    size_t size;
    while (kh_hf_next_word(&list, &one, &size))
        if (strlen(word) == size && memcmp(one, word, size) == 0) return 1;
    return 0;
}

static int is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

static int ends_with(const char *path, const char *tail)
{
    size_t n = strlen(path), m = strlen(tail);
    return n > m && strcmp(path + n - m, tail) == 0;
}

int kh_hf_is(const char *path)
{
    return ends_with(path, ".safetensors") || ends_with(path, ".safetensors.index.json") ||
           is_folder(path);
}

/* FOLDER/name; freed with kh_free. */
static kh_status inside(char **out, const kh_hf *hf, const char *name)
{
    kh_buf path = {0};
    kh_status status = kh_buf_format(&path, "%s%s", hf->folder, name);
    *out = path.data;
    return status;
}

kh_status kh_hf_folder_of(char **out, const char *path)
{
    const char *slash = strrchr(path, '/');
    kh_buf folder = {0};
    kh_status status;
    if (is_folder(path))
        status = kh_buf_format(&folder, "%s%s", path, ends_with(path, "/") ? "" : "/");
    else
        status = kh_buf_format(&folder, "%.*s", slash ? (int)(slash - path + 1) : 2,
                               slash ? path : "./");
    *out = folder.data;
    return status;
}

static kh_status read_config_file(kh_hf *hf)
{
    KH_TRY(inside(&hf->config, hf, "config.json"));
    if (access(hf->config, F_OK) != 0)
        KH_FAIL(KH_ERR_NOT_FOUND,
                "%s: there is no such file; a Hugging Face folder has config.json beside its "
                "weights",
                hf->config);
    KH_TRY(kh_json_read(&hf->root, hf->config, MAX_CONFIG));
    if (!json_is_object(hf->root))
        KH_FAIL(KH_ERR_FORMAT, "%s: an object is expected, found %s", hf->config,
                kh_json_kind(hf->root));
    json_t *text = kh_json_get(hf->root, "text_config");
    hf->text = json_is_object(text) ? text : hf->root;
    if (kh_json_get(hf->root, "quantization_config"))
        KH_FAIL(KH_ERR_UNSUPPORTED,
                "%s: quantization_config: weights in F32, F16 or BF16 are expected, these are "
                "quantised by another method",
                hf->config);
    return KH_OK;
}

/* ---- the family ---- */

static const char *first_architecture(const kh_hf *hf)
{
    const char *name = json_string_value(json_array_get(kh_json_get(hf->root, "architectures"), 0));
    return name ? name : "";
}

/* Of the maps of this model type the one that names the class, else the first that takes all. */
static const kh_family *choose(const kh_hf_map **map, const char *type, const char *class)
{
    const kh_family *family, *found = NULL;
    for (size_t i = 0; (family = kh_family_at(i)); i++)
        for (const kh_hf_map *m = family->hf; m; m = m->next) {
            if (!kh_hf_has_word(m->model_types, type)) continue;
            int named = kh_hf_has_word(m->architectures, class);
            if (!named && (found || (m->flags & KH_HF_EXACT))) continue;
            found = family;
            *map = m;
            if (named) return found;
        }
    return found;
}

static kh_status known_types(kh_buf *out)
{
    const kh_family *family;
    const char *word;
    size_t size;
    for (size_t i = 0; (family = kh_family_at(i)); i++)
        for (const kh_hf_map *m = family->hf; m; m = m->next)
            for (const char *list = m->model_types; kh_hf_next_word(&list, &word, &size);) {
                if (out->data && strstr(out->data, word) && (m->flags & KH_HF_EXACT)) continue;
                KH_TRY(kh_buf_format(out, "%s%.*s", out->size ? ", " : "", (int)size, word));
            }
    return KH_OK;
}

static kh_status find_family(kh_hf *hf)
{
    const json_t *value = kh_hf_field(hf, "model_type");
    const char *type = json_string_value(value);
    if (!type)
        KH_FAIL(KH_ERR_FORMAT, "%s: model_type: a string is expected, found %s", hf->config,
                kh_json_kind(value));
    hf->family = choose(&hf->map, type, first_architecture(hf));
    if (hf->family) return KH_OK;
    kh_buf known = {0};
    kh_status status = known_types(&known);
    if (status == KH_OK)
        status = kh_fail(KH_ERR_UNSUPPORTED,
                         "%s: model_type \"%.60s\" is not supported (known: %s)", hf->config, type,
                         known.data ? known.data : "none");
    kh_buf_free(&known);
    return status;
}

/* ---- weights ---- */

/* "model-00002-of-00003.safetensors": a part, which the index completes. */
static int is_shard(const char *path)
{
    unsigned part, count;
    const char *of = strstr(path, "-of-");
    while (of && strstr(of + 1, "-of-")) of = strstr(of + 1, "-of-");
    return of && of - path >= 6 && sscanf(of - 6, "-%5u-of-%5u.", &part, &count) == 2;
}

static kh_status open_weights(kh_hf *hf, const char *path)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json"};
    char *file = NULL;
    if (!is_folder(path) && !is_shard(path)) return kh_safetensors_open(&hf->weights, path);
    for (size_t i = 0; i < 2; i++) {
        if (i == 0 && is_shard(path)) continue;
        KH_TRY(inside(&file, hf, names[i]));
        int there = access(file, F_OK) == 0;
        kh_status status = there ? kh_safetensors_open(&hf->weights, file) : KH_OK;
        kh_free(file);
        if (there) return status;
    }
    KH_TRY(inside(&file, hf, "pytorch_model.bin"));
    int pickled = access(file, F_OK) == 0;
    kh_free(file);
    KH_FAIL(KH_ERR_NOT_FOUND, "%s: neither model.safetensors nor model.safetensors.index.json%s",
            hf->folder, pickled ? "; pytorch_model.bin is there, but pickles are not read" : "");
}

/* What a folder is called: its last part, or in a hub's cache, where that is a commit, the model of
 * .../models--OWNER--MODEL/snapshots/COMMIT. */
static kh_slice folder_name(const char *folder)
{
    static const char snapshots[] = "/snapshots/";
    size_t end = strlen(folder) - 1, at = end;
    while (at > 0 && folder[at - 1] != '/') at--;
    size_t skip = strlen(snapshots);
    if (at > skip && memcmp(folder + at - skip, snapshots, skip) == 0) {
        size_t model = end = at - skip;
        while (model > 0 && folder[model - 1] != '/' &&
               !(model > 1 && folder[model - 1] == '-' && folder[model - 2] == '-'))
            model--;
        at = model;
    }
    return (kh_slice){folder + at, end - at};
}

static kh_status begin_file(kh_hf *hf, const char *path)
{
    KH_TRY(kh_gguf_new(&hf->file, path));
    KH_TRY(kh_gguf_set_string(hf->file, "general.architecture",
                              (kh_slice){hf->family->name, strlen(hf->family->name)}));
    kh_slice name = folder_name(hf->folder);
    if (name.size == 0 || name.data[0] == '.') return KH_OK;
    return kh_gguf_set_string(hf->file, "general.name", name);
}

static kh_status read_folder(kh_hf *hf, const char *path)
{
    KH_TRY(kh_hf_folder_of(&hf->folder, path));
    KH_TRY(read_config_file(hf));
    KH_TRY(find_family(hf));
    KH_TRY(open_weights(hf, path));
    size_t count = kh_safetensors_count(hf->weights);
    KH_TRY(kh_new(&hf->used, count, sizeof *hf->used, "the tensors of a folder"));
    KH_TRY(begin_file(hf, path));
    KH_TRY(kh_hf_read_config(hf));
    KH_TRY(kh_hf_read_tensors(hf));
    KH_TRY(kh_hf_read_rope(hf));
    return kh_safetensors_give_maps(hf->weights, hf->file);
}

kh_status kh_hf_open(kh_gguf **out, const char *path)
{
    kh_hf hf = {0};
    *out = NULL;
    kh_status status = read_folder(&hf, path);
    if (status == KH_OK) {
        *out = hf.file;
        hf.file = NULL;
    }
    kh_gguf_close(hf.file);
    kh_safetensors_close(hf.weights);
    json_decref(hf.root);
    kh_free(hf.used);
    kh_free(hf.config);
    kh_free(hf.folder);
    return status;
}
