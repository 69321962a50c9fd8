/* The tokenizer of a Hugging Face folder.
 *
 *     tokenizer.json            the tokenizer itself; must be there
 *     special_tokens_map.json   which pieces are bos, eos, unk, sep, pad, cls, mask, by their texts
 *     tokenizer_config.json     the same, and it wins; the chat template
 *     chat_template.jinja       the chat template, and it wins; chat_template.json holds one too
 *     generation_config.json, config.json   bos_token_id, pad_token_id where no text named them; every
 *                               eos_token_id ends a turn
 *
 * What is put around a text is the post-processor's business alone; "add_bos_token" of
 * tokenizer_config.json tells how that post-processor was made and is not read. A text that is no
 * piece (a mask that the model does not have) is passed over, as is an id outside the vocabulary:
 * these files describe more than the tokenizer. */
#include "base/alloc.h"
#include "base/fail.h"
#include "base/file.h"
#include "tokens/tok_json.h"

#include <string.h>
#include <unistd.h>

enum { MOST_BYTES = 1 << 29, MOST_CONFIG = 1 << 26 };

static kh_status join(kh_buf *path, const char *folder, const char *name)
{
    kh_buf_clear(path);
    return kh_buf_format(path, "%s/%s", folder, name);
}

/* A file that may be missing: *out is NULL then. */
static kh_status read_config(json_t **out, kh_buf *path, const char *folder, const char *name)
{
    *out = NULL;
    KH_TRY(join(path, folder, name));
    if (access(path->data, F_OK) != 0) return KH_OK;
    KH_TRY(kh_json_read(out, path->data, MOST_CONFIG));
    if (json_is_object(*out)) return KH_OK;
    kh_status status = kh_fail(KH_ERR_FORMAT, "%s is %s (expected: an object)", path->data,
                               kh_json_kind(*out));
    json_decref(*out);
    *out = NULL;
    return status;
}

/* "bos_token": "<s>", or {"content": "<s>", ...} */
static void read_texts(kh_tokenizer *t, const json_t *config)
{
    kh_special_ids *s = &t->special;
    const struct {
        const char *key;
        int32_t *id;
    } known[] = {
        {"bos_token", &s->bos},   {"eos_token", &s->eos}, {"unk_token", &s->unk},
        {"sep_token", &s->sep},   {"pad_token", &s->pad}, {"cls_token", &s->cls},
        {"mask_token", &s->mask},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; ++i) {
        const json_t *value = kh_json_get(config, known[i].key);
        if (json_is_object(value)) value = kh_json_get(value, "content");
        if (!json_is_string(value)) continue;
        int32_t id = kh_vocab_find(&t->vocab, json_string_value(value), json_string_length(value));
        if (id >= 0) *known[i].id = id;
    }
}

static int32_t read_id(const kh_tokenizer *t, const json_t *value)
{
    double id;
    if (!kh_json_number(value, &id) || id < 0 || id >= t->vocab.size) return -1;
    return (int32_t)id;
}

static void read_ids(kh_tokenizer *t, const json_t *config)
{
    kh_special_ids *s = &t->special;
    const json_t *eos = kh_json_get(config, "eos_token_id");
    if (s->bos < 0) s->bos = read_id(t, kh_json_get(config, "bos_token_id"));
    if (s->pad < 0) s->pad = read_id(t, kh_json_get(config, "pad_token_id"));
    size_t n = json_is_array(eos) ? json_array_size(eos) : 1;
    for (size_t i = 0; i < n; ++i) {
        int32_t id = read_id(t, json_is_array(eos) ? json_array_get(eos, i) : eos);
        if (s->eos < 0) s->eos = id;
        kh_tokenizer_add_end(t, id);
    }
}

static kh_status add_chat(kh_tokenizer *t, kh_slice name, kh_slice text)
{
    for (int i = 0; i < t->n_chats; ++i)
        if (t->chats[i].name.size == name.size &&
            !memcmp(t->chats[i].name.data, name.data, name.size))
            return KH_OK;
    if (t->n_chats == KH_MOST_TEMPLATES)
        KH_FAIL(KH_ERR_UNSUPPORTED, "there are more than %d chat templates", KH_MOST_TEMPLATES);
    kh_chat_text *chat = &t->chats[t->n_chats];
    KH_TRY(kh_store_text(&t->store, &chat->name, name.data, name.size));
    KH_TRY(kh_store_text(&t->store, &chat->text, text.data, text.size));
    ++t->n_chats;
    return KH_OK;
}

static kh_slice text_of(const json_t *value)
{
    return (kh_slice){json_string_value(value), json_string_length(value)};
}

/* "chat_template": one text, or [{"name", "template"}]. */
static kh_status read_chats(kh_tokenizer *t, const json_t *config)
{
    const json_t *value = kh_json_get(config, "chat_template");
    if (json_is_string(value)) return add_chat(t, (kh_slice){"default", 7}, text_of(value));
    for (size_t i = 0; i < json_array_size(value); ++i) {
        const json_t *item = json_array_get(value, i);
        const json_t *name = kh_json_get(item, "name"), *text = kh_json_get(item, "template");
        if (!json_is_string(name) || !json_is_string(text))
            KH_FAIL(KH_ERR_FORMAT, "chat template %zu is not {\"name\", \"template\"}", i);
        KH_TRY(add_chat(t, text_of(name), text_of(text)));
    }
    return KH_OK;
}

static kh_status read_chat_file(kh_tokenizer *t, kh_buf *path, const char *folder)
{
    char *text;
    size_t size;
    KH_TRY(join(path, folder, "chat_template.jinja"));
    if (access(path->data, F_OK) != 0) return KH_OK;
    KH_TRY(kh_file_read(&text, &size, path->data, MOST_CONFIG));
    kh_status status = add_chat(t, (kh_slice){"default", 7}, (kh_slice){text, size});
    kh_free(text);
    return status;
}

static kh_status nothing(kh_tokenizer *t, const json_t *config)
{
    (void)t;
    (void)config;
    return KH_OK;
}

static kh_status read_all(kh_tokenizer *t, kh_buf *path, const char *folder)
{
    static const struct {
        const char *name;
        void (*read)(kh_tokenizer *, const json_t *);
        kh_status (*chats)(kh_tokenizer *, const json_t *);
    } files[] = {
        {"special_tokens_map.json", read_texts, nothing},
        {"tokenizer_config.json", read_texts, read_chats},
        {"chat_template.json", NULL, read_chats},
        {"generation_config.json", read_ids, nothing},
        {"config.json", read_ids, nothing},
    };
    KH_TRY(read_chat_file(t, path, folder));
    for (size_t i = 0; i < sizeof files / sizeof files[0]; ++i) {
        json_t *config;
        KH_TRY(read_config(&config, path, folder, files[i].name));
        if (!config) continue;
        if (files[i].read) files[i].read(t, config);
        kh_status status = files[i].chats(t, config);
        json_decref(config);
        if (status != KH_OK) return kh_fail_context(status, "%s", path->data);
    }
    return KH_OK;
}

/* The token in front of a text is its bos, whatever it is called. */
static void find_edges(kh_tokenizer *t)
{
    kh_special_ids *s = &t->special;
    const kh_post_template *one = &t->post.one;
    if (s->add_bos && s->bos < 0 && one->items[0].id != s->cls) s->bos = one->items[0].id;
    if (s->add_eos && s->eos < 0 && one->items[one->count - 1].id != s->sep)
        s->eos = one->items[one->count - 1].id;
    kh_tokenizer_add_end(t, s->eos);
}

static kh_status open_folder(kh_tokenizer **out, kh_buf *path, const char *folder)
{
    char *json;
    size_t size;
    KH_TRY(join(path, folder, "tokenizer.json"));
    if (access(path->data, F_OK) != 0)
        KH_FAIL(KH_ERR_IO, "%s has no tokenizer.json, which its tokenizer is read from", folder);
    KH_TRY(kh_file_read(&json, &size, path->data, MOST_BYTES));
    kh_status status = kh_tokenizer_open_json(out, json, size, path->data);
    kh_free(json);
    KH_TRY(status);
    status = read_all(*out, path, folder);
    if (status != KH_OK) {
        kh_tokenizer_close(*out);
        *out = NULL;
        return status;
    }
    find_edges(*out);
    return KH_OK;
}

kh_status kh_tokenizer_open_folder(kh_tokenizer **out, const char *folder)
{
    kh_buf path = {0};
    *out = NULL;
    kh_status status = open_folder(out, &path, folder);
    kh_buf_free(&path);
    return status;
}
