/* A model as a Hugging Face folder.
 *
 * Numbers and tensors come from the tables of the model's family (model/hf_write.c). A folder's files
 * about tokens are copied as they are, since they say the same of any type of weights; the tokenizer of a
 * GGUF file is put into the words of tokenizer.json (format/tok_export.c). */
#include "api/convert_folder.h"

#include "base/alloc.h"
#include "base/buf.h"
#include "base/fail.h"
#include "base/file.h"
#include "format/safetensors.h"
#include "model/hf.h"
#include "tokens/tok_export.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_COPY = 256 << 20 };

int kh_convert_is_folder(const char *output)
{
    struct stat info;
    size_t n = strlen(output);
    return (n > 0 && output[n - 1] == '/') || (stat(output, &info) == 0 && S_ISDIR(info.st_mode));
}

/* FOLDER/name: all of it, or nothing where there is no such file. */
static kh_status copy(const char *from, const char *to, const char *name)
{
    kh_buf path = {0};
    char *bytes = NULL;
    size_t size = 0;
    kh_status status = kh_buf_format(&path, "%s/%s", from, name);
    if (status == KH_OK && access(path.data, F_OK) != 0) {
        kh_buf_free(&path);
        return KH_OK;
    }
    if (status == KH_OK) status = kh_file_read(&bytes, &size, path.data, MAX_COPY);
    kh_buf_clear(&path);
    if (status == KH_OK) status = kh_buf_format(&path, "%s/%s", to, name);
    if (status == KH_OK) status = kh_file_write(path.data, bytes, size);
    kh_free(bytes);
    kh_buf_free(&path);
    return status;
}

static kh_status copy_tokens(const char *input, const char *output)
{
    static const char *const names[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "generation_config.json",
                                        "chat_template.jinja",
                                        "chat_template.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "vocab.txt",
                                        "tokenizer.model",
                                        "spiece.model",
                                        "sentencepiece.bpe.model",
                                        "modules.json",
                                        "sentence_bert_config.json",
                                        "config_sentence_transformers.json"};
    char *folder = NULL;
    kh_buf pooling = {0};
    KH_TRY(kh_hf_folder_of(&folder, input));
    kh_status status = KH_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names && status == KH_OK; i++)
        status = copy(folder, output, names[i]);
    if (status == KH_OK) status = kh_buf_format(&pooling, "%s/1_Pooling", folder);
    if (status == KH_OK && access(pooling.data, F_OK) == 0) {
        kh_buf_clear(&pooling);
        status = kh_buf_format(&pooling, "%s/1_Pooling", output);
        if (status == KH_OK && mkdir(pooling.data, 0777) != 0 && errno != EEXIST)
            status = kh_fail(KH_ERR_IO, "%s: cannot be made: %s", pooling.data, strerror(errno));
        if (status == KH_OK) status = copy(folder, output, "1_Pooling/config.json");
    }
    kh_buf_free(&pooling);
    kh_free(folder);
    return status;
}

static uint64_t elements(const kh_st_tensor *t)
{
    return t->size / kh_st_type_bytes(t->type);
}

/* What was written, by what lies there. */
static kh_status count(const kh_gguf *file, const kh_lora_merge *merge, const char *path,
                       kh_convert_result *result)
{
    kh_safetensors *written;
    KH_TRY(kh_safetensors_open(&written, path));
    for (size_t i = 0; i < kh_gguf_tensor_count(file); i++)
        result->bytes_in += kh_gguf_tensor_at(file, i)->size;
    for (size_t i = 0; i < kh_gguf_tensor_count(file); i++)
        result->merged += (size_t)kh_lora_merge_has(merge, kh_gguf_tensor_at(file, i)->name);
    result->tensors = kh_safetensors_count(written);
    for (size_t i = 0; i < result->tensors; i++) {
        const kh_st_tensor *t = kh_safetensors_at(written, i);
        const char *name = kh_st_type_name(t->type);
        size_t k = 0;
        while (k < result->type_count && strcmp(result->types[k].name, name) != 0) k++;
        if (k == result->type_count) result->types[result->type_count++].name = name;
        result->types[k].tensors++;
        result->types[k].bytes += t->size;
        result->bytes_out += t->size;
        result->parameters += elements(t);
    }
    kh_safetensors_close(written);
    return KH_OK;
}

kh_status kh_convert_folder(const kh_gguf *file, const char *input, const char *output,
                            const char *type, const kh_lora_merge *merge,
                            const kh_convert_options *options, kh_convert_result *result)
{
    kh_type as = strcmp(type, "F32") == 0    ? KH_TYPE_F32
                 : strcmp(type, "F16") == 0  ? KH_TYPE_F16
                 : strcmp(type, "BF16") == 0 ? KH_TYPE_BF16
                                             : KH_TYPE_NONE;
    if (as == KH_TYPE_NONE)
        KH_FAIL(
            KH_ERR_UNSUPPORTED,
            "%s: a Hugging Face folder holds F32, F16 or BF16, not %s: name a file that ends in "
            ".gguf",
            output, type);
    kh_buf weights = {0};
    kh_status status = kh_buf_format(&weights, "%s/model.safetensors", output);
    if (status == KH_OK && !options->overwrite && access(weights.data, F_OK) == 0)
        status = kh_fail(KH_ERR_STATE,
                         "%s: exists already; it is replaced only on demand (--force)",
                         weights.data);
    if (status == KH_OK) status = kh_hf_write_merged(file, output, as, merge);
    if (status == KH_OK && !options->no_tokenizer)
        status = kh_hf_is(input) ? copy_tokens(input, output) : kh_tokenizer_export(file, output);
    if (status == KH_OK) status = count(file, merge, weights.data, result);
    kh_buf_free(&weights);
    return status;
}
