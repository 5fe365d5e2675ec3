/* What a user may call a model of a hub, and which names may become paths. */
#include "hub/hub.h"

#include <ctype.h>
#include <string.h>

#define MOST_PART 255 /* bytes of one name in a file system */

bool ht_hub_hex_good(const char *text, size_t digits) {
    return strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

bool ht_hub_commit_good(const char *text) {
    return ht_hub_hex_good(text, 40) || ht_hub_hex_good(text, 64);
}

bool ht_hub_path_good(const char *path, size_t bytes) {
    char shown[HT_HUB_FILE_BYTES];
    if (!bytes || bytes >= sizeof shown || memchr(path, 0, bytes) || memchr(path, '\\', bytes))
        return false;
    memcpy(shown, path, bytes);
    shown[bytes] = '\0';
    ht_make_printable(shown); /* controls, what is no UTF-8, and what turns the direction of a text */
    if (strlen(shown) != bytes || memcmp(shown, path, bytes) != 0)
        return false;
    for (size_t at = 0; at <= bytes;) {
        const char *slash = at < bytes ? memchr(path + at, '/', bytes - at) : NULL;
        const size_t part = slash ? (size_t)(slash - path) - at : bytes - at;
        if (!part || part > MOST_PART || (part <= 2 && strspn(path + at, ".") >= part))
            return false;
        at += part + 1;
    }
    return true;
}

/* A letter, digit or '_' first and last, '.' and '-' between, neither twice: a folder's name has "--" between two of
 * these. */
static bool id_good(const char *text) {
    const size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) {
        const bool plain = isalnum((unsigned char)text[i]) || text[i] == '_';
        if (!plain && text[i] != '.' && text[i] != '-')
            return false;
        if (!plain && (i == 0 || i + 1 == n || text[i + 1] == text[i]))
            return false;
    }
    return n > 0;
}

static bool words_good(const char *text, const char *more) {
    for (const char *c = text; *c; c++)
        if (!isalnum((unsigned char)*c) && !strchr(more, *c))
            return false;
    return *text != '\0';
}

static bool revision_good(const char *text) {
    return words_good(text, "._-/+") && *text != '-' && ht_hub_path_good(text, strlen(text));
}

/* Takes text up to one of `ends`; false: it does not fit. */
static bool take(const char **text, const char *ends, char *out, size_t capacity) {
    const size_t n = strcspn(*text, ends);
    if (n >= capacity)
        return false;
    memcpy(out, *text, n);
    out[n] = '\0';
    *text += n;
    return true;
}

/* Behind an '@'. In front of ':' or '/' a revision has no '/' of its own, except those that the hub makes: refs/pr/1. */
static bool take_revision(const char **text, ht_hub_name *name) {
    static const char *const made[] = {"refs/pr/", "refs/convert/"};
    size_t before = 0;
    for (size_t i = 0; i < HT_COUNT(made); i++)
        if (!strncmp(*text, made[i], strlen(made[i])))
            before = strlen(made[i]);
    memcpy(name->revision, *text, before);
    *text += before;
    return take(text, ":/", name->revision + before, sizeof name->revision - before);
}

/* "PATH/FILE.gguf" or "PATH/FILE.gguf@REVISION" */
static bool take_file(const char *text, ht_hub_name *name) {
    const char *at = NULL;
    for (const char *next = strchr(text, '@'); next; next = strchr(next + 1, '@'))
        if (next - text >= 5 && !strncmp(next - 5, ".gguf", 5))
            at = next;
    const size_t n = at ? (size_t)(at - text) : strlen(text);
    if (n >= sizeof name->file)
        return false;
    memcpy(name->file, text, n);
    name->file[n] = '\0';
    if (!at)
        return true;
    const bool fits = !*name->revision && strlen(at + 1) < sizeof name->revision;
    if (fits)
        memcpy(name->revision, at + 1, strlen(at + 1) + 1);
    return fits && *name->revision;
}

/* What of it is wrong; NULL: nothing. */
static const char *read_name(const char *at, ht_hub_name *name) {
    if (!strncmp(at, "//", 2)) /* as huggingface_hub writes it */
        at += 2;
    if (!take(&at, "/", name->owner, sizeof name->owner) || *at++ != '/' || !id_good(name->owner) ||
        !take(&at, "@:/", name->repo, sizeof name->repo) || !id_good(name->repo))
        return "OWNER and REPO have letters, digits, '_', and single '-' and '.' inside";
    if (*at == '@' && (at++, !take_revision(&at, name) || !revision_good(name->revision)))
        return "a revision is a branch, a tag or a commit";
    if (*at == ':') {
        at++;
        if (!take(&at, "@", name->type, sizeof name->type) || !words_good(name->type, "._-"))
            return "a type has letters, digits, '_', '-' and '.'";
        if (*at == '@' && (*name->revision || strlen(++at) >= sizeof name->revision))
            return "it has two revisions, or one that is too long";
        if (*at)
            memcpy(name->revision, at, strlen(at) + 1);
    } else if (*at == '/') {
        if (!take_file(at + 1, name))
            return "the path, or the revision behind it, is none";
        if (!ht_hub_path_good(name->file, strlen(name->file)))
            return "the path has a part that is no file's name";
        const size_t n = strlen(name->file);
        if (n < 6 || strcmp(name->file + n - 5, ".gguf") != 0)
            return "the path does not end in .gguf";
    }
    if (*name->revision && !revision_good(name->revision))
        return "a revision is a branch, a tag or a commit";
    return NULL;
}

ht_status ht_hub_name_read(const char *text, ht_hub_name *name, ht_error *error) {
    *name = (ht_hub_name){.text = text};
    const char *wrong = strncmp(text, "hf:", 3) != 0 ? "it does not begin with hf:" : read_name(text + 3, name);
    if (wrong)
        return ht_fail(error, HT_ERROR_ARGUMENT,
                       "%.200s: not hf:OWNER/REPO[@REVISION][:TYPE] or hf:OWNER/REPO/PATH/FILE.gguf: %s", text, wrong);
    if (!*name->revision)
        memcpy(name->revision, "main", sizeof "main");
    return HT_OK;
}
