/* Energy of a run: what of a chip draws power, times how long.
 *
 *     joules = base * seconds + sum over processors of (busy * its busy seconds + idle * its other seconds)
 *
 * base is DRAM and what of the package is no processor. Most watts are assumed, within a range; so results are ranges, too. */
#ifndef HT_ENERGY_H
#define HT_ENERGY_H

#include "device/sim/soc.h"

typedef struct ht_range {
    double value, low, high;
} ht_range;

typedef struct ht_energy { /* of a token */
    double seconds;
    double busy[HT_SOC_MAX_PROCESSORS]; /* seconds, by the chip's processors */
} ht_energy;

/* NAN where a processor that was busy has no watts. */
ht_range ht_energy_joules(const ht_soc *soc, const ht_energy *energy);
/* Joules of one over the other's, on one chip. The range is exact: the same watts are in both, so it is narrower than what the
 * ranges of the two alone would give. */
ht_range ht_energy_ratio(const ht_soc *soc, const ht_energy *energy, const ht_energy *over);

#endif
