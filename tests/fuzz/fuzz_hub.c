/* Fuzz target of what a hub sends: a model's name, the answer with its files and the list of sizes,
 * separated by zero bytes. What is accepted stays inside the cache: every name, etag and commit. */
#include "base/alloc.h"
#include "hub/hub_impl.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int good)
{
    if (!good) abort();
}

/* What may become part of a path. */
static void inside(const char *path)
{
    must(path[0] != 0 && path[0] != '/' && strcmp(path, "..") != 0 && strcmp(path, ".") != 0);
    must(strncmp(path, "../", 3) != 0 && !strstr(path, "/../") && !strstr(path, "//"));
    size_t n = strlen(path);
    must(n < 3 || strcmp(path + n - 3, "/..") != 0);
    for (; *path; path++) must((unsigned char)*path >= 0x20);
}

static void check(kh_hub_list *list, const kh_hub_name *name, const char *tree, size_t size)
{
    must(strlen(list->commit) == KH_HUB_COMMIT && !strpbrk(list->commit, "./"));
    for (size_t i = 0; i < list->count; i++) inside(list->entries[i].name);
    if (kh_hub_pick(list, name) != KH_OK) return;
    must(list->picked > 0);
    for (size_t i = 1; i <= list->picked; i++) must(kh_hub_list_picked(list, i) != NULL);
    kh_hub_parse_tree(list, tree, size);
    for (size_t i = 0; i < list->count; i++)
        if (list->entries[i].sized)
            must(kh_hub_etag_is_safe(list->entries[i].etag) && list->entries[i].picked &&
                 list->entries[i].size <= (uint64_t)KH_HUB_MOST_SIZE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t live = kh_alloc_get_stats().live;
    char *text = malloc(size + 3);
    if (!text) return 0;
    if (size) memcpy(text, data, size);
    memset(text + size, 0, 3);
    const char *model = text + strlen(text) + 1;
    const char *tree = model <= text + size ? model + strlen(model) + 1 : text + size;
    if (tree > text + size) tree = text + size;
    if (model > text + size) model = text + size;
    kh_hub_name name;
    kh_hub_list list = {0};
    if (kh_hub_name_parse(&name, text) == KH_OK) {
        inside(name.repository);
        inside(name.revision);
        if (*name.what) inside(name.what);
        kh_status status = kh_hub_parse_model(&list, model, strlen(model));
        must(status == KH_OK || kh_last_error()[0]);
        if (status == KH_OK) check(&list, &name, tree, (size_t)(text + size - tree));
    }
    kh_hub_list_free(&list);
    free(text);
    must(kh_alloc_get_stats().live == live);
    return 0;
}
