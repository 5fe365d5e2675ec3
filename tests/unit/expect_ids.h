/* What the tests of tokenizers share: a text's tokens are those that are wanted, or they are shown. */
#ifndef HT_UNIT_EXPECT_IDS_H
#define HT_UNIT_EXPECT_IDS_H

#include "text/text.h"
#include "unit/test.h"

static inline void expect_ids(const ht_tokenizer *t, const char *text, size_t bytes, unsigned flags,
                              const int32_t *want, size_t n_want) {
    int32_t *ids = NULL;
    size_t n = 0;
    ht_error error;
    if (ht_tokenizer_encode(t, text, bytes, flags, &ids, &n, &error) != HT_OK)
        fail_msg("%s", error.text);
    const bool same = n == n_want && (n == 0 || memcmp(ids, want, n * sizeof *ids) == 0);
    if (!same) {
        print_error("%s \"%s\":", ht_tokenizer_name(t), text);
        for (size_t i = 0; i < n; i++)
            print_error(" %d", ids[i]);
        print_error("\n");
    }
    free(ids);
    assert_true(same);
}

#endif
