/* ops/requantize.h: rows of one type written as rows of another. */
#ifndef KH_OPS_REQUANTIZE_H
#define KH_OPS_REQUANTIZE_H

#include "cpu/pool.h"
#include "kern/kern.h"
#include "tensor/types.h"

#include <keyhole/status.h>
#include <stddef.h>

/* y: rows [rows][n] in type `to`; x: the same in type `from`; n is a multiple of both blocks. Rows in
 * parallel, each by itself: the same bytes for any number of threads. Equal types are copied as they
 * are. KH_ERR_UNSUPPORTED for a type that is not written; KH_ERR_FORMAT when an element is no finite
 * number, or larger than `to` reaches, with a sentence that names the first such row, counted from
 * `first_row`. */
kh_status kh_op_requantize(const kh_pool *pool, const kh_kern *kern, void *y, kh_type to,
                           const void *x, kh_type from, size_t rows, size_t n, size_t first_row);

#endif
