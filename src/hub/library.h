/* libcurl and libcrypto, opened when they are first needed: linked, they and the thirty libraries that they bring would
 * take 3.5 ms of every start, and every program that links with us would have them, too. */
#ifndef HT_HUB_LIBRARY_H
#define HT_HUB_LIBRARY_H

#include "hub/hub.h"

#define HT_HUB_NOT_BUILT \
    "this build cannot fetch models: libcurl's and OpenSSL's headers were not there when it was made"

#ifdef HETERO_HAVE_CURL
#include <curl/curl.h>
#include <openssl/evp.h>

typedef struct ht_hub_curl {
    CURLcode (*global_init)(long flags);
    CURL *(*easy_init)(void);
    void (*easy_cleanup)(CURL *easy);
    void (*easy_reset)(CURL *easy);
    CURLcode (*easy_setopt)(CURL *easy, CURLoption option, ...);
    CURLcode (*easy_getinfo)(CURL *easy, CURLINFO info, ...);
    const char *(*easy_strerror)(CURLcode code);
    struct curl_slist *(*slist_append)(struct curl_slist *list, const char *text);
    void (*slist_free_all)(struct curl_slist *list);
    CURLM *(*multi_init)(void);
    CURLMcode (*multi_cleanup)(CURLM *multi);
    CURLMcode (*multi_add_handle)(CURLM *multi, CURL *easy);
    CURLMcode (*multi_remove_handle)(CURLM *multi, CURL *easy);
    CURLMcode (*multi_perform)(CURLM *multi, int *running);
    CURLMcode (*multi_poll)(CURLM *multi, struct curl_waitfd *more, unsigned n, int milliseconds, int *ready);
    CURLMsg *(*multi_info_read)(CURLM *multi, int *left);
    CURLU *(*url)(void);
    void (*url_cleanup)(CURLU *url);
    CURLUcode (*url_set)(CURLU *url, CURLUPart part, const char *text, unsigned flags);
    CURLUcode (*url_get)(const CURLU *url, CURLUPart part, char **text, unsigned flags);
    void (*free)(void *memory);
} ht_hub_curl;

typedef struct ht_hub_crypto {
    EVP_MD_CTX *(*context_new)(void);
    void (*context_free)(EVP_MD_CTX *context);
    const EVP_MD *(*sha256)(void);
    const EVP_MD *(*sha1)(void);
    int (*begin)(EVP_MD_CTX *context, const EVP_MD *kind, ENGINE *none);
    int (*add)(EVP_MD_CTX *context, const void *data, size_t bytes);
    int (*end)(EVP_MD_CTX *context, unsigned char *digest, unsigned *bytes);
} ht_hub_crypto;

/* HT_ERROR_UNSUPPORTED: not on this machine. They stay open. */
ht_status ht_hub_curl_open(const ht_hub_curl **library, ht_error *error);
ht_status ht_hub_crypto_open(const ht_hub_crypto **library, ht_error *error);
#endif

#endif
