/* libFuzzer: the input is the description of a chip, which a user may write (sim: devices). */
#include "device/sim/soc.h"

#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    ht_soc *soc = NULL;
    ht_error error = {0};
    if (ht_soc_parse("fuzz.json", (const char *)data, bytes, &soc, &error) == HT_OK) {
        must(soc->n_processors <= HT_SOC_MAX_PROCESSORS);
        ht_soc_free(soc);
    } else {
        must(error.text[0] && !strchr(error.text, '\n'));
    }
    return 0;
}
