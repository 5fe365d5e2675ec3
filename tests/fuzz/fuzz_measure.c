/* libFuzzer: the input is a file of the plan's cache, times of lanes and what was learnt of schedules. */
#include "engine/costs.c" /* what reads it is static */

#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static ht_engine engine;
    static volatile double sink;
    json_t *root = json_loadb((const char *)data, bytes, 0, NULL);
    if (!root)
        return 0;
    memset(&engine, 0, sizeof engine);
    engine.info.chunk = 512;
    const json_t *lanes = json_object_get(root, "lanes");
    for (size_t l = 0; l < json_array_size(lanes) && l < 8; l++) {
        ht_lane_cost cost;
        if (!read_cost(json_array_get(lanes, l), &cost))
            continue;
        for (int c = 0; c < HT_CLASSES; c++) {
            must(cost.classes[c].n_points <= HT_MAX_POINTS);
            for (size_t n = 1; n < 2000 && cost.classes[c].n_points; n = 3 * n + 1)
                sink = sink + ht_class_seconds(&cost, (ht_class)c, n, 0.5, 100);
        }
    }
    read_learnt(&engine, json_object_get(root, "learnt"));
    json_decref(root);
    return 0;
}
