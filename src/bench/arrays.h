/* bench/arrays.h: the arrays of benches that need no model. */
#ifndef KH_BENCH_ARRAYS_H
#define KH_BENCH_ARRAYS_H

#include <keyhole/attention.h>

/* Standard normal numbers, a function of (seed, stream) alone; on the pool of `threads`. */
void kh_fill_normal(float *x /* [n] */, size_t n, uint64_t seed, uint64_t stream, int threads);

/* A new array of such numbers times `size`; one whose pages are in memory already, so that they count as the
 * caller's and not as the library's; free both with kh_free. `what` is for the sentence of KH_ERR_MEMORY. */
kh_status kh_new_normal(float **x /* [n] */, size_t n, double size, uint64_t seed, uint64_t stream,
                        int threads, const char *what);
kh_status kh_new_touched(float **x /* [n] */, size_t n, const char *what);

/* What attention over `rows` (row, head) pairs hands to its backward pass; kept: K of kh_attention_kept, of
 * `keys`. The bytes are added to *bytes. Close it in any case. */
kh_status kh_new_saved(kh_attention_saved *saved, size_t rows, size_t kept, size_t keys,
                       uint64_t *bytes);
void kh_free_saved(kh_attention_saved *saved);

#endif
