/* tests/support/models.h: the model files that tests read. */
#ifndef KH_TESTS_SUPPORT_MODELS_H
#define KH_TESTS_SUPPORT_MODELS_H

/* The path of the model "smollm2", "gemma3" (files) or "minilm" (a Hugging Face folder) in ${KEYHOLE_MODELS:-~/.cache/keyhole/models}, or
 * NULL where it is missing. The string belongs to this function and stays valid. */
const char *kh_test_model(const char *name);

/* The same inside a cmocka test: where the model is missing, the test is skipped (ctest then shows
 * the whole program as skipped), or fails when KEYHOLE_REQUIRE_MODELS=1. Never returns NULL. */
const char *kh_test_need_model(const char *name);

#endif
