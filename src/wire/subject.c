/* What a question is about, and tokens as people read them.
 *
 * A prompt is tokenised as the file asks, markers included, since whoever inspects wants to see them work; a client
 * that branched from a token sends ids, which are never tokenised again. Texts of tokens are the bytes of the
 * vocabulary; halves of characters become U+FFFD, and say that the next token goes on with them. */
#include "wire/subject.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "wire/json_value.h"

#include <string.h>

enum { MOST_EDITS = 1000, MOST_IDS = 1 << 24 };

static kh_status chat(wire_subject *out, const kh_model *model, const char *prompt)
{
    const kh_chat_message message = {"user", prompt};
    return kh_model_chat(model, NULL, &message, 1, &out->ids, &out->count);
}

static kh_status read_text(wire_subject *out, const kh_model *model, const json_t *body)
{
    int vocabulary = kh_model_get_info(model)->vocabulary, template = 0;
    const char *prompt = NULL;
    size_t size = 0;
    KH_TRY(wire_get_flag(body, "template", &template));
    KH_TRY(wire_get_text(body, "prompt", &prompt, &size));
    if (wire_member(body, "tokens"))
        return wire_get_ids(body, "tokens", vocabulary, &out->ids, &out->count);
    if (!prompt) KH_FAIL(KH_ERR_ARGUMENT, "prompt: a text is expected, or tokens: ids");
    if (template) return chat(out, model, prompt);
    return kh_model_tokenize(model, prompt, size, KH_TEXT_SPECIAL | KH_TEXT_EDGES, &out->ids,
                             &out->count);
}

static kh_status read_edits(wire_subject *out, const kh_model *model, const json_t *body)
{
    const json_t *list = NULL;
    KH_TRY(wire_get_array(body, "edits", &list));
    size_t count = list ? json_array_size(list) : 0;
    if (count == 0) return KH_OK;
    if (count > MOST_EDITS) KH_FAIL(KH_ERR_ARGUMENT, "%zu edits: at most %d", count, MOST_EDITS);
    KH_TRY(kh_new(&out->edits, count, sizeof *out->edits, "edits"));
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (!text) KH_FAIL(KH_ERR_ARGUMENT, "edits: texts such as \"L12H3:zero\" are expected");
        KH_TRY(kh_edit_parse(&out->edits[i], model, text));
    }
    out->edit_count = count;
    return KH_OK;
}

kh_status wire_subject_read(wire_subject *out, const kh_model *model, const json_t *body)
{
    int64_t prompt = 0;
    *out = (wire_subject){0};
    kh_status status = read_text(out, model, body);
    if (status == KH_OK) status = wire_get_int(body, "prompt_tokens", &prompt, 0, MOST_IDS);
    if (status == KH_OK) status = read_edits(out, model, body);
    out->prompt = (size_t)prompt < out->count && prompt > 0 ? (size_t)prompt : out->count;
    if (status != KH_OK) wire_subject_free(out);
    return status;
}

void wire_subject_free(wire_subject *subject)
{
    kh_free_ids(subject->ids);
    kh_free(subject->edits);
    *subject = (wire_subject){0};
}

kh_status wire_position(const json_t *body, const kh_inspector *inspector, size_t *out)
{
    int64_t length = (int64_t)kh_inspector_length(inspector), position = length - 1;
    KH_TRY(wire_get_int(body, "position", &position, -length, length - 1));
    *out = (size_t)(position < 0 ? position + length : position);
    return KH_OK;
}

kh_status wire_one_token(const json_t *body, const char *name, const kh_model *model, int32_t *out)
{
    const json_t *value = wire_member(body, name);
    int64_t id = 0;
    if (!value) return KH_OK;
    if (!json_is_string(value)) {
        KH_TRY(wire_get_int(body, name, &id, 0, kh_model_get_info(model)->vocabulary - 1));
        *out = (int32_t)id;
        return KH_OK;
    }
    int32_t *ids = NULL;
    size_t count = 0;
    KH_TRY(kh_model_tokenize(model, json_string_value(value), json_string_length(value),
                             KH_TEXT_SPECIAL, &ids, &count));
    if (count == 1) *out = ids[0];
    kh_free_ids(ids);
    if (count != 1)
        KH_FAIL(KH_ERR_ARGUMENT, "%s: \"%.60s\" is %zu tokens, one is expected", name,
                json_string_value(value), count);
    return KH_OK;
}

kh_status wire_part(const json_t *body, const char *name, const kh_model *model, kh_component *out)
{
    const char *text = NULL;
    KH_TRY(wire_get_text(body, name, &text, NULL));
    if (!text) KH_FAIL(KH_ERR_ARGUMENT, "%s: a part such as L12N345 or L5H3 is expected", name);
    return kh_component_parse(out, model, text);
}

/* ---- tokens ---- */

enum { PIECE = 512 };

json_t *wire_token_text(const kh_model *model, int32_t id)
{
    char bytes[PIECE];
    size_t n = kh_model_piece(model, id, bytes, sizeof bytes);
    if (n == 0) n = kh_model_marker(model, id, bytes, sizeof bytes);
    return wire_text(bytes, n < sizeof bytes ? n : sizeof bytes);
}

json_t *wire_token(const kh_model *model, int32_t id)
{
    return json_pack("{s:i, s:o}", "id", (int)id, "text", wire_token_text(model, id));
}

json_t *wire_scored(const kh_model *model, const kh_lens_token *token)
{
    return json_pack("{s:i, s:o, s:o, s:o, s:I}", "id", (int)token->id, "text",
                     wire_token_text(model, token->id), "logit", wire_real((double)token->logit),
                     "probability", wire_real((double)token->probability), "rank",
                     (json_int_t)token->rank);
}

json_t *wire_raw_tokens(const kh_model *model, const kh_lens_token *tokens, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        if (json_array_append_new(list, json_pack("{s:i, s:o, s:o}", "id", (int)tokens[i].id,
                                                  "text", wire_token_text(model, tokens[i].id),
                                                  "logit", wire_real((double)tokens[i].logit)))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

json_t *wire_part_text(const kh_component *part)
{
    char text[KH_COMPONENT_TEXT];
    return wire_text(text, kh_component_text(part, text, sizeof text));
}

int wire_continues(const kh_model *model, int32_t id)
{
    char bytes[PIECE];
    size_t n = kh_model_piece(model, id, bytes, sizeof bytes);
    return n > 0 && ((unsigned char)bytes[0] & 0xc0) == 0x80;
}

/* A marker shows as nothing where markers are not asked for. */
static int is_special(const kh_model *model, int32_t id)
{
    char *text = NULL;
    size_t size = 1;
    if (kh_model_detokenize(model, &id, 1, 0, &text, &size) != KH_OK) return 0;
    kh_free_text(text);
    return size == 0;
}

json_t *wire_text_tokens(const kh_model *model, const int32_t *ids, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_t *one = json_pack(
            "{s:i, s:o, s:b, s:b}", "id", (int)ids[i], "text", wire_token_text(model, ids[i]),
            "continuation", wire_continues(model, ids[i]), "special", is_special(model, ids[i]));
        if (json_array_append_new(list, one) == 0) continue;
        json_decref(list);
        return NULL;
    }
    return list;
}
