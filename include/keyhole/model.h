/* keyhole/model.h: a model file: what it is, its tokenizer, its chat template. Read-only once open; any
 * number of sessions and threads may share it. */
#ifndef KEYHOLE_MODEL_H
#define KEYHOLE_MODEL_H

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kh_model kh_model;

/* Opens a GGUF file (of a split model, any part). The file is mapped, not copied. *out is NULL on
 * failure: not a GGUF file, damaged, an architecture, tokenizer or tensor type that is not supported
 * (named), or larger than the memory of the machine. */
KH_API kh_status kh_model_open(kh_model **out, const char *path);
/* The same without the tensors: metadata and tokenizer only (vocabulary files). */
KH_API kh_status kh_model_open_vocabulary(kh_model **out, const char *path);
/* After its sessions; takes NULL. */
KH_API void kh_model_close(kh_model *model);

typedef struct kh_model_info {
    const char *path;
    const char *architecture; /* "llama" */
    const char *name;         /* general.name, or "" */
    const char *quantisation; /* the type that most weights have: "Q4_1" */
    const char *tokenizer;    /* "gpt2", "llama" */
    const char *pre;          /* pre-tokenizer, or "" */
    const char *identity;     /* 16 hexadecimal digits: the key of everything stored per file */
    uint64_t file_bytes, parameters;
    int layers, width, heads, key_heads, head_width, ff_width, vocabulary; /* N D H G E F V */
    int encoder_layers; /* of the encoder in front of a decoder; else 0 */
    int context;        /* trained length */
    int window;         /* 0, or the window of the local layers */
    int local_layers;   /* how many layers are local */
    int add_bos;        /* the file asks for a bos token */
    int tied;           /* the output head is the token embedding */
    int classes;        /* that a head tells apart; 0: there is none */
    int towers;         /* texts that it reads at once: 1, or 2 */
    int parallel;       /* attention and feed-forward read the same stream */
    int gated;          /* neurons have a gate */
    int experts;        /* of a mixture; 0: feed-forward layers are dense */
    int paired; /* rows of q and k have neighbours (2i, 2i + 1) where others have (i, i + E/2) */
} kh_model_info;
KH_API const kh_model_info *kh_model_get_info(const kh_model *model);

/* Metadata and tensors, in file order. Strings are the model's. */
KH_API size_t kh_model_metadata_count(const kh_model *model);
/* `value` receives text of at most `size` bytes, cut with "..." (arrays as their kind and count). */
KH_API kh_status kh_model_metadata(const kh_model *model, size_t index, char *key, size_t key_size,
                                   char *value, size_t value_size);
typedef struct kh_tensor_info {
    const char *name, *type;
    int n_dims;
    uint64_t dims[4]; /* fastest first, as in the file */
    uint64_t bytes;
} kh_tensor_info;
KH_API size_t kh_model_tensor_count(const kh_model *model);
KH_API kh_status kh_model_tensor(const kh_model *model, size_t index, kh_tensor_info *out);

/* ---- adapters ---- */

/* Adds a low-rank adapter (LoRA) to an open model, before its first session or encoder: every adapted product
 * W x becomes W x + strength * alpha / r * B (A x). `path`: a PEFT folder or its adapter_model.safetensors,
 * or llama.cpp's GGUF adapter. strength 1: as trained; 0: checked, but not used. Several add up. The
 * model's identity changes with them. Nothing happened on failure: KH_ERR_FORMAT where the adapter is
 * damaged or was made for another model, KH_ERR_UNSUPPORTED for kinds that compute something else. */
KH_API kh_status kh_model_add_lora(kh_model *model, const char *path, float strength);

typedef struct kh_lora_info {
    const char *path;
    const char *format; /* "PEFT", "GGUF" */
    float strength;
    double alpha; /* that most tensors have */
    size_t tensors, least_rank, most_rank;
    uint64_t parameters;
} kh_lora_info;
KH_API size_t kh_model_lora_count(const kh_model *model);
KH_API const kh_lora_info *kh_model_get_lora(const kh_model *model, size_t index); /* NULL: none */

/* ---- tokens ---- */

enum {
    KH_TEXT_SPECIAL = 1, /* markers such as <|im_end|> in the text become, or show, their tokens */
    KH_TEXT_EDGES = 2    /* bos in front (eos behind), as the file asks for */
};
/* *ids [*count]: free with kh_free_ids. Invalid UTF-8 is read as U+FFFD. */
KH_API kh_status kh_model_tokenize(const kh_model *model, const char *text, size_t size,
                                   unsigned flags, int32_t **ids, size_t *count);
/* *text (zero byte behind): free with kh_free_text. */
KH_API kh_status kh_model_detokenize(const kh_model *model, const int32_t *ids, size_t count,
                                     unsigned flags, char **text, size_t *size);
/* The bytes of one token, cut to `size`; returns how many there are. */
KH_API size_t kh_model_piece(const kh_model *model, int32_t id, char *bytes, size_t size);
/* What a model can do. */
typedef enum kh_model_kind {
    KH_MODEL_DECODER,        /* predicts the next token: kh_session_open */
    KH_MODEL_ENCODER,        /* reads whole texts: kh_encoder_open */
    KH_MODEL_ENCODER_DECODER /* answers to a source: kh_session_source; its encoder: kh_encoder_open */
} kh_model_kind;
KH_API kh_model_kind kh_model_get_kind(const kh_model *model);
/* The token that a decoder behind an encoder starts with; -1 for other models. */
KH_API int32_t kh_model_start(const kh_model *model);
/* The token that stands for a hidden one; -1 where the tokenizer has none. */
KH_API int32_t kh_model_mask(const kh_model *model);
/* The bytes by which a text names a token, such as [MASK], cut to `size`; returns how many there are. */
KH_API size_t kh_model_marker(const kh_model *model, int32_t id, char *bytes, size_t size);
/* Id of bos, or -1. True for tokens that end an answer. */
KH_API int32_t kh_model_bos(const kh_model *model);
KH_API int kh_model_ends(const kh_model *model, int32_t id);
KH_API void kh_free_ids(int32_t *ids);
KH_API void kh_free_text(char *text);

/* ---- chat ---- */

typedef struct kh_chat_message {
    const char *role; /* "system", "user", "assistant"; what else the template knows */
    const char *text;
} kh_chat_message;
typedef enum kh_chat_end {
    KH_CHAT_OPEN,  /* the head of the assistant's answer stands at the end */
    KH_CHAT_CLOSED /* the last message does */
} kh_chat_end;
/* How a conversation becomes text; zeros: by the file's own template, ready for an answer. Members
 * called _json are JSON text, NULL for none; a named format has no place for them. */
typedef struct kh_chat_options {
    const char *format;        /* a known format by name; NULL: a template */
    const char *template_text; /* a Jinja template; NULL: the file's own */
    const char
        *template_name; /* which of the file's; NULL: "tool_use" for tools, else the default */
    const char *messages_json;  /* the messages, as OpenAI's API has them, instead of the array */
    const char *tools_json;     /* an array of schemas */
    const char *documents_json; /* an array of objects */
    const char *kwargs_json;    /* an object: further variables, {"enable_thinking": false} */
    kh_chat_end end;
    int64_t time; /* seconds since 1970 that a template sees, in UTC; 0: the clock, in local time */
} kh_chat_options;
/* Ids of a conversation, with the bos that the file asks for. What messages, tools, documents and
 * variables say is never read as a marker. Without a template, or with one that cannot be read:
 * KH_ERR_UNSUPPORTED and a sentence that names the formats; no format is put in its place. A template
 * that refuses the conversation: KH_ERR_ARGUMENT with its own sentence. `options` NULL: defaults. */
KH_API kh_status kh_model_chat_with(const kh_model *model, const kh_chat_options *options,
                                    const kh_chat_message *messages, size_t count, int32_t **ids,
                                    size_t *id_count);
/* The text that those ids are made of: *text (zero byte behind), free with kh_free_text. */
KH_API kh_status kh_model_chat_text(const kh_model *model, const kh_chat_options *options,
                                    const kh_chat_message *messages, size_t count, char **text,
                                    size_t *size);
/* The same as kh_model_chat_with and a format, or NULL. */
KH_API kh_status kh_model_chat(const kh_model *model, const char *format,
                               const kh_chat_message *messages, size_t count, int32_t **ids,
                               size_t *id_count);
/* The format that the file's own template looks like: its name, "jinja" for another template, "unknown"
 * for one that cannot be read, "" without one. */
KH_API const char *kh_model_chat_format(const kh_model *model);
/* The known formats: "chatml, gemma, ...". */
KH_API const char *kh_chat_formats(void);

/* ---- memory ---- */

typedef struct kh_memory_need {
    uint64_t file;    /* mapped, shared between processes */
    uint64_t cache;   /* keys and values of a full context */
    uint64_t compute; /* activations and scratch */
    uint64_t adapters;
} kh_memory_need;
struct kh_session_options;
/* What a session with these options (NULL: defaults) will need. */
KH_API kh_status kh_model_memory(const kh_model *model, const struct kh_session_options *options,
                                 kh_memory_need *out);

#ifdef __cplusplus
}
#endif
#endif
