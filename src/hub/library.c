/* Opens libcurl and libcrypto. */
#include "hub/library.h"

#ifdef HETERO_HAVE_CURL
#include <pthread.h>
#include <string.h>

typedef struct symbol {
    const char *name;
    size_t offset;
} symbol;

/* All functions of a library, or why not. */
static bool open_all(const char *path, const symbol *symbols, size_t n, void *table, char *why, size_t capacity) {
    void *library = ht_os_library_open(path, why, capacity);
    for (size_t i = 0; library && i < n; i++) {
        void *function = ht_os_library_symbol(library, symbols[i].name);
        memcpy((char *)table + symbols[i].offset, &function, sizeof function);
        if (function)
            continue;
        snprintf(why, capacity, "%s has no %s", path, symbols[i].name);
        library = NULL;
    }
    return library != NULL;
}

#define AT(name) \
    { "curl_" #name, offsetof(ht_hub_curl, name) }
static const symbol curl_symbols[] = {AT(global_init),
                                      AT(easy_init),
                                      AT(easy_cleanup),
                                      AT(easy_reset),
                                      AT(easy_setopt),
                                      AT(easy_getinfo),
                                      AT(easy_strerror),
                                      AT(slist_append),
                                      AT(slist_free_all),
                                      AT(multi_init),
                                      AT(multi_cleanup),
                                      AT(multi_add_handle),
                                      AT(multi_remove_handle),
                                      AT(multi_perform),
                                      AT(multi_poll),
                                      AT(multi_info_read),
                                      AT(url),
                                      AT(url_cleanup),
                                      AT(url_set),
                                      AT(url_get),
                                      AT(free)};
#undef AT
static const symbol crypto_symbols[] = {{"EVP_MD_CTX_new", offsetof(ht_hub_crypto, context_new)},
                                        {"EVP_MD_CTX_free", offsetof(ht_hub_crypto, context_free)},
                                        {"EVP_sha256", offsetof(ht_hub_crypto, sha256)},
                                        {"EVP_sha1", offsetof(ht_hub_crypto, sha1)},
                                        {"EVP_DigestInit_ex", offsetof(ht_hub_crypto, begin)},
                                        {"EVP_DigestUpdate", offsetof(ht_hub_crypto, add)},
                                        {"EVP_DigestFinal_ex", offsetof(ht_hub_crypto, end)}};

static ht_hub_curl curl;
static ht_hub_crypto crypto;
static char curl_why[256], crypto_why[256]; /* "": they are there */

static void open_curl(void) {
    if (open_all(HETERO_CURL_LIBRARY, curl_symbols, HT_COUNT(curl_symbols), &curl, curl_why, sizeof curl_why) &&
        curl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        snprintf(curl_why, sizeof curl_why, "%s cannot be made ready", HETERO_CURL_LIBRARY);
}

static void open_crypto(void) {
    open_all(HETERO_CRYPTO_LIBRARY, crypto_symbols, HT_COUNT(crypto_symbols), &crypto, crypto_why, sizeof crypto_why);
}

ht_status ht_hub_curl_open(const ht_hub_curl **library, ht_error *error) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, open_curl);
    *library = &curl;
    return *curl_why ? ht_fail(error, HT_ERROR_UNSUPPORTED, "models cannot be fetched without libcurl: %s", curl_why)
                     : HT_OK;
}

ht_status ht_hub_crypto_open(const ht_hub_crypto **library, ht_error *error) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, open_crypto);
    *library = &crypto;
    return *crypto_why
               ? ht_fail(error, HT_ERROR_UNSUPPORTED, "models cannot be checked without libcrypto: %s", crypto_why)
               : HT_OK;
}
#else
extern int ht_hub_none; /* a file has to have something */
#endif
