/* tests/support/data_case.h: what tests of training data share: a folder for files, vocabularies, and
 * documents as tokens. */
#ifndef KH_TESTS_SUPPORT_DATA_CASE_H
#define KH_TESTS_SUPPORT_DATA_CASE_H

#include "model/network.h"
#include "train/data.h"

#include <stddef.h>

/* Makes a new folder under /tmp; kh_test_folder_remove takes it away with all files in it. */
const char *kh_test_folder(void);
void kh_test_folder_remove(void);
/* Writes a file in it and returns its path, which stays valid until eight others were written. */
const char *kh_test_write(const char *name, const void *bytes, size_t size);
const char *kh_test_write_text(const char *name, const char *text);

/* tests/golden/tokens/NAME.gguf; fails the test where it cannot be opened. */
kh_model *kh_test_vocabulary(const char *name);
/* One file as a source; fails the test with the sentence. */
kh_source *kh_test_source(const char *path, const kh_model *model,
                          const kh_source_options *options);
/* Fails unless a document is these ids, of which those at `first` up to `end` are predicted. */
void kh_test_document(kh_source *source, uint64_t index, const int32_t *ids, size_t count,
                      size_t first, size_t end);

#endif
