/* jinja/jinja_text.h: text of chat templates: characters, the writer through which every new text is
 * made, and what values look like as text. Private to gen/jinja*. */
#ifndef KH_JINJA_JINJA_TEXT_H
#define KH_JINJA_JINJA_TEXT_H

#include "jinja/jinja_value.h"

/* ---- characters ---- */

/* Python's str.isspace. */
int kh_jchar_space(uint32_t c);
/* Bytes of the character at `at`, which is inside the text. */
size_t kh_jtext_step(kh_jtext text, size_t at);
uint32_t kh_jtext_code(kh_jtext text, size_t at);
size_t kh_jtext_length(kh_jtext text); /* characters */
/* Byte offset of character n (the end for n past it). */
size_t kh_jtext_offset(kh_jtext text, size_t n);
/* Where `what` begins at or after `from`, SIZE_MAX for nowhere; the last place for _find_last. */
size_t kh_jtext_find(kh_jtext text, kh_jtext what, size_t from);
size_t kh_jtext_find_last(kh_jtext text, kh_jtext what);
int kh_jtext_starts(kh_jtext text, kh_jtext what);
int kh_jtext_ends(kh_jtext text, kh_jtext what);

enum { KH_J_LEFT = 1, KH_J_RIGHT = 2, KH_J_BOTH = 3 };
/* Without the white space (`set` NULL) or the characters of `set` at the chosen ends. */
kh_jtext kh_jtext_strip(kh_jtext text, const kh_jtext *set, int sides);

/* ---- the writer ---- */

typedef struct kh_jout {
    kh_jrun *run;
    char *data;
    uint8_t *said; /* NULL until a byte of the conversation arrives */
    size_t size, room;
} kh_jout;

/* Appends text with its origin. */
kh_status kh_jout_add(kh_jout *out, kh_jtext text);
/* Appends bytes that were made here, out of something with this origin. */
kh_status kh_jout_put(kh_jout *out, const char *bytes, size_t size, int said);
kh_status kh_jout_word(kh_jout *out, const char *word); /* the template's */
/* Appends text with & < > " and ' as HTML has them. */
kh_status kh_jout_escape(kh_jout *out, kh_jtext text);
/* Appends to something that is markup or not: markup takes other text escaped. */
kh_status kh_jout_join(kh_jout *out, kh_jtext text, int markup);
kh_status kh_jout_char(kh_jout *out, uint32_t code, int said);
kh_status kh_jout_fill(kh_jout *out, const char *what, size_t times);
/* What was written; the writer must not be used afterwards. */
kh_jtext kh_jout_text(const kh_jout *out);
kh_status kh_jout_value(kh_jout *out, kh_jval *value); /* as a string value */
kh_status kh_jout_markup(kh_jout *out, kh_jval *value, int markup);

enum kh_jcase { KH_J_UPPER, KH_J_LOWER, KH_J_TITLE, KH_J_CAPITAL, KH_J_SWAP };
kh_status kh_jout_case(kh_jout *out, kh_jtext text, enum kh_jcase how);

/* ---- values as text ---- */

/* Python's str(). Undefined is empty. */
kh_status kh_jout_show(kh_jout *out, kh_jval value);
kh_status kh_jval_show(kh_jrun *run, kh_jval value, kh_jtext *out);
/* Python's repr(). */
kh_status kh_jval_repr(kh_jrun *run, kh_jval value, kh_jtext *out);

enum { KH_J_FLOAT_SIZE = 40 };
/* Python's repr of a float; returns the length. */
size_t kh_jfloat_repr(char out[KH_J_FLOAT_SIZE], double f);

/* ---- JSON ---- */

typedef struct kh_jjson {
    kh_jtext item, key; /* separators */
    kh_jtext indent;    /* one level of indentation */
    int lines;          /* one item a line */
    int ascii;          /* escapes what is not ASCII */
    int sorted;
} kh_jjson;
/* json.dumps. All of it counts as the conversation's. */
kh_status kh_jout_json(kh_jout *out, kh_jval value, const kh_jjson *how);
/* Reads one JSON text into values whose strings carry `said`. `what` names it in the sentence. */
kh_status kh_jval_parse(kh_jrun *run, kh_jval *out, const char *text, size_t size, int said,
                        const char *what);

#endif
