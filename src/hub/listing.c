/* What the hub has: the commit of a revision, and all files of that commit, page by page. */
#include "hub/hub.h"

#include <jansson.h>

#include <ctype.h>
#include <string.h>

#define MOST_ANSWER (8 << 20) /* bytes of one page: a hub's has a thousand files, 300 bytes each */
#define MOST_PAGES 200

ht_status ht_hub_url_append(ht_text *url, const char *text, bool path, ht_error *error) {
    ht_status status = HT_OK;
    for (const char *c = text; *c && !status; c++) {
        const bool plain = isalnum((unsigned char)*c) || strchr("-._~", *c) || (path && *c == '/');
        status = plain ? ht_text_append(url, c, 1, error) : ht_text_printf(url, error, "%%%02X", (unsigned char)*c);
    }
    return status;
}

typedef struct body {
    ht_text text;
    const char *what;
} body;

static ht_status take(void *user, const char *data, size_t bytes, ht_error *error) {
    body *b = user;
    if (b->text.bytes + bytes > MOST_ANSWER)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: the server's answer does not end within %d bytes", b->what,
                       MOST_ANSWER);
    return ht_text_append(&b->text, data, bytes, error);
}

/* An answer that begins anew, once more or behind a redirection. */
static ht_status begin(void *user, const ht_hub_answer *answer, ht_error *error) {
    ((body *)user)->text.bytes = 0;
    return HT_OK;
}

/* Asks until there is an answer. */
static ht_status ask(ht_hub_client *client, const ht_hub_name *name, const char *url, json_t **json, char *next,
                     size_t capacity, ht_error *error) {
    char page[200];
    snprintf(page, sizeof page, "%s/%s", name->owner, name->repo);
    body b = {.what = page};
    const ht_hub_request request = {
        .url = url, .what = page, .page = page, .short_one = true, .begin = begin, .take = take, .user = &b};
    ht_hub_answer answer;
    int failures = 0;
    ht_hub_outcome outcome;
    ht_status status = HT_OK;
    do {
        outcome = ht_hub_get(client, &request, &answer, error);
        if (outcome != HT_HUB_DONE)
            status = outcome == HT_HUB_AGAIN ? ht_hub_pause(client, &failures, &answer, error) : error->status;
    } while (outcome == HT_HUB_AGAIN && !status);
    if (!status) {
        json_error_t syntax;
        *json = json_loadb(b.text.data ? b.text.data : "", b.text.bytes, 0, &syntax);
        if (!*json)
            status = ht_fail(error, HT_ERROR_FORMAT, "%s: the server's answer is no JSON (line %d)", page, syntax.line);
        snprintf(next, capacity, "%s", answer.next);
    }
    ht_text_free(&b.text);
    return status;
}

static ht_status bad(const ht_hub_name *name, const char *what, ht_error *error) {
    return ht_fail(error, HT_ERROR_FORMAT, "%s/%s: the server's answer is not what it should be: %s", name->owner,
                   name->repo, what);
}

/* {"type": "file", "path", "size", "oid", "lfs": {"oid", "size"}} */
static ht_status read_file(const ht_hub_name *name, const json_t *entry, ht_hub_listing *listing, ht_error *error) {
    const char *type = json_string_value(json_object_get(entry, "type"));
    const json_t *path = json_object_get(entry, "path"), *size = json_object_get(entry, "size");
    const json_t *lfs = json_object_get(entry, "lfs"), *oid = json_object_get(json_is_object(lfs) ? lfs : entry, "oid");
    if (!json_is_object(entry) || !type || !json_is_string(path))
        return bad(name, "an entry of the list has no type or path", error);
    const char *text = json_string_value(path);
    if (strcmp(type, "file") != 0 || !ht_hub_is_model(text)) /* nobody asks for them, whatever they are called */
        return HT_OK;
    if (!ht_hub_path_good(text, json_string_length(path)))
        return bad(name, "a file's path is none that could be kept below a folder", error);
    if (json_is_object(lfs)) {
        size = json_object_get(lfs, "size") ? json_object_get(lfs, "size") : size;
        oid = oid ? oid : json_object_get(lfs, "sha256");
    }
    const json_int_t bytes = json_integer_value(size);
    const char *sum = json_string_value(oid);
    if (!json_is_integer(size) || bytes < 0 || (uint64_t)bytes > HT_HUB_MOST_BYTES)
        return bad(name, "a file's size is none", error);
    if (sum && !strncmp(sum, "sha256:", 7))
        sum += 7;
    if (!sum || !ht_hub_hex_good(sum, json_is_object(lfs) ? 64 : 40))
        return bad(name, "a file has no sum", error);
    for (size_t i = listing->n; i-- > 0;)
        if (!strcmp(listing->files[i].path, text))
            return bad(name, "a file is there twice", error);
    return ht_hub_listing_add(listing, text, (uint64_t)bytes, sum, error);
}

static ht_status read_page(const ht_hub_name *name, const json_t *page, ht_hub_listing *listing, size_t *entries,
                           ht_error *error) {
    ht_status status = json_is_array(page) ? HT_OK : bad(name, "the list of files is none", error);
    *entries += json_array_size(page);
    if (!status && *entries > HT_HUB_MOST_FILES)
        status = bad(name, "the list of files does not end", error);
    for (size_t i = 0; i < json_array_size(page) && !status; i++)
        status = read_file(name, json_array_get(page, i), listing, error);
    return status;
}

static ht_status api_url(const ht_hub_client *client, const ht_hub_name *name, const char *what, const char *revision,
                         ht_text *url, ht_error *error) {
    ht_status status =
        ht_text_printf(url, error, "%s/api/models/%s/%s/%s/", ht_hub_endpoint(client), name->owner, name->repo, what);
    return status ? status : ht_hub_url_append(url, revision, false, error);
}

static ht_status find_commit(ht_hub_client *client, const ht_hub_name *name, ht_hub_listing *listing, ht_error *error) {
    ht_text url = {0};
    char next[8];
    json_t *answer = NULL;
    ht_status status = api_url(client, name, "revision", name->revision, &url, error);
    if (!status)
        status = ask(client, name, url.data, &answer, next, sizeof next, error);
    const char *commit = json_string_value(json_object_get(answer, "sha"));
    if (!status && (!commit || !ht_hub_commit_good(commit)))
        status = bad(name, "there is no commit in it", error);
    if (!status && ht_hub_commit_good(name->revision) && strcmp(name->revision, commit) != 0)
        status = bad(name, "it is of another commit than was asked for", error);
    if (!status)
        snprintf(listing->commit, sizeof listing->commit, "%s", commit);
    json_decref(answer);
    ht_text_free(&url);
    return status;
}

ht_status ht_hub_list(ht_hub_client *client, const ht_hub_name *name, ht_hub_listing *listing, ht_error *error) {
    ht_text url = {0};
    char next[2048] = "", what[200];
    size_t entries = 0;
    snprintf(what, sizeof what, "%s/%s", name->owner, name->repo);
    ht_hub_expect(client, ht_hub_endpoint(client), 0, 0);
    ht_status status = find_commit(client, name, listing, error);
    if (!status)
        status = api_url(client, name, "tree", listing->commit, &url, error);
    if (!status)
        status = ht_text_append(&url, "?recursive=true", 15, error);
    for (int pages = 0; !status; pages++) {
        json_t *page = NULL;
        status = pages == MOST_PAGES ? bad(name, "the list of files does not end", error)
                                     : ask(client, name, url.data, &page, next, sizeof next, error);
        if (!status)
            status = read_page(name, page, listing, &entries, error);
        json_decref(page);
        if (status || !*next)
            break;
        if (!strcmp(next, url.data))
            status = bad(name, "the list of files goes round", error);
        if (!status)
            status = ht_hub_follow(client, what, next, &url, error);
    }
    ht_text_free(&url);
    return status;
}
