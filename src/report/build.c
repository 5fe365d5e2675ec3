/* What this build is: alone in its file, for it is compiled again with every commit. */
#include "report/report.h"

#include "hetero_commit.h"

#ifndef HETERO_FLAGS
#define HETERO_FLAGS ""
#endif

const char *ht_commit(void) {
    return HETERO_COMMIT;
}

const char *ht_build_compiler(void) {
#if defined(__clang__)
    return __VERSION__;
#else
    return "GCC " __VERSION__;
#endif
}

const char *ht_build_flags(void) {
    return HETERO_FLAGS;
}

const char *ht_build_target(void) {
#if defined(__x86_64__)
#define PROCESSOR "x86_64"
#elif defined(__aarch64__)
#define PROCESSOR "aarch64"
#else
#define PROCESSOR "another processor"
#endif
#if defined(__ANDROID__)
    return PROCESSOR " Android";
#elif defined(__GLIBC__)
    return PROCESSOR " glibc";
#else
    return PROCESSOR;
#endif
}
