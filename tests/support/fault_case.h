/* tests/support/fault_case.h: work whose every allocation fails once. */
#ifndef KH_TESTS_SUPPORT_FAULT_CASE_H
#define KH_TESTS_SUPPORT_FAULT_CASE_H

#include <keyhole/status.h>

/* Lets the first allocation of does() fail, then the second, until none is left: each time it must say that there
 * is no memory, in a sentence, and leave nothing behind; afterwards it must work. Fails the test otherwise, and where
 * fewer than `least` allocations were met. */
void every_allocation_fails_once(const char *name, kh_status (*does)(void), unsigned least);

/* A test failing_NAME of the function NAME. */
#define FAULT_TEST(name, least)                                                                    \
    static void failing_##name(void **state)                                                       \
    {                                                                                              \
        (void)state;                                                                               \
        every_allocation_fails_once(#name, name, least);                                           \
    }

#endif
