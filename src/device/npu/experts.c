/* What the host does around the graphs of a mixture of experts: it gathers each expert's tokens, as many as the graph
 * has room for, and adds what came of them to the tokens' rows. */
#include "device/npu/npu.h"

#include <string.h>

static float *row_of(const ht_view *view, size_t t) {
    return (float *)view->data + t * view->stride;
}

size_t ht_npu_gather(const ht_npu_graph *g, size_t capacity, const ht_npu_crowd *crowd, float *in,
                     ht_npu_place *places) {
    size_t all = 0;
    for (size_t i = 0; i < g->experts; i++) {
        ht_npu_place *own = places + i * capacity;
        float *rows = in + i * capacity * g->cols;
        size_t n = 0;
        for (size_t t = 0; t < crowd->tokens && n < capacity; t++) {
            const float weight = row_of(&crowd->weights, t)[g->expert + i];
            if (weight == 0.0f)
                continue;
            row_of(&crowd->left, t)[g->expert + i] = 0;
            memcpy(rows + n * g->cols, row_of(&crowd->x, t), g->cols * sizeof *rows);
            own[n++] = (ht_npu_place){(uint32_t)t, weight};
        }
        all += n;
        /* what comes of them is dropped, but stale bits could be NaNs or denormals, which are slow */
        memset(rows + n * g->cols, 0, (capacity - n) * g->cols * sizeof *rows);
        memset(own + n, 0, (capacity - n) * sizeof *own);
    }
    return all;
}

void ht_npu_scatter(const ht_npu_graph *g, size_t capacity, const float *out, const ht_npu_place *places,
                    const ht_view *to) {
    for (size_t i = 0; i < g->experts * capacity; i++) {
        const float weight = places[i].weight, *from = out + i * g->rows;
        float *row = row_of(to, places[i].token);
        for (size_t r = 0; r < g->rows && weight != 0.0f; r++)
            row[r] += weight * from[r];
    }
}
