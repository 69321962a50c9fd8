/* Words to neurons and labels, by text.
 *
 * LM-Debugger keeps the fifty strongest tokens of every value vector in a search engine and asks it with words. Here they
 * are a file of SQLite beside the labels, tokens-IDENTITY.sqlite:
 *
 *     layer (layer, neurons)               which layers are in it: each came in one transaction
 *     neuron (id, tokens)                  TOKENS x (token, logit); id = (layer * F + neuron) * 2 + end, 0 the upper
 *     words (tokens)                       the same tokens as text, in FTS5 without a copy of its content
 *
 * An end of a value vector is a document of its own, so a hit says whether the neuron promotes or suppresses what was
 * asked. `w`, ` w` and newline-w are one word because blanks separate words, and case is folded, diacritics are kept
 * (unicode61 with remove_diacritics 0). Order: BM25 with k1 1.2 and b 0.75, which are FTS5's; any of the words may hit.
 * Each word of a question is a quoted phrase, so nothing in it is an operator.
 *
 * Labels change whenever somebody writes one, and are few: they are ranked among themselves, in an index in memory that
 * lives as long as the question, and are never stale.
 *
 * The table is made layer by layer; whoever is interrupted loses one layer, and two who make it at once keep the first.
 * SmolLM2-135M (46,080 neurons, 49,152 tokens, 2.6 TFLOP): 28 s on two cores that others used too, 25 MB; a question takes
 * a few milliseconds. Blocks of 256 neurons share a product, and their columns are dequantised together. */
#include "wire/questions.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "wire/database.h"
#include "wire/json_value.h"
#include "wire/labels.h"

#include <string.h>

enum {
    TOKENS = 20,        /* of each end */
    TRIED = 256,        /* neurons that the cost is measured on */
    NEURON_BYTES = 540, /* of the file, as measured */
    MOST = 1000,
    WORDS = 64,
    TEXT = 4096,
    APPLICATION = 1802007659 /* "khtk" */
};

#define WORDS_TABLE                                                                                \
    "CREATE VIRTUAL TABLE words USING fts5(text,"                                                  \
    " content = '', tokenize = 'unicode61 remove_diacritics 0');"

static const wire_database_form form = {
    "top tokens", APPLICATION, 1,
    "CREATE TABLE layer (layer INTEGER PRIMARY KEY, neurons INTEGER NOT NULL);"
    "CREATE TABLE neuron (id INTEGER PRIMARY KEY, tokens BLOB NOT NULL);" WORDS_TABLE};

typedef struct entry {
    int32_t id;
    float logit;
} entry;

/* ---- the file */

static kh_status name_file(kh_buf *out, const wire_ask *ask)
{
    const char *slash = ask->labels ? strrchr(ask->labels, '/') : NULL;
    if (!ask->labels)
        KH_FAIL(KH_ERR_UNSUPPORTED, "top tokens have no place here: --labels FILE names one");
    int folder = slash ? (int)(slash + 1 - ask->labels) : 0;
    return kh_buf_format(out, "%.*stokens-%s.sqlite", folder, ask->labels,
                         kh_model_get_info(ask->model)->identity);
}

static kh_status open_file(wire_database *d, const wire_ask *ask, enum wire_access access)
{
    kh_buf path = {0};
    kh_status status = name_file(&path, ask);
    *d = (wire_database){0};
    if (status == KH_OK) status = wire_database_open(d, path.data, &form, access);
    kh_buf_free(&path);
    return status;
}

typedef struct table {
    int layers, ready, next; /* next: the first that is missing */
    int64_t neurons;         /* in it */
} table;

static kh_status read_layers(table *t, const wire_database *d)
{
    sqlite3_stmt *statement;
    int row = 1;
    KH_TRY(wire_prepare(&statement, d, "SELECT layer, neurons FROM layer ORDER BY layer", ""));
    kh_status status = KH_OK;
    while (status == KH_OK && (status = wire_step(d, statement, &row)) == KH_OK && row) {
        int64_t layer = sqlite3_column_int64(statement, 0);
        t->neurons += sqlite3_column_int64(statement, 1);
        if (layer == t->next) t->next++;
        t->ready++;
    }
    sqlite3_finalize(statement);
    return status;
}

static kh_status read_table(table *t, const wire_ask *ask)
{
    wire_database d;
    *t = (table){.layers = kh_model_get_info(ask->model)->layers};
    KH_TRY(open_file(&d, ask, WIRE_READING));
    return d.db ? wire_database_close(&d, read_layers(t, &d)) : KH_OK;
}

static json_t *table_json(const table *t)
{
    return json_pack("{s:i, s:i, s:I, s:i}", "layers", t->layers, "ready", t->ready, "neurons",
                     (json_int_t)t->neurons, "tokens", TOKENS);
}

/* ---- making the table */

typedef struct making {
    const wire_ask *ask;
    kh_component *neurons;   /* [F] */
    kh_vocabulary_end *ends; /* [2][F] */
    size_t F, tokens;
} making;

static void forget_ends(const making *m)
{
    for (size_t i = 0; m->ends && i < 2 * m->F; i++) kh_vocabulary_end_free(&m->ends[i]);
}

/* The first `count` neurons of a layer; 0 of a layer whose neurons are not told apart. */
static kh_status look(const making *m, int layer, size_t *count)
{
    forget_ends(m);
    for (size_t f = 0; f < *count; f++)
        m->neurons[f] = (kh_component){KH_COMPONENT_NEURON, layer, (int)f, 0};
    kh_status status = kh_neuron_tokens(m->ask->inspector, m->neurons, *count, m->tokens, m->ends,
                                        m->ends + m->F);
    if (status != KH_ERR_UNSUPPORTED) return status;
    *count = 0;
    return KH_OK;
}

/* An end as bytes and as text. */
static kh_status write_end(const making *m, const kh_vocabulary_end *end, entry *list, kh_buf *text)
{
    text->size = 0;
    for (size_t i = 0; i < end->count; i++) {
        list[i] = (entry){end->tokens[i].id, end->tokens[i].logit};
        json_t *valid = wire_token_text(m->ask->model, list[i].id);
        if (!valid) KH_FAIL(KH_ERR_MEMORY, "no memory for tokens");
        kh_status status = kh_buf_format(text, "%s ", json_string_value(valid));
        json_decref(valid);
        KH_TRY(status);
    }
    return KH_OK;
}

static kh_status insert_end(const making *m, const wire_database *d, int64_t id,
                            const kh_vocabulary_end *end, kh_buf *text)
{
    entry list[TOKENS];
    sqlite3_stmt *statement;
    KH_TRY(write_end(m, end, list, text));
    KH_TRY(wire_prepare(&statement, d, "INSERT INTO neuron VALUES (?1, ?2)", "ib", id,
                        (const void *)list, end->count * sizeof *list));
    KH_TRY(wire_finish(d, statement));
    KH_TRY(wire_prepare(&statement, d, "INSERT INTO words (rowid, text) VALUES (?1, ?2)", "it", id,
                        text->data));
    return wire_finish(d, statement);
}

static kh_status insert_layer(const making *m, const wire_database *d, int layer, size_t count)
{
    kh_buf text = {0};
    sqlite3_stmt *statement;
    KH_TRY(wire_prepare(&statement, d, "INSERT OR IGNORE INTO layer VALUES (?1, ?2)", "ii",
                        (int64_t)layer, (int64_t)count));
    KH_TRY(wire_finish(d, statement));
    if (sqlite3_changes(d->db) == 0) return KH_OK; /* somebody else was faster */
    kh_status status = KH_OK;
    for (size_t f = 0; f < count && status == KH_OK; f++)
        for (size_t end = 0; end < 2 && status == KH_OK; end++) {
            int64_t id = ((int64_t)layer * (int64_t)m->F + (int64_t)f) * 2 + (int64_t)end;
            status = insert_end(m, d, id, &m->ends[end * m->F + f], &text);
        }
    kh_buf_free(&text);
    return status;
}

static kh_status make_layer(const making *m, int layer)
{
    wire_database d;
    size_t count = m->F;
    KH_TRY(look(m, layer, &count));
    KH_TRY(open_file(&d, m->ask, WIRE_WRITING));
    return wire_database_close(&d, insert_layer(m, &d, layer, count));
}

/* How long a layer will take, from some of its neurons. */
static kh_status try_layer(const making *m, int layer, double *seconds)
{
    size_t count = m->F < TRIED ? m->F : TRIED;
    double start = wire_seconds();
    KH_TRY(look(m, layer, &count));
    *seconds = count ? (wire_seconds() - start) * (double)m->F / (double)count : 0;
    return KH_OK;
}

static kh_status tell(const making *m, const table *t, const char *type, double each)
{
    json_t *value = table_json(t);
    json_int_t missing = t->layers - t->ready;
    if (value) {
        json_object_set_new(value, "type", json_string(type));
        json_object_set_new(value, "missing", json_integer(missing * (json_int_t)m->F));
        json_object_set_new(value, "bytes",
                            json_integer(missing * (json_int_t)m->F * NEURON_BYTES));
        json_object_set_new(value, "seconds", wire_real(each * (double)missing));
    }
    return wire_send(m->ask, value);
}

static kh_status make(const making *m, int64_t most)
{
    table t;
    double each = 0, start, spent = 0;
    int64_t made = 0;
    KH_TRY(read_table(&t, m->ask));
    if (t.ready < t.layers) KH_TRY(try_layer(m, t.next, &each));
    KH_TRY(tell(m, &t, "cost", each));
    for (; made < most && t.ready < t.layers; made++) {
        start = wire_seconds();
        KH_TRY(make_layer(m, t.next));
        spent += wire_seconds() - start;
        KH_TRY(read_table(&t, m->ask));
        KH_TRY(tell(m, &t, "layer", spent / (double)(made + 1)));
    }
    return tell(m, &t, "done", made ? spent / (double)made : each);
}

kh_status wire_search_table(const wire_ask *ask)
{
    const kh_model_info *info = kh_model_get_info(ask->model);
    making m = {.ask = ask, .F = (size_t)info->ff_width, .tokens = TOKENS};
    int64_t most = info->layers;
    if (info->vocabulary < TOKENS) m.tokens = (size_t)info->vocabulary;
    KH_TRY(wire_get_int(ask->body, "layers", &most, 0, info->layers));
    kh_status status = kh_new(&m.neurons, m.F, sizeof *m.neurons, "neurons");
    if (status == KH_OK) status = kh_new(&m.ends, 2 * m.F, sizeof *m.ends, "tokens");
    if (status == KH_OK) status = make(&m, most);
    forget_ends(&m);
    kh_free(m.ends);
    kh_free(m.neurons);
    return status;
}

/* ---- asking */

/* Words become phrases in quotes, of which any may be found: "the" OR "say ""it""". */
static kh_status quote(kh_buf *out, const char *text)
{
    static const char blanks[] = " \t\r\n,";
    size_t words = 0;
    for (const char *at = text; *(at += strspn(at, blanks)); words++) {
        size_t n = strcspn(at, blanks);
        if (words == WORDS)
            KH_FAIL(KH_ERR_ARGUMENT, "text: at most %d words are looked for", WORDS);
        KH_TRY(kh_buf_text(out, words ? " OR \"" : "\""));
        for (size_t i = 0; i < n; i++)
            for (int twice = at[i] == '"'; twice >= 0; twice--) KH_TRY(kh_buf_add(out, at + i, 1));
        KH_TRY(kh_buf_text(out, "\""));
        at += n;
    }
    if (words == 0) KH_FAIL(KH_ERR_ARGUMENT, "text: words to look for are expected");
    return KH_OK;
}

typedef struct asking {
    const wire_ask *ask;
    kh_buf match;
    int64_t most, ends;
} asking;

static kh_status hit_json(const asking *a, sqlite3_stmt *row, json_t **out)
{
    const kh_model_info *info = kh_model_get_info(a->ask->model);
    int64_t id = sqlite3_column_int64(row, 0), neuron = id / 2;
    const void *bytes = sqlite3_column_blob(row, 2);
    size_t size = (size_t)sqlite3_column_bytes(row, 2), count = size / sizeof(entry);
    entry list[TOKENS];
    kh_lens_token tokens[TOKENS];
    int good = id >= 0 && neuron < (int64_t)info->layers * info->ff_width && count <= TOKENS &&
               bytes;
    if (good) memcpy(list, bytes, count * sizeof *list);
    for (size_t i = 0; good && i < count; i++) {
        good = list[i].id >= 0 && list[i].id < info->vocabulary;
        tokens[i] = (kh_lens_token){.id = list[i].id, .logit = list[i].logit};
    }
    if (!good)
        KH_FAIL(KH_ERR_FORMAT, "top tokens: the file has a row that is none of this model's");
    const kh_component part = {KH_COMPONENT_NEURON, (int)(neuron / info->ff_width),
                               (int)(neuron % info->ff_width), 0};
    *out = json_pack("{s:o, s:s, s:o, s:o}", "part", wire_part_text(&part), "end",
                     id & 1 ? "bottom" : "top", "score", wire_real(sqlite3_column_double(row, 1)),
                     "tokens", wire_raw_tokens(a->ask->model, tokens, count));
    return *out ? KH_OK : kh_fail(KH_ERR_MEMORY, "no memory for the answer");
}

static kh_status find_neurons(const asking *a, const wire_database *d, json_t *list)
{
    sqlite3_stmt *statement;
    int row = 1;
    KH_TRY(wire_prepare(&statement, d,
                        "SELECT f.id, f.score, neuron.tokens FROM (SELECT rowid AS id,"
                        " -bm25(words) AS score FROM words WHERE words MATCH ?1"
                        " AND ((?2 >> (rowid & 1)) & 1) ORDER BY score DESC, id LIMIT ?3) f"
                        " JOIN neuron ON neuron.id = f.id ORDER BY f.score DESC, f.id",
                        "tii", a->match.data, a->ends, a->most));
    kh_status status = KH_OK;
    while (status == KH_OK && (status = wire_step(d, statement, &row)) == KH_OK && row) {
        json_t *one = NULL;
        status = hit_json(a, statement, &one);
        if (status == KH_OK && json_array_append_new(list, one) != 0)
            status = kh_fail(KH_ERR_MEMORY, "no memory for the answer");
    }
    sqlite3_finalize(statement);
    return status;
}

static kh_status ask_table(const asking *a, table *t, json_t *list)
{
    wire_database d;
    *t = (table){.layers = kh_model_get_info(a->ask->model)->layers};
    KH_TRY(open_file(&d, a->ask, WIRE_READING));
    if (!d.db) return KH_OK;
    kh_status status = read_layers(t, &d);
    if (status == KH_OK) status = find_neurons(a, &d, list);
    return wire_database_close(&d, status);
}

static kh_status index_labels(const wire_database *d, const json_t *labels)
{
    sqlite3_stmt *statement;
    const json_t *one;
    size_t i;
    KH_TRY(wire_command(d, "BEGIN;" WORDS_TABLE));
    json_array_foreach(labels, i, one)
    {
        KH_TRY(wire_prepare(&statement, d, "INSERT INTO words (rowid, text) VALUES (?1, ?2)", "it",
                            (int64_t)i, json_string_value(json_object_get(one, "text"))));
        KH_TRY(wire_finish(d, statement));
    }
    return KH_OK;
}

static kh_status find_labels(const asking *a, const wire_database *d, const json_t *labels,
                             json_t *list)
{
    sqlite3_stmt *statement;
    int row = 1;
    KH_TRY(wire_prepare(&statement, d,
                        "SELECT rowid AS id, -bm25(words) AS score FROM words WHERE words MATCH ?1"
                        " ORDER BY score DESC, id LIMIT ?2",
                        "ti", a->match.data, a->most));
    kh_status status = KH_OK;
    while (status == KH_OK && (status = wire_step(d, statement, &row)) == KH_OK && row) {
        json_t *one = json_array_get(labels, (size_t)sqlite3_column_int64(statement, 0));
        if (json_object_set_new(one, "score", wire_real(sqlite3_column_double(statement, 1))) !=
                0 ||
            json_array_append(list, one) != 0)
            status = kh_fail(KH_ERR_MEMORY, "no memory for the answer");
    }
    sqlite3_finalize(statement);
    return status;
}

static kh_status ask_labels(const asking *a, json_t *list)
{
    const wire_labels at = {a->ask->labels, a->ask->model};
    wire_database d = {.file = "memory", .form = &form};
    json_t *all = NULL;
    KH_TRY(wire_labels_list(&at, &all));
    const json_t *labels = json_object_get(all, "labels");
    kh_status status = KH_OK;
    if (json_array_size(labels) > 0) {
        if (sqlite3_open(":memory:", &d.db) != SQLITE_OK)
            status = kh_fail(KH_ERR_MEMORY, "no memory for an index of labels");
        if (status == KH_OK) status = index_labels(&d, labels);
        if (status == KH_OK) status = find_labels(a, &d, labels, list);
        sqlite3_close(d.db);
    }
    json_decref(all);
    return status;
}

static kh_status read_asking(asking *a)
{
    static const char *const ends[] = {"both", "top", "bottom", NULL};
    const char *text = NULL;
    size_t size = 0;
    int end = 0;
    KH_TRY(wire_get_text(a->ask->body, "text", &text, &size));
    if (!text) KH_FAIL(KH_ERR_ARGUMENT, "text: words to look for are expected");
    if (size > TEXT) KH_FAIL(KH_ERR_ARGUMENT, "text: %zu bytes, at most %d are read", size, TEXT);
    KH_TRY(wire_get_choice(a->ask->body, "ends", ends, &end));
    KH_TRY(wire_get_int(a->ask->body, "most", &a->most, 1, MOST));
    a->ends = end ? end : 3;
    return quote(&a->match, text);
}

kh_status wire_search_text(const wire_ask *ask)
{
    double start = wire_seconds();
    asking a = {.ask = ask, .most = 20};
    table t = {0};
    json_t *labels = json_array(), *hits = json_array();
    kh_status status = read_asking(&a);
    if (status == KH_OK) status = ask_labels(&a, labels);
    if (status == KH_OK) status = ask_table(&a, &t, hits);
    kh_buf_free(&a.match);
    if (status == KH_OK)
        return wire_send(ask, json_pack("{s:o, s:o, s:o, s:o}", "table", table_json(&t), "labels",
                                        labels, "hits", hits, "seconds",
                                        wire_real(wire_seconds() - start)));
    json_decref(labels);
    json_decref(hits);
    return status;
}
