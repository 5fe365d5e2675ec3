/* ht_pull: from a name to files on this machine. */
#include "hub/hub.h"

#include <stdlib.h>
#include <string.h>

#define RETRIES 5

typedef struct pull {
    ht_hub_name name;
    ht_hub_cache cache;
    ht_hub_listing listing;
    ht_hub_client *client; /* NULL: nobody was asked */
    ht_pull_options options;
    ht_progress progress;
    ht_error *error;
    size_t *chosen, n; /* of the listing */
} pull;

bool ht_pull_is_name(const char *text) {
    return text && !strncmp(text, "hf:", 3);
}

/* As huggingface_hub reads such variables. */
static bool is_true(const char *name) {
    static const char *const words[] = {"1", "ON", "YES", "TRUE", "on", "yes", "true", "On", "Yes", "True"};
    const char *value = getenv(name);
    for (size_t i = 0; value && i < HT_COUNT(words); i++)
        if (!strcmp(value, words[i]))
            return true;
    return false;
}

static ht_status open_pull(pull *p, const char *name, const ht_pull_options *options) {
    static const ht_pull_options none = {0};
    if (!name)
        return ht_fail(p->error, HT_ERROR_ARGUMENT, "no model was named");
    p->options = options ? *options : none;
    p->options.offline |= is_true("HF_HUB_OFFLINE");
    p->progress = (ht_progress){p->options.progress, p->options.progress_user};
    ht_status status = ht_hub_name_read(name, &p->name, p->error);
    return status ? status : ht_hub_cache_find(&p->name, &p->cache, p->error);
}

static void close_pull(pull *p) {
    ht_hub_client_close(p->client);
    ht_hub_listing_free(&p->listing);
    free(p->chosen);
}

static ht_status ask_hub(pull *p) {
    const int retries = p->options.retries ? p->options.retries : RETRIES;
    ht_hub_listing_free(&p->listing);
    ht_status status = ht_hub_client_open(retries > 0 ? retries : 0, &p->progress, &p->client, p->error);
    return status ? status : ht_hub_list(p->client, &p->name, &p->listing, p->error);
}

/* Does the cache have all that was chosen? */
static bool have_chosen(const pull *p) {
    char path[HT_PATH_BYTES];
    for (size_t i = 0; i < p->n; i++) {
        const ht_hub_file *file = &p->listing.files[p->chosen[i]];
        if (!ht_hub_cache_has(&p->cache, p->listing.commit, file->path, file->bytes, path))
            return false;
    }
    return p->n > 0;
}

/* By what the cache knows alone. What the hub is known to have comes first: what a name means must not depend on what
 * else was fetched. False: it does not have the model; `error` says what it has. */
static bool look_in_cache(pull *p, ht_error *error) {
    if (!ht_hub_cache_commit(&p->cache, p->name.revision, p->listing.commit)) {
        ht_fail(error, HT_ERROR_ARGUMENT, "there is nothing of it");
        return false;
    }
    const bool known = ht_hub_cache_recall(&p->cache, &p->listing);
    if (!known && ht_hub_cache_scan(&p->cache, &p->listing, error))
        return false;
    if (ht_hub_choose(&p->name, &p->listing, known ? "the hub" : "the cache", &p->chosen, &p->n, error))
        return false;
    if (have_chosen(p))
        return true;
    ht_fail(error, HT_ERROR_ARGUMENT, "%.200s is not there", p->listing.files[p->chosen[0]].path);
    free(p->chosen);
    p->chosen = NULL;
    p->n = 0;
    return false;
}

/* Bytes of the chosen files from a number on whose blobs are not there. */
static uint64_t missing(const pull *p, size_t from) {
    char path[HT_PATH_BYTES];
    ht_os_info info;
    uint64_t bytes = 0;
    for (size_t i = from; i < p->n; i++) {
        const ht_hub_file *file = &p->listing.files[p->chosen[i]];
        if (ht_hub_path(path, NULL, "%s/blobs/%s", p->cache.folder, file->sum) || ht_os_look(path, &info) != 0)
            bytes += file->bytes;
    }
    return bytes;
}

static ht_status fetch_chosen(pull *p, uint64_t *fetched) {
    const char *first = p->listing.files[p->chosen[0]].path, *slash = strrchr(first, '/');
    char path[HT_PATH_BYTES];
    uint64_t total = 0;
    ht_status status = HT_OK;
    *fetched = 0;
    for (size_t i = 0; i < p->n; i++) {
        const ht_hub_file *file = &p->listing.files[p->chosen[i]];
        if (!ht_hub_cache_has(&p->cache, p->listing.commit, file->path, file->bytes, path))
            total += file->bytes;
    }
    ht_hub_expect(p->client, slash ? slash + 1 : first, 0, total);
    for (size_t i = 0; i < p->n && !status; i++) {
        const ht_hub_file *file = &p->listing.files[p->chosen[i]];
        if (ht_hub_cache_has(&p->cache, p->listing.commit, file->path, file->bytes, path))
            continue;
        status = ht_hub_fetch(p->client, &p->cache, &p->name, p->listing.commit, file, missing(p, i + 1), p->error);
        if (!status)
            status = ht_hub_cache_link(&p->cache, p->listing.commit, file->path, file->sum, p->error);
        *fetched += file->bytes;
    }
    if (!status)
        status = ht_hub_cache_set_commit(&p->cache, p->name.revision, p->listing.commit, p->error);
    if (!status)
        ht_hub_cache_keep(&p->cache, &p->listing);
    return status;
}

/* ---- results ---------------------------------------------------------------------------------------------------------- */

void ht_pull_result_clear(ht_pull_result *result) {
    for (size_t i = 0; i < result->n; i++) {
        free(result->files[i].name);
        free(result->files[i].path);
    }
    free(result->files);
    *result = (ht_pull_result){0};
}

/* The SHA-256 of a file on this machine, where the listing does not have it. */
static ht_status sum_file(const char *path, char hex[65], ht_error *error) {
    ht_mapping file;
    ht_hub_sum *sum;
    ht_status status = ht_hub_sum_begin(false, 0, &sum, error);
    if (status)
        return status;
    status = ht_mapping_open(path, &file, error);
    if (!status) {
        ht_hub_sum_add(sum, file.data, file.bytes);
        ht_mapping_close(&file);
    }
    ht_hub_sum_end(sum, status ? NULL : hex);
    return status;
}

static ht_status add_result(const pull *p, const ht_hub_file *file, bool sums, ht_pull_result *result) {
    ht_pull_file *made = &result->files[result->n];
    char path[HT_PATH_BYTES];
    const bool there = ht_hub_cache_has(&p->cache, p->listing.commit, file->path, file->bytes, path);
    made->name = ht_copy_text(file->path, strlen(file->path));
    made->path = there ? ht_copy_text(path, strlen(path)) : NULL;
    made->bytes = file->bytes;
    if (strlen(file->sum) == 64)
        memcpy(made->sha256, file->sum, 65);
    result->n++;
    result->bytes += file->bytes;
    if (!made->name || (there && !made->path))
        return ht_fail(p->error, HT_ERROR_MEMORY, "out of memory: a list of files");
    return sums && there && !*made->sha256 ? sum_file(path, made->sha256, p->error) : HT_OK;
}

static ht_status make_result(const pull *p, size_t n, bool sums, ht_pull_result *result) {
    *result = (ht_pull_result){0};
    ht_status status = ht_alloc((void **)&result->files, n ? n : 1, sizeof *result->files, "a list of files", p->error);
    memcpy(result->commit, p->listing.commit, sizeof result->commit);
    for (size_t i = 0; i < n && !status; i++)
        status = add_result(p, &p->listing.files[p->chosen ? p->chosen[i] : i], sums, result);
    if (status)
        ht_pull_result_clear(result);
    return status;
}

ht_status ht_pull(const char *name, const ht_pull_options *options, ht_pull_result *result, ht_error *error) {
    ht_error own = {0}, why = {0};
    pull p = {.error = error ? error : &own};
    uint64_t fetched = 0;
    bool there = false;
    ht_status status = open_pull(&p, name, options);
    if (!status && (p.options.cached || p.options.offline)) {
        there = look_in_cache(&p, &why);
        if (!there && p.options.offline)
            status = ht_fail(p.error, HT_ERROR_ARGUMENT,
                             "%.100s: not in the cache (%.150s), and nothing is fetched offline: %s", name,
                             p.cache.folder, why.text);
    }
    if (!status && !there)
        status = ask_hub(&p);
    if (!status && !there)
        status = ht_hub_choose(&p.name, &p.listing, ht_hub_endpoint(p.client), &p.chosen, &p.n, p.error);
    if (!status && !there)
        status = fetch_chosen(&p, &fetched);
    if (!status)
        status = make_result(&p, p.n, !p.options.cached, result);
    if (!status)
        result->fetched_bytes = fetched;
    close_pull(&p);
    return status;
}

ht_status ht_pull_list(const char *name, const ht_pull_options *options, ht_pull_result *result, ht_error *error) {
    ht_error own = {0};
    pull p = {.error = error ? error : &own};
    ht_status status = open_pull(&p, name, options);
    if (!status && p.options.offline) {
        if (!ht_hub_cache_commit(&p.cache, p.name.revision, p.listing.commit))
            status = ht_fail(p.error, HT_ERROR_ARGUMENT, "%.100s: the cache (%.200s) has nothing of it", name,
                             p.cache.folder);
        else if (!ht_hub_cache_recall(&p.cache, &p.listing))
            status = ht_hub_cache_scan(&p.cache, &p.listing, p.error);
    } else if (!status) {
        status = ask_hub(&p);
    }
    if (!status)
        status = make_result(&p, p.listing.n, false, result);
    close_pull(&p);
    return status;
}
