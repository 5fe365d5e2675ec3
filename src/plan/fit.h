/* Which operators a device with bounded memory computes, where another does the rest (a lane of two devices).
 *
 * An exact search over operators in the order of a pass: what each takes on either device, the bytes that the first one
 * would hold for it, and what every change of device costs. A knapsack with a chain: dynamic programming over (operator,
 * bytes so far, device), bytes in steps of a 2048th of the limit; what the rounding lets through is taken back. */
#ifndef HT_FIT_H
#define HT_FIT_H

#include "base/base.h"

typedef struct ht_fit_op {
    double here, there; /* seconds on the bounded device and on the other; infinite: it does not compute it */
    uint64_t bytes;     /* that the bounded device holds for it */
} ht_fit_op;

typedef struct ht_fit {
    const ht_fit_op *ops; /* in the order of a pass */
    size_t n;
    uint64_t limit; /* bytes */
    double change;  /* seconds of handing over from one device to the other */
} ht_fit;

/* here[i]: operator i is the bounded device's. *seconds: of all, changes included; infinite: some operator fits nowhere. Any
 * thread. HT_ERROR_MEMORY: none for the search. */
ht_status ht_fit_solve(const ht_fit *fit, bool *here, double *seconds, ht_error *error);

#endif
