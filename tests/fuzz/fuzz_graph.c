/* libFuzzer: the input is a file of the graph cache, read for one key; and a payload, which a whole file must give back. */
#include "device/npu/store.c" /* what reads it is static */

#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static char name[] = MAGIC "key";
    const ht_text key = {.data = name, .bytes = sizeof name - 1};
    const char *why;
    size_t found;
    uint8_t *exact = malloc(bytes + 1); /* so that a byte too many is seen */
    must(exact != NULL);
    if (bytes)
        memcpy(exact, data, bytes);
    ht_mapping file = {.data = exact, .bytes = bytes};
    const uint8_t *payload = payload_of(&file, &key, &found, &why);
    must(payload ? payload + found == exact + bytes : why != NULL);
    free(exact);

    ht_text whole = {0};
    must(ht_text_append(&whole, key.data, key.bytes, NULL) == HT_OK &&
         ht_text_printf(&whole, NULL, "\n%llu %016llx\n", (unsigned long long)bytes,
                        (unsigned long long)ht_hash(HT_HASH_START, data, bytes)) == HT_OK &&
         ht_text_append(&whole, (const char *)data, bytes, NULL) == HT_OK);
    file = (ht_mapping){.data = (const uint8_t *)whole.data, .bytes = whole.bytes};
    payload = payload_of(&file, &key, &found, &why);
    must(payload && found == bytes && (!bytes || memcmp(payload, data, bytes) == 0));
    ht_text_free(&whole);
    return 0;
}
