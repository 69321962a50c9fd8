/* What a repository holds: two questions to the hub's API.
 *
 *     GET /api/models/ID/revision/REV            {"sha": COMMIT, "siblings": [{"rfilename": NAME}, ...]}
 *     GET /api/models/ID/tree/COMMIT?recursive=true
 *         [{"type": "file", "path": NAME, "size": N, "oid": GIT_BLOB, "lfs": {"oid": SHA256}}, ...]
 *
 * The first one is enough where all files are in the cache, so a model that is there costs one request.
 * The second gives sizes and checksums before a byte is fetched; it comes in pages (header Link). The
 * etag of a file, which names its blob, is the SHA-256 of large files and git's hash of small ones.
 * A mirror without the second question is asked for each file's head instead.
 *
 * An answer may have 8 MiB (what hub_json.c makes of it then stays below half a gigabyte), a list 100
 * pages. */
#include "hub/hub_http.h"

#include "base/fail.h"

#include <string.h>

enum { MOST_JSON = 8 << 20, MOST_PAGES = 100, MOST_PICKED = 1000 };

/* ---- questions ---- */

static kh_status add(void *context, const char *bytes, size_t n)
{
    kh_buf *body = context;
    if (n > MOST_JSON - body->size)
        KH_FAIL(KH_ERR_FORMAT, "the answer is larger than %d bytes", (int)MOST_JSON);
    return kh_buf_add(body, bytes, n);
}

static kh_status ask(kh_hub_pulling *pulling, const char *path, int head, kh_buf *body,
                     kh_http_answer *answer)
{
    kh_http_request request = {
        .path = path, .head = head, .take = add, .context = body, .most_seconds = 120};
    kh_status status = kh_hub_tell(pulling, KH_HUB_ASK);
    for (int tried = 1; status == KH_OK; tried++) {
        kh_buf_clear(body);
        status = kh_http_send(pulling->http, &request, answer);
        if (status == KH_OK) return KH_OK;
        status = kh_http_again(pulling->http, status, answer, tried);
    }
    return status;
}

kh_status kh_hub_ask(kh_hub_list *list, kh_hub_pulling *pulling)
{
    kh_buf path = {0}, body = {0};
    kh_http_answer answer = {0};
    kh_status status = kh_buf_format(&path, "/api/models/%s/revision/", pulling->name->repository);
    if (status == KH_OK) status = kh_http_escape(&path, pulling->name->revision, 1);
    if (status == KH_OK) {
        status = ask(pulling, path.data, 0, &body, &answer);
        if (status != KH_OK) status = kh_http_refusal(pulling->http, status, &answer, NULL);
    }
    if (status == KH_OK) {
        status = kh_hub_parse_model(list, body.data, body.size);
        if (status != KH_OK)
            kh_fail_context(status, "%s%s", kh_http_endpoint(pulling->http), path.data);
    }
    kh_buf_free(&path);
    kh_buf_free(&body);
    return status;
}

/* All pages of the tree, or as many as the picked files need. */
static kh_status ask_tree(kh_hub_list *list, kh_hub_pulling *pulling, kh_http_answer *answer)
{
    kh_buf path = {0}, body = {0};
    kh_status status = kh_buf_format(&path, "/api/models/%s/tree/%s?recursive=true",
                                     pulling->name->repository, list->commit);
    for (int page = 0; status == KH_OK; page++) {
        size_t missing = 0;
        status = ask(pulling, path.data, 0, &body, answer);
        if (status != KH_OK) break;
        status = kh_hub_parse_tree(list, body.data, body.size);
        if (status != KH_OK)
            kh_fail_context(status, "%s: list of files", kh_http_endpoint(pulling->http));
        for (size_t i = 0; i < list->count; i++)
            missing += list->entries[i].picked && !list->entries[i].sized;
        if (!*answer->next || !missing || page == MOST_PAGES) break;
        kh_buf_clear(&path);
        if (status == KH_OK) status = kh_buf_text(&path, answer->next);
    }
    kh_buf_free(&path);
    kh_buf_free(&body);
    return status;
}

/* What the hub says about one file without sending it. */
static kh_status ask_head(kh_hub_entry *entry, const char *commit, kh_hub_pulling *pulling)
{
    kh_buf path = {0}, body = {0};
    kh_http_answer answer = {0};
    kh_status status = kh_buf_format(&path, "/%s/resolve/%s/", pulling->name->repository, commit);
    if (status == KH_OK) status = kh_http_escape(&path, entry->name, 0);
    if (status == KH_OK) {
        status = ask(pulling, path.data, 1, &body, &answer);
        if (status != KH_OK) status = kh_http_refusal(pulling->http, status, &answer, entry->name);
    }
    int64_t size = answer.linked_size >= 0 ? answer.linked_size : answer.total;
    if (status == KH_OK && (size < 0 || size > KH_HUB_MOST_SIZE))
        status = kh_fail(KH_ERR_FORMAT, "%s: the server does not say its size", entry->name);
    else if (status == KH_OK && !kh_hub_etag_is_safe(answer.etag))
        status = kh_fail(KH_ERR_FORMAT, "%s: the server sends no etag that can name a file",
                         entry->name);
    else if (status == KH_OK) {
        memcpy(entry->etag, answer.etag, sizeof entry->etag);
        entry->size = (uint64_t)size;
        entry->sized = 1;
    }
    kh_buf_free(&path);
    kh_buf_free(&body);
    return status;
}

kh_status kh_hub_ask_sizes(kh_hub_list *list, kh_hub_pulling *pulling)
{
    kh_http_answer answer = {0};
    if (list->picked > MOST_PICKED)
        KH_FAIL(KH_ERR_FORMAT, "%s: %zu files, at most %d are expected", pulling->name->repository,
                list->picked, (int)MOST_PICKED);
    kh_status status = ask_tree(list, pulling, &answer);
    int code = answer.status;
    if (status != KH_OK && code != 400 && code != 404 && code != 405 && code != 501)
        return kh_http_refusal(pulling->http, status, &answer, NULL);
    for (size_t i = 0; i < list->count; i++)
        if (list->entries[i].picked && !list->entries[i].sized)
            KH_TRY(ask_head(&list->entries[i], list->commit, pulling));
    return KH_OK;
}
