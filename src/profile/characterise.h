/* What the files of the profile share: who measures, and where points go. */
#ifndef HT_PLAN_CHARACTERISE_H
#define HT_PLAN_CHARACTERISE_H

#include "device/device.h"

typedef struct ht_profiler {
    const ht_model *model;
    const ht_profile_options *options;
    ht_profile_result *result;
    struct ht_machine *machine;                           /* of simulated devices that are open */
    size_t row_capacity, point_capacity, device_capacity; /* of the result's arrays */
} ht_profiler;

/* MATMULs that differ in nothing but their weights. */
bool ht_profile_alike(const ht_op *a, const ht_op *b);

/* All tables of one device alone but BANDWIDTH; `index`: its row of result->devices. */
ht_status ht_characterise(ht_profiler *p, int index, ht_error *error);
/* A product of made-up weights of so many rows with so many tokens, on a device of the result with options besides its own. */
typedef struct ht_product {
    int device;
    const char *more; /* "order=weights"; "": none */
    size_t rows, cols, tokens;
} ht_product;
/* Seconds of several at once, as a cut makes them: all are submitted, then all are waited for. `repeats` times without a pause,
 * each counts: with many, joins vanish. Devices that compute in their caller are refused beside others: they know no
 * "at once". */
ht_status ht_characterise_cut(ht_profiler *p, const ht_product *parts, size_t n, size_t repeats, double *seconds,
                              ht_error *error);
/* JOINS of one device; GRAPHS of one matrix. */
ht_status ht_characterise_joins(ht_profiler *p, int index, ht_error *error);
ht_status ht_characterise_build(ht_profiler *p, int index, size_t rows, size_t cols, size_t tokens, ht_error *error);
/* BANDWIDTH of every device of the result, and of pairs. Those that fail are left out with a warning. */
ht_status ht_characterise_bandwidth(ht_profiler *p, ht_error *error);

/* Fills what a result says of itself: model, machine, date. */
void ht_profile_describe(ht_profile_result *result, const ht_model *model, const ht_profile_options *options);
/* What the times of an open device depend on. */
void ht_profile_fingerprint(const char *spec, const ht_device *device, ht_profile_device *out);
/* Writes the result to the cache folder; its path is result->path then. */
ht_status ht_profile_save(ht_profile_result *result, ht_error *error);

const char *ht_profile_table_name(ht_profile_table table); /* "curve", ... */
double ht_profile_rate(const ht_profile_point *point);     /* GFLOP/s, of BANDWIDTH GB/s; 0: it has none */

#endif
