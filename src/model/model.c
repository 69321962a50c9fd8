/* Opening a model: the file, its tokenizer, its numbers, its weights.
 *
 * Nothing is copied but vectors: opening costs the parsing of the header and of the vocabulary. The
 * order matters for the sentence a user sees: first whether the file is a GGUF file at all, then
 * whether its architecture is known, then its numbers, its tensors, and last its tokenizer. */
#include "base/alloc.h"
#include "base/fail.h"
#include "cpu/cpu.h"
#include "model/hf.h"
#include "model/network.h"

#include <stdio.h>
#include <string.h>

static void copy_slice(char *out, size_t size, kh_slice text)
{
    snprintf(out, size, "%.*s", (int)(text.size < size ? text.size : size - 1), text.data);
}

/* The type that holds most of the matrix elements: what people call the file's quantisation. */
static kh_type main_type(const kh_gguf *file)
{
    uint64_t elements[KH_TYPE_LIMIT] = {0};
    kh_type best = KH_TYPE_F32;
    for (size_t i = 0; i < kh_gguf_tensor_count(file); i++) {
        const kh_tensor *t = kh_gguf_tensor_at(file, i);
        if (t->n_dims < 2 || strcmp(t->name, "token_embd.weight") == 0) continue;
        elements[t->type] += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
        if (elements[t->type] > elements[best]) best = t->type;
    }
    return best;
}

static void fill_info(kh_model *m)
{
    const kh_description *d = &m->d;
    const kh_tokenizer *tokens = m->tokenizer; /* NULL: network only */
    kh_slice text = {"", 0};
    kh_gguf_opt_string(m->file, "general.name", &text);
    copy_slice(m->name, sizeof m->name, text);
    kh_gguf_identity(m->file, m->identity);
    m->info = (kh_model_info){.path = kh_gguf_path(m->file),
                              .architecture = m->architecture,
                              .name = m->name,
                              .quantisation = kh_type_name(main_type(m->file)),
                              .tokenizer = tokens ? kh_tokenizer_model(tokens) : "",
                              .pre = tokens ? kh_tokenizer_pre(tokens) : "",
                              .identity = m->identity,
                              .file_bytes = kh_gguf_size(m->file),
                              .parameters = m->w.parameters,
                              .layers = d->N,
                              .encoder_layers = d->encoder_layers,
                              .width = d->D,
                              .heads = d->H,
                              .key_heads = d->G,
                              .head_width = d->E,
                              .ff_width = d->F,
                              .vocabulary = m->family ? d->V : kh_tokenizer_size(tokens),
                              .context = d->context,
                              .window = d->window,
                              .add_bos = tokens ? kh_tokenizer_special(tokens)->add_bos : 0,
                              .tied = m->w.tied,
                              .classes = (int)m->w.classes.out.rows,
                              .towers = (int)kh_class_towers(m),
                              .parallel = d->form == KH_BLOCK_PARALLEL,
                              .gated = m->w.stack.N > 0 && m->w.stack.blocks[0].gate.name != NULL,
                              .experts = d->experts.count,
                              .paired = d->positions == KH_POSITIONS_ROTARY &&
                                        d->rope[0].style == KH_ROPE_PAIRS};
    for (int l = 0; l < d->N; l++) m->info.local_layers += d->local[l];
}

/* Divisors of frequencies are of the global layers; a second set of them is of long contexts. */
static kh_status open_rope(kh_model *m)
{
    const kh_weights *w = &m->w;
    kh_rope_spec far = m->d.rope[0];
    m->d.rope[0].freq_factors = w->rope_short.data ? w->rope_short.data : w->rope_factors.data;
    for (int i = 0; i < 2; i++) KH_TRY(kh_rope_init(&m->rope[i], &m->d.rope[i]));
    far.freq_factors = w->rope_long.data;
    return w->rope_long.data ? kh_rope_init(&m->far, &far) : KH_OK;
}

static kh_status open_network(kh_model *m)
{
    KH_TRY(kh_describe(&m->d, m->family, m->file));
    if (kh_gguf_size(m->file) > kh_cpu_memory())
        KH_FAIL(KH_ERR_MEMORY, "the model has %.1f GB, this machine has %.1f GB of memory",
                (double)kh_gguf_size(m->file) * 1e-9, (double)kh_cpu_memory() * 1e-9);
    KH_TRY(kh_arena_init(&m->arena, "model", kh_bind_need(&m->d, m->file)));
    KH_TRY(kh_bind(&m->w, &m->arena, m->family, &m->d, m->file));
    if (m->w.positions.name && m->w.positions.rows < (size_t)m->d.context)
        KH_FAIL(KH_ERR_FORMAT,
                "position_embd.weight: at least the %d trained positions are expected, found %zu",
                m->d.context, m->w.positions.rows);
    return m->d.positions == KH_POSITIONS_ROTARY ? open_rope(m) : KH_OK;
}

enum { NETWORK = 1, TOKENS = 2 }; /* what is opened of a file */

/* Of a folder whose tokens alone are wanted nothing else needs to be there. */
static kh_status open_file(kh_model *m, const char *path, unsigned what)
{
    if (!kh_hf_is(path)) return kh_gguf_open(&m->file, path);
    return what & NETWORK ? kh_hf_open(&m->file, path) : kh_gguf_new(&m->file, path);
}

/* A folder's chat template joins its values, so that it is found where a file has its own. */
static kh_status open_folder_tokenizer(kh_model *m, const char *path)
{
    char *folder = NULL;
    KH_TRY(kh_hf_folder_of(&folder, path));
    kh_status status = kh_tokenizer_open_folder(&m->tokenizer, folder);
    kh_free(folder);
    KH_TRY(status);
    kh_slice chat = kh_tokenizer_chat_template(m->tokenizer, NULL);
    return chat.size ? kh_gguf_set_string(m->file, "tokenizer.chat_template", chat) : KH_OK;
}

static kh_status open_tokenizer(kh_model *m, const char *path, unsigned what)
{
    /* a folder's may know markers that its network does not (Gemma's of images) */
    if (kh_hf_is(path)) return open_folder_tokenizer(m, path);
    KH_TRY(kh_tokenizer_open(&m->tokenizer, m->file));
    if ((what & NETWORK) && kh_tokenizer_size(m->tokenizer) > m->d.V)
        KH_FAIL(KH_ERR_FORMAT, "the tokenizer has %d tokens, the embedding only %d",
                kh_tokenizer_size(m->tokenizer), m->d.V);
    return KH_OK;
}

static int is_adapter(const kh_gguf *file)
{
    kh_slice type = {"", 0};
    return kh_gguf_opt_string(file, "general.type", &type) == KH_OK && type.size == 7 &&
           memcmp(type.data, "adapter", 7) == 0;
}

static kh_status open_parts(kh_model *m, const char *path, unsigned what)
{
    if (!m->file) KH_TRY(open_file(m, path, what));
    kh_slice arch = {"", 0};
    KH_TRY(kh_gguf_opt_string(m->file, "general.architecture", &arch));
    copy_slice(m->architecture, sizeof m->architecture, arch);
    if (what & NETWORK) {
        if (!kh_gguf_find(m->file, "general.architecture"))
            KH_FAIL(KH_ERR_FORMAT, "key 'general.architecture' is missing");
        if (is_adapter(m->file))
            KH_FAIL(KH_ERR_UNSUPPORTED, "the file is an adapter, which is added to its model");
        m->family = kh_family_find(arch.data, arch.size);
        if (!m->family)
            KH_FAIL(KH_ERR_UNSUPPORTED, "the architecture \"%s\" is not supported (known: %s)",
                    m->architecture, kh_family_names());
        KH_TRY(open_network(m));
    }
    if (what & TOKENS) KH_TRY(open_tokenizer(m, path, what));
    fill_info(m);
    return KH_OK;
}

/* `composed` NULL: the file is opened. */
static kh_status open_model(kh_model **out, const char *path, unsigned what, kh_gguf *composed)
{
    *out = NULL;
    kh_model *m = NULL;
    kh_status status = kh_new(&m, 1, sizeof *m, "a model");
    if (status) {
        kh_gguf_close(composed);
        return status;
    }
    m->file = composed;
    status = open_parts(m, path, what);
    if (status != KH_OK) {
        if (!strstr(kh_last_error(), path)) status = kh_fail_context(status, "%s", path);
        kh_model_close(m);
        return status;
    }
    *out = m;
    return KH_OK;
}

kh_status kh_model_open(kh_model **out, const char *path)
{
    return open_model(out, path, NETWORK | TOKENS, NULL);
}

kh_status kh_model_open_vocabulary(kh_model **out, const char *path)
{
    return open_model(out, path, TOKENS, NULL);
}

kh_status kh_model_open_network(kh_model **out, const char *path)
{
    return open_model(out, path, NETWORK, NULL);
}

kh_status kh_model_open_composed(kh_model **out, kh_gguf *file)
{
    return open_model(out, kh_gguf_path(file), NETWORK, file);
}

void kh_model_close(kh_model *model)
{
    if (!model) return;
    kh_model_close_loras(model);
    kh_tokenizer_close(model->tokenizer);
    kh_arena_free(&model->arena);
    kh_gguf_close(model->file);
    kh_free(model);
}

kh_model_kind kh_model_get_kind(const kh_model *model)
{
    switch (model->d.structure) {
    case KH_ENCODER: return KH_MODEL_ENCODER;
    case KH_ENCODER_DECODER: return KH_MODEL_ENCODER_DECODER;
    case KH_DECODER: break;
    }
    return KH_MODEL_DECODER;
}

int32_t kh_model_start(const kh_model *model)
{
    return model->d.structure == KH_ENCODER_DECODER ? model->d.start : -1;
}

const kh_model_info *kh_model_get_info(const kh_model *model)
{
    return &model->info;
}
