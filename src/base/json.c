#include "base/json.h"

static void drop(json_t **tree) {
    json_decref(*tree);
    *tree = NULL;
}

void ht_json_set(json_t **object, const char *key, json_t *value) {
    if (json_object_set_new(*object, key, value))
        drop(object);
}

void ht_json_add(json_t **array, json_t *value) {
    if (json_array_append_new(*array, value))
        drop(array);
}

typedef struct writing {
    ht_text text;
    bool failed;
} writing;

/* jansson goes on after some pieces that could not be written, and would return a text without them: remembered here. */
static int write_piece(const char *piece, size_t bytes, void *user) {
    writing *w = user;
    w->failed |= ht_text_append(&w->text, piece, bytes, NULL) != HT_OK;
    return w->failed ? -1 : 0;
}

ht_status ht_json_text(json_t *tree, size_t flags, const char *what, char **text, ht_error *error) {
    writing w = {0};
    const bool good = tree && json_dump_callback(tree, write_piece, &w, flags) == 0 && !w.failed;
    json_decref(tree);
    if (!good) {
        ht_text_free(&w.text);
        return ht_fail(error, HT_ERROR_MEMORY, "out of memory: %s as JSON", what);
    }
    *text = w.text.data;
    return HT_OK;
}
