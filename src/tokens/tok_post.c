/* Post-processing: the special tokens around one text, or around and between two.
 *
 * Every post-processor of tokenizer.json is a pair of templates here, lists of tokens and texts
 * with a type id each; BERT's, RoBERTa's and GGUF's add_bos / add_eos are templates that are not
 * written out in the file:
 *
 *     BERT      [CLS] A [SEP]      [CLS] A [SEP] B:1 [SEP]:1
 *     RoBERTa   <s> A </s>         <s> A </s> </s> B </s>
 *     T5        A </s>             A </s> B </s>
 *
 * Without special tokens the same templates give the texts and their types alone. */
#include "tokens/tok_post.h"

void kh_post_add(kh_post_template *list, int32_t id, int32_t type)
{
    if (list->count < KH_POST_MOST) list->items[list->count++] = (kh_post_item){id, type};
}

void kh_post_edges(kh_post *post, int32_t before, int32_t after, int32_t second)
{
    *post = (kh_post){.one.count = 0};
    for (kh_post_template *list = &post->one;; list = &post->two) {
        if (before >= 0) kh_post_add(list, before, 0);
        kh_post_add(list, KH_POST_A, 0);
        if (after >= 0) kh_post_add(list, after, 0);
        if (list == &post->two) break;
    }
    kh_post_add(&post->two, KH_POST_B, second);
    if (after >= 0) kh_post_add(&post->two, after, second);
}
