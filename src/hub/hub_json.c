/* What a hub answers, as JSON: hostile until checked.
 *
 * jansson bounds the nesting (2,048); names and hashes are as hub_name.c wants them, sizes from 0 to
 * 2^50; keys that are not needed are not looked at. The two forms are at the head of hub_list.c. */
#include "hub/hub_impl.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <jansson.h>
#include <string.h>

static kh_status parse(json_t **out, const char *json, size_t size)
{
    json_error_t error;
    *out = json_loadb(json ? json : "", size, 0, &error);
    if (!*out) /* jansson's own words quote the answer, which could hold what a terminal obeys. */
        KH_FAIL(KH_ERR_FORMAT, "the answer is no JSON (line %d, column %d)", error.line,
                error.column);
    return KH_OK;
}

kh_status kh_hub_parse_model(kh_hub_list *list, const char *json, size_t size)
{
    json_t *root = NULL;
    KH_TRY(parse(&root, json, size));
    kh_status status = KH_OK;
    const char *sha = json_string_value(json_object_get(root, "sha"));
    json_t *siblings = json_object_get(root, "siblings");
    if (!sha || !kh_hub_is_hex(sha, KH_HUB_COMMIT))
        status = kh_fail(KH_ERR_FORMAT, "the answer has no \"sha\" of 40 hexadecimal digits");
    else if (!json_is_array(siblings))
        status = kh_fail(KH_ERR_FORMAT, "the answer has no list of \"siblings\"");
    else
        memcpy(list->commit, sha, KH_HUB_COMMIT + 1);
    for (size_t i = 0; status == KH_OK && i < json_array_size(siblings); i++) {
        const char *name =
            json_string_value(json_object_get(json_array_get(siblings, i), "rfilename"));
        status = name ? kh_hub_list_add(list, name)
                      : kh_fail(KH_ERR_FORMAT, "sibling %zu has no \"rfilename\"", i);
    }
    json_decref(root);
    return status;
}

static kh_status parse_file(kh_hub_entry *entry, const json_t *file)
{
    const json_t *lfs = json_object_get(file, "lfs"), *size = json_object_get(file, "size");
    const char *sha256 = json_string_value(json_object_get(lfs, "oid"));
    const char *etag = sha256 ? sha256 : json_string_value(json_object_get(file, "oid"));
    if (sha256 && json_is_integer(json_object_get(lfs, "size")))
        size = json_object_get(lfs, "size");
    json_int_t bytes = json_integer_value(size);
    if (!json_is_integer(size) || bytes < 0 || bytes > KH_HUB_MOST_SIZE)
        KH_FAIL(KH_ERR_FORMAT, "%s: no size in the hub's list", entry->name);
    if (!etag || !kh_hub_is_hex(etag, sha256 ? 64 : 40))
        KH_FAIL(KH_ERR_FORMAT, "%s: no checksum in the hub's list", entry->name);
    memcpy(entry->etag, etag, strlen(etag) + 1);
    entry->size = (uint64_t)bytes;
    entry->sized = 1;
    return KH_OK;
}

/* The picked files that still lack their size; free with kh_free. A long list of many files must not
 * be walked for each of them. */
static kh_status wanting(kh_hub_entry ***out, size_t *count, kh_hub_list *list)
{
    *count = 0;
    KH_TRY(kh_new(out, list->count + 1, sizeof **out, "a list of files"));
    for (size_t i = 0; i < list->count; i++)
        if (list->entries[i].picked && !list->entries[i].sized)
            (*out)[(*count)++] = &list->entries[i];
    return KH_OK;
}

kh_status kh_hub_parse_tree(kh_hub_list *list, const char *json, size_t size)
{
    json_t *root = NULL;
    kh_hub_entry **entries = NULL;
    size_t count = 0;
    KH_TRY(parse(&root, json, size));
    kh_status status = wanting(&entries, &count, list);
    if (status == KH_OK && !json_is_array(root))
        status = kh_fail(KH_ERR_FORMAT, "the answer is no list of files");
    for (size_t i = 0; status == KH_OK && i < json_array_size(root); i++) {
        const json_t *file = json_array_get(root, i);
        const char *type = json_string_value(json_object_get(file, "type"));
        const char *path = json_string_value(json_object_get(file, "path"));
        if (!path || (type && strcmp(type, "file") != 0)) continue;
        for (size_t j = 0; status == KH_OK && j < count; j++)
            if (!entries[j]->sized && strcmp(entries[j]->name, path) == 0)
                status = parse_file(entries[j], file);
    }
    kh_free(entries);
    json_decref(root);
    return status;
}
