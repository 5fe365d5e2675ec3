/* What the simulated chips promise against what real ones did (measurements.h). */
#ifndef HT_VALIDATE_H
#define HT_VALIDATE_H

#include "model/model.h"
#include "reproduce/energy.h"
#include "reproduce/measurements.h"

/* Tokens a second that a row should have on this chip: the laws summed over the model's operators, and the engine's own costs.
 * Prefill: pass by pass, each at its position and padded as the engine pads; the head for one token, in the last pass. Decode:
 * one token behind `prompt` others. Looking embeddings up and choosing a token are the host's, in pass_us. NAN: the chip has no
 * such processor. */
double ht_predict_row(const ht_measured_row *row, const ht_soc *soc, const ht_model *model);

typedef struct ht_validated { /* a row and its prediction */
    const ht_measured_row *row;
    double predicted;  /* tokens a second; NAN: none */
    double parameters; /* of the model */
} ht_validated;

typedef struct ht_quality { /* of some rows */
    size_t rows, predicted;
    double median; /* of |predicted / measured - 1|; NAN: no row is predicted */
    double within; /* share of the predicted rows that are off by at most HT_VALIDATE_NEAR */
    double worst;  /* the ratio predicted / measured that is farthest from 1, as a factor */
} ht_quality;

#define HT_VALIDATE_NEAR 0.4

/* What an energy's figure should be: the rail's watts times the seconds that a token is predicted to take, or with the chip's base
 * and the other processors idle. NAN: the chip has no such processor. The rail is an input of both. */
ht_range ht_predict_energy(const ht_measured_energy *energy, const ht_soc *soc, const ht_model *model);

typedef enum ht_phase_filter { HT_PHASE_PREFILL, HT_PHASE_DECODE, HT_PHASE_BOTH } ht_phase_filter;
ht_status ht_quality_of(const ht_validated *rows, size_t n, bool test, ht_phase_filter phase, ht_quality *quality,
                        ht_error *error);

typedef struct ht_size_ratio { /* effective TFLOPS in prefill of the largest model to the smallest's */
    const ht_validated *smallest, *largest;
    double measured, predicted; /* predicted: NAN where one of the two is not predicted */
} ht_size_ratio;
/* Of the rows that share chip, processor, engine, weights and prompt with rows[first], which must be the first of them; false:
 * it is not, or they are of one size. */
bool ht_size_ratio_of(const ht_validated *rows, size_t n, size_t first, ht_size_ratio *ratio);

/* Predicts all rows, or those of `soc`; on HT_OK *rows (from malloc) has *n. */
ht_status ht_validate_rows(const ht_measurements *measurements, const ht_soc *soc, ht_validated **rows, size_t *n,
                           ht_error *error);

/* The same of energies: predicted has room for all of them; NAN: another chip's, or there is no description. */
ht_status ht_validate_energies(const ht_measurements *measurements, const ht_soc *soc, ht_range *predicted,
                               ht_error *error);

#endif
