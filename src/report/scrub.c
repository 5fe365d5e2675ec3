/* What tells who made a text, and where, taken out of it. One pass from left to right; at each place what is known (the home
 * folder, the model's path, names) comes first, then what looks like a path or a file. */
#include "base/os.h"
#include "report/report.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct word {
    char *text;
    size_t bytes;
    const char *by; /* what stands for it */
    bool path;      /* what follows it up to the path's end goes with it */
} word;

struct ht_scrubber {
    word *words; /* the longest first */
    size_t n, capacity;
    ht_status status; /* of adding words */
    ht_error *error;
};

/* ---- what is known ---------------------------------------------------------------------------------------------------------- */

/* No path goes past these, and names that have one are not found by their looks. */
#define ENDS " \t\"'`<>|,;:()[]{}"

static bool is_common(const char *text, size_t bytes) {
    static const char *const names[] = {"root",      "user",        "admin",  "administrator", "ubuntu",  "debian",
                                        "fedora",    "arch",        "linux",  "archlinux",     "android", "termux",
                                        "localhost", "raspberrypi", "pi",     "test",          "nobody",  "system",
                                        "shell",     "snapdragon",  "hetero", "home",          "data",    "none"};
    for (size_t i = 0; i < HT_COUNT(names); i++)
        if (strlen(names[i]) == bytes && strncasecmp(names[i], text, bytes) == 0)
            return true;
    return false;
}

static void add(ht_scrubber *s, const char *text, size_t bytes, const char *by, bool path) {
    if (s->status || bytes < 2 || (!path && is_common(text, bytes)))
        return;
    for (size_t i = 0; i < s->n; i++)
        if (s->words[i].bytes == bytes && strncasecmp(s->words[i].text, text, bytes) == 0)
            return;
    s->status = ht_grow((void **)&s->words, &s->capacity, s->n + 1, sizeof *s->words, "names", s->error);
    char *copy = s->status ? NULL : ht_copy_text(text, bytes);
    if (!copy) {
        s->status = s->status ? s->status : ht_fail(s->error, HT_ERROR_MEMORY, "no memory for names");
        return;
    }
    s->words[s->n++] = (word){copy, bytes, by, path};
}

static void add_name(ht_scrubber *s, const char *text, const char *by) {
    if (text)
        add(s, text, strlen(text), by, false);
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static void add_home(ht_scrubber *s, const char *home) {
    if (!home || !ht_os_is_absolute(home) || !home[1])
        return;
    size_t bytes = strlen(home);
    while (bytes > 1 && home[bytes - 1] == '/')
        bytes--;
    add(s, home, bytes, "~", true);
    add_name(s, base_name(home), "USER");
}

/* Folders that the user has named, and that cannot be told from text by their looks: those with blanks and the like, up to
 * the last name in the path that has one. */
static void add_folders(ht_scrubber *s, const char *list) {
    while (list && *list) {
        const char end[2] = {HT_OS_PATH_END, '\0'};
        const size_t bytes = strcspn(list, end);
        size_t last = bytes;
        while (last > 0 && !strchr(ENDS, list[last - 1]))
            last--;
        if (*list == '/' && last > 0)
            add(s, list, last + strcspn(list + last, "/:"), "PATH", true);
        list += bytes + (list[bytes] == HT_OS_PATH_END);
    }
}

static void add_people(ht_scrubber *s) {
    ht_os_names names;
    char name[256];
    ht_os_get_names(&names);
    add_home(s, getenv("HOME"));
    add_home(s, names.home);
    static const char *const users[] = {"USER", "LOGNAME", "SUDO_USER", "USERNAME"};
    add_name(s, names.user, "USER");
    add_name(s, names.full_name, "USER");
    for (size_t i = 0; i < HT_COUNT(users); i++)
        add_name(s, getenv(users[i]), "USER");
    const char *const hosts[] = {names.host, getenv("HOSTNAME"), getenv("COMPUTERNAME")};
    for (size_t i = 0; i < HT_COUNT(hosts); i++) {
        snprintf(name, sizeof name, "%s", hosts[i] ? hosts[i] : "");
        add_name(s, name, "HOST");
        name[strcspn(name, ".")] = '\0';
        add_name(s, name, "HOST");
    }
}

static void add_model(ht_scrubber *s, const char *model) {
    if (!model || strncmp(model, "shape:", 6) == 0)
        return;
    const char *name = base_name(model);
    add(s, model, strlen(model), "MODEL", false);
    add_name(s, name, "MODEL");
    /* what the other parts of a split model have in common with it: "NAME-00001-of-00003.gguf" */
    const char *part = strstr(name, "-00"), *end = part ? part : strstr(name, ".gguf");
    if (end && strcspn(name, ENDS) < (size_t)(end - name))
        add(s, name, (size_t)(end - name), "MODEL", false);
    if (model != name &&
        strcspn(model, "/" ENDS) + 1 < (size_t)(name - model)) /* its folder, if that is no plain word */
        add(s, model, (size_t)(name - model - 1), "PATH", true);
}

static int by_length(const void *a, const void *b) {
    const word *x = a, *y = b;
    return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

ht_status ht_scrubber_create(const char *model, const char *devices, ht_scrubber **scrubber, ht_error *error) {
    char folder[1024], spec[256];
    ht_scrubber *s;
    ht_status status = ht_alloc((void **)&s, 1, sizeof *s, "names", error);
    if (status)
        return status;
    s->error = error;
    add_people(s);
    add_model(s, model);
    while (devices && ht_device_next(&devices, spec)) /* sim:FILE.json/gpu, qnn's library=FILE */
        if (strpbrk(spec, " \t\"'"))
            add(s, spec, strlen(spec), "DEVICE", false);
    for (const char *const *variable = ht_os_environment(); variable && *variable; variable++) {
        const char *value = strchr(*variable, '=');
        add_folders(s, value ? value + 1 : NULL);
    }
    if (ht_os_current_folder(folder, sizeof folder))
        add_folders(s, folder);
    status = s->status;
    if (status) {
        ht_scrubber_destroy(s);
        return status;
    }
    qsort(s->words, s->n, sizeof *s->words, by_length);
    *scrubber = s;
    return HT_OK;
}

void ht_scrubber_destroy(ht_scrubber *scrubber) {
    if (!scrubber)
        return;
    while (scrubber->n)
        free(scrubber->words[--scrubber->n].text);
    free(scrubber->words);
    free(scrubber);
}

/* ---- a text ----------------------------------------------------------------------------------------------------------------- */

static bool is_word(char c) {
    return isalnum((unsigned char)c) || (unsigned char)c >= 0x80;
}

/* May a path begin at text[at]? */
static bool begins(const char *text, size_t at) {
    if (at == 0 || strchr(ENDS "=", text[at - 1]))
        return true;
    return at > 1 && strchr("IL", text[at - 1]) && text[at - 2] == '-'; /* a compiler's -I and -L */
}

/* Bytes of what is known at text[at], 0: nothing is. A short name counts as a word of its own only. */
static size_t known(const ht_scrubber *s, const char *text, size_t at, const word **found) {
    for (size_t i = 0; i < s->n; i++) {
        const word *w = &s->words[i];
        const char next = strncasecmp(text + at, w->text, w->bytes) == 0 ? text[at + w->bytes] : 'x';
        const bool before = at > 0 && is_word(text[at - 1]), whole = !before && !is_word(next);
        if (strncasecmp(text + at, w->text, w->bytes) != 0)
            continue;
        if (w->path ? next != '/' && is_word(next) : w->bytes < 4 && !whole)
            continue;
        *found = w;
        return w->bytes + (w->path ? strcspn(text + at + w->bytes, ENDS) : 0);
    }
    return 0;
}

/* Bytes of what looks like a path or a file's name at text[at]. */
static size_t looks(const char *text, size_t at, const char **by) {
    static const char *const kinds[] = {".gguf", ".json", ".html"};
    const char *t = text + at;
    const size_t bytes = strcspn(t, ENDS);
    if (!begins(text, at))
        return 0;
    *by = "PATH";
    if ((t[0] == '/' && bytes > 1) || strncmp(t, "./", 2) == 0 || strncmp(t, "../", 3) == 0 || strncmp(t, "~/", 2) == 0)
        return bytes;
    if (isalpha((unsigned char)t[0]) && t[1] == ':' && (t[2] == '\\' || t[2] == '/')) /* a Windows drive's */
        return 2 + strcspn(t + 2, ENDS);
    *by = "FILE";
    for (size_t i = 0; i < HT_COUNT(kinds); i++) {
        const char *kind = strstr(t, kinds[i]);
        if (kind && kind < t + bytes)
            return bytes;
    }
    return 0;
}

/* Where the name of a shared library begins that ends the path; its end if it has none. */
static size_t library_of(const char *path, size_t bytes) {
    size_t at = bytes;
    while (at > 0 && path[at - 1] != '/')
        at--;
    const char *so = strstr(path + at, ".so");
    return at > 0 && strncmp(path + at, "lib", 3) == 0 && so && so < path + bytes ? at : bytes;
}

ht_status ht_scrub(const ht_scrubber *scrubber, const char *text, ht_text *clean, ht_error *error) {
    ht_status status = ht_text_append(clean, "", 0, error);
    for (size_t at = 0; text[at] && !status;) {
        const word *w = NULL;
        const char *by = NULL;
        size_t bytes = known(scrubber, text, at, &w);
        const bool path = w ? w->path : true;
        if (w)
            by = w->by;
        else
            bytes = looks(text, at, &by);
        if (bytes == 0) {
            status = ht_text_append(clean, text + at++, 1, error);
            continue;
        }
        const size_t library = path ? library_of(text + at, bytes) : bytes;
        status = ht_text_printf(clean, error, "%s%s", by, library < bytes ? "/" : "");
        at += library; /* the library's name is looked at, too */
    }
    return status;
}

/* ---- a tree ----------------------------------------------------------------------------------------------------------------- */

/* The scrubbed string, or NULL. */
static json_t *scrub_string(const ht_scrubber *s, const char *text, ht_status *status, ht_error *error) {
    ht_text clean = {0};
    *status = ht_scrub(s, text, &clean, error);
    json_t *string = *status ? NULL : json_string(clean.data);
    if (!*status && !string)
        *status = ht_fail(error, HT_ERROR_MEMORY, "no memory for the report");
    ht_text_free(&clean);
    return string;
}

static bool is_our_key(const char *key) {
    return key[strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0';
}

/* What stands for `value`, a new reference; NULL: it stays, changed inside. */
static json_t *scrub_value(const ht_scrubber *s, json_t *value, ht_status *status, ht_error *error) {
    if (json_is_string(value))
        return scrub_string(s, json_string_value(value), status, error);
    *status = ht_scrub_json(s, value, error);
    return NULL;
}

ht_status ht_scrub_json(const ht_scrubber *scrubber, json_t *tree, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t i = 0; i < json_array_size(tree) && !status; i++) {
        json_t *clean = scrub_value(scrubber, json_array_get(tree, i), &status, error);
        if (clean)
            json_array_set_new(tree, i, clean);
    }
    if (!json_is_object(tree))
        return status;
    json_t *made = json_object(); /* anew, for keys change and their order must not */
    const char *key;
    json_t *value;
    json_object_foreach(tree, key, value) {
        json_t *clean = status ? NULL : scrub_value(scrubber, value, &status, error);
        json_t *name = status || is_our_key(key) ? NULL : scrub_string(scrubber, key, &status, error);
        ht_json_set(&made, name ? json_string_value(name) : key, clean ? clean : json_incref(value));
        json_decref(name);
    }
    json_object_clear(tree);
    if (!status && (!made || json_object_update(tree, made)))
        status = ht_fail(error, HT_ERROR_MEMORY, "out of memory: the report");
    json_decref(made);
    return status;
}
