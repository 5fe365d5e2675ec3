/* The cache folder, laid out as huggingface_hub's. */
#include "hub/hub.h"

#include "base/json.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define DEEPEST 16             /* folders below a snapshot */
#define RECORD_MOST (64 << 20) /* bytes of one that is read */

ht_status ht_hub_path(char path[HT_PATH_BYTES], ht_error *error, const char *format, ...) {
    va_list list;
    va_start(list, format);
    const int n = vsnprintf(path, HT_PATH_BYTES, format, list);
    va_end(list);
    return n >= 0 && n < HT_PATH_BYTES ? HT_OK : ht_fail(error, HT_ERROR_IO, "a path in the cache folder is too long");
}

bool ht_hub_from_environment(const char *name, char path[HT_PATH_BYTES]) {
    const char *value = getenv(name), *home = getenv("HOME");
    if (!value || !*value)
        return false;
    const bool tilde = *value == '~' && (value[1] == '/' || !value[1]) && home;
    return !ht_hub_path(path, NULL, "%s%s", tilde ? home : "", tilde ? value + 1 : value);
}

ht_status ht_hub_home(const char *file, char path[HT_PATH_BYTES], ht_error *error) {
    char folder[HT_PATH_BYTES];
    if (ht_hub_from_environment("HF_HOME", folder))
        return ht_hub_path(path, error, "%s/%s", folder, file);
    if (ht_hub_from_environment("XDG_CACHE_HOME", folder))
        return ht_hub_path(path, error, "%s/huggingface/%s", folder, file);
    if (ht_hub_from_environment("HOME", folder))
        return ht_hub_path(path, error, "%s/.cache/huggingface/%s", folder, file);
    return ht_fail(error, HT_ERROR_IO,
                   "no folder for models: none of HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME and HOME "
                   "names one");
}

ht_status ht_hub_cache_find(const ht_hub_name *name, ht_hub_cache *cache, ht_error *error) {
    char root[HT_PATH_BYTES];
    ht_status status = HT_OK;
    if (!ht_hub_from_environment("HF_HUB_CACHE", root) && !ht_hub_from_environment("HUGGINGFACE_HUB_CACHE", root))
        status = ht_hub_home("hub", root, error);
    if (!status)
        status = ht_hub_path(cache->folder, error, "%s/models--%s--%s", root, name->owner, name->repo);
    if (!status)
        status = ht_hub_path(cache->locks, error, "%s/.locks/models--%s--%s", root, name->owner, name->repo);
    return status;
}

void ht_hub_remove_link(const char *path) {
    char target[HT_PATH_BYTES];
    if (ht_os_follow(path, target) || strcmp(path, target) != 0)
        ht_os_remove(path);
}

/* Makes the folders, too. */
static ht_status write_file(const char *path, const char *text, ht_error *error) {
    ht_status status = ht_make_folders(path, true, error);
    if (status)
        return status;
    ht_hub_remove_link(path);
    return ht_file_write(path, text, strlen(text), error);
}

bool ht_hub_cache_commit(const ht_hub_cache *cache, const char *revision, char commit[65]) {
    char path[HT_PATH_BYTES];
    if (ht_hub_commit_good(revision)) {
        snprintf(commit, 65, "%s", revision);
        return true;
    }
    ht_os_info info; /* a pipe would be waited for */
    const bool there = !ht_hub_path(path, NULL, "%s/refs/%s", cache->folder, revision) &&
                       ht_os_look(path, &info) == 0 && info.kind == HT_OS_FILE;
    FILE *file = there ? ht_os_open(path, "rb") : NULL;
    const size_t n = file ? fread(commit, 1, 64, file) : 0;
    if (file)
        fclose(file);
    commit[n] = '\0';
    commit[strcspn(commit, " \r\n")] = '\0';
    return ht_hub_commit_good(commit);
}

/* ---- what the hub has, as far as is known ----------------------------------------------------------------------------- */

/* A file of a record: {"size", "blob_id", "lfs_sha256"}, as huggingface_hub keeps listings in trees/. */
static ht_status recall_file(ht_hub_listing *listing, const char *path, const json_t *value) {
    const json_t *size = json_object_get(value, "size");
    const char *sha256 = json_string_value(json_object_get(value, "lfs_sha256"));
    const char *sum = sha256 ? sha256 : json_string_value(json_object_get(value, "blob_id"));
    if (!json_is_integer(size) || json_integer_value(size) < 0 || !ht_hub_path_good(path, strlen(path)))
        return HT_ERROR_FORMAT;
    const bool good = sum && (ht_hub_hex_good(sum, 64) || ht_hub_hex_good(sum, 40));
    return ht_hub_listing_add(listing, path, (uint64_t)json_integer_value(size), good ? sum : "", NULL);
}

static bool recall_from(const char *path, ht_hub_listing *listing) {
    ht_os_info info;
    ht_mapping text;
    const char *key;
    json_t *value;
    ht_status status = HT_OK;
    if (ht_os_look(path, &info) != 0 || info.kind != HT_OS_FILE || info.bytes > RECORD_MOST ||
        ht_mapping_open(path, &text, NULL))
        return false;
    json_t *record = json_loadb((const char *)text.data, text.bytes, 0, NULL);
    ht_mapping_close(&text);
    json_t *files =
        json_integer_value(json_object_get(record, "format_version")) == 1 ? json_object_get(record, "files") : NULL;
    const bool known = json_is_object(files);
    json_object_foreach(files, key, value) {
        if (!status && ht_hub_is_model(key))
            status = recall_file(listing, key, value);
    }
    json_decref(record);
    return known && !status;
}

bool ht_hub_cache_recall(const ht_hub_cache *cache, ht_hub_listing *listing) {
    static const char *const folders[] = {".hetero", "trees"}; /* the second is huggingface_hub's */
    char path[HT_PATH_BYTES], commit[65];
    memcpy(commit, listing->commit, sizeof commit);
    for (size_t i = 0; i < HT_COUNT(folders); i++) {
        if (!ht_hub_path(path, NULL, "%s/%s/%s.json", cache->folder, folders[i], commit) && recall_from(path, listing))
            return true;
        ht_hub_listing_free(listing);
        memcpy(listing->commit, commit, sizeof commit);
    }
    return false;
}

void ht_hub_cache_keep(const ht_hub_cache *cache, const ht_hub_listing *listing) {
    char path[HT_PATH_BYTES], *text;
    json_t *files = json_object();
    for (size_t i = 0; i < listing->n; i++) {
        const ht_hub_file *file = &listing->files[i];
        if (ht_hub_is_model(file->path)) /* all that is ever asked for */
            ht_json_set(&files, file->path,
                        json_pack("{s:I, s:s}", "size", (json_int_t)file->bytes,
                                  strlen(file->sum) == 64 ? "lfs_sha256" : "blob_id", file->sum));
    }
    json_t *record = json_pack("{s:i, s:o}", "format_version", 1, "files", files);
    if (ht_json_text(record, JSON_INDENT(1), "a list of files", &text, NULL))
        return;
    if (!ht_hub_path(path, NULL, "%s/.hetero/%s.json", cache->folder, listing->commit) && write_file(path, text, NULL))
        ht_log(HT_LOG_INFO, "%s: cannot be written", path);
    free(text);
}

/* ---- snapshots ------------------------------------------------------------------------------------------------------ */

static int by_path(const void *a, const void *b) {
    return strcmp(((const ht_hub_file *)a)->path, ((const ht_hub_file *)b)->path);
}

/* Folders to come are in the listing, too, as what has no size; they are taken out when all have been looked into. */
#define IS_FOLDER UINT64_MAX

static ht_status scan_folder(const char *root, const char *below, ht_hub_listing *listing, ht_error *error) {
    char folder[HT_PATH_BYTES], path[HT_PATH_BYTES], inner[HT_HUB_FILE_BYTES];
    ht_os_info info;
    ht_status status = ht_hub_path(folder, error, "%s%s%s", root, *below ? "/" : "", below);
    ht_os_folder *list = status ? NULL : ht_os_folder_open(folder);
    for (const char *entry; list && !status && (entry = ht_os_folder_next(list));) {
        if ((size_t)snprintf(inner, sizeof inner, "%s%s%s", below, *below ? "/" : "", entry) >= sizeof inner ||
            ht_hub_path(path, NULL, "%s/%s", folder, entry) || ht_os_look(path, &info) != 0)
            continue; /* a link without its file, for one */
        if (info.kind == HT_OS_FILE && info.bytes > 0 && ht_hub_is_model(inner))
            status = ht_hub_listing_add(listing, inner, info.bytes, "", error);
        else if (info.kind == HT_OS_FOLDER)
            status = ht_hub_listing_add(listing, inner, IS_FOLDER, "", error);
    }
    ht_os_folder_close(list);
    return status;
}

static size_t depth(const char *path) {
    size_t n = 0;
    for (; *path; path++)
        n += *path == '/';
    return n;
}

ht_status ht_hub_cache_scan(const ht_hub_cache *cache, ht_hub_listing *listing, ht_error *error) {
    char root[HT_PATH_BYTES], below[HT_HUB_FILE_BYTES] = "";
    size_t kept = 0;
    ht_status status = ht_hub_path(root, error, "%s/snapshots/%s", cache->folder, listing->commit);
    if (!status)
        status = scan_folder(root, below, listing, error);
    for (size_t i = 0; i < listing->n && !status; i++) { /* grows meanwhile */
        if (listing->files[i].bytes != IS_FOLDER || depth(listing->files[i].path) >= DEEPEST)
            continue;
        snprintf(below, sizeof below, "%s", listing->files[i].path);
        status = scan_folder(root, below, listing, error);
    }
    for (size_t i = 0; i < listing->n; i++) {
        if (listing->files[i].bytes == IS_FOLDER)
            free(listing->files[i].path);
        else
            listing->files[kept++] = listing->files[i];
    }
    listing->n = kept;
    if (kept)
        qsort(listing->files, kept, sizeof *listing->files, by_path);
    return status;
}

bool ht_hub_cache_has(const ht_hub_cache *cache, const char *commit, const char *file, uint64_t bytes,
                      char path[HT_PATH_BYTES]) {
    ht_os_info info;
    return !ht_hub_path(path, NULL, "%s/snapshots/%s/%s", cache->folder, commit, file) &&
           ht_os_look(path, &info) == 0 && info.kind == HT_OS_FILE && (!bytes || info.bytes == bytes);
}

ht_status ht_hub_cache_link(const ht_hub_cache *cache, const char *commit, const char *file, const char *blob,
                            ht_error *error) {
    char path[HT_PATH_BYTES], up[3 * HT_HUB_FILE_BYTES / 2 + 1] = "", target[HT_PATH_BYTES], there[HT_PATH_BYTES];
    ht_os_info old, new;
    ht_status status = ht_hub_path(path, error, "%s/snapshots/%s/%s", cache->folder, commit, file);
    for (size_t i = depth(file); i > 0; i--)
        memcpy(up + strlen(up), "../", 4);
    if (!status)
        status = ht_hub_path(target, error, "../../%sblobs/%s", up, blob);
    if (!status)
        status = ht_hub_path(there, error, "%s/blobs/%s", cache->folder, blob);
    if (!status)
        status = ht_make_folders(path, true, error);
    if (status)
        return status;
    if (ht_os_look(path, &old) == 0 && ht_os_look(there, &new) == 0 && ht_os_same_file(&old, &new))
        return HT_OK;
    const int reason = ht_os_link(target, path);
    return reason ? ht_fail(error, HT_ERROR_IO, "%s: no link can be made there: %s", path, strerror(reason)) : HT_OK;
}

ht_status ht_hub_cache_set_commit(const ht_hub_cache *cache, const char *revision, const char *commit,
                                  ht_error *error) {
    char path[HT_PATH_BYTES], known[65];
    if (ht_hub_commit_good(revision) || (ht_hub_cache_commit(cache, revision, known) && !strcmp(known, commit)))
        return HT_OK;
    ht_status status = ht_hub_path(path, error, "%s/refs/%s", cache->folder, revision);
    return status ? status : write_file(path, commit, error);
}
