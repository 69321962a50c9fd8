/* gen/chat_format.h: the description of a chat format; private to gen/chat*. */
#ifndef KH_GEN_CHAT_FORMAT_H
#define KH_GEN_CHAT_FORMAT_H

#include "gen/chat.h"

typedef struct kh_chat_turn {
    const char *head, *tail; /* around the text */
} kh_chat_turn;

enum {
    KH_CHAT_TRIM = 1,           /* white space around user and assistant texts is dropped */
    KH_CHAT_TRIM_ASSISTANT = 2, /* around the assistant's only */
    KH_CHAT_TRIM_SYSTEM = 4,
    KH_CHAT_SYSTEM_FIRST = 8,      /* system text goes inside the next user turn */
    KH_CHAT_SYSTEM_LAST = 16,      /* inside the last user turn */
    KH_CHAT_NO_THOUGHTS = 32,      /* an earlier answer loses all up to </think> */
    KH_CHAT_NO_THOUGHT_LINES = 64, /* and the line ends behind it */
    KH_CHAT_SKIP_EMPTY = 128       /* an empty system text makes no turn */
};

struct kh_chat_format {
    const char *name;
    kh_chat_turn system, user, assistant;
    const char *open;           /* begins the answer */
    const char *bos;            /* in front of every user turn but the first; NULL: nothing */
    const char *default_system; /* NULL: none; "": an empty system turn */
    unsigned flags;
};

#endif
