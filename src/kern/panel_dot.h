/* kern/panel_dot.h: the products of panel_body.h without 8-bit dot-product instructions, shared by
 * panel_avx2.c (where the bounds are explained) and panel_avx512.c. */

/* Two steps of 16-bit sums. */
#define TWO(w, q) add16(STEP((w)[0], q), STEP((w)[1], (q) + 4))

static inline vi dot4_u4(const vi *w /* [4] */, const int8_t *q /* [16] */)
{
    return widen(add16(TWO(w, q), TWO(w + 2, q + 8)));
}
static inline vi dot8_u4(const vi *w /* [8] */, const int8_t *q /* [32] */)
{
    return widen(
        add16(add16(TWO(w, q), TWO(w + 2, q + 8)), add16(TWO(w + 4, q + 16), TWO(w + 6, q + 24))));
}
static inline vi dot4_u6(const vi *w /* [4] */, const int8_t *q /* [16] */)
{
    return add32(widen(TWO(w, q)), widen(TWO(w + 2, q + 8)));
}
static inline vi dot8_u6(const vi *w /* [8] */, const int8_t *q /* [32] */)
{
    return add32(dot4_u6(w, q), dot4_u6(w + 4, q + 16));
}
static inline vi dot8_s8(const vi *w /* [8] */, const int8_t *q /* [32] */)
{
    vi a = add32(step_s8(w[0], q), step_s8(w[1], q + 4));
    vi b = add32(step_s8(w[2], q + 8), step_s8(w[3], q + 12));
    vi c = add32(step_s8(w[4], q + 16), step_s8(w[5], q + 20));
    vi d = add32(step_s8(w[6], q + 24), step_s8(w[7], q + 28));
    return add32(add32(a, b), add32(c, d));
}
