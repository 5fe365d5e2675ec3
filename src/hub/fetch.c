/* One file: taken up where an earlier process left it, checked, and only then given its name. */
#include "hub/hub.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ENOUGH \
    (1 << 20) /* bytes after which a break counts as the first again: a server that breaks at each byte ends */
#define BUFFER (1 << 20)            /* bytes written at once */
#define RESERVE (UINT64_C(1) << 20) /* bytes left free: folders and links need some */
#define MOST_RESTARTS 3             /* from the first byte */

typedef struct download {
    ht_hub_client *client;
    const ht_hub_file *wanted;
    uint64_t after;
    char part[HT_PATH_BYTES], blob[HT_PATH_BYTES], what[HT_HUB_FILE_BYTES + 200];
    FILE *out;
    uint64_t have; /* bytes of the part, all in `sum` */
    bool resumed;  /* some of them are an earlier process's */
    bool mistaken; /* the answer is to the wrong question: once more from the first byte */
    int restarts;
    char etag[256]; /* of the file in its store, as this process has seen it; "": not yet, or a weak one */
    ht_hub_sum *sum;
} download;

static ht_status not_written(const download *d, int reason, ht_error *error) {
    char missing[32];
    return ht_fail(error, HT_ERROR_IO, "%s: cannot be written: %s; %s (%llu bytes) are missing", d->part,
                   strerror(reason), ht_size_text(d->wanted->bytes - d->have, missing),
                   (unsigned long long)(d->wanted->bytes - d->have));
}

static bool is_git(const ht_hub_file *file) {
    return strlen(file->sum) == 40;
}

/* Opens the part to be gone on with; nothing of it stays if `anew`. */
static ht_status open_part(download *d, bool anew, ht_error *error) {
    if (d->out)
        fclose(d->out);
    d->out = ht_os_open_unlinked(d->part, anew ? "wb" : "ab");
    if (!d->out)
        return not_written(d, errno, error);
    setvbuf(d->out, NULL, _IOFBF, BUFFER);
    if (!anew)
        return HT_OK;
    ht_hub_sum_end(d->sum, NULL);
    d->sum = NULL;
    ht_status status = ht_hub_advance(d->client, -(int64_t)d->have, error);
    d->have = 0;
    d->resumed = false;
    return status ? status : ht_hub_sum_begin(is_git(d->wanted), d->wanted->bytes, &d->sum, error);
}

/* Reads what an earlier process has left. One that is too long is no part of this file; nor is a link, which somebody
 * who shares the cache may have put there, so that a file of this user's is written to. */
static ht_status read_part(download *d, ht_error *error) {
    char *buffer = NULL;
    ht_os_info info;
    d->have = 0;
    d->resumed = false;
    ht_status status = ht_hub_sum_begin(is_git(d->wanted), d->wanted->bytes, &d->sum, error);
    if (!status)
        ht_hub_remove_link(d->part);
    if (status || ht_os_look(d->part, &info) != 0)
        return status;
    if (info.kind != HT_OS_FILE)
        return ht_fail(error, HT_ERROR_IO, "%s: is no file", d->part);
    if (info.bytes > d->wanted->bytes) {
        ht_os_remove(d->part);
        return HT_OK;
    }
    status = ht_alloc((void **)&buffer, BUFFER, 1, "a download", error);
    FILE *file = status ? NULL : ht_os_open_unlinked(d->part, "rb");
    for (size_t n; file && !status && (n = fread(buffer, 1, BUFFER, file)) > 0;) {
        ht_hub_sum_add(d->sum, buffer, n);
        d->have += n;
        status = ht_hub_advance(d->client, (int64_t)n, error);
    }
    if (!status && (!file || ferror(file)))
        status = ht_fail(error, HT_ERROR_IO, "%s: cannot be read", d->part);
    if (file)
        fclose(file);
    free(buffer);
    d->resumed = d->have > 0;
    return status;
}

/* Is there room for what is to come, the other parts of a split model, too? Where the system does not say, there may be. */
static ht_status check_room(const download *d, ht_error *error) {
    char folder[HT_PATH_BYTES], need[32], room[32];
    snprintf(folder, sizeof folder, "%s", d->part);
    char *slash = strrchr(folder, '/');
    if (slash)
        *slash = '\0';
    const uint64_t more = d->wanted->bytes - d->have + d->after + RESERVE, free_bytes = ht_os_free_bytes(folder);
    if (free_bytes >= more)
        return HT_OK;
    return ht_fail(error, HT_ERROR_IO, "%s: no room for %s%s: %s are needed and %s free: %llu bytes are missing",
                   folder, d->wanted->path, d->after ? " and the parts after it" : "", ht_size_text(more, need),
                   ht_size_text(free_bytes, room), (unsigned long long)(more - free_bytes));
}

/* Without quotes, and what says that it is a weak one. */
static const char *bare(const char *etag, char out[256]) {
    const char *begin = etag + (strncmp(etag, "W/", 2) ? 0 : 2);
    size_t n = strlen(begin);
    if (n >= 2 && *begin == '"' && begin[n - 1] == '"') {
        begin++;
        n -= 2;
    }
    memcpy(out, begin, n);
    out[n] = '\0';
    return out;
}

static ht_status changed(const download *d, ht_error *error) {
    return ht_fail(error, HT_ERROR_FORMAT,
                   "%s: what the server sends is not the file that it lists: it may have changed "
                   "meanwhile, then pull once more",
                   d->what);
}

/* The first of an answer: does it go on where we are? */
static ht_status begin(void *user, const ht_hub_answer *answer, ht_error *error) {
    download *d = user;
    char linked[256];
    const uint64_t size = d->wanted->bytes;
    bare(answer->linked_etag, linked);
    if ((*linked && strlen(linked) == strlen(d->wanted->sum) && strcmp(linked, d->wanted->sum) != 0) ||
        (answer->linked_size != UINT64_MAX && answer->linked_size != size))
        return changed(d, error);
    const bool other = *d->etag && *answer->etag && strcmp(d->etag, answer->etag) != 0;
    const bool strong = strncmp(answer->etag, "W/", 2) != 0;
    snprintf(d->etag, sizeof d->etag, "%s", strong ? answer->etag : "");
    if (answer->code == 206) {
        if (answer->range_of != UINT64_MAX && answer->range_of != size)
            return changed(d, error);
        if (other || answer->range_begin != d->have) { /* a part of something else: none of it is used */
            d->mistaken = true;
            return ht_fail(error, HT_ERROR_IO, "%s: the server answers with another part, or of another file", d->what);
        }
        return HT_OK;
    }
    if (answer->length != UINT64_MAX && answer->length != size)
        return changed(d, error);
    return d->have ? open_part(d, true, error) : HT_OK; /* all of it, whatever was asked for */
}

static ht_status take(void *user, const char *data, size_t bytes, ht_error *error) {
    download *d = user;
    if (bytes > d->wanted->bytes - d->have)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: the server sends more than the %llu bytes that it lists", d->what,
                       (unsigned long long)d->wanted->bytes);
    errno = 0;
    if (fwrite(data, 1, bytes, d->out) != bytes)
        return not_written(d, errno ? errno : EIO, error);
    ht_hub_sum_add(d->sum, data, bytes);
    d->have += bytes;
    return ht_hub_advance(d->client, (int64_t)bytes, error);
}

/* After an attempt that did not bring all of it. */
static ht_status go_on(download *d, ht_hub_outcome outcome, const ht_hub_answer *answer, int *failures,
                       ht_error *error) {
    const bool refused = outcome == HT_HUB_FAILED && answer->code == 416 && d->have;
    if ((refused || d->mistaken) && d->restarts < MOST_RESTARTS) {
        d->restarts++;
        d->mistaken = false;
        *d->etag = '\0';
        return open_part(d, true, error);
    }
    return outcome == HT_HUB_AGAIN ? ht_hub_pause(d->client, failures, answer, error) : error->status;
}

/* Brings all bytes that are not there yet. */
static ht_status bring(download *d, const char *url, const char *page, ht_error *error) {
    ht_hub_answer answer;
    ht_status status = HT_OK;
    int failures = 0;
    while (d->have < d->wanted->bytes && !status) {
        const uint64_t before = d->have;
        const ht_hub_request request = {.url = url,
                                        .what = d->what,
                                        .page = page,
                                        .from = d->have,
                                        .if_range = d->etag,
                                        .begin = begin,
                                        .take = take,
                                        .user = d};
        ht_hub_outcome outcome = ht_hub_get(d->client, &request, &answer, error);
        if (d->have >= before + ENOUGH)
            failures = 0;
        if (outcome == HT_HUB_DONE && d->have < d->wanted->bytes) { /* the end came too soon, and looked like one */
            ht_fail(error, HT_ERROR_IO, "%s: ended after %llu of %llu bytes", d->what, (unsigned long long)d->have,
                    (unsigned long long)d->wanted->bytes);
            outcome = HT_HUB_AGAIN;
        }
        if (outcome != HT_HUB_DONE)
            status = go_on(d, outcome, &answer, &failures, error);
    }
    errno = 0;
    if (d->out && fflush(d->out) && !status)
        status = not_written(d, errno ? errno : EIO, error);
    return status;
}

/* Is it the file? A part that is not goes: whatever was added to it would be wrong, too. */
static ht_status check(download *d, bool *again, ht_error *error) {
    char sum[65];
    ht_hub_sum_end(d->sum, sum);
    d->sum = NULL;
    if (!strcmp(sum, d->wanted->sum))
        return HT_OK;
    *again = d->resumed; /* it may have been wrong from the beginning */
    ht_os_remove(d->part);
    return ht_fail(error, HT_ERROR_FORMAT, "%s: its sum is %s and should be %s; it was removed (%s)", d->what, sum,
                   d->wanted->sum, d->part);
}

static ht_status finish(download *d, ht_error *error) {
    int reason = d->out ? ht_os_flush(d->out) : 0; /* or a power cut could leave the name without the bytes */
    if (!reason)
        reason = ht_os_replace(d->part, d->blob);
    return reason ? not_written(d, reason, error) : HT_OK;
}

static ht_status fetch(download *d, const char *url, const char *page, ht_error *error) {
    ht_status status;
    bool again = true;
    do {
        again = false;
        status = read_part(d, error);
        if (!status)
            status = check_room(d, error);
        if (!status)
            status = open_part(d, false, error);
        if (!status)
            status = bring(d, url, page, error);
        if (!status) {
            status = check(d, &again, error);
            if (status && again && (status = ht_hub_advance(d->client, -(int64_t)d->have, error)) != HT_OK)
                again = false;
        }
        if (!status && !again)
            status = finish(d, error);
        if (d->out)
            fclose(d->out);
        d->out = NULL;
        ht_hub_sum_end(d->sum, NULL);
        d->sum = NULL;
        if (again)
            ht_log(HT_LOG_WARN, "%s: what an earlier pull had left of it was not right: once more from the beginning",
                   d->what);
    } while (again);
    return status;
}

/* Waits until nobody else writes this blob. */
static ht_status lock(ht_hub_client *client, const char *path, ht_os_lock **out, ht_error *error) {
    ht_status status = ht_make_folders(path, true, error);
    for (bool told = false; !status;) {
        const int reason = ht_os_lock_try(path, out);
        if (!reason)
            return HT_OK;
        if (reason != EAGAIN)
            return ht_fail(error, HT_ERROR_IO, "%s: cannot be locked: %s", path, strerror(reason));
        if (!told)
            ht_log(HT_LOG_INFO, "%s: waiting for the process that holds it", path);
        told = true;
        status = ht_hub_advance(client, 0, error);
        ht_os_nap(50000000);
    }
    return status;
}

static bool is_there(const download *d) {
    ht_os_info info;
    return ht_os_look(d->blob, &info) == 0 && info.kind == HT_OS_FILE && info.bytes == d->wanted->bytes;
}

static ht_status file_url(const ht_hub_client *client, const ht_hub_name *name, const char *commit, const char *path,
                          ht_text *url, ht_error *error) {
    ht_status status =
        ht_text_printf(url, error, "%s/%s/%s/resolve/%s/", ht_hub_endpoint(client), name->owner, name->repo, commit);
    return status ? status : ht_hub_url_append(url, path, true, error);
}

ht_status ht_hub_fetch(ht_hub_client *client, const ht_hub_cache *cache, const ht_hub_name *name, const char *commit,
                       const ht_hub_file *file, uint64_t after, ht_error *error) {
    char locked[HT_PATH_BYTES], page[200];
    ht_text url = {0};
    ht_os_lock *held = NULL;
    download d = {.client = client, .wanted = file, .after = after};
    snprintf(page, sizeof page, "%s/%s", name->owner, name->repo);
    snprintf(d.what, sizeof d.what, "%s/%s", page, file->path);
    if (!*file->sum)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: the server gives no sum of it", d.what);
    ht_status status = ht_hub_path(d.blob, error, "%s/blobs/%s", cache->folder, file->sum);
    if (!status)
        status = ht_hub_path(d.part, error, "%s/blobs/%s.incomplete", cache->folder, file->sum);
    if (!status)
        status = ht_make_folders(d.blob, true, error);
    if (!status) /* huggingface_hub takes a repository without this folder for a broken one */
        status = ht_hub_path(locked, error, "%s/snapshots/", cache->folder);
    if (!status)
        status = ht_make_folders(locked, true, error);
    if (!status)
        status = ht_hub_path(locked, error, "%s/%s.lock", cache->locks, file->sum);
    if (!status && !is_there(&d))
        status = lock(client, locked, &held, error);
    if (!status && is_there(&d)) { /* by now */
        status = ht_hub_advance(client, (int64_t)file->bytes, error);
    } else if (!status) {
        status = file_url(client, name, commit, file->path, &url, error);
        if (!status)
            status = fetch(&d, url.data, page, error);
    }
    ht_os_unlock(held);
    ht_text_free(&url);
    return status;
}
