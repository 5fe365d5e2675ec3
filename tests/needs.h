/* What a test needs and this machine may lack: a runtime, the models. Such a test is skipped and says why, unless
 * HETERO_REQUIRE (a list like "opencl,openvino,ort,qnn,models") names what is missing: then it fails, so that a CI which
 * lost a driver does not stay green. tests/conftest.py does the same for Python. */
#ifndef HT_TEST_NEEDS_H
#define HT_TEST_NEEDS_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline bool is_required(const char *what) {
    const char *list = getenv("HETERO_REQUIRE");
    const size_t length = strlen(what);
    for (const char *at = list; at && *at; at += *at == ',') {
        const size_t n = strcspn(at, ",");
        if (n == length && strncmp(at, what, n) == 0)
            return true;
        at += n;
    }
    return false;
}

/* Prints why `what` is not there. True: it is required, so the caller fails; false: the caller skips. */
static inline bool must_have(const char *what, const char *why) {
    const bool required = is_required(what);
    printf("%s: %s\n", required ? "failed, for HETERO_REQUIRE names it" : "skipped", why);
    fflush(stdout);
    return required;
}

/* What a device, "ort:qnn:cache=off" for example, is called in HETERO_REQUIRE. */
static inline const char *runtime_of(const char *device) {
    static const char *const runtimes[][2] = {
        {"opencl:", "opencl"}, {"openvino:", "openvino"}, {"ort:qnn", "qnn"}, {"ort:", "ort"}};
    for (size_t i = 0; i < sizeof runtimes / sizeof *runtimes; i++)
        if (strncmp(device, runtimes[i][0], strlen(runtimes[i][0])) == 0)
            return runtimes[i][1];
    return "cpu";
}

/* HETERO_QUICK: fewer cases, for `make check`; "unit": and none that need a driver, for `make unit`. */
static inline bool is_quick(void) {
    return getenv("HETERO_QUICK") != NULL;
}
static inline bool is_unit(void) {
    return is_quick() && strcmp(getenv("HETERO_QUICK"), "unit") == 0;
}

/* Where random cases begin: HETERO_SEED (`make soak`), or the usual. */
static inline unsigned seed_of(unsigned usual) {
    const char *asked = getenv("HETERO_SEED");
    return asked ? (unsigned)strtoul(asked, NULL, 10) : usual;
}

/* The names of instruction sets that this processor's family has; others are no cases here. */
#if defined __x86_64__
#define HT_TEST_ISAS "cpu:isa=scalar", "cpu:isa=avx2", "cpu:isa=avx512"
#elif defined __aarch64__
#define HT_TEST_ISAS "cpu:isa=scalar", "cpu:isa=neon", "cpu:isa=neon-dotprod", "cpu:isa=neon-i8mm"
#else
#define HT_TEST_ISAS "cpu:isa=scalar"
#endif

#endif
