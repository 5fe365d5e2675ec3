/* Models of a hub that answers as Hugging Face's does: what a name means, what the hub has, what the cache has, and how
 * a file gets from the one to the other. The cache is laid out as huggingface_hub's is, and shared with it:
 *
 *   CACHE/models--OWNER--REPO/blobs/SUM                          a file, named by the sum of its bytes
 *                             blobs/SUM.incomplete               as much of it as has come
 *                             snapshots/COMMIT/PATH              a link to its blob
 *                             refs/REVISION                      the commit that a branch or tag stands for
 *                             .hetero/COMMIT.json                our own: what the hub has at that commit
 *   CACHE/.locks/models--OWNER--REPO/SUM.lock                    held (flock) by whoever writes the blob
 *
 * Nothing that a server says is trusted: names become paths only after ht_hub_path_good, sizes and counts are bounded,
 * and a file gets its name in blobs/ only when the sum of its bytes is the one that the listing has. */
#ifndef HT_HUB_H
#define HT_HUB_H

#include "base/os.h"

#define HT_HUB_FILE_BYTES 1024                /* of the longest path inside a repository */
#define HT_HUB_MOST_FILES 100000              /* of one repository */
#define HT_HUB_MOST_MODELS 10000              /* of these; each is compared with all others */
#define HT_HUB_MOST_BYTES (UINT64_C(1) << 50) /* of one file */

/* ---- name.c --------------------------------------------------------------------------------------------------------- */

/* hf:OWNER/REPO[@REVISION][:TYPE], or .../PATH/FILE.gguf in place of :TYPE; @REVISION may also stand at the end. */
typedef struct ht_hub_name {
    const char *text;                                                           /* as it was given */
    char owner[97], repo[97], revision[129], type[65], file[HT_HUB_FILE_BYTES]; /* "": not said; revision: "main" */
} ht_hub_name;
/* HT_ERROR_ARGUMENT. The text must outlive the name. */
ht_status ht_hub_name_read(const char *text, ht_hub_name *name, ht_error *error);
/* A path that stays below the folder it is put in, on every system: no empty part, no "." or "..", no backslash, no control
 * character, nothing but UTF-8, no longer than a file system takes. */
bool ht_hub_path_good(const char *path, size_t bytes);
bool ht_hub_hex_good(const char *text, size_t digits); /* lower-case hexadecimal digits, exactly so many */
bool ht_hub_commit_good(const char *text);

/* ---- choose.c ------------------------------------------------------------------------------------------------------- */

typedef struct ht_hub_file {
    char *path; /* inside the repository */
    uint64_t bytes;
    char sum[65]; /* hexadecimal SHA-256 of the bytes, or SHA-1 as Git has it of a blob (40 digits); "": not known */
} ht_hub_file;
typedef struct ht_hub_listing {
    char commit[65];
    ht_hub_file *files; /* in the hub's order */
    size_t n, capacity;
} ht_hub_listing;
/* Appends a copy. */
ht_status ht_hub_listing_add(ht_hub_listing *listing, const char *path, uint64_t bytes, const char *sum,
                             ht_error *error);
void ht_hub_listing_free(ht_hub_listing *listing);

bool ht_hub_is_model(const char *path); /* a GGUF file that is a whole model or a part of one, by its name */
/* The files that the name means, a split file's parts in order: *chosen, from malloc, has their numbers in the listing.
 * HT_ERROR_ARGUMENT with the names of what there is. `where` is for errors. */
ht_status ht_hub_choose(const ht_hub_name *name, const ht_hub_listing *listing, const char *where, size_t **chosen,
                        size_t *n, ht_error *error);

/* ---- cache.c -------------------------------------------------------------------------------------------------------- */

typedef struct ht_hub_cache {
    char folder[HT_PATH_BYTES], locks[HT_PATH_BYTES]; /* of the repository; they need not exist */
} ht_hub_cache;
/* snprintf into a path; HT_ERROR_IO where it does not fit. */
ht_status ht_hub_path(char path[HT_PATH_BYTES], ht_error *error, const char *format, ...) HT_PRINTF(3, 4);
/* Where only a file of the cache may be: a link there goes. */
void ht_hub_remove_link(const char *path);
/* A path that a variable names; "~/" is the user's home there. False: it names none. */
bool ht_hub_from_environment(const char *name, char path[HT_PATH_BYTES]);
/* Where the environment says that the caches of Hugging Face's tools lie: $HF_HOME or what stands for it, and `file` in
 * it. */
ht_status ht_hub_home(const char *file, char path[HT_PATH_BYTES], ht_error *error);
ht_status ht_hub_cache_find(const ht_hub_name *name, ht_hub_cache *cache, ht_error *error);
/* The commit that the cache has for a revision; false: none. */
bool ht_hub_cache_commit(const ht_hub_cache *cache, const char *revision, char commit[65]);
/* What the hub was known to have at the listing's commit. False: not known. */
bool ht_hub_cache_recall(const ht_hub_cache *cache, ht_hub_listing *listing);
/* The files of the listing's commit that are there, with their sizes, by name; none if there is no such folder. */
ht_status ht_hub_cache_scan(const ht_hub_cache *cache, ht_hub_listing *listing, ht_error *error);
/* Keeps the listing; that it cannot is no failure. */
void ht_hub_cache_keep(const ht_hub_cache *cache, const ht_hub_listing *listing);
/* Where a file of a commit lies, or would; false: it is not there, or has another size (bytes 0: any). */
bool ht_hub_cache_has(const ht_hub_cache *cache, const char *commit, const char *file, uint64_t bytes,
                      char path[HT_PATH_BYTES]);
/* Puts a link to the blob there. */
ht_status ht_hub_cache_link(const ht_hub_cache *cache, const char *commit, const char *file, const char *blob,
                            ht_error *error);
ht_status ht_hub_cache_set_commit(const ht_hub_cache *cache, const char *revision, const char *commit, ht_error *error);

/* ---- sum.c ---------------------------------------------------------------------------------------------------------- */

typedef struct ht_hub_sum ht_hub_sum;
/* SHA-256, or SHA-1 as Git has it of a blob of `bytes` bytes. HT_ERROR_UNSUPPORTED: this build, or this machine, has
 * none. */
ht_status ht_hub_sum_begin(bool git, uint64_t bytes, ht_hub_sum **sum, ht_error *error);
void ht_hub_sum_add(ht_hub_sum *sum, const void *data, size_t bytes);
void ht_hub_sum_end(ht_hub_sum *sum, char hex[65]); /* releases it; hex "" if anything failed. NULL is allowed */

/* ---- http.c --------------------------------------------------------------------------------------------------------- */

typedef struct ht_hub_client ht_hub_client;
/* What a server said before the body. Of the hub itself, where it sent us on to a store: commit, linked_*, error_code. */
typedef struct ht_hub_answer {
    long code;
    uint64_t length;                /* of the body; UINT64_MAX: not said */
    uint64_t range_begin, range_of; /* Content-Range: first byte, whole size; UINT64_MAX: not said */
    uint64_t linked_size;           /* UINT64_MAX: not said */
    double retry_after;             /* seconds; 0: not said */
    char etag[256], linked_etag[256], error_code[64];
    char next[2048]; /* Link: rel="next" */
    char location[8192];
} ht_hub_answer;
typedef struct ht_hub_request {
    const char *url;
    const char *what;     /* for errors */
    const char *page;     /* OWNER/REPO */
    uint64_t from;        /* the first byte wanted */
    const char *if_range; /* only if the file is still this one, else all of it; "": whatever it is */
    bool short_one;       /* it is no file: no answer takes minutes */
    /* Of an answer 200 or 206: once, before the first byte; then its bytes. Called on the calling thread. */
    ht_status (*begin)(void *user, const ht_hub_answer *answer, ht_error *error);
    ht_status (*take)(void *user, const char *data, size_t bytes, ht_error *error);
    void *user;
} ht_hub_request;
typedef enum ht_hub_outcome {
    HT_HUB_DONE,
    HT_HUB_AGAIN, /* the same may succeed later */
    HT_HUB_FAILED
} ht_hub_outcome;

/* retries: after that many failures in a row it is given up. HT_ERROR_UNSUPPORTED: this build, or this machine, has no
 * libcurl. */
ht_status ht_hub_client_open(int retries, const ht_progress *progress, ht_hub_client **client, ht_error *error);
void ht_hub_client_close(ht_hub_client *client); /* NULL is allowed */
const char *ht_hub_endpoint(const ht_hub_client *client);
/* One GET, sent on as the server says. error is filled unless it is done; the answer in any case. */
ht_hub_outcome ht_hub_get(ht_hub_client *client, const ht_hub_request *request, ht_hub_answer *answer, ht_error *error);
/* Where `location` leads from the URL, which becomes that: HT_ERROR_FORMAT where it is no address, or one that a server
 * must not send us to. */
ht_status ht_hub_follow(const ht_hub_client *client, const char *what, const char *location, ht_text *url,
                        ht_error *error);
/* After HT_HUB_AGAIN: waits, and HT_OK means try again; else the error, which this leaves as it was. *failures: in a row. */
ht_status ht_hub_pause(ht_hub_client *client, int *failures, const ht_hub_answer *answer, ht_error *error);
/* What is being fetched, for whoever is told of it. */
void ht_hub_expect(ht_hub_client *client, const char *what, uint64_t done, uint64_t total);
ht_status ht_hub_advance(ht_hub_client *client, int64_t bytes, ht_error *error); /* HT_ERROR_CANCELLED */

/* ---- listing.c ------------------------------------------------------------------------------------------------------ */

/* Asks the hub for the commit of the name's revision, and for all files of it. */
ht_status ht_hub_list(ht_hub_client *client, const ht_hub_name *name, ht_hub_listing *listing, ht_error *error);
/* Appends `text` to a URL, what is not plain written as %XX; '/' stays if `path`. */
ht_status ht_hub_url_append(ht_text *url, const char *text, bool path, ht_error *error);

/* ---- fetch.c -------------------------------------------------------------------------------------------------------- */

/* Sees to it that blobs/ has this file, whoever brings it. after: bytes of what will be fetched into the same folder
 * next. */
ht_status ht_hub_fetch(ht_hub_client *client, const ht_hub_cache *cache, const ht_hub_name *name, const char *commit,
                       const ht_hub_file *file, uint64_t after, ht_error *error);

#endif
