/* Copying and induction: the two smallest tasks that attention solves and a table of ids does not.
 *
 *     copy        s1 s2 ... sm | s1 s2 ... s(m-1)      every row from the bar on predicts the next symbol
 *     induction   . . . * s . . . . . . . . . . *      the last row predicts what followed the star
 *
 * Id 0 stands for nothing, id 1 is the bar or the star, symbols are uniform over the others. Copying
 * asks a row for the symbol that stands m rows before the one it predicts, a step that positions alone can
 * find; but a symbol's earlier neighbour finds it too, as in induction, where the place is drawn
 * (Fu et al., "Hungry Hungry Hippos", 2022). The star's first place is uniform over the rows that have a
 * symbol behind them before the last row. */
#include "tasks/task_impl.h"

#include "base/fail.h"

#include <stdio.h>

enum { LENGTH, VOCAB, NOTHING = 0, SIGN = 1, SYMBOL = 2 };

static int32_t symbol(const kh_task *task, kh_task_draws *draws)
{
    return (int32_t)(SYMBOL + kh_task_below(draws, kh_task_count_of(task, VOCAB) - SYMBOL));
}

/* ---- copy ---- */

static const kh_task_param copy_params[] = {{"length", "32", KH_TASK_WHOLE, 1, 1 << 20},
                                            {"vocab", "64", KH_TASK_WHOLE, 4, 1 << 24},
                                            {NULL, NULL, KH_TASK_WHOLE, 0, 0}};

static kh_status open_copy(kh_task *task)
{
    task->info.vocabulary = (int)task->value[VOCAB];
    task->info.longest = 2 * kh_task_count_of(task, LENGTH);
    return KH_OK;
}

static kh_status make_copy(const kh_task *task, kh_task_split split, kh_task_draws *draws,
                           kh_task_example *out)
{
    (void)split;
    size_t m = kh_task_count_of(task, LENGTH);
    for (size_t t = 0; t < m; t++) out->tokens[t] = symbol(task, draws);
    out->tokens[m] = SIGN;
    for (size_t t = 0; t < m; t++) {
        out->targets[m + t] = out->tokens[t];
        if (t + 1 < m) out->tokens[m + 1 + t] = out->tokens[t];
    }
    out->n = 2 * m;
    return KH_OK;
}

static int spell_copy(const kh_task *task, int32_t id, char *out, size_t room)
{
    (void)task;
    return id == SIGN ? snprintf(out, room, "|") : snprintf(out, room, "%d", id);
}

/* ---- induction ---- */

static const kh_task_param induction_params[] = {{"L", "64", KH_TASK_WHOLE, 3, 1 << 20},
                                                 {"vocab", "64", KH_TASK_WHOLE, 4, 1 << 24},
                                                 {NULL, NULL, KH_TASK_WHOLE, 0, 0}};

static kh_status open_induction(kh_task *task)
{
    task->info.vocabulary = (int)task->value[VOCAB];
    task->info.longest = kh_task_count_of(task, LENGTH);
    return KH_OK;
}

static kh_status make_induction(const kh_task *task, kh_task_split split, kh_task_draws *draws,
                                kh_task_example *out)
{
    (void)split;
    size_t length = kh_task_count_of(task, LENGTH);
    for (size_t t = 0; t < length; t++) out->tokens[t] = symbol(task, draws);
    size_t star = kh_task_below(draws, length - 2);
    out->tokens[star] = out->tokens[length - 1] = SIGN;
    out->targets[length - 1] = out->tokens[star + 1];
    out->n = length;
    return KH_OK;
}

static int spell_induction(const kh_task *task, int32_t id, char *out, size_t room)
{
    (void)task;
    return id == SIGN ? snprintf(out, room, "*") : snprintf(out, room, "%d", id);
}

static const kh_task_shallow shallow[] = {
    {"the commonest symbol", kh_task_majority_shape, kh_task_majority_see}, {NULL, NULL, NULL}};

const kh_task_family kh_task_copy = {
    .kind = {"copy", "a list of symbols, to be said again", "length=32,vocab=64"},
    .params = copy_params,
    .open = open_copy,
    .make = make_copy,
    .spell = spell_copy,
    .shallow = shallow,
};

const kh_task_family kh_task_induction = {
    .kind = {"induction", "what followed the star when it was met before", "L=64,vocab=64"},
    .params = induction_params,
    .open = open_induction,
    .make = make_induction,
    .spell = spell_induction,
    .shallow = shallow,
};
