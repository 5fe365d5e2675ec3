/* Which files of a repository a name means. The rule is the one that llama.cpp's users know of its -hf: the type that was
 * asked for; else Q4_K_M, else Q8_0, else the only model there is. */
#include "hub/hub.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ENDING ".gguf"
#define NUMBERS "-00001-of-00001"

ht_status ht_hub_listing_add(ht_hub_listing *listing, const char *path, uint64_t bytes, const char *sum,
                             ht_error *error) {
    if (listing->n >= HT_HUB_MOST_MODELS)
        return ht_fail(error, HT_ERROR_FORMAT, "the repository has more than %d GGUF files", HT_HUB_MOST_MODELS);
    ht_status status = ht_grow((void **)&listing->files, &listing->capacity, listing->n + 1, sizeof *listing->files,
                               "a list of files", error);
    if (status)
        return status;
    ht_hub_file *file = &listing->files[listing->n];
    *file = (ht_hub_file){.path = ht_copy_text(path, strlen(path)), .bytes = bytes};
    if (!file->path)
        return ht_fail(error, HT_ERROR_MEMORY, "out of memory: a list of files");
    snprintf(file->sum, sizeof file->sum, "%s", sum);
    listing->n++;
    return HT_OK;
}

void ht_hub_listing_free(ht_hub_listing *listing) {
    while (listing->n)
        free(listing->files[--listing->n].path);
    free(listing->files);
    *listing = (ht_hub_listing){0};
}

static bool ends_in(const char *path, size_t bytes, const char *ending) {
    const size_t n = strlen(ending);
    return bytes >= n && !strncasecmp(path + bytes - n, ending, n);
}

bool ht_hub_is_model(const char *path) {
    /* projectors of pictures and sound, importance matrices, heads that draft for another model */
    static const char *const others[] = {"mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-"};
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    if (!ends_in(base, strlen(base), ENDING))
        return false;
    for (size_t i = 0; i < HT_COUNT(others); i++)
        for (const char *at = base; *at; at++)
            if (!strncasecmp(at, others[i], strlen(others[i])) && (at == base || !isalnum((unsigned char)at[-1])))
                return false;
    return true;
}

/* Of "X-00002-of-00003.gguf": the length of X, 2 and 3; of any other path: all but its ending, 1 and 1. */
static size_t split_of(const char *path, int *part, int *parts) {
    const size_t stem = strlen(path) - strlen(ENDING), numbers = strlen(NUMBERS);
    *part = *parts = 1;
    if (stem <= numbers)
        return stem;
    const char *at = path + stem - numbers;
    for (size_t i = 0; i < numbers; i++)
        if (isdigit((unsigned char)NUMBERS[i]) ? !isdigit((unsigned char)at[i])
                                               : tolower((unsigned char)at[i]) != NUMBERS[i])
            return stem;
    *part = (int)strtol(at + 1, NULL, 10);
    *parts = (int)strtol(at + strlen("-00001-of-"), NULL, 10);
    return *part >= 1 && *parts >= *part ? stem - numbers : (*part = *parts = 1, stem);
}

static bool is_first(const char *path) {
    int part, parts;
    split_of(path, &part, &parts);
    return part == 1;
}

/* Does a type stand in the path, as a word of its own? "Q4_K_M" does in "m-Q4_K_M.gguf" and in
 * "Q4_K_M/m-00001-of-2.gguf", and not in "IQ4_K_M"; in "m-UD-Q4_K_M.gguf" less well: 1 for 2. */
static int match(const char *path, const char *type) {
    const size_t n = strlen(type);
    const size_t letters = strspn(type, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");
    const bool numbered = letters && isdigit((unsigned char)type[letters]);
    int best = 0;
    for (const char *at = path; strlen(at) >= n; at++) {
        const char before = at == path ? '/' : at[-1], after = at[n];
        if (strncasecmp(at, type, n) != 0 || !after || !strchr(".-/", after))
            continue;
        if (!strchr("/-.", before) && !(before == '_' && numbered)) /* "m_q8_0" is one, "_M" of "K_M" is none */
            continue;
        const bool dynamic =
            at - path >= 3 && !strncasecmp(at - 3, "UD-", 3) && (at - path == 3 || !isalnum((unsigned char)at[-4]));
        best = dynamic && best < 2 ? 1 : 2;
    }
    return best;
}

static size_t depth(const char *path) {
    size_t n = 0;
    for (; *path; path++)
        n += *path == '/';
    return n;
}

/* The models of a type (NULL: any), split ones by their first part, at their best: nearest to a match, then to the
 * root. How many there are of that kind; *found is one of them. */
static size_t find_type(const ht_hub_listing *listing, const char *type, size_t *found) {
    size_t n = 0, best_depth = 0;
    int best = 0;
    for (size_t i = 0; i < listing->n; i++) {
        const char *path = listing->files[i].path;
        const int how = !ht_hub_is_model(path) || !is_first(path) ? 0 : type ? match(path, type) : 1;
        const size_t deep = type ? depth(path) : 0;
        if (!how || how < best || (how == best && n && deep > best_depth))
            continue;
        if (how > best || deep < best_depth)
            n = 0;
        best = how;
        best_depth = deep;
        if (!n++)
            *found = i;
    }
    return n;
}

/* Says why there is no answer, and what there is, as far as the line goes. */
static ht_status list_models(const ht_hub_name *name, const ht_hub_listing *listing, const char *where, const char *why,
                             ht_error *error) {
    char names[300] = "";
    size_t n = 0, used = 0, shown = 0;
    for (size_t i = 0; i < listing->n; i++) {
        const char *path = listing->files[i].path;
        if (!ht_hub_is_model(path) || !is_first(path))
            continue;
        n++;
        if (used + strlen(path) + 3 > sizeof names)
            continue;
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", path);
        shown++;
    }
    ht_make_printable(names);
    if (!n)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s/%s: %s has no GGUF model", name->owner, name->repo, where);
    return ht_fail(error, HT_ERROR_ARGUMENT, "%.80s: %s; %s has %s%s", name->text, why, where, names,
                   shown < n ? ", ..." : "");
}

/* All parts, in order, of the split model that `any` is of. */
static ht_status all_parts(const ht_hub_name *name, const ht_hub_listing *listing, size_t any, size_t **chosen,
                           size_t *n, ht_error *error) {
    int part, parts, other, of;
    const char *path = listing->files[any].path;
    const size_t stem = split_of(path, &part, &parts);
    ht_status status = ht_alloc((void **)chosen, (size_t)parts, sizeof **chosen, "a list of files", error);
    if (status)
        return status;
    for (int i = 0; i < parts; i++)
        (*chosen)[i] = SIZE_MAX;
    if (parts == 1)
        (*chosen)[0] = any;
    for (size_t i = 0; i < listing->n && parts > 1; i++) {
        const char *also = listing->files[i].path;
        if (ht_hub_is_model(also) && split_of(also, &other, &of) == stem && of == parts && !strncmp(path, also, stem))
            (*chosen)[other - 1] = i;
    }
    *n = (size_t)parts;
    for (int i = 0; i < parts; i++) {
        if ((*chosen)[i] != SIZE_MAX)
            continue;
        free(*chosen);
        *chosen = NULL;
        return ht_fail(error, HT_ERROR_ARGUMENT, "%.80s: part %d of the %d of %.200s is missing", name->text, i + 1,
                       parts, path);
    }
    return HT_OK;
}

ht_status ht_hub_choose(const ht_hub_name *name, const ht_hub_listing *listing, const char *where, size_t **chosen,
                        size_t *n, ht_error *error) {
    static const char *const usual[] = {"Q4_K_M", "Q8_0"};
    size_t found = 0, count = 0;
    if (*name->file) {
        for (size_t i = 0; i < listing->n && !count; i++)
            if (!strcmp(listing->files[i].path, name->file))
                found = i, count = 1;
        if (!count)
            return list_models(name, listing, where,
                               ht_hub_is_model(name->file)
                                   ? "there is no such file"
                                   : "by its name this is a projector, a draft head or an importance matrix, no model",
                               error);
    } else if (*name->type) {
        count = find_type(listing, name->type, &found);
        if (count != 1)
            return list_models(name, listing, where,
                               count ? "several files have this type: name one" : "no file has this type", error);
    }
    for (size_t i = 0; i < HT_COUNT(usual) && !count; i++) {
        count = find_type(listing, usual[i], &found);
        if (count > 1)
            return list_models(name, listing, where, "several files could be meant: name one", error);
    }
    if (!count && find_type(listing, NULL, &found) != 1)
        return list_models(name, listing, where, "it names no type, and none of the files is Q4_K_M or Q8_0", error);
    return all_parts(name, listing, found, chosen, n, error);
}
