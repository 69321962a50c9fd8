/* A build without libcurl: the cache works, everything that needs a hub says why it does not. */
#include "hub/hub_impl.h"

#include "base/fail.h"

kh_status kh_http_open(kh_http **out, kh_hub_pulling *pulling)
{
    *out = NULL;
    KH_FAIL(
        KH_ERR_UNSUPPORTED,
        "%s cannot be fetched: this keyhole was built without libcurl and can only use what the "
        "cache holds (%s)",
        pulling->name->repository, pulling->cache->folder.data);
}

void kh_http_close(kh_http *http)
{
    (void)http;
}

const char *kh_http_libraries(void)
{
    return "";
}

kh_status kh_hub_ask(kh_hub_list *list, kh_hub_pulling *pulling)
{
    (void)list;
    return kh_http_open(&pulling->http, pulling);
}

kh_status kh_hub_ask_sizes(kh_hub_list *list, kh_hub_pulling *pulling)
{
    return kh_hub_ask(list, pulling);
}

kh_status kh_hub_get(kh_hub_pulling *pulling, const char *commit, kh_hub_entry *entry)
{
    (void)commit;
    (void)entry;
    return kh_http_open(&pulling->http, pulling);
}
