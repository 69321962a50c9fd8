/* One file, from the hub into the cache.
 *
 *     lock .locks/.../ETAG.lock        others wait, then find the blob
 *     blobs/ETAG.incomplete            what is there is hashed; the request asks for the rest
 *     write, hash, write, hash         a cut, a timeout, a wrong answer: again from where it is
 *     size and checksum right          synced, renamed to blobs/ETAG, linked into the snapshot
 *
 * Invariants. A byte is written only where it belongs: a 206 must begin where the file ends and name
 * the size that the list named; a 200 begins at 0, so the file does too. Nothing is written behind the
 * size. A blob gets its name only with the right checksum: SHA-256 where the etag has 64 digits, git's
 * blob hash (SHA-1 over "blob SIZE" and the bytes) where it has 40. Killed or out of space at any
 * moment, the incomplete file is a beginning that the next pull continues; if it proves wrong at the
 * end, it is fetched once more from the start.
 *
 * If-Range is sent to the endpoint alone. The store behind a redirect has etags of its own and would
 * answer every resumed request with the whole file; there, the name of the incomplete file (the etag
 * that the list named) and the checksum say what If-Range would.
 *
 * Hashing is libcrypto's, which libcurl is linked with anyway. Rejected: trusting the size alone,
 * hashing at the end (a second read of the file), and several connections at once (a hub fills one). */
#include "hub/hub_http.h"

#include "base/alloc.h"
#include "base/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 1 << 20, PROGRESS = 1 << 20 /* bytes that make a try count as the first again */ };

typedef struct transfer {
    kh_hub_pulling *pulling;
    kh_hub_entry *entry;
    const char *commit;
    kh_buf incomplete, blob;
    int fd, lock;
    EVP_MD_CTX *hash; /* NULL: the etag is no checksum */
    uint64_t have;    /* bytes of the incomplete file, all hashed */
    int resumed;      /* some of them came with an earlier request */
    int from_start;   /* the next request asks for the whole file */
    int may_pass;     /* a fault that a callback has seen may pass */
} transfer;

/* ---- checksum ---- */

static kh_status hash_begin(transfer *t)
{
    int sha256 = kh_hub_is_hex(t->entry->etag, 64), git = kh_hub_is_hex(t->entry->etag, 40);
    if (!sha256 && !git) return KH_OK;
    if (!t->hash) t->hash = EVP_MD_CTX_new();
    char head[40];
    int n = snprintf(head, sizeof head, "blob %llu", (unsigned long long)t->entry->size) + 1;
    if (!t->hash || !EVP_DigestInit_ex(t->hash, sha256 ? EVP_sha256() : EVP_sha1(), NULL) ||
        (git && !EVP_DigestUpdate(t->hash, head, (size_t)n)))
        KH_FAIL(KH_ERR_UNSUPPORTED, "%s cannot be computed", sha256 ? "SHA-256" : "SHA-1");
    return KH_OK;
}

static kh_status hash_add(transfer *t, const void *bytes, size_t n)
{
    if (t->hash && !EVP_DigestUpdate(t->hash, bytes, n))
        KH_FAIL(KH_ERR_UNSUPPORTED, "a checksum cannot be computed");
    return KH_OK;
}

static kh_status hash_end(transfer *t)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    char text[2 * EVP_MAX_MD_SIZE + 1] = "";
    unsigned n = 0;
    if (!t->hash) return KH_OK;
    if (!EVP_DigestFinal_ex(t->hash, digest, &n))
        KH_FAIL(KH_ERR_UNSUPPORTED, "a checksum cannot be computed");
    for (unsigned i = 0; i < n; i++) snprintf(text + 2 * i, 3, "%02x", digest[i]);
    if (strcmp(text, t->entry->etag) != 0)
        KH_FAIL(KH_ERR_CHECK, "%s: checksum %s is expected, found %s", t->entry->name,
                t->entry->etag, text);
    return KH_OK;
}

/* ---- the incomplete file ---- */

static kh_status tell(transfer *t, kh_hub_stage stage)
{
    kh_hub_progress *p = &t->pulling->progress;
    p->all_done += t->have - p->done; /* may go back */
    p->done = t->have;
    return kh_hub_tell(t->pulling, stage);
}

static kh_status disk_fault(const transfer *t, const char *path)
{
    int full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
    KH_FAIL(KH_ERR_IO, "%s: cannot be written: %s%s", path, strerror(errno),
            full && t->have ? "; what has arrived is kept, and the same command goes on from there"
                            : "");
}

static kh_status restart(transfer *t)
{
    t->have = 0;
    t->resumed = t->from_start = 0;
    if (ftruncate(t->fd, 0) != 0) return disk_fault(t, t->incomplete.data);
    return hash_begin(t);
}

/* Opens the incomplete file and hashes what is in it. */
static kh_status open_incomplete(transfer *t)
{
    struct stat info;
    t->fd = open(t->incomplete.data, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (t->fd < 0 || fstat(t->fd, &info) != 0) return disk_fault(t, t->incomplete.data);
    if ((uint64_t)info.st_size > t->entry->size) return restart(t);
    KH_TRY(hash_begin(t));
    unsigned char *chunk = kh_alloc(CHUNK);
    if (!chunk) KH_FAIL(KH_ERR_MEMORY, "no memory for reading %s", t->incomplete.data);
    kh_status status = KH_OK;
    while (status == KH_OK && t->have < (uint64_t)info.st_size) {
        ssize_t n = pread(t->fd, chunk, CHUNK, (off_t)t->have);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) status = kh_fail(KH_ERR_IO, "%s: %s", t->incomplete.data, strerror(errno));
        if (n <= 0) break;
        status = hash_add(t, chunk, (size_t)n);
        t->have += (uint64_t)n;
        t->resumed = 1;
        if (status == KH_OK) status = tell(t, KH_HUB_CHECK);
    }
    kh_free(chunk);
    return status;
}

/* ---- callbacks of the request ---- */

static kh_status begin(void *context, const kh_http_answer *answer)
{
    transfer *t = context;
    const kh_hub_entry *e = t->entry;
    if (*answer->commit && strcmp(answer->commit, t->commit) != 0)
        KH_FAIL(KH_ERR_CHECK, "%s: the file of commit %s is expected, found that of %s", e->name,
                t->commit, answer->commit);
    if (!t->hash && *answer->etag && strcmp(answer->etag, e->etag) != 0)
        KH_FAIL(KH_ERR_CHECK, "%s: etag %s is expected, found %s: it has changed on the server",
                e->name, e->etag, answer->etag);
    t->may_pass = 1;
    if (answer->status == 206) {
        if (t->have > 0 && answer->from == (int64_t)t->have && answer->total == (int64_t)e->size)
            return KH_OK;
        t->from_start = 1;
        KH_FAIL(KH_ERR_IO, "%s: bytes from %llu of %llu are expected, found from %lld of %lld",
                e->name, (unsigned long long)t->have, (unsigned long long)e->size,
                (long long)answer->from, (long long)answer->total);
    }
    if (answer->total >= 0 && answer->total != (int64_t)e->size)
        KH_FAIL(KH_ERR_CHECK, "%s: %llu bytes are expected, the server announces %lld", e->name,
                (unsigned long long)e->size, (long long)answer->total);
    return t->have ? restart(t) : KH_OK;
}

static kh_status take(void *context, const char *bytes, size_t n)
{
    transfer *t = context;
    t->may_pass = 0;
    if (n > t->entry->size - t->have)
        KH_FAIL(KH_ERR_CHECK, "%s: the server sends more than %llu bytes", t->entry->name,
                (unsigned long long)t->entry->size);
    while (n > 0) {
        ssize_t done = pwrite(t->fd, bytes, n, (off_t)t->have);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return disk_fault(t, t->incomplete.data);
        KH_TRY(hash_add(t, bytes, (size_t)done));
        t->have += (uint64_t)done;
        bytes += done;
        n -= (size_t)done;
    }
    return tell(t, KH_HUB_FETCH);
}

/* ---- the transfer ---- */

static kh_status fetch_rest(transfer *t)
{
    const kh_hub_entry *e = t->entry;
    kh_buf path = {0};
    kh_http_answer answer = {0};
    kh_status status = kh_buf_format(&path, "/%s/resolve/%s/", t->pulling->name->repository,
                                     t->commit);
    if (status == KH_OK) status = kh_http_escape(&path, e->name, 0);
    uint64_t best = t->have;
    for (int tried = 1; status == KH_OK && t->have < e->size; tried++) {
        if (t->from_start) status = restart(t);
        kh_http_request request = {.path = path.data,
                                   .from = t->have,
                                   .if_range = e->etag,
                                   .begin = begin,
                                   .take = take,
                                   .context = t};
        t->may_pass = 0;
        if (t->have) t->resumed = 1;
        if (status == KH_OK) status = tell(t, KH_HUB_FETCH);
        if (status == KH_OK) status = kh_http_send(t->pulling->http, &request, &answer);
        if (status == KH_OK && t->have < e->size) {
            t->may_pass = 1;
            status = kh_fail(KH_ERR_IO, "%s: the server ends after %llu of %llu bytes", e->name,
                             (unsigned long long)t->have, (unsigned long long)e->size);
        }
        if (status == KH_OK || status == KH_ERR_STOPPED) break;
        if (answer.status == 416) t->may_pass = t->from_start = 1;
        answer.may_pass |= t->may_pass;
        if (t->have > best + PROGRESS) {
            best = t->have;
            tried = 1;
        }
        status = kh_http_again(t->pulling->http, status, &answer, tried);
        if (status != KH_OK) status = kh_http_refusal(t->pulling->http, status, &answer, e->name);
    }
    kh_buf_free(&path);
    return status;
}

/* Fetches and checks; once more from the start where what was there before may be to blame. */
static kh_status fetch(transfer *t)
{
    KH_TRY(open_incomplete(t));
    for (;;) {
        KH_TRY(fetch_rest(t));
        int again = t->resumed;
        kh_status status = hash_end(t);
        if (status == KH_OK) return KH_OK;
        if (status != KH_ERR_CHECK || !again) {
            if (status == KH_ERR_CHECK) unlink(t->incomplete.data);
            return status;
        }
        KH_TRY(restart(t));
    }
}

static kh_status publish(transfer *t)
{
    if (fsync(t->fd) != 0 && errno != EINVAL) return disk_fault(t, t->incomplete.data);
    if (rename(t->incomplete.data, t->blob.data) != 0) return disk_fault(t, t->blob.data);
    return KH_OK;
}

static int is_whole(const transfer *t)
{
    struct stat info;
    return stat(t->blob.data, &info) == 0 && S_ISREG(info.st_mode) &&
           (uint64_t)info.st_size == t->entry->size;
}

static kh_status take_lock(transfer *t)
{
    for (;;) {
        KH_TRY(kh_hub_cache_try_lock(&t->lock, t->pulling->cache, t->entry->etag));
        if (t->lock >= 0) return KH_OK;
        KH_TRY(kh_hub_tell(t->pulling, KH_HUB_WAIT));
        nanosleep(&(struct timespec){0, 100000000}, NULL);
    }
}

kh_status kh_hub_get(kh_hub_pulling *pulling, const char *commit, kh_hub_entry *entry)
{
    transfer t = {.pulling = pulling, .entry = entry, .commit = commit, .fd = -1, .lock = -1};
    const kh_hub_cache *cache = pulling->cache;
    kh_status status = kh_hub_cache_blob(&t.blob, cache, entry->etag, "");
    if (status == KH_OK)
        status = kh_hub_cache_blob(&t.incomplete, cache, entry->etag, ".incomplete");
    if (status == KH_OK) status = kh_hub_cache_prepare(cache);
    if (status == KH_OK) status = take_lock(&t);
    if (status == KH_OK && !is_whole(&t)) {
        status = fetch(&t);
        if (status == KH_OK) status = publish(&t);
    }
    if (status == KH_OK) status = kh_hub_cache_link(cache, commit, entry->name, entry->etag);
    if (t.fd >= 0) close(t.fd);
    kh_hub_cache_unlock(t.lock);
    EVP_MD_CTX_free(t.hash);
    kh_buf_free(&t.blob);
    kh_buf_free(&t.incomplete);
    return status;
}
