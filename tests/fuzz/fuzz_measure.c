/* libFuzzer: the input is a file of the plan's cache, times of lanes and what was learnt of schedules. */
#include "engine/costs.c" /* what reads it is static */

#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static ht_engine engine;
    static ht_model *model;
    ht_error error;
    static volatile double sink;
    json_t *root = json_loadb((const char *)data, bytes, 0, NULL);
    if (!root)
        return 0;
    if (!model)
        must(ht_model_open("shape:tiny", &model, &error) == HT_OK);
    memset(&engine, 0, sizeof engine);
    engine.info.chunk = 512;
    const json_t *lanes = json_object_get(root, "lanes");
    for (size_t l = 0; l < json_array_size(lanes) && l < 8; l++) {
        ht_lane_cost cost;
        if (!read_cost(model, json_array_get(lanes, l), &cost))
            continue;
        for (size_t s = 0; s < model->n_signatures; s++) {
            must(cost.ops[s].n_points <= HT_MAX_POINTS);
            for (size_t n = 1; n < 2000 && cost.ops[s].n_points; n = 3 * n + 1)
                sink = sink + ht_op_seconds(&cost, (int)s, n, 0.5, 100);
        }
    }
    read_learnt(&engine, json_object_get(root, "learnt"));
    json_decref(root);
    return 0;
}
