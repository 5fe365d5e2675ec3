/* Sums of files, by OpenSSL's libcrypto, which libcurl brings along. It is opened when the first sum is wanted
 * (library.c). */
#include "hub/library.h"

#include <stdlib.h>
#include <string.h>

#ifdef HETERO_HAVE_CURL
struct ht_hub_sum {
    const ht_hub_crypto *library;
    EVP_MD_CTX *context;
    bool good;
};

ht_status ht_hub_sum_begin(bool git, uint64_t bytes, ht_hub_sum **out, ht_error *error) {
    char head[40];
    ht_hub_sum *sum;
    const ht_hub_crypto *library;
    ht_status status = ht_hub_crypto_open(&library, error);
    if (!status)
        status = ht_alloc((void **)&sum, 1, sizeof *sum, "a file's sum", error);
    if (status)
        return status;
    sum->library = library;
    sum->context = library->context_new();
    sum->good = sum->context && library->begin(sum->context, git ? library->sha1() : library->sha256(), NULL) == 1;
    if (git) /* a blob's name in Git covers its kind and its size, with the NUL */
        ht_hub_sum_add(sum, head, 1 + (size_t)snprintf(head, sizeof head, "blob %llu", (unsigned long long)bytes));
    *out = sum;
    return HT_OK;
}

void ht_hub_sum_add(ht_hub_sum *sum, const void *data, size_t bytes) {
    sum->good = sum->good && sum->library->add(sum->context, data, bytes) == 1;
}

void ht_hub_sum_end(ht_hub_sum *sum, char hex[65]) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (hex)
        *hex = '\0';
    if (!sum)
        return;
    if (hex && sum->good && sum->library->end(sum->context, digest, &n) == 1)
        for (unsigned i = 0; i < n && i < 32; i++)
            snprintf(hex + 2 * (size_t)i, 3, "%02x", digest[i]);
    sum->library->context_free(sum->context);
    free(sum);
}
#else
ht_status ht_hub_sum_begin(bool git, uint64_t bytes, ht_hub_sum **sum, ht_error *error) {
    return ht_fail(error, HT_ERROR_UNSUPPORTED, HT_HUB_NOT_BUILT);
}
void ht_hub_sum_add(ht_hub_sum *sum, const void *data, size_t bytes) {}
void ht_hub_sum_end(ht_hub_sum *sum, char hex[65]) {
    if (hex)
        *hex = '\0';
}
#endif
