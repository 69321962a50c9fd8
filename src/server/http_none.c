/* In the place of http.c where the program was built without libmicrohttpd. */
#include "base/fail.h"
#include "server/server_impl.h"

kh_status server_http_open(server *s)
{
    (void)s;
    KH_FAIL(
        KH_ERR_UNSUPPORTED,
        "this keyhole was built without libmicrohttpd, which a server needs: install it (Debian's "
        "libmicrohttpd-dev, scripts/setup does it) and build again");
}

void server_http_quiet(server *s)
{
    (void)s;
}

void server_http_sweep(server *s)
{
    (void)s;
}

void server_http_close(server *s)
{
    (void)s;
}
