/* What this build is: version, commit, instruction set in use, libraries. */
#include "cpu/cpu.h"
#include "hub/hub_impl.h"
#include "kh_version.h"
#include "ops/sgemm.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <jansson.h>
#include <keyhole/keyhole.h>
#include <pcre2.h>
#include <stdio.h>
#include <utf8proc.h>

const char *kh_version(void)
{
    return KH_VERSION_STRING;
}

const char *kh_commit(void)
{
    return KH_COMMIT;
}

const char *kh_instruction_set(void)
{
    return kh_isa_name(kh_cpu_isa());
}

const char *kh_libraries(void)
{
    static _Thread_local char text[256];
    char pcre[64] = "";
    pcre2_config(PCRE2_CONFIG_VERSION, pcre);
    const char *network = kh_http_libraries();
    snprintf(text, sizeof text, "%s, OpenMP, PCRE2 %.32s, utf8proc %s, jansson %s%s%s",
             kh_sgemm_library(), pcre, utf8proc_version(), JANSSON_VERSION, *network ? ", " : "",
             network);
    return text;
}

uint64_t kh_peak_memory(void)
{
    return kh_cpu_peak_rss();
}
