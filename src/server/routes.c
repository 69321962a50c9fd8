/* The list of routes: what is looked up, what answers 405, and what GET /openapi.json tells.
 *
 * A table names method, path, where its function runs and the members of its body; nothing is said a second time
 * anywhere. Paths are compared part by part, so ".." or an empty part is a part like others and matches nothing. */
#include "server/server_impl.h"

#include "base/fail.h"

#include <stdio.h>
#include <string.h>

static const server_route *const tables[] = {server_routes_llama, server_routes_openai,
                                             server_routes_debug, server_routes_lmdebugger,
                                             server_routes_labels};
enum { TABLES = sizeof tables / sizeof *tables };

/* 1 when the path fits; `part` receives what the braces stand for, joined by '/'. */
static int fits(const char *pattern, const char *path, char *part, size_t size)
{
    size_t used = 0;
    *part = 0;
    while (*pattern == '/' && *path == '/') {
        pattern++;
        path++;
        size_t n = strcspn(pattern, "/"), m = strcspn(path, "/");
        if (*pattern == '{') {
            if (m == 0 || used + 1 + m >= size) return 0;
            if (used > 0) part[used++] = '/';
            memcpy(part + used, path, m);
            part[used += m] = 0;
        } else if (n != m || memcmp(pattern, path, n) != 0) {
            return 0;
        }
        pattern += n;
        path += m;
    }
    return !*pattern && !*path;
}

/* What an Allow says; `set` has the bits of the methods below. */
static const char *const methods[] = {"GET", "POST", "PUT", "DELETE"};
static const char *allowed(unsigned set)
{
    static const char *const lists[] = {"",
                                        "GET",
                                        "POST",
                                        "GET, POST",
                                        "PUT",
                                        "GET, PUT",
                                        "POST, PUT",
                                        "GET, POST, PUT",
                                        "DELETE",
                                        "GET, DELETE",
                                        "POST, DELETE",
                                        "GET, POST, DELETE",
                                        "PUT, DELETE",
                                        "GET, PUT, DELETE",
                                        "POST, PUT, DELETE",
                                        "GET, POST, PUT, DELETE"};
    return lists[set];
}

static unsigned method_bit(const char *method)
{
    for (unsigned i = 0; i < sizeof methods / sizeof *methods; i++)
        if (strcmp(methods[i], method) == 0) return 1u << i;
    return 0;
}

const server_route *server_route_find(const char *method, const char *path, char *part, size_t size,
                                      int *http, const char **allow)
{
    unsigned set = 0;
    for (size_t t = 0; t < TABLES; t++)
        for (const server_route *r = tables[t]; r->path; r++) {
            if (!fits(r->path, path, part, size)) continue;
            if (strcmp(r->method, method) == 0) return r;
            set |= method_bit(r->method);
        }
    *http = set ? 405 : 404;
    *allow = set ? allowed(set) : NULL;
    *part = 0;
    return NULL;
}

json_t *server_routes_json(void)
{
    json_t *list = json_array();
    for (size_t t = 0; t < TABLES; t++)
        for (const server_route *r = tables[t], *before = r; r->path; before = r++) {
            /* methods of one path stand together */
            if (r != before && strcmp(r->path, before->path) == 0) continue;
            json_array_append_new(list, json_string(r->path));
        }
    return list;
}

/* ---- the document */

static json_t *schema_of(const char *type, size_t n)
{
    static const struct {
        const char *name, *type;
    } types[] = {{"text", "string"},  {"int", "integer"}, {"real", "number"},
                 {"flag", "boolean"}, {"array", "array"}, {"object", "object"}};
    if (n == 3 && memcmp(type, "ids", 3) == 0)
        return json_pack("{s:s, s:{s:s}}", "type", "array", "items", "type", "integer");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strlen(types[i].name) == n && memcmp(types[i].name, type, n) == 0)
            return json_pack("{s:s}", "type", types[i].type);
    return json_object(); /* any */
}

/* "prompt:text n:int" */
static json_t *body_of(const char *fields)
{
    char name[64];
    json_t *members = json_object();
    for (const char *at = fields; *at;) {
        size_t n = strcspn(at, ":");
        snprintf(name, sizeof name, "%.*s", (int)n, at);
        const char *type = at + n + (at[n] == ':');
        size_t m = strcspn(type, " ");
        json_object_set_new(members, name, schema_of(type, m));
        at = type + m + strspn(type + m, " ");
    }
    return json_pack("{s:{s:{s:{s:s, s:o}}}}", "content", "application/json", "schema", "type",
                     "object", "properties", members);
}

static json_t *operation(const server_route *r)
{
    json_t *out = json_pack("{s:s, s:{s:{s:s}, s:{s:s, s:{s:{s:{s:s}}}}}}", "summary", r->summary,
                            "responses", "200", "description", "the answer", "default",
                            "description", "a failure, in a sentence", "content",
                            "application/json", "schema", "$ref", "#/components/schemas/Error");
    if (r->flags & SERVER_PLAIN)
        json_object_set_new(
            out, "requestBody",
            json_pack("{s:{s:{s:{s:s}}}}", "content", "text/plain", "schema", "type", "string"));
    else if (r->fields)
        json_object_set_new(out, "requestBody", body_of(r->fields));
    if (r->flags & SERVER_OPEN) json_object_set_new(out, "security", json_array());
    json_t *parameters = json_array();
    for (const char *at = r->path; (at = strchr(at, '{')); at++)
        json_array_append_new(parameters, json_pack("{s:s%, s:s, s:b, s:{s:s}}", "name", at + 1,
                                                    strcspn(at + 1, "}"), "in", "path", "required",
                                                    1, "schema", "type", "string"));
    if (json_array_size(parameters) > 0) json_object_set(out, "parameters", parameters);
    json_decref(parameters);
    return out;
}

kh_status server_route_openapi(server_job *job)
{
    json_t *paths = json_object();
    for (size_t t = 0; t < TABLES; t++)
        for (const server_route *r = tables[t]; r->path; r++) {
            json_t *path = json_object_get(paths, r->path);
            if (!path) {
                json_object_set_new(paths, r->path, json_object());
                path = json_object_get(paths, r->path);
            }
            char method[8] = "";
            for (size_t i = 0; i + 1 < sizeof method && r->method[i]; i++)
                method[i] = (char)(r->method[i] | 32);
            json_object_set_new(path, method, operation(r));
        }
    json_t *error = json_pack("{s:s, s:{s:{s:s, s:{s:{s:s}, s:{s:s}, s:{s:s}}}}}", "type", "object",
                              "properties", "error", "type", "object", "properties", "code", "type",
                              "integer", "message", "type", "string", "type", "type", "string");
    return server_send(
        job,
        json_pack("{s:s, s:{s:s, s:s}, s:[{s:[]}], s:{s:{s:o}, s:{s:{s:s, s:s}}}, s:o}", "openapi",
                  "3.0.3", "info", "title", "keyhole", "version", kh_version(), "security", "key",
                  "components", "schemas", "Error", error, "securitySchemes", "key", "type", "http",
                  "scheme", "bearer", "paths", paths));
}
