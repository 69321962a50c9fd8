/* Names: of models as users type them, of files as servers send them; and lists of files.
 *
 * A file's name becomes a path below snapshots/COMMIT, a revision one below refs/, an etag a file in
 * blobs/. So each is checked where it enters, by one function, and nothing behind this file looks
 * again. No honest server lists "../x"; a list with such a name is refused as a whole.
 *
 * Repositories follow the hub's own rule (letters, digits, "-", "_", ".", at most 96 bytes a part, no
 * "--" or ".." in it), which also makes the cache's folder name, models--OWNER--MODEL, unambiguous. */
#include "hub/hub_impl.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <ctype.h>
#include <string.h>

enum { MOST_PART = 96, MOST_FOLDER_PART = 240 };

static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";

static int part_is_good(const char *text, size_t n)
{
    if (n == 0 || n > MOST_PART || strspn(text, plain) < n) return 0;
    if (strchr("-.", text[0]) || strchr("-.", text[n - 1])) return 0;
    for (size_t i = 0; i + 1 < n; i++)
        if (text[i] == text[i + 1] && strchr("-.", text[i])) return 0;
    return n < 4 || memcmp(text + n - 4, ".git", 4) != 0;
}

static int repository_is_good(const char *text)
{
    const char *slash = strchr(text, '/');
    if (!slash) return part_is_good(text, strlen(text));
    return part_is_good(text, (size_t)(slash - text)) && part_is_good(slash + 1, strlen(slash + 1));
}

/* A branch or tag as a path below refs/: no part begins with a dot. */
static int revision_is_good(const char *text)
{
    size_t n = strlen(text);
    if (n == 0 || text[0] == '/' || text[0] == '-' || text[n - 1] == '/') return 0;
    for (size_t i = 0; i < n; i++) {
        if (!strchr(plain, text[i]) && text[i] != '/' && text[i] != '+') return 0;
        if ((i == 0 || text[i - 1] == '/') && (text[i] == '.' || text[i] == '/')) return 0;
    }
    return 1;
}

kh_status kh_hub_name_parse(kh_hub_name *out, const char *text)
{
    *out = (kh_hub_name){0};
    const char *colon = strchr(text, ':');
    size_t head = colon ? (size_t)(colon - text) : strlen(text);
    const char *at = memchr(text, '@', head);
    size_t repository = at ? (size_t)(at - text) : head, revision = at ? head - repository - 1 : 0;
    const char *what = colon ? colon + 1 : "";
    if (repository < sizeof out->repository) memcpy(out->repository, text, repository);
    if (!repository_is_good(out->repository))
        KH_FAIL(KH_ERR_ARGUMENT,
                "'%.200s': a model's name is OWNER/MODEL[@REVISION][:QUANT or FILE], of letters, "
                "digits, '-', '_' and '.'",
                text);
    if (!at)
        memcpy(out->revision, "main", 5);
    else if (revision < sizeof out->revision)
        memcpy(out->revision, at + 1, revision);
    if (!revision_is_good(out->revision))
        KH_FAIL(KH_ERR_ARGUMENT,
                "'%.200s': behind '@' the name of a branch or tag or a commit is expected", text);
    if (strlen(what) > KH_HUB_MOST_PATH || (colon && !kh_hub_file_is_safe(what)))
        KH_FAIL(KH_ERR_ARGUMENT, "'%.200s': behind ':' a quantisation or a file is expected", text);
    memcpy(out->what, what, strlen(what));
    return KH_OK;
}

int kh_hub_file_is_safe(const char *name)
{
    size_t all = strlen(name);
    if (all == 0 || all > KH_HUB_MOST_PATH) return 0;
    for (const unsigned char *c = (const unsigned char *)name; *c; c++)
        if (*c < 0x20 || *c == 0x7f || (*c == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0)) return 0;
    for (const char *part = name;; part++) {
        size_t n = strcspn(part, "/");
        if (n == 0 || n > MOST_FOLDER_PART) return 0;
        if (part[0] == '.' && (n == 1 || (n == 2 && part[1] == '.'))) return 0;
        part += n;
        if (!*part) return 1;
    }
}

int kh_hub_is_hex(const char *text, size_t digits)
{
    return strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

int kh_hub_etag_is_safe(const char *etag)
{
    size_t n = strlen(etag);
    return n > 0 && n <= KH_HUB_MOST_ETAG && strspn(etag, plain) == n && etag[0] != '.' &&
           !strstr(etag, ".incomplete") && !strstr(etag, ".lock");
}

/* ---- lists ---- */

kh_status kh_hub_list_add(kh_hub_list *list, const char *name)
{
    if (!kh_hub_file_is_safe(name)) {
        char shown[80];
        size_t n = 0;
        for (; name[n] && n + 1 < sizeof shown; n++)
            shown[n] = isprint((unsigned char)name[n]) ? name[n] : '?';
        shown[n] = 0;
        KH_FAIL(KH_ERR_FORMAT, "a file is called '%s', which is not a name inside a folder", shown);
    }
    if (list->count == KH_HUB_MOST_FILES)
        KH_FAIL(KH_ERR_FORMAT, "more than %d files are listed", (int)KH_HUB_MOST_FILES);
    KH_TRY(kh_grow(&list->entries, list->count, &list->room, sizeof *list->entries,
                   "a list of files"));
    kh_hub_entry entry = {.name = kh_strdup(name)};
    if (!entry.name) KH_FAIL(KH_ERR_MEMORY, "no memory for a list of files");
    list->entries[list->count++] = entry;
    return KH_OK;
}

kh_hub_entry *kh_hub_list_find(kh_hub_list *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->entries[i].name, name) == 0) return &list->entries[i];
    return NULL;
}

kh_hub_entry *kh_hub_list_picked(const kh_hub_list *list, size_t place)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->entries[i].picked == (int)place) return &list->entries[i];
    return NULL;
}

void kh_hub_list_free(kh_hub_list *list)
{
    for (size_t i = 0; i < list->count; i++) kh_free(list->entries[i].name);
    kh_free(list->entries);
    *list = (kh_hub_list){0};
}
