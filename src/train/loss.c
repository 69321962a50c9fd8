/* Cross-entropy over rows of logits, and its gradient: p - 1 at the target.
 *
 *     loss = m + ln(sum of exp(x - m)) - x[target]        d = weight (exp(x - m) / sum - [target])
 *
 * A row is one item: its loss goes to a place of its own, and places are summed in order. A row whose logits
 * are not finite has a loss that is not finite, which the trainer finds. */
#include "train/loss.h"

#include <math.h>

typedef struct job {
    const kh_kern *kern;
    float *gradient, weight;
    const float *logits;
    const int32_t *targets;
    double *each;
    size_t V;
} job;

static void row_item(void *context, size_t r, int worker)
{
    const job *j = context;
    const float *x = j->logits + r * j->V;
    size_t target = (size_t)j->targets[r];
    float *d = j->gradient ? j->gradient + r * j->V : NULL, m = j->kern->row_max(x, j->V);
    float piece[256];
    double sum = 0;
    (void)worker;
    for (size_t i = 0, n; i < j->V; i += n) {
        n = j->V - i < 256 ? j->V - i : 256;
        sum += (double)j->kern->exp_sum(d ? d + i : piece, x + i, n, 1.0f, m);
    }
    j->each[2 * r] = isnan(x[target]) ? (double)NAN : (double)m + log(sum) - (double)x[target];
    j->each[2 * r + 1] = x[target] >= m;
    if (!d) return;
    j->kern->scale(d, (float)((double)j->weight / sum), j->V);
    d[target] -= j->weight;
}

void kh_op_cross_entropy(kh_run *run, kh_loss *loss, float *gradient, float weight,
                         const float *logits, const int32_t *targets, double *each, size_t rows,
                         size_t V)
{
    job j = {run->kern, gradient, weight, logits, targets, each, V};
    kh_parallel_for(run->pool, rows, row_item, &j);
    for (size_t r = 0; r < rows; r++) {
        loss->nats += each[2 * r];
        loss->right += (size_t)each[2 * r + 1];
    }
    loss->rows += rows;
}
