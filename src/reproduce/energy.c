#include "reproduce/energy.h"

#include <math.h>

#define TERMS (1 + 2 * HT_SOC_MAX_PROCESSORS)

typedef struct term { /* watts that are drawn for so many seconds */
    const ht_figure *watts;
    double seconds, over;
} term;

/* The terms of an energy, and of another one (over, NULL: none). Returns their number; 0: the watts of a busy processor are not known. */
static size_t terms_of(const ht_soc *soc, const ht_energy *energy, const ht_energy *over, term terms[TERMS]) {
    size_t n = 0;
    terms[n++] = (term){&soc->figures[HT_SOC_BASE_WATTS], energy->seconds, over ? over->seconds : 0};
    for (size_t i = 0; i < soc->n_processors; i++) {
        const ht_figure *figures = soc->processors[i].figures;
        const double busy = energy->busy[i], other = over ? over->busy[i] : 0;
        if (!(figures[HT_SOC_WATTS].value > 0) && (busy > 0 || other > 0))
            return 0;
        terms[n++] = (term){&figures[HT_SOC_WATTS], busy, other};
        terms[n++] = (term){&figures[HT_SOC_IDLE_WATTS], energy->seconds - busy, over ? over->seconds - other : 0};
    }
    return n;
}

ht_range ht_energy_joules(const ht_soc *soc, const ht_energy *energy) {
    term terms[TERMS];
    const size_t n = terms_of(soc, energy, NULL, terms);
    ht_range joules = {0};
    if (!n)
        return (ht_range){NAN, NAN, NAN};
    for (size_t i = 0; i < n; i++) {
        joules.value += terms[i].watts->value * terms[i].seconds;
        joules.low += terms[i].watts->low * terms[i].seconds;
        joules.high += terms[i].watts->high * terms[i].seconds;
    }
    return joules;
}

/* The ratio of two sums moves in one direction with each figure alone, whatever the others are. So it is least and most where
 * every figure is at an end of its range. Which ends: those that make the ratio found so far more extreme, again and again until
 * none does; there are finitely many choices. */
static double extreme_ratio(const term *terms, size_t n, double ratio, bool most) {
    for (;;) {
        double upper = 0, lower = 0;
        for (size_t i = 0; i < n; i++) {
            const bool raises = terms[i].seconds > ratio * terms[i].over;
            const double watts = raises == most ? terms[i].watts->high : terms[i].watts->low;
            upper += watts * terms[i].seconds;
            lower += watts * terms[i].over;
        }
        if (!(lower > 0))
            return INFINITY;
        const double next = upper / lower;
        if (most ? next <= ratio * (1 + 1e-12) : next >= ratio * (1 - 1e-12))
            return next;
        ratio = next;
    }
}

ht_range ht_energy_ratio(const ht_soc *soc, const ht_energy *energy, const ht_energy *over) {
    term terms[TERMS];
    const size_t n = terms_of(soc, energy, over, terms);
    const double mine = ht_energy_joules(soc, energy).value, other = ht_energy_joules(soc, over).value;
    if (!n || !(other > 0))
        return (ht_range){NAN, NAN, NAN};
    return (ht_range){mine / other, extreme_ratio(terms, n, mine / other, false),
                      extreme_ratio(terms, n, mine / other, true)};
}
