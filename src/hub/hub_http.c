/* One HTTP request over libcurl, and nothing of what is in it.
 *
 * Redirects are followed here, not by libcurl, for three reasons. The token goes to the endpoint alone
 * (same scheme, host and port) and to nobody whom it redirects to. What the hub says about a file
 * (X-Linked-Etag, X-Repo-Commit) is read from the endpoint's own response; the store behind it says
 * something else under the same names. And https never becomes http.
 *
 * Bounds on a hostile or broken server: 8 redirects, 64 KiB of headers, 1 MiB of a body that nobody
 * asked for, the caller's own limit on the others; a transfer ends when it brings less than 128 bytes a
 * second for the timeout, and requests that should be short end after a time in any case. libcurl's
 * defaults stay: certificates are verified, proxies come from the environment.
 *
 * A fault "may pass" when another try can have another result: no connection, a cut, a timeout, 408,
 * 429, 5xx. Waits double from half a second; a server may ask for up to a minute (Retry-After).
 *
 * Addresses in sentences end before "?": behind it stand signatures of the store. */
#include "hub/hub_http.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"
#include "kh_version.h"

#include <ctype.h>
#include <curl/curl.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum {
    MOST_REDIRECTS = 8,
    MOST_HEADERS = 64 << 10,
    MOST_IGNORED = 1 << 20,
    SLOWEST = 128,   /* bytes a second */
    USUAL_TRIES = 6, /* 0.5 + 1 + 2 + 4 + 8 seconds of waiting */
    MOST_WAIT = 60
};

struct kh_http {
    kh_hub_pulling *pulling;
    CURL *curl;
    kh_buf endpoint, token;
    int tries;
    double timeout, short_timeout;
    char message[CURL_ERROR_SIZE];
};

/* ---- opening ---- */

static void start(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

static double env_seconds(const char *name, double usual)
{
    const char *text = getenv(name);
    double value = text ? strtod(text, NULL) : 0;
    return value > 0 && value < 86400 ? value : usual;
}

/* The first line of a text becomes the token, if it can stand in a header. */
static kh_status set_token(kh_http *http, const char *text, const char *source)
{
    while (isspace((unsigned char)*text)) text++;
    size_t n = strcspn(text, " \t\r\n");
    for (size_t i = 0; i < n; i++)
        if (text[i] < 0x21 || text[i] > 0x7e)
            KH_FAIL(KH_ERR_ARGUMENT, "%s: a token of printable characters is expected", source);
    return n ? kh_buf_add(&http->token, text, n) : KH_OK;
}

static kh_status find_token(kh_http *http)
{
    const char *given = http->pulling->options->token, *path = getenv("HF_TOKEN_PATH");
    if (given) return set_token(http, given, "token");
    if (kh_hub_env_is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN")) return KH_OK;
    const char *const names[] = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"};
    for (int i = 0; i < 2; i++) {
        const char *value = getenv(names[i]);
        if (value && *value) return set_token(http, value, names[i]);
    }
    kh_buf file = {0};
    char *text = NULL;
    size_t size = 0;
    kh_status status = path && *path ? kh_buf_text(&file, path) : kh_hub_home(&file);
    if (status == KH_OK && !(path && *path)) status = kh_buf_text(&file, "/token");
    /* Most people have none: no file is no fault. */
    if (status == KH_OK && kh_file_read(&text, &size, file.data, 4096) == KH_OK)
        status = set_token(http, text, file.data);
    kh_free(text);
    kh_buf_free(&file);
    return status;
}

static kh_status set_endpoint(kh_http *http)
{
    const char *text = http->pulling->options->endpoint, *from = "endpoint";
    if (!text || !*text) text = getenv(from = "HF_ENDPOINT");
    if (!text || !*text) text = "https://huggingface.co";
    size_t n = strlen(text);
    while (n > 0 && text[n - 1] == '/') n--;
    KH_TRY(kh_buf_add(&http->endpoint, text, n));
    if (strncasecmp(text, "https://", 8) != 0 && strncasecmp(text, "http://", 7) != 0)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: '%.200s' does not begin with https:// or http://", from,
                text);
    CURLU *url = curl_url();
    int good = url && curl_url_set(url, CURLUPART_URL, http->endpoint.data, 0) == CURLUE_OK;
    curl_url_cleanup(url);
    if (!good || strpbrk(text, "?# \t\r\n"))
        KH_FAIL(KH_ERR_ARGUMENT, "%s: '%.200s' is not an address", from, text);
    return KH_OK;
}

kh_status kh_http_open(kh_http **out, kh_hub_pulling *pulling)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start);
    *out = NULL;
    kh_http *http = NULL;
    const kh_hub_options *options = pulling->options;
    KH_TRY(kh_new(&http, 1, sizeof *http, "a connection"));
    http->pulling = pulling;
    http->tries = options->tries > 0 ? options->tries : USUAL_TRIES;
    http->timeout = options->timeout > 0 ? options->timeout
                                         : env_seconds("HF_HUB_DOWNLOAD_TIMEOUT", 30);
    http->short_timeout = env_seconds("HF_HUB_ETAG_TIMEOUT", 10);
    if (http->short_timeout > http->timeout) http->short_timeout = http->timeout;
    kh_status status = KH_OK;
    if (!(http->curl = curl_easy_init()))
        status = kh_fail(KH_ERR_MEMORY, "no memory for a connection");
    if (status == KH_OK) status = set_endpoint(http);
    if (status == KH_OK) status = find_token(http);
    if (status != KH_OK) {
        kh_http_close(http);
        return status;
    }
    *out = http;
    return KH_OK;
}

void kh_http_close(kh_http *http)
{
    if (!http) return;
    curl_easy_cleanup(http->curl);
    if (http->token.data) memset(http->token.data, 0, http->token.size);
    kh_buf_free(&http->token);
    kh_buf_free(&http->endpoint);
    kh_free(http);
}

const char *kh_http_endpoint(const kh_http *http)
{
    return http->endpoint.data;
}

const char *kh_http_libraries(void)
{
    static _Thread_local char text[96];
    snprintf(text, sizeof text, "libcurl %s, OpenSSL %s",
             curl_version_info(CURLVERSION_NOW)->version, OpenSSL_version(OPENSSL_VERSION_STRING));
    return text;
}

kh_status kh_http_escape(kh_buf *out, const char *text, int slash)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        int plain = isalnum(c) || strchr("-_.~", c) || (c == '/' && !slash);
        KH_TRY(plain ? kh_buf_add(out, text, 1) : kh_buf_format(out, "%%%02X", c));
    }
    return KH_OK;
}

/* ---- addresses ---- */

/* "scheme://host:port" in small letters; "" for what is no address. */
static void origin(char *out, size_t room, const char *address)
{
    CURLU *url = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL;
    out[0] = 0;
    if (url && curl_url_set(url, CURLUPART_URL, address, 0) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK)
        snprintf(out, room, "%s://%s:%s", scheme, host, port);
    for (char *c = out; *c; c++) *c = (char)tolower((unsigned char)*c);
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(url);
}

static int same_origin(const char *a, const char *b)
{
    char x[512], y[512];
    origin(x, sizeof x, a);
    origin(y, sizeof y, b);
    return *x && strcmp(x, y) == 0;
}

/* An address as sentences show it: no user, no query, nothing that a terminal obeys. */
static const char *shown(char *out, size_t room, const char *address)
{
    const char *host = strstr(address, "://");
    size_t scheme = host ? (size_t)(host - address) + 3 : 0, n = 0;
    const char *rest = address + scheme, *at = memchr(rest, '@', strcspn(rest, "/?#"));
    for (; n < scheme && n + 1 < room; n++) out[n] = address[n];
    for (const char *c = at ? at + 1 : rest; *c && *c != '?' && n + 1 < room; c++)
        out[n++] = isgraph((unsigned char)*c) ? *c : '.';
    out[n] = 0;
    return out;
}

/* ---- one response ---- */

typedef struct exchange {
    kh_http *http;
    const kh_http_request *request;
    kh_http_answer *answer;
    kh_status status; /* of the callbacks */
    int linked;       /* its etag is X-Linked-Etag */
    int begun;
    size_t headers, ignored;
} exchange;

/* Copies a header's value if it fits and can be shown. */
static void keep(char *out, size_t room, const char *value, size_t n)
{
    out[0] = 0;
    if (n >= room) return;
    for (size_t i = 0; i < n; i++)
        if (!isgraph((unsigned char)value[i])) return;
    memcpy(out, value, n);
    out[n] = 0;
}

static void keep_etag(exchange *e, const char *value, size_t n, int linked)
{
    if (e->linked && !linked) return;
    e->linked = linked;
    if (n > 2 && value[0] == 'W' && value[1] == '/') value += 2, n -= 2;
    if (n > 1 && value[0] == '"' && value[n - 1] == '"') value++, n -= 2;
    keep(e->answer->etag, sizeof e->answer->etag, value, n);
}

static int64_t number(const char *value, size_t n)
{
    char text[24], *end;
    if (n == 0 || n >= 20 || !isdigit((unsigned char)*value)) return -1;
    memcpy(text, value, n);
    text[n] = 0;
    int64_t x = strtoll(text, &end, 10);
    return *end ? -1 : x;
}

/* bytes FROM-TO/TOTAL */
static void keep_range(kh_http_answer *answer, const char *value, size_t n)
{
    const char *dash = memchr(value, '-', n), *slash = memchr(value, '/', n);
    answer->from = answer->total = -1;
    if (n < 6 || strncasecmp(value, "bytes ", 6) != 0 || !dash || !slash || dash > slash) return;
    answer->from = number(value + 6, (size_t)(dash - value) - 6);
    answer->total = number(slash + 1, n - (size_t)(slash + 1 - value));
}

/* <address>; rel="next" */
static void keep_next(kh_http_answer *answer, const char *value, size_t n)
{
    const char *close = memchr(value, '>', n);
    if (n == 0 || value[0] != '<' || !close) return;
    const char *rel = memmem(close, n - (size_t)(close - value), "rel=\"next\"", 10);
    if (rel) keep(answer->next, sizeof answer->next, value + 1, (size_t)(close - value) - 1);
}

/* "api";r=0;t=55: nothing remains, until 55 seconds have passed */
static void keep_pause(kh_http_answer *answer, const char *value, size_t n)
{
    const char *at = memmem(value, n, ";t=", 3);
    size_t left = at ? n - (size_t)(at + 3 - value) : 0, digits = 0;
    while (digits < left && isdigit((unsigned char)at[3 + digits])) digits++;
    int64_t seconds = at ? number(at + 3, digits) : -1;
    if (seconds > 0 && answer->wait <= 0) answer->wait = (double)seconds;
}

static void keep_header(exchange *e, const char *name, size_t length, const char *value, size_t n)
{
    kh_http_answer *a = e->answer;
#define IS(text) (length == strlen(text) && strncasecmp(name, text, length) == 0)
    if (IS("content-length") && a->status != 206)
        a->total = number(value, n);
    else if (IS("content-range"))
        keep_range(a, value, n);
    else if (IS("retry-after") && number(value, n) > 0)
        a->wait = (double)number(value, n);
    else if (IS("ratelimit") && a->status == 429)
        keep_pause(a, value, n);
    if (!e->answer->ours) return;
    if (IS("etag"))
        keep_etag(e, value, n, 0);
    else if (IS("x-linked-etag"))
        keep_etag(e, value, n, 1);
    else if (IS("x-repo-commit"))
        keep(a->commit, sizeof a->commit, value, n);
    else if (IS("x-error-code"))
        keep(a->error, sizeof a->error, value, n);
    else if (IS("x-linked-size"))
        a->linked_size = number(value, n);
    else if (IS("link"))
        keep_next(a, value, n);
#undef IS
}

static size_t on_header(char *bytes, size_t size, size_t count, void *context)
{
    exchange *e = context;
    size_t n = size * count, all = n;
    if ((e->headers += n) > MOST_HEADERS) {
        e->status = kh_fail(KH_ERR_FORMAT, "the server sends more than 64 KiB of headers");
        return 0;
    }
    while (n > 0 && isspace((unsigned char)bytes[n - 1])) n--;
    if (n > 5 && memcmp(bytes, "HTTP/", 5) == 0) {
        const char *space = memchr(bytes, ' ', n);
        e->answer->status = space && (size_t)(bytes + n - space) >= 4 ? (int)number(space + 1, 3)
                                                                      : 0;
        e->answer->from = e->answer->total = -1;
        e->answer->wait = 0;
        return all;
    }
    const char *colon = memchr(bytes, ':', n);
    if (!colon) return all;
    const char *value = colon + 1;
    while (value < bytes + n && isspace((unsigned char)*value)) value++;
    keep_header(e, bytes, (size_t)(colon - bytes), value, (size_t)(bytes + n - value));
    return all;
}

static int is_content(const exchange *e)
{
    return e->answer->status == 200 || e->answer->status == 206;
}

static size_t on_body(char *bytes, size_t size, size_t count, void *context)
{
    exchange *e = context;
    size_t n = size * count;
    if (!is_content(e)) return (e->ignored += n) > MOST_IGNORED ? 0 : n;
    if (!e->begun && e->request->begin)
        e->status = e->request->begin(e->request->context, e->answer);
    e->begun = 1;
    if (e->status == KH_OK) e->status = e->request->take(e->request->context, bytes, n);
    return e->status == KH_OK ? n : 0;
}

static int on_progress(void *context, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    exchange *e = context;
    (void)a, (void)b, (void)c, (void)d;
    if (e->status == KH_OK)
        e->status = kh_hub_tell(e->http->pulling, e->http->pulling->progress.stage);
    return e->status != KH_OK;
}

/* ---- sending ---- */

static void set_limits(kh_http *http, const kh_http_request *request)
{
    CURL *curl = http->curl;
    double timeout = http->pulling->hasty ? http->short_timeout : http->timeout;
    long seconds = timeout < 1 ? 1 : (long)timeout;
    double connect = timeout < 15 ? timeout : 15;
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)(connect * 1000));
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, (long)SLOWEST);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, seconds);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)(request->most_seconds * 1000));
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

/* Whose certificates are believed, where the system's own list is not to be used. */
static void set_authorities(CURL *curl)
{
    const char *const names[] = {"SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"};
    for (int i = 0; i < 3; i++) {
        const char *file = getenv(names[i]);
        if (!file || !*file) continue;
        curl_easy_setopt(curl, CURLOPT_CAINFO, file);
        return;
    }
}

static int set_headers(struct curl_slist **list, const kh_http *http, const exchange *e)
{
    char line[4300];
    const kh_http_request *request = e->request;
    int good = (*list = curl_slist_append(*list, "Accept-Encoding: identity")) != NULL;
    if (request->from) {
        snprintf(line, sizeof line, "Range: bytes=%llu-", (unsigned long long)request->from);
        good = good && curl_slist_append(*list, line);
    }
    if (request->from && e->answer->ours && request->if_range && *request->if_range) {
        snprintf(line, sizeof line, "If-Range: \"%s\"", request->if_range);
        good = good && curl_slist_append(*list, line);
    }
    if (e->answer->ours && http->token.size) {
        snprintf(line, sizeof line, "Authorization: Bearer %s", http->token.data);
        good = good && curl_slist_append(*list, line);
    }
    return good;
}

static kh_status transport_fault(exchange *e, CURLcode code, const char *url)
{
    char where[300];
    const char *text = e->http->message[0] ? e->http->message : curl_easy_strerror(code);
    for (char *c = e->http->message; *c; c++)
        if (!isprint((unsigned char)*c)) *c = '.';
    shown(where, sizeof where, url);
    if (e->status != KH_OK) return e->status;
    e->answer->may_pass = code != CURLE_PEER_FAILED_VERIFICATION && code != CURLE_OUT_OF_MEMORY &&
                          code != CURLE_URL_MALFORMAT && code != CURLE_UNSUPPORTED_PROTOCOL &&
                          code != CURLE_SSL_CACERT_BADFILE;
    if (code == CURLE_OUT_OF_MEMORY) KH_FAIL(KH_ERR_MEMORY, "no memory for a connection");
    if (code == CURLE_OPERATION_TIMEDOUT)
        KH_FAIL(KH_ERR_IO, "%s: no answer, or less than %d bytes a second, for too long", where,
                (int)SLOWEST);
    if (code == CURLE_PARTIAL_FILE || code == CURLE_GOT_NOTHING || code == CURLE_RECV_ERROR)
        KH_FAIL(KH_ERR_IO, "%s: the connection was cut", where);
    KH_FAIL(KH_ERR_IO, "%s: %.300s", where, text);
}

/* One hop. *next receives the address of a redirect; free with curl_free. */
static kh_status perform(exchange *e, const char *url, char **next)
{
    kh_http *http = e->http;
    CURL *curl = http->curl;
    struct curl_slist *headers = NULL;
    char *to = NULL, where[300];
    *next = NULL;
    e->answer->ours = same_origin(url, http->endpoint.data);
    e->headers = e->ignored = 0;
    http->message[0] = 0;
    curl_easy_reset(curl); /* connections stay */
    set_limits(http, e->request);
    set_authorities(curl);
    if (!set_headers(&headers, http, e)) {
        curl_slist_free_all(headers);
        KH_FAIL(KH_ERR_MEMORY, "no memory for a request");
    }
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_NOBODY, (long)(e->request->head != 0));
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 262144L); /* the usual 16 KiB cost a write each */
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, http->message);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "keyhole/" KH_VERSION_STRING);
    curl_easy_setopt(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, e);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, e);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, e);
    CURLcode code = curl_easy_perform(curl);
    curl_slist_free_all(headers);
    int status = e->answer->status, moved = status >= 300 && status < 400;
    if (moved && curl_easy_getinfo(curl, CURLINFO_REDIRECT_URL, &to) == CURLE_OK && to) {
        char *copy = kh_strdup(to);
        if (!copy) KH_FAIL(KH_ERR_MEMORY, "no memory for an address");
        *next = copy;
        return KH_OK;
    }
    if (code != CURLE_OK && !(status >= 400 && e->status == KH_OK))
        return transport_fault(e, code, url);
    if (is_content(e)) return KH_OK;
    /* A store refuses when its signature is too old; the hub gives a new one. */
    e->answer->may_pass = status == 408 || status == 429 || status >= 500 || status == 0 ||
                          (status >= 400 && !e->answer->ours);
    KH_FAIL(KH_ERR_IO, "%s: the server answers %d", shown(where, sizeof where, url), status);
}

static kh_status first_address(kh_buf *out, const kh_http *http, const char *path)
{
    if (path[0] == '/') {
        KH_TRY(kh_buf_text(out, http->endpoint.data));
        return kh_buf_text(out, path);
    }
    if (!same_origin(path, http->endpoint.data))
        KH_FAIL(KH_ERR_FORMAT, "the list goes on at another host, which is not followed");
    return kh_buf_text(out, path);
}

kh_status kh_http_send(kh_http *http, const kh_http_request *request, kh_http_answer *answer)
{
    *answer = (kh_http_answer){.total = -1, .from = -1, .linked_size = -1};
    exchange e = {.http = http, .request = request, .answer = answer};
    kh_buf url = {0};
    char where[300];
    kh_status status = first_address(&url, http, request->path);
    for (int hop = 0; status == KH_OK; hop++) {
        char *next = NULL;
        status = perform(&e, url.data, &next);
        if (status != KH_OK || !next) break;
        if (request->head && !same_origin(next, http->endpoint.data)) {
            kh_free(next); /* the store may refuse HEAD; the hub has said what it knows */
            break;
        }
        if (hop == MOST_REDIRECTS)
            status = kh_fail(KH_ERR_IO, "%s: more than %d redirects",
                             shown(where, sizeof where, url.data), (int)MOST_REDIRECTS);
        else if (strncasecmp(next, "https://", 8) != 0 &&
                 (strncasecmp(next, "http://", 7) != 0 ||
                  strncasecmp(url.data, "https://", 8) == 0))
            status = kh_fail(KH_ERR_IO, "%s: a redirect to what is not https is not followed",
                             shown(where, sizeof where, url.data));
        kh_buf_clear(&url);
        if (status == KH_OK) status = kh_buf_text(&url, next);
        kh_free(next);
    }
    if (status == KH_OK && !e.begun && request->begin)
        status = request->begin(request->context, answer);
    kh_buf_free(&url);
    return status;
}

/* ---- trying again ---- */

kh_status kh_http_again(kh_http *http, kh_status status, const kh_http_answer *answer, int tried)
{
    int tries = http->pulling->hasty ? 1 : http->tries;
    if (!answer->may_pass || tried >= tries) return status;
    double wait = 0.5 * (double)(1 << (tried < 6 ? tried - 1 : 5));
    if (answer->wait > wait) wait = answer->wait < MOST_WAIT ? answer->wait : MOST_WAIT;
    char reason[400];
    snprintf(reason, sizeof reason, "%s", kh_last_error());
    kh_hub_pulling *pulling = http->pulling;
    kh_hub_stage stage = pulling->progress.stage;
    pulling->progress.reason = reason;
    kh_status told = KH_OK;
    while (wait > 0 && told == KH_OK) {
        pulling->progress.seconds = wait;
        told = kh_hub_tell(pulling, KH_HUB_RETRY);
        double nap = wait < 0.1 ? wait : 0.1;
        nanosleep(&(struct timespec){0, (long)(nap * 1e9)}, NULL);
        wait -= nap;
    }
    pulling->progress.reason = "";
    pulling->progress.seconds = 0;
    pulling->progress.stage = stage;
    return told;
}

kh_status kh_http_refusal(const kh_http *http, kh_status status, const kh_http_answer *answer,
                          const char *file)
{
    const kh_hub_name *name = http->pulling->name;
    const char *hub = http->endpoint.data;
    int code = answer->status;
    if (status == KH_ERR_STOPPED || !answer->ours || (code != 401 && code != 403 && code != 404))
        return status;
    if (strcmp(answer->error, "GatedRepo") == 0 || code == 403)
        KH_FAIL(KH_ERR_NOT_FOUND,
                "%s: the hub asks for permission: ask for access at %s/%s and set HF_TOKEN",
                name->repository, hub, name->repository);
    if (strcmp(answer->error, "RevisionNotFound") == 0)
        KH_FAIL(KH_ERR_NOT_FOUND, "%s: the hub has no revision '%s'", name->repository,
                name->revision);
    if (file && (code == 404 || strcmp(answer->error, "EntryNotFound") == 0))
        KH_FAIL(KH_ERR_NOT_FOUND, "%s: the hub has no file '%s'", name->repository, file);
    KH_FAIL(KH_ERR_NOT_FOUND, "%s: not found on %s, or not public%s", name->repository, hub,
            http->token.size ? "" : " (then set HF_TOKEN)");
}
