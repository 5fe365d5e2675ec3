/* An engine: devices opened, lanes made of them, what these cost, and how passes are planned.
 *
 * Its parts have owners: the lanes are src/lane's, the passes src/pass's. What is left here is how an engine comes to be
 * and goes on without a device that failed, and what it can tell of itself. */
#ifndef HT_ENGINE_H
#define HT_ENGINE_H

#include "pass/pass.h"

struct ht_engine {
    ht_model *model;
    ht_engine_info info;
    ht_lanes set;
    ht_passes passes;
    bool found;                        /* nobody asked for the devices: they were found */
    size_t n_named;                    /* the first so many devices were asked for, others are companions */
    const char *names[HT_MAX_DEVICES]; /* info.devices */
    bool by_rule; /* a device is emulated: shares follow a rule (nominal.c), no time is measured or told */
};

/* As ht_engine_create on this list of devices that nobody named: one that cannot be opened is left out, with a warning. */
ht_status ht_engine_create_found(ht_model *model, const ht_engine_options *options, const char *found, ht_engine **out,
                                 ht_error *error);

/* Measures the lanes, or finds what was measured before (measure.c). */
ht_status ht_engine_measure_lanes(ht_engine *engine, const ht_engine_options *options, ht_error *error);
ht_status ht_lane_measure(ht_engine *engine, ht_lane *lane, ht_error *error); /* one lane's cost table */
/* The same where times say nothing (nominal.c). */
void ht_lane_cost_by_rule(const ht_lanes *set, ht_lane *lane);
void ht_engine_keep_learnt(const ht_engine *engine); /* beside the tables of times, for later processes */

/* Solves for prompts that are expected and has graphs of shares built (sharing.c). */
ht_status ht_engine_expect(ht_engine *engine, const ht_engine_options *options, ht_error *error);
/* Where one lane is predicted to be as quick for all prompts to come, and in decode, as any or several are: closes the
 * devices of the others, and is an engine of one lane from then on. */
ht_status ht_engine_reduce(ht_engine *engine, const ht_engine_options *options, bool *reduced, ht_error *error);
/* A device has failed: its lanes go on without it, or are lost. False: nothing is left that computes the model. */
bool ht_engine_recover(ht_engine *engine);

#endif
