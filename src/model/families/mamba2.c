/* Mamba-2: arch "mamba2". Dao and Gu, "Transformers are SSMs" (2024). Each layer is a selective scan behind a norm, and
 * nothing else. */
#include "model/build.h"

static ht_status build_mamba2(const ht_family *family, ht_model *model, ht_error *error) {
    ht_builder b = ht_build_begin(model, error);
    const ht_mixer mixer = ht_build_read_mixer(&b);
    ht_build_embed(&b, 1.0f);
    for (int layer = 0; layer < model->hparams.layers && b.status == HT_OK; layer++) {
        ht_build_layer(&b, layer);
        ht_build_block(&b, HT_BLOCK_SCAN, mixer.groups);
        ht_build_norm(&b, "attn_norm");
        ht_build_scan(&b, &mixer);
        ht_build_add(&b, NULL);
    }
    return ht_build_head(&b);
}

const ht_family ht_family_mamba2 = {
    .arch = "mamba2", .build = build_mamba2, .heads_differ = true, .attention_free = true};
