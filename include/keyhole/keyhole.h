/* keyhole/keyhole.h: the whole public face: run, measure and inspect transformers through top-k
 * attention. */
#ifndef KEYHOLE_KEYHOLE_H
#define KEYHOLE_KEYHOLE_H

#include <keyhole/attention.h>
#include <keyhole/bench.h>
#include <keyhole/convert.h>
#include <keyhole/encode.h>
#include <keyhole/eval.h>
#include <keyhole/hub.h>
#include <keyhole/inspect.h>
#include <keyhole/model.h>
#include <keyhole/points.h>
#include <keyhole/session.h>
#include <keyhole/shard.h>
#include <keyhole/status.h>
#include <keyhole/steer.h>
#include <keyhole/task.h>
#include <keyhole/tokenize.h>
#include <keyhole/trace.h>
#include <keyhole/train.h>

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0". */
KH_API const char *kh_version(void);
/* The commit it was built from, or "unknown". */
KH_API const char *kh_commit(void);
/* The instruction set in use: "avx512", "avx2", "ref" ... */
KH_API const char *kh_instruction_set(void);
/* The libraries it was built with, with their versions: "oneDNN 2.6.3, jansson 2.14, ...". */
KH_API const char *kh_libraries(void);
/* Peak resident memory of this process in bytes. */
KH_API uint64_t kh_peak_memory(void);

#ifdef __cplusplus
}
#endif
#endif
