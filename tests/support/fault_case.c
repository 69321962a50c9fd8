/* The n-th allocation fails, for every n. */
#include "support/fault_case.h"

#include "base/alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

void every_allocation_fails_once(const char *name, kh_status (*does)(void), unsigned least)
{
    kh_status good = does(); /* what libraries keep for good is taken now */
    if (good != KH_OK) fail_msg("%s: %s", name, kh_last_error());
    uint64_t live = kh_alloc_get_stats().live, n = 1;
    for (;; n++) {
        kh_alloc_fail_at(n);
        kh_status status = does();
        kh_alloc_fail_at(0);
        if (kh_alloc_get_stats().live != live)
            fail_msg("%s: allocation %llu failed and %lld blocks leaked", name,
                     (unsigned long long)n, (long long)(kh_alloc_get_stats().live - live));
        if (status == KH_OK) break;
        if (status != KH_ERR_MEMORY || !kh_last_error()[0])
            fail_msg("%s: allocation %llu: %s, '%s'", name, (unsigned long long)n,
                     kh_status_name(status), kh_last_error());
    }
    if (does() != KH_OK) fail_msg("%s: does not recover: %s", name, kh_last_error());
    print_message("%s: %llu allocations, each failed once\n", name, (unsigned long long)n - 1);
    assert_true(n > least);
}
