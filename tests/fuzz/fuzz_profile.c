/* libFuzzer: the input is a kept profile (hetero profile --load). It is read as one, without opening the devices it names. */
#include "profile/profile_store.c" /* what reads it is static */

#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    ht_profile_result result = {0};
    ht_error error = {0};
    json_t *all = json_loadb((const char *)data, bytes, 0, NULL);
    if (!all)
        return 0;
    if (make_room(all, &result, &error) == HT_OK && read_all(all, &result)) {
        char *text = NULL; /* what was read can be written */
        must(ht_profile_json(&result, &text, &error) != HT_OK || text);
        free(text);
    }
    json_decref(all);
    ht_profile_result_clear(&result);
    return 0;
}
