/* Dividing tokens among lanes so that the slowest of them ends first. */
#include "plan/estimate.h"

#include <string.h>

/* Each lane in turn takes the most that it does within the limit; true if that is all of them. The last one takes all that
 * is left or fails: tokens that end a pass may take less than a few of them that do not, so that a search for the most
 * would not find them. */
static bool fill(division *d, double limit) {
    size_t begin = 0, units[HT_MAX_LANES];
    bool good = true, known = true; /* where the lane's tokens begin is the same at both limits */
    size_t i = 0;
    for (; i < d->n_lanes && good; i++) {
        size_t low = d->least, high = d->all - begin - d->least * (d->n_lanes - i - 1);
        if (i + 1 == d->n_lanes)
            low = high;
        else if (known)
            low = ht_max_size(low, d->few[i]), high = ht_min_size(high, d->many[i]);
        while (low < high) {
            const size_t middle = (low + high + 1) / 2;
            if (d->f(d->context, d->lanes[i], begin, middle) <= limit)
                low = middle;
            else
                high = middle - 1;
        }
        good = low == 0 || d->f(d->context, d->lanes[i], begin, low) <= limit;
        known &= d->few[i] == d->many[i];
        units[i] = low;
        begin += low;
    }
    if (good)
        memcpy(d->many, units, d->n_lanes * sizeof *units);
    else
        for (size_t k = 0; k + 1 < d->n_lanes; k++)
            d->few[k] = k + 1 < i ? units[k] : d->least;
    return good;
}

/* Is there one division left? */
static bool is_settled(const division *d) {
    for (size_t i = 0; i + 1 < d->n_lanes; i++)
        if (d->few[i] != d->many[i])
            return false;
    return true;
}

double ht_divide(division *d, double bound) {
    double low = 0, most = 0, first = 0, slowest = 0;
    for (size_t i = 0; i < d->n_lanes; i++) {
        const double whole = d->f(d->context, d->lanes[i], 0, d->all);
        low = fmax(low, d->f(d->context, d->lanes[i], 0, 0));
        first = fmax(first, d->f(d->context, d->lanes[i], 0, d->least));
        most = whole < INFINITY ? fmax(most, whole) : most;
        d->few[i] = d->least;
        d->many[i] = d->all;
    }
    double high = fmin((fmax(most, low) + (d->least ? 2 * first : 0)) * 1.0001, bound);
    if (first == INFINITY || low > high || !fill(d, high))
        return INFINITY;
    for (int i = 0; i < 48 && high - low > 1e-6 * high && !is_settled(d); i++) {
        const double middle = (low + high) / 2;
        if (fill(d, middle))
            high = middle;
        else
            low = middle;
    }
    for (size_t i = 0, begin = 0; i < d->n_lanes; begin += d->many[i++])
        slowest = fmax(slowest, d->f(d->context, d->lanes[i], begin, d->many[i]));
    return slowest;
}
