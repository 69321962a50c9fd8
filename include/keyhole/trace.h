/* keyhole/trace.h: chosen points of the forward pass of a text, written to a folder that describes itself. */
#ifndef KEYHOLE_TRACE_H
#define KEYHOLE_TRACE_H

#include <keyhole/inspect.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kh_trace_point {
    kh_point point;
    int layer; /* -1: outside the blocks */
} kh_trace_point;

/* "resid_post.12,attn_rows.3-5,z,logits": canonical names with a layer, several, or none for all of them; separated by
 * commas. TransformerLens' names (blocks.12.hook_resid_post, blocks.3.attn.hook_z ...) and llama.cpp's l_out-12 and
 * ffn_inp-12 are read where they mean exactly a point; every other name is refused. *out [*count], in the order of the
 * walk, each once: free with kh_trace_points_free. */
KH_API kh_status kh_trace_points_parse(kh_trace_point **out, size_t *count, const kh_model *model,
                                       const char *names);
KH_API void kh_trace_points_free(kh_trace_point *points);

typedef struct kh_trace_options {
    const kh_trace_point *points; /* [count] */
    size_t count;
    size_t first, rows; /* positions; rows 0: to the end */
    uint64_t limit;     /* bytes that it may need, in memory and on disk; 0: 1 GiB */
} kh_trace_options;

typedef struct kh_trace_need {
    uint64_t bytes;    /* at most: of sparse rows it is not known before they are computed */
    double operations; /* multiplications and additions of reading the rows */
    size_t rows, points;
} kh_trace_need;

/* q and k are as in Hugging Face's files and TransformerLens: a dimension i is rotated with i + head_width / 2, also where
 * the file has them as neighbours (kh_model_info.paired). */

/* What it will need. */
KH_API kh_status kh_trace_cost(const kh_inspector *inspector, const kh_trace_options *options,
                               kh_trace_need *out);

/* Reads the rows of the inspector's text, under its edits, and writes FOLDER/trace.json and FOLDER/trace.safetensors; the
 * folder is made where it is missing. More than the limit is KH_ERR_MEMORY, before anything is computed; a point that
 * the model does not have KH_ERR_UNSUPPORTED. docs/debugger.md describes both files. */
KH_API kh_status kh_trace_write(kh_inspector *inspector, const kh_trace_options *options,
                                const char *folder, kh_trace_need *out);

/* What one point had at positions [first, first + rows). */
typedef struct kh_trace_rows {
    kh_trace_point at;
    size_t first, rows, width;
    size_t heads;        /* of q, k, value, z and attn_rows; else 0 */
    const float *values; /* [rows][width]; NULL of attn_rows, which have the rest: */
    const int64_t
        *start; /* [rows * heads + 1]: entries of row r of head h begin at start[r heads + h] */
    const uint32_t *idx;         /* [entries] positions of keys, ascending */
    const float *weights, *mass; /* [entries]; [rows][heads], NaN unless it is measured */
} kh_trace_rows;
/* Anything but KH_OK ends the call with it. */
typedef kh_status (*kh_take_rows)(void *context, const kh_trace_rows *rows);

/* The same points to a function, one after the other, in the order of the options; the rows live during its call. */
KH_API kh_status kh_trace_read(kh_inspector *inspector, const kh_trace_options *options,
                               kh_take_rows take, void *context, kh_trace_need *out);

#ifdef __cplusplus
}
#endif
#endif
