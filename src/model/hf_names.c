/* Names of one tensor: the folder's and GGUF's, by the table of a family.
 *
 * Opening a folder walks the table and asks for names; here a single name asks for its row, in either
 * direction: writing a folder, and adapters, which hold a few tensors of a model. */
#include "model/hf_impl.h"

#include <stdio.h>
#include <string.h>

/* Does `name` begin with the pattern, whose '#' is the layer and '@' any number? What is behind it, or NULL. */
static const char *match(const char *pattern, const char *name, uint64_t *layer)
{
    for (; *pattern; pattern++) {
        if (*pattern != '#' && *pattern != '@') {
            if (*name++ != *pattern) return NULL;
            continue;
        }
        uint64_t number = 0;
        if (*name < '0' || *name > '9') return NULL;
        for (; *name >= '0' && *name <= '9'; name++)
            if (number < 1 << 20) number = 10 * number + (uint64_t)(*name - '0');
        if (*pattern == '#') *layer = number;
    }
    return name;
}

const kh_hf_tensor *kh_hf_row_of_module(const kh_hf_map *map, const char *module, uint64_t *layer)
{
    for (const kh_hf_tensor *row = map->tensors; row->from; row++) {
        const char *list = map->prefixes, *prefix;
        size_t size;
        if (!row->to || (row->flags & KH_HF_ONLY_BIAS)) continue;
        while (kh_hf_next_word(&list, &prefix, &size)) {
            if (strncmp(module, prefix, size) != 0) continue;
            const char *rest = match(row->from, module + size, layer);
            if (rest && !*rest) return row;
        }
    }
    return NULL;
}

/* Is there a gate beside this "...ffn_up"? */
static int has_gate(const kh_gguf *file, const char *up)
{
    char gate[KH_HF_NAME + 16];
    const char *at = strstr(up, "ffn_up");
    if (!at || (size_t)(at - up) > KH_HF_NAME) return 0;
    memcpy(gate, up, (size_t)(at - up));
    memcpy(gate + (at - up), "ffn_gate.weight", 16);
    return kh_gguf_tensor(file, gate) != NULL;
}

int kh_hf_row_is_written(const kh_gguf *file, const kh_hf_tensor *row, const char *tensor)
{
    if (row->flags & KH_HF_AGAIN) return 0;
    return !(row->flags & KH_HF_UNGATED) || !has_gate(file, tensor);
}

const kh_hf_tensor *kh_hf_row_of_tensor(const kh_gguf *file, const kh_hf_map *map,
                                        const char *tensor, uint64_t *layer)
{
    for (const kh_hf_tensor *row = map->tensors; row->from; row++) {
        if (!row->to || (row->flags & KH_HF_ONLY_BIAS)) continue;
        const char *rest = match(row->to, tensor, layer);
        if (rest && strcmp(rest, ".weight") == 0 && kh_hf_row_is_written(file, row, tensor))
            return row;
    }
    return NULL;
}

void kh_hf_written_name(char out[2 * KH_HF_NAME], const kh_hf_map *map, const kh_hf_tensor *row,
                        uint64_t layer, uint64_t expert, const char *suffix)
{
    char name[KH_HF_NAME];
    const char *list = map->prefixes, *prefix = "";
    size_t size = 0;
    int outside = (row->flags & KH_HF_HEAD) || strncmp(row->from, "cls.", 4) == 0 ||
                  strncmp(row->from, "qa_", 3) == 0 || strncmp(row->from, "vocab_", 6) == 0 ||
                  strncmp(row->from, "classifier", 10) == 0;
    if (!outside) kh_hf_next_word(&list, &prefix, &size);
    kh_hf_expand(name, row->from, layer, expert, suffix);
    snprintf(out, 2 * KH_HF_NAME, "%.*s%s", (int)size, prefix, name);
}

/* Whether the model has the tensors outside of layers that the form always has. */
static int has_all(const kh_gguf *file, const kh_hf_map *map)
{
    char name[KH_HF_NAME];
    for (const kh_hf_tensor *row = map->tensors; row->from; row++) {
        if (!row->to || strchr(row->to, '#') || (row->flags & ~(unsigned)KH_HF_BIAS)) continue;
        kh_hf_expand(name, row->to, 0, 0, ".weight");
        if (!kh_gguf_tensor(file, name)) return 0;
    }
    return 1;
}

const kh_hf_map *kh_hf_written_map(const kh_family *family, const kh_description *d,
                                   const kh_gguf *file)
{
    const kh_hf_map *last = NULL;
    int classes = kh_gguf_tensor(file, "cls.output.weight") != NULL;
    for (const kh_hf_map *map = family->hf; map; map = map->next) {
        if ((d->experts.count > 0) != ((map->flags & KH_HF_MIXTURE) != 0)) continue;
        if (classes != ((map->flags & KH_HF_CLASSES) != 0)) continue;
        if (!last) last = map;
        if (map->next && !has_all(file, map)) continue;
        if (d->window == 0 || map->window_period != 0) return map;
    }
    return last;
}
