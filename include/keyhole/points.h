/* keyhole/points.h: the named points of the one forward pass, for those who look and those who change.
 *
 * A probe is an observer of named points. It is attached to a session (kh_session_observe) and called
 * by the thread that calls the session. Layers and heads count from 0. */
#ifndef KEYHOLE_POINTS_H
#define KEYHOLE_POINTS_H

#include <keyhole/status.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Canonical names of the points, in the order of the walk. Widths: D model, q H*E, k and value G*E, z
 * and cross_z H*E, mlp_pre, mlp_pre_linear and mlp_act F, logits V, others D. */
#define KH_POINT_LIST(X)                                                                           \
    X(EMBEDDINGS, "embeddings")                                                                    \
    X(RESID_PRE, "resid_pre")                                                                      \
    X(ATTN_IN, "attn_in")                                                                          \
    X(Q, "q")                                                                                      \
    X(K, "k")                                                                                      \
    X(VALUE, "value")                                                                              \
    X(Z, "z")                                                                                      \
    X(ATTN_OUT, "attn_out")                                                                        \
    X(ATTN_OUT_POST, "attn_out_post")                                                              \
    X(RESID_MID, "resid_mid")                                                                      \
    X(CROSS_Z, "cross_z") /* attention of a decoder to its encoder's rows */                       \
    X(CROSS_OUT, "cross_out")                                                                      \
    X(RESID_CROSS, "resid_cross")                                                                  \
    X(MLP_IN, "mlp_in")                                                                            \
    X(MLP_PRE, "mlp_pre")                                                                          \
    X(MLP_PRE_LINEAR, "mlp_pre_linear")                                                            \
    X(MLP_ACT, "mlp_act")                                                                          \
    X(MLP_OUT, "mlp_out")                                                                          \
    X(MLP_OUT_POST, "mlp_out_post")                                                                \
    X(RESID_POST, "resid_post")                                                                    \
    X(FINAL_NORM, "final_norm")                                                                    \
    X(LOGITS, "logits")                                                                            \
    X(ATTN_ROWS, "attn_rows") /* sparse: kh_probe.rows instead of kh_probe.point */

typedef enum kh_point {
#define KH_POINT_ENUM(name, text) KH_POINT_##name,
    KH_POINT_LIST(KH_POINT_ENUM)
#undef KH_POINT_ENUM
        KH_POINT_COUNT
} kh_point;

/* "resid_post"; NULL outside the list. */
KH_API const char *kh_point_name(kh_point point);

/* The keys that one query row of one head attended to. The arrays are the library's, valid during the
 * call. */
typedef struct kh_attn_row {
    int layer, head;      /* a decoder's attention to its source counts behind all its layers */
    size_t row;           /* row of the batch */
    int32_t position;     /* of the query */
    size_t count;         /* keys */
    const uint32_t *keys; /* [count] positions, ascending */
    const float *weights; /* [count] after the softmax; with a tail they sum to less than 1 */
    float m, u;           /* largest scaled score, and the sum of exp(score - m) over the keys */
    float kept; /* their share of the softmax over all visible keys; NaN unless it is measured */
} kh_attn_row;

typedef struct kh_probe {
    void *context;
    uint64_t points; /* bit 1 << KH_POINT_x: which points are wanted; a callback may be NULL */
    /* Rows of the batch at a point, `layer` -1 outside the blocks; may be overwritten in place. */
    void (*point)(void *context, kh_point point, int layer, float *data /* [rows][width] */,
                  size_t rows, size_t width);
    /* One row of attention (KH_POINT_ATTN_ROWS): layers ascending, in a layer rows, then heads. */
    void (*rows)(void *context, const kh_attn_row *row);
} kh_probe;

#ifdef __cplusplus
}
#endif
#endif
