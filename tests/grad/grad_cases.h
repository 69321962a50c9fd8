/* tests/grad/grad_cases.h: what is proved, for the build in double and for the one in float. */
#ifndef KH_TESTS_GRAD_CASES_H
#define KH_TESTS_GRAD_CASES_H

#include "grad_space.h"

/* Lists end with a name that is NULL. */
extern const grad_case grad_row_cases[], grad_linear_cases[], grad_choice_cases[],
    grad_pool_cases[];
/* Too large for differences: grad_linear_truth adds to dx [T][cols] and gives dW of the weight `index`. */
extern const grad_case grad_large_cases[];
void grad_linear_truth(const grad_space *s, double *dx, double *dw, size_t index);

/* All lists, and NULL. */
extern const grad_case *const grad_all[];

#endif
