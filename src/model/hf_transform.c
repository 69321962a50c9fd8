/* What a folder's tensors need before they are GGUF's: rows in another order, or numbers in another
 * form. Pure functions over rows of bytes; each has its inverse here, because writing a folder reads
 * the same tables backwards.
 *
 *     pairs      llama's rotation turns elements (i, i + E/2) of a head in Hugging Face's files and
 *                neighbours (2i, 2i + 1) in GGUF's: the rows of q and k are permuted, the scores, being
 *                products of equally permuted vectors, are the same.
 *     by head    GPT-NeoX stores q, k and v of one head together, GGUF all q before all k.
 *     add one    Gemma multiplies by 1 + g; GGUF stores the sum, in f32, where no bit of g is lost.
 *     turn       GPT-2 stores [inputs][outputs].
 *
 * Elements may be unaligned on the way in (the format promises nothing), hence memcpy. */
#include "model/hf_impl.h"
#include "tensor/half.h"

#include <string.h>

void kh_hf_swap_blocks(void *out, const void *in, size_t a, size_t b, size_t bytes)
{
    const char *from = in;
    char *to = out;
    for (size_t i = 0; i < a; i++)
        for (size_t j = 0; j < b; j++)
            memcpy(to + (j * a + i) * bytes, from + (i * b + j) * bytes, bytes);
}

void kh_hf_pair_rows(void *out, const void *in, size_t heads, size_t half, size_t row_bytes)
{
    size_t head = 2 * half * row_bytes;
    for (size_t h = 0; h < heads; h++)
        kh_hf_swap_blocks((char *)out + h * head, (const char *)in + h * head, 2, half, row_bytes);
}

void kh_hf_halve_rows(void *out, const void *in, size_t heads, size_t half, size_t row_bytes)
{
    size_t head = 2 * half * row_bytes;
    for (size_t h = 0; h < heads; h++)
        kh_hf_swap_blocks((char *)out + h * head, (const char *)in + h * head, half, 2, row_bytes);
}

/* By squares, so that both sides stay in cache lines that are in use. */
void kh_hf_transpose(void *out, const void *in, size_t rows, size_t cols, size_t each)
{
    enum { SIDE = 32 };
    const char *from = in;
    char *to = out;
    for (size_t r = 0; r < rows; r += SIDE)
        for (size_t c = 0; c < cols; c += SIDE)
            for (size_t i = r; i < rows && i < r + SIDE; i++)
                for (size_t j = c; j < cols && j < c + SIDE; j++)
                    memcpy(to + (j * rows + i) * each, from + (i * cols + j) * each, each);
}

void kh_hf_to_f32(float *out, const void *in, kh_type type, size_t n, float added)
{
    const char *from = in;
    for (size_t i = 0; i < n; i++) {
        uint16_t half;
        float value;
        if (type == KH_TYPE_F32) {
            memcpy(&value, from + 4 * i, sizeof value);
        } else {
            memcpy(&half, from + 2 * i, sizeof half);
            value = type == KH_TYPE_F16 ? kh_f16_to_f32(half) : kh_bf16_to_f32(half);
        }
        out[i] = value + added;
    }
}
