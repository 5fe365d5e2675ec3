/* What the fuzzing targets share. */
#ifndef HT_FUZZ_H
#define HT_FUZZ_H

#include "base/base.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static inline void say_nothing(ht_log_level level, const char *line, void *user) {
    (void)level, (void)line, (void)user;
}

/* libFuzzer calls it before the first input. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    ht_log_set(say_nothing, NULL, HT_LOG_ERROR);
    return 0;
}

/* What must hold for every input; an abort is a finding. */
static inline void must(bool holds) {
    if (!holds)
        abort();
}

#endif
