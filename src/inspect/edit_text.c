/* The text of an edit: PART ":" OPERATION ["=" ARGUMENTS] [ "@" POSITIONS ] [ "/" STEPS ].
 *
 * Read from the left; a token in quotes may hold any character, so the scope is looked for behind the closing
 * quote. Which operations a part allows is one table: a neuron and the weight of a key are numbers, a head is a
 * vector without directions of its own, and what lives in the residual stream has directions.
 *
 * One text serves flags, files, URLs, chips of the page and bodies of requests; kh_edit_text writes what
 * kh_edit_parse reads. */
#include "base/buf.h"
#include "base/fail.h"
#include "format/json.h"
#include "model/network.h"

#include <ctype.h>
#include <errno.h>
#include <keyhole/inspect.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum kind { NUMBER = 1, VECTOR = 2, STREAM = 4 };

typedef enum arguments { NONE, ONE_VALUE, TWO_VALUES, A_PART, A_SIGN, A_DIRECTION } arguments;

static const struct {
    const char *name;
    kh_edit_operation operation;
    unsigned kinds;
    arguments arguments; /* of streams, add and swap take directions instead */
} operations[] = {{"zero", KH_EDIT_ZERO, NUMBER | VECTOR | STREAM, NONE},
                  {"scale", KH_EDIT_SCALE, NUMBER | VECTOR | STREAM, ONE_VALUE},
                  {"set", KH_EDIT_SET, NUMBER | VECTOR | STREAM, ONE_VALUE},
                  {"add", KH_EDIT_ADD, NUMBER | STREAM, ONE_VALUE},
                  {"clamp", KH_EDIT_CLAMP, NUMBER | VECTOR | STREAM, TWO_VALUES},
                  {"mean", KH_EDIT_MEAN, NUMBER | VECTOR | STREAM, NONE},
                  {"swap", KH_EDIT_SWAP, NUMBER | VECTOR | STREAM, A_PART},
                  {"project", KH_EDIT_PROJECT, STREAM, A_DIRECTION},
                  {"compat", KH_EDIT_COMPAT, NUMBER, A_SIGN},
                  {"exact", KH_EDIT_EXACT, NUMBER, A_SIGN}};
enum { OPERATIONS = sizeof operations / sizeof *operations };

static unsigned kind_of(kh_component_kind kind)
{
    switch (kind) {
    case KH_COMPONENT_NEURON:
    case KH_COMPONENT_KEY: return NUMBER;
    case KH_COMPONENT_HEAD: return VECTOR;
    default: return STREAM;
    }
}

typedef struct reader {
    const kh_model *model;
    const char *text; /* the whole, for sentences */
    const char *at;
} reader;

static kh_status bad(const reader *r, const char *expected)
{
    KH_FAIL(KH_ERR_ARGUMENT, "edit '%s': %s is expected at '%s'", r->text, expected, r->at);
}

static kh_status value_at(reader *r, float *out)
{
    char digits[32] = "", *end = NULL;
    const char *dots = strstr(r->at, "..");
    size_t n = strcspn(r->at, "*,@/");
    if (dots && (size_t)(dots - r->at) < n) n = (size_t)(dots - r->at); /* "1..2" is two numbers */
    if (n == 0 || n >= sizeof digits) return bad(r, "a number");
    memcpy(digits, r->at, n);
    errno = 0;
    double value = strtod(digits, &end);
    if (*end || errno || !isfinite(value) || fabs(value) > 1e30) return bad(r, "a number");
    *out = (float)value;
    r->at += n;
    return KH_OK;
}

/* A token in quotes, JSON's way. */
static kh_status quoted(reader *r, int32_t *out)
{
    const char *end = r->at + 1;
    while (*end && *end != '"') end += *end == '\\' && end[1] ? 2 : 1;
    if (!*end) return bad(r, "a closing quote behind the token");
    size_t size = (size_t)(end + 1 - r->at), count = 0;
    json_error_t error;
    json_t *word = json_loadb(r->at, size, JSON_DECODE_ANY, &error);
    if (!word) return bad(r, "a token in quotes");
    int32_t *ids = NULL;
    kh_status status = kh_model_tokenize(r->model, json_string_value(word),
                                         json_string_length(word), KH_TEXT_SPECIAL, &ids, &count);
    json_decref(word);
    if (status == KH_OK && count != 1) {
        int size_of = (int)size;
        status = kh_fail(KH_ERR_ARGUMENT,
                         "edit '%s': %.*s is %zu tokens, one is expected (#ID names "
                         "one by its id)",
                         r->text, size_of, r->at, count);
    }
    if (status == KH_OK) *out = ids[0];
    kh_free_ids(ids);
    r->at = end + 1;
    return status;
}

static kh_status direction_at(reader *r, kh_direction *out)
{
    *out = (kh_direction){.kind = KH_DIRECTION_TOKEN};
    if (*r->at == '"') return quoted(r, &out->token);
    if (*r->at == '#') {
        char *end = NULL;
        long id = strtol(r->at + 1, &end, 10);
        if (end == r->at + 1 || id < 0 || id >= r->model->d.V) return bad(r, "the id of a token");
        out->token = (int32_t)id;
        r->at = end;
        return KH_OK;
    }
    char name[KH_COMPONENT_TEXT] = "";
    size_t n = strcspn(r->at, ",@/");
    kh_component part;
    if (n == 0 || n >= sizeof name) return bad(r, "a token in quotes, #ID or a neuron");
    memcpy(name, r->at, n);
    KH_TRY(kh_component_parse(&part, r->model, name));
    if (part.kind != KH_COMPONENT_NEURON)
        return bad(r, "a direction (a token in quotes, #ID or a neuron)");
    *out = (kh_direction){KH_DIRECTION_NEURON, 0, part.layer, part.index, NULL};
    r->at += n;
    return KH_OK;
}

/* The other part of a swap: of the same kind and layer. */
static kh_status other_at(reader *r, kh_edit *out)
{
    char name[KH_COMPONENT_TEXT] = "";
    size_t n = strcspn(r->at, "@/");
    kh_component part;
    if (n == 0 || n >= sizeof name) return bad(r, "another part");
    memcpy(name, r->at, n);
    KH_TRY(kh_component_parse(&part, r->model, name));
    int key = part.kind == KH_COMPONENT_KEY;
    if (part.kind != out->part.kind || part.layer != out->part.layer ||
        (key && part.index != out->part.index))
        return bad(r, "a part of the same kind and layer");
    out->other = key ? part.key : part.index;
    r->at += n;
    return KH_OK;
}

static kh_status two_directions(reader *r, kh_edit *out)
{
    KH_TRY(direction_at(r, &out->direction));
    if (*r->at != ',') return bad(r, "a comma and a second direction");
    r->at++;
    return direction_at(r, &out->second);
}

static kh_status arguments_at(reader *r, kh_edit *out, arguments kind)
{
    int stream = kind_of(out->part.kind) == STREAM;
    if (kind == NONE) return KH_OK;
    if (*r->at != '=') return bad(r, "'=' and a value");
    r->at++;
    if (out->operation == KH_EDIT_SWAP) return stream ? two_directions(r, out) : other_at(r, out);
    if (kind == A_DIRECTION) return direction_at(r, &out->direction);
    KH_TRY(value_at(r, &out->value));
    if (kind == TWO_VALUES) {
        if (strncmp(r->at, "..", 2) != 0) return bad(r, "'..' and the upper end");
        r->at += 2;
        KH_TRY(value_at(r, &out->high));
        if (out->high < out->value) return bad(r, "an upper end above the lower one");
    }
    if (stream && out->operation == KH_EDIT_ADD) {
        if (*r->at != '*') return bad(r, "'*' and a direction");
        r->at++;
        return direction_at(r, &out->direction);
    }
    return KH_OK;
}

/* "3", "0-5", "7-", "last". */
static kh_status range_at(reader *r, int32_t *first, int32_t *last, int positions)
{
    if (positions && strncmp(r->at, "last", 4) == 0) {
        *first = *last = KH_EDIT_LAST;
        r->at += 4;
        return KH_OK;
    }
    char *end = NULL;
    long from = strtol(r->at, &end, 10), to = from;
    if (end == r->at || from < 0 || from >= KH_EDIT_EVERYWHERE)
        return bad(r, "a number or a range");
    r->at = end;
    if (*r->at == '-') {
        r->at++;
        to = KH_EDIT_EVERYWHERE;
        if (isdigit((unsigned char)*r->at)) {
            to = strtol(r->at, &end, 10);
            r->at = end;
        }
        if (to < from || to > KH_EDIT_EVERYWHERE) return bad(r, "a range that ascends");
    }
    *first = (int32_t)from;
    *last = (int32_t)to;
    return KH_OK;
}

static kh_status operation_at(reader *r, kh_edit *out)
{
    size_t n = strcspn(r->at, "=@/");
    for (size_t i = 0; i < OPERATIONS; i++) {
        if (strlen(operations[i].name) != n || strncmp(operations[i].name, r->at, n) != 0) continue;
        unsigned kinds = operations[i].kinds;
        int neuron_only = operations[i].arguments == A_SIGN;
        if (!(kinds & kind_of(out->part.kind)) ||
            (neuron_only && out->part.kind != KH_COMPONENT_NEURON))
            KH_FAIL(KH_ERR_ARGUMENT, "edit '%s': %s is not defined for this part", r->text,
                    operations[i].name);
        out->operation = operations[i].operation;
        r->at += n;
        return arguments_at(r, out, operations[i].arguments);
    }
    return bad(r, "zero, scale, set, add, clamp, mean, swap, project, compat or exact");
}

kh_status kh_edit_parse(kh_edit *out, const kh_model *model, const char *text)
{
    char name[KH_COMPONENT_TEXT] = "";
    const char *colon = strchr(text, ':');
    reader r = {model, text, text};
    *out = (kh_edit){.last = KH_EDIT_EVERYWHERE, .last_step = KH_EDIT_EVERYWHERE};
    if (!colon || (size_t)(colon - text) >= sizeof name)
        return bad(&r, "PART:OPERATION, such as L12H3:zero,");
    memcpy(name, text, (size_t)(colon - text));
    KH_TRY(kh_component_parse(&out->part, model, name));
    r.at = colon + 1;
    KH_TRY(operation_at(&r, out));
    if (*r.at == '@') {
        r.at++;
        KH_TRY(range_at(&r, &out->first, &out->last, 1));
    }
    if (*r.at == '/') {
        r.at++;
        KH_TRY(range_at(&r, &out->first_step, &out->last_step, 0));
    }
    return *r.at ? bad(&r, "the end") : KH_OK;
}

/* ---- writing ---- */

static kh_status put_direction(kh_buf *out, const kh_direction *d, const kh_model *model)
{
    char piece[256];
    size_t n = kh_model_piece(model, d->token, piece, sizeof piece), count = 0;
    int32_t *ids = NULL;
    if (d->kind == KH_DIRECTION_NEURON) return kh_buf_format(out, "L%dN%d", d->layer, d->neuron);
    if (d->kind != KH_DIRECTION_TOKEN)
        KH_FAIL(KH_ERR_UNSUPPORTED, "a direction that is a vector has no text");
    json_t *word = n <= sizeof piece ? json_stringn(piece, n) : NULL;
    char *shown = NULL;
    /* the text only where it comes back as this very token */
    if (word && kh_model_tokenize(model, piece, n, KH_TEXT_SPECIAL, &ids, &count) == KH_OK &&
        count == 1 && ids[0] == d->token)
        shown = json_dumps(word, JSON_ENCODE_ANY);
    kh_free_ids(ids);
    json_decref(word);
    kh_status status = shown ? kh_buf_text(out, shown) : kh_buf_format(out, "#%d", d->token);
    if (shown) {
        json_malloc_t take;
        json_free_t give;
        json_get_alloc_funcs(&take, &give);
        give(shown);
    }
    return status;
}

static kh_status put_arguments(kh_buf *out, const kh_edit *e, const kh_model *model)
{
    int stream = kind_of(e->part.kind) == STREAM;
    switch (e->operation) {
    case KH_EDIT_ZERO:
    case KH_EDIT_MEAN: return KH_OK;
    case KH_EDIT_CLAMP: return kh_buf_format(out, "=%.9g..%.9g", (double)e->value, (double)e->high);
    case KH_EDIT_PROJECT:
        KH_TRY(kh_buf_text(out, "="));
        return put_direction(out, &e->direction, model);
    case KH_EDIT_SWAP:
        if (!stream) {
            char name[KH_COMPONENT_TEXT];
            kh_component other = e->part;
            *(other.kind == KH_COMPONENT_KEY ? &other.key : &other.index) = e->other;
            kh_component_text(&other, name, sizeof name);
            return kh_buf_format(out, "=%s", name);
        }
        KH_TRY(kh_buf_text(out, "="));
        KH_TRY(put_direction(out, &e->direction, model));
        KH_TRY(kh_buf_text(out, ","));
        return put_direction(out, &e->second, model);
    default: break;
    }
    KH_TRY(kh_buf_format(out, "=%.9g", (double)e->value));
    if (!stream || e->operation != KH_EDIT_ADD) return KH_OK;
    KH_TRY(kh_buf_text(out, "*"));
    return put_direction(out, &e->direction, model);
}

static kh_status put_range(kh_buf *out, char mark, int32_t first, int32_t last)
{
    if (first == 0 && last == KH_EDIT_EVERYWHERE) return KH_OK;
    if (first == KH_EDIT_LAST) return kh_buf_format(out, "%clast", mark);
    KH_TRY(kh_buf_format(out, "%c%d", mark, first));
    if (last == first) return KH_OK;
    return last == KH_EDIT_EVERYWHERE ? kh_buf_text(out, "-") : kh_buf_format(out, "-%d", last);
}

kh_status kh_edit_text(const kh_edit *edit, const kh_model *model, char **text)
{
    char name[KH_COMPONENT_TEXT];
    kh_buf out = {0};
    *text = NULL;
    kh_component_text(&edit->part, name, sizeof name);
    const char *operation = "zero";
    for (size_t i = 0; i < OPERATIONS; i++)
        if (operations[i].operation == edit->operation) operation = operations[i].name;
    kh_status status = kh_buf_format(&out, "%s:%s", name, operation);
    if (status == KH_OK) status = put_arguments(&out, edit, model);
    if (status == KH_OK) status = put_range(&out, '@', edit->first, edit->last);
    if (status == KH_OK) status = put_range(&out, '/', edit->first_step, edit->last_step);
    if (status == KH_OK)
        *text = out.data;
    else
        kh_buf_free(&out);
    return status;
}
