/* What the unit tests of base, gguf and quant share: cmocka's own includes, status checks, a folder for each test. */
#ifndef HT_UNIT_TEST_H
#define HT_UNIT_TEST_H

#include "base/base.h"
#include "needs.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Does a clock say anything about the code? Not under sanitizers and emulators. */
#if defined(__OPTIMIZE__) && defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define TIMED true
#else
#define TIMED false
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1 /* what is computed takes ten times as long */
#else
#define SANITIZED 0
#endif

static char test_folder[64];

/* cmocka setup and teardown: a folder in $TMPDIR (or /tmp), removed with everything in it. */
static inline int make_folder(void **state) {
    const char *base = getenv("TMPDIR");
    snprintf(test_folder, sizeof test_folder, "%s/hetero-test-XXXXXX", base && strlen(base) < 40 ? base : "/tmp");
    return mkdtemp(test_folder) ? 0 : -1;
}

/* A path in that folder, to be freed. */
static inline char *temporary_path(const char *name) {
    ht_text path = {0};
    assert_int_equal(ht_text_printf(&path, NULL, "%s/%s", test_folder, name), HT_OK);
    return path.data;
}

static inline int remove_all(const char *path) {
    DIR *folder = opendir(path); /* NULL: not a folder */
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        ht_text inner = {0};
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") &&
            ht_text_printf(&inner, NULL, "%s/%s", path, entry->d_name) == HT_OK)
            remove_all(inner.data);
        ht_text_free(&inner);
    }
    if (folder)
        closedir(folder);
    return remove(path);
}
static inline int remove_folder(void **state) {
    return remove_all(test_folder);
}

/* How many files and folders are in the test's folder, hidden ones, too. */
static inline size_t count_files(void) {
    DIR *folder = opendir(test_folder);
    size_t n = 0;
    for (const struct dirent *entry; folder && (entry = readdir(folder));)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    if (folder)
        closedir(folder);
    return n;
}

/* The call worked. */
static inline void check(ht_status status, const ht_error *error) {
    if (status)
        fail_msg("%s: %s", ht_status_name(status), error->text);
}

/* The call failed as it should: this status, and one line that names the culprit. */
static inline void fails(ht_status status, ht_status expected, const ht_error *error, const char *culprit) {
    if (status != expected) {
        fail_msg("status %s, not %s: %s", ht_status_name(status), ht_status_name(expected), status ? error->text : "");
    }
    assert_int_equal(error->status, expected);
    if (!strstr(error->text, culprit))
        fail_msg("\"%s\" does not name %s", error->text, culprit);
    assert_null(strchr(error->text, '\n'));
}

#endif
