/* gen/auto.h: the setting that "auto" means for a file. */
#ifndef KH_GEN_AUTO_H
#define KH_GEN_AUTO_H

#include <keyhole/status.h>
#include <stddef.h>

/* `source` says where it comes from. */
kh_status kh_auto_find(const char *identity, char *attn, size_t size, const char **source);
kh_status kh_auto_store(const char *identity, const char *attn);

#endif
