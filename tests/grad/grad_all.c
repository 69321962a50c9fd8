/* The list of the lists of cases. */
#include "grad_cases.h"

const grad_case *const grad_all[] = {grad_row_cases,  grad_linear_cases, grad_choice_cases,
                                     grad_pool_cases, grad_large_cases,  NULL};
