/* Who may ask.
 *
 *     Host           a name of this machine: a page of somebody else's name that was made to point here (DNS rebinding)
 *                    sends its own
 *     Origin         of requests that change or compute something: the server's own, or the one that was named
 *     Authorization  one of the keys, where keys were given; compared in a time that does not tell how far it was right
 *
 * A server that listens on every address is reached by any of them, so there any literal address is a good Host; a
 * literal address cannot be rebound. No header ever allows every origin. */
#include "server/server_impl.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { NAME = 256 };

/* "[::1]:8080" -> "::1", "localhost:8080" -> "localhost"; 0: not a host. */
static int host_name(char name[NAME], const char *host)
{
    const char *end = host[0] == '[' ? strchr(host, ']') : host + strcspn(host, ":");
    size_t skip = host[0] == '[';
    if (!end) return 0;
    size_t n = (size_t)(end - host) - skip;
    const char *rest = end + skip;
    if (n == 0 || n >= NAME || (*rest && *rest != ':')) return 0;
    if (*rest && strspn(rest + 1, "0123456789") != strlen(rest + 1)) return 0;
    memcpy(name, host + skip, n);
    name[n] = 0;
    if (n > 1 && name[n - 1] == '.') name[n - 1] = 0;
    return 1;
}

static int is_address(const char *name)
{
    unsigned char out[16];
    return inet_pton(AF_INET, name, out) == 1 || inet_pton(AF_INET6, name, out) == 1;
}

static int is_everywhere(const char *host)
{
    return host && (strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0);
}

static int is_mine(const server *s, const char *host)
{
    char name[NAME], own[NAME] = "";
    if (!host_name(name, host)) return 0;
    if (strcasecmp(name, "localhost") == 0 || strcmp(name, "127.0.0.1") == 0 ||
        strcmp(name, "::1") == 0)
        return 1;
    if (!is_everywhere(s->options.host))
        return s->options.host && strcasecmp(name, s->options.host) == 0;
    if (is_address(name)) return 1;
    return gethostname(own, sizeof own - 1) == 0 && strcasecmp(name, own) == 0;
}

/* An origin is "http://HOST"; HOST is that of the request. */
static int is_same(const server *s, const char *origin, const char *host)
{
    if (s->options.cors_origin && strcmp(origin, s->options.cors_origin) == 0) return 1;
    const char *rest = strncmp(origin, "http://", 7) == 0    ? origin + 7
                       : strncmp(origin, "https://", 8) == 0 ? origin + 8
                                                             : NULL;
    return rest && host && strcasecmp(rest, host) == 0;
}

/* Takes the same time wherever the two differ. */
static int equal_keys(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    volatile unsigned char difference = n != m;
    for (size_t i = 0; i < m; i++) difference |= (unsigned char)(a[n ? i % n : 0] ^ b[i]);
    return difference == 0;
}

static int has_key(const server *s, const server_headers *headers)
{
    const char *given = headers->key;
    int found = 0;
    if (headers->authorization && strncasecmp(headers->authorization, "Bearer ", 7) == 0)
        given = headers->authorization + 7;
    for (size_t i = 0; given && i < s->options.key_count; i++)
        found |= equal_keys(s->options.keys[i], given);
    return found;
}

int server_guard(const server *s, const server_route *route, const server_headers *headers,
                 const char **sentence)
{
    *sentence = "";
    if (!headers->host || !is_mine(s, headers->host)) {
        *sentence = "the Host of the request is not a name of this server";
        return 403;
    }
    if (headers->origin && strcmp(route->method, "GET") != 0 &&
        !is_same(s, headers->origin, headers->host)) {
        *sentence =
            "pages of another origin may not ask this server (--cors-origin names one that may)";
        return 403;
    }
    if (s->options.key_count > 0 && !(route->flags & SERVER_OPEN) && !has_key(s, headers)) {
        *sentence = "the request needs a key: Authorization: Bearer KEY";
        return 401;
    }
    return 0;
}
