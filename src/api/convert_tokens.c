/* The tokenizer of a Hugging Face folder as values of a GGUF file. */
#include "api/convert_tokens.h"

#include "base/alloc.h"
#include "base/fail.h"
#include "model/hf.h"
#include "tokens/tokenizer.h"

static kh_status describe(kh_gguf *words, const char *path)
{
    char *folder = NULL;
    kh_tokenizer *tokenizer = NULL;
    KH_TRY(kh_hf_folder_of(&folder, path));
    kh_status status = kh_tokenizer_open_folder(&tokenizer, folder);
    if (status == KH_OK) status = kh_tokenizer_describe(tokenizer, words);
    kh_tokenizer_close(tokenizer);
    kh_free(folder);
    return status;
}

kh_status kh_convert_tokens(kh_gguf *out, const char *path)
{
    const kh_tensor *embedding = kh_gguf_tensor(out, "token_embd.weight");
    size_t rows = embedding ? (size_t)embedding->dims[1] : 0;
    kh_gguf *words;
    KH_TRY(kh_gguf_new(&words, path));
    kh_status status = describe(words, path);
    if (status == KH_OK) status = kh_tokenizer_copy_values(out, words, rows);
    kh_gguf_close(words);
    return status;
}
