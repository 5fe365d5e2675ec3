/* Logits that are no numbers. One NaN among the weights, or one infinity on the way, makes every logit NaN and every answer
 * token 0: said instead, with where the first one lies in the model. */
#include "session/session.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static bool has_nan(const float *values, size_t n) {
    unsigned found = 0; /* no early end: the compiler turns it into vectors, and there is none nearly always */
    for (size_t i = 0; i < n; i++)
        found |= values[i] != values[i];
    return found;
}

/* The first row of the matrix that has a value which is none; rows: there is none, or no memory to look. */
static size_t bad_row(const ht_matrix *matrix) {
    float *row = malloc(matrix->cols * sizeof *row);
    size_t r = row ? 0 : matrix->rows;
    while (r < matrix->rows && matrix->data) {
        ht_matrix_floats(matrix, r, 1, row);
        bool good = true;
        for (size_t c = 0; c < matrix->cols; c++)
            good &= isfinite(row[c]) != 0;
        if (!good)
            break;
        r++;
    }
    free(row);
    return matrix->data ? r : matrix->rows;
}

/* Where the first weight lies that is no number, in the order of a pass. It reads the whole file: after a failure only. */
static bool find_culprit(const ht_model *model, char *text, size_t capacity) {
    for (size_t i = 0; i < model->n_ops; i++) {
        const ht_op *op = &model->ops[i];
        const float *vectors[] = {op->weight, op->post_norm, op->q_norm, op->k_norm};
        const ht_hparams h = ht_op_shape(op, &model->hparams);
        const size_t widths[] = {(size_t)h.embedding, (size_t)h.embedding, (size_t)h.head_dim, (size_t)h.head_dim};
        for (size_t v = 0; v < HT_COUNT(vectors); v++)
            if (vectors[v] && has_nan(vectors[v], widths[v]))
                return snprintf(text, capacity, "weights of %s are not numbers", op->name), true;
        for (int p = 0; p < op->n_parts; p++) {
            const size_t row = bad_row(&op->parts[p]);
            if (row < op->parts[p].rows)
                return snprintf(text, capacity, "weights of %s, row %zu, are not numbers", op->parts[p].name, row),
                       true;
            if (op->bias[p] && has_nan(op->bias[p], op->parts[p].rows))
                return snprintf(text, capacity, "biases of %s are not numbers", op->parts[p].name), true;
        }
    }
    return false;
}

ht_status ht_session_check_logits(const ht_session *session, const float *logits, size_t position, ht_error *error) {
    const bool simulated = session->engine->set.time != NULL; /* there may be no numbers at all */
    return simulated || !has_nan(logits, (size_t)session->engine->model->hparams.vocabulary)
               ? HT_OK
               : ht_session_no_numbers(session, position, error);
}

ht_status ht_session_no_numbers(const ht_session *session, size_t position, ht_error *error) {
    const ht_model *model = session->engine->model;
    char culprit[160];
    if (find_culprit(model, culprit, sizeof culprit))
        return ht_fail(error, HT_ERROR_FORMAT, "%s: the logits after token %zu are not numbers (NaN): %s",
                       model->info.path, position, culprit);
    return ht_fail(
        error, HT_ERROR_DEVICE,
        "%s: the logits after token %zu are not numbers (NaN), but all weights are: a device computes wrongly, "
        "or values are too large for it (try precision exact)",
        model->info.path, position);
}
