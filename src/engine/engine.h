/* An engine: devices opened, lanes made of them, what these cost, and how passes are planned.
 *
 * Its parts have owners: the lanes are src/lane's, the passes src/pass's. What is left here is how an engine comes to be
 * and goes on without a device that failed, and what it can tell of itself. */
#ifndef HT_ENGINE_H
#define HT_ENGINE_H

#include "pass/pass.h"

#define HT_WORTH_SHARING 0.97 /* several lanes must be so much quicker than the best alone */

/* Graphs that were asked for while requests run, for lanes' speeds have changed (adapt.c). */
typedef struct ht_wish {
    double next;           /* no other wish before this time */
    size_t passes, checks; /* since it was made; at how many of them it is looked for next; 0: there is none */
    ht_program program;    /* its steps on static devices: tokens [0, end) */
    ht_graphs graphs;      /* once all of it is there */
} ht_wish;

/* Tokens of the kinds of passes that what lanes hold was made for, and when that may be moved while requests run
 * (hold.c). */
#define HT_HOLD_KINDS 4
typedef struct ht_hold {
    size_t tokens[HT_HOLD_KINDS], n;
    double next, pause;
} ht_hold;

struct ht_engine {
    ht_model *model;
    ht_engine_info info;
    ht_lanes set;
    ht_passes passes;
    bool found;                        /* nobody asked for the devices: they were found */
    size_t n_named;                    /* the first so many devices were asked for, others are companions */
    char asked[HT_MAX_DEVICES][256];   /* by device: what it was opened as, "gpu:cpus=0", without its limit */
    const char *names[HT_MAX_DEVICES]; /* info.devices */
    char dropped_texts[HT_MAX_DEVICES][320];
    const char *dropped[HT_MAX_DEVICES]; /* info.dropped: these */
    int *prompts; /* [n_prompts] that the options expect, cut to the context; NULL: they say nothing */
    size_t n_prompts;
    ht_progress progress; /* the caller's, while the engine is created: devices keep a pointer to it */
    unsigned caches_lost; /* counts devices that failed with keys and values which only they had */
    ht_wish wish;
    ht_hold hold;
};

/* As ht_engine_create on this list of devices that nobody named: one that cannot be opened is left out, with a warning. */
ht_status ht_engine_create_found(ht_model *model, const ht_engine_options *options, const char *found, ht_engine **out,
                                 ht_error *error);

/* ---- the phases of creation, in order: each from what the ones before have made
 * ---------------------------------------- */

/* Devices (devices.c): those of options->devices, without what is not there or is emulated and not asked for. */
ht_status ht_engine_open_devices(ht_engine *engine, const ht_engine_options *options, ht_error *error);
/* Lanes (lanes.c): the devices grouped, operators placed on them, buffers. */
ht_status ht_engine_make_lanes(ht_engine *engine, const ht_engine_options *options, ht_error *error);
/* Costs (costs.c): what operators take on each of several lanes, measured or as it was before. By a rule (nominal.c)
 * where a device is emulated and times mean nothing (info.emulated). */
ht_status ht_engine_measure(ht_engine *engine, const ht_engine_options *options, ht_error *error);
/* Policy (policy.c): where strategy auto finds one lane as quick for all prompts to come, and in decode, as any or several
 * are, the devices of the others are closed, and it is an engine of one lane from then on. */
ht_status ht_engine_choose_lanes(ht_engine *engine, const ht_engine_options *options, ht_error *error);
/* Weights (hold.c): what lanes of strategy auto hold, and their tasks prepared, where that was put off. */
ht_status ht_engine_hold(ht_engine *engine, const ht_engine_options *options, ht_error *error);
/* Plans (expect.c): passes of the prompts that are expected are solved for, their graphs of shares built, and where times
 * are real they are tried. */
ht_status ht_engine_expect(ht_engine *engine, const ht_engine_options *options, ht_error *error);

/* Adds to info.dropped: "NAME: why" (devices.c). */
void ht_engine_drop(ht_engine *engine, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Follows options->place (place.c): operators are left by all devices but the one that is named for them. */
ht_status ht_engine_place(ht_engine *engine, const char *rules, ht_error *error);
#define HT_OF_MEMORY 95 /* hundredths of a device's own memory that it may hold where no limit is given */
/* What does not fit on a device with a limit goes to another one of its lane (fit.c): which operators those are follows from
 * what each takes on either, in prompts and in decode, and from what handing over takes. Nothing to do where all fits.
 * HT_ERROR_MEMORY with sizes where nobody takes the rest. What options->place says comes first. */
ht_status ht_engine_fit(ht_engine *engine, const ht_engine_options *options, ht_error *error);

/* Where lanes hold some weights only, and others would be quicker by a twentieth by what has been learnt: these, packed
 * from the file, for passes of so many tokens besides those that were expected. Nothing is under way, and no head is to
 * come. */
ht_status ht_engine_hold_anew(ht_engine *engine, size_t tokens, ht_error *error);
/* The same while requests run, behind a pass whose lanes' speeds have changed; not often. Fails with a warning. */
void ht_engine_hold_moved(ht_engine *engine, const ht_schedule *moved);
#define HT_HELD_OF_FILE \
    1.3 /* what lanes of strategy auto hold in all of what can be divided, over what the file takes */
/* Does the machine's memory hold all weights for every lane (lanes.c)? */
bool ht_engine_has_room(const ht_engine *engine);
/* May lanes hold some of the weights only? Each has devices of its own, which take any part of an operator (lanes.c). */
bool ht_engine_may_hold_some(const ht_engine *engine, const ht_engine_options *options);

/* May the device hold less than the model, so that what it computes was chosen by the planner? For its limit, that is. */
static inline bool ht_engine_is_bounded(const ht_engine *engine, size_t d) {
    return *engine->set.quicker[d] != 0;
}
/* Does the rest beside others: is it a CPU, the machine's own or of the simulated chip? */
bool ht_engine_does_rest(const ht_engine *engine, size_t d);
/* Closes the devices that are none of `kept` (bits); the others move up, and with them all that is kept by their
 * numbers but for lanes, which are the caller's. Nothing is under way. */
void ht_engine_keep_devices(ht_engine *engine, uint32_t kept);

/* ---- parts of them
 * ------------------------------------------------------------------------------------------------------- */

/* The device that computes beside device d what d does not take: one that is open, or a new one. */
ht_status ht_engine_companion(ht_engine *engine, const ht_engine_options *options, size_t d, size_t *companion,
                              ht_error *error);
/* Tokens of the prompts that are expected, none more than the context: the options' or usual[], which is filled, where
 * nobody says. *n of them. */
const int *ht_engine_prompts(const ht_engine *engine, int usual[2], size_t *n);
/* Closes the devices of all lanes but this one: an engine of one lane. No graph of shares is there, and no schedule is
 * used any more. */
ht_status ht_engine_keep_lane(ht_engine *engine, size_t lane, const ht_engine_options *options, ht_error *error);
#define HT_LATER_POSITION 1024 /* of the second point at which attention is timed */
/* Measures a lane's costs (measure.c), on the cache of some session, which is overwritten. */
ht_status ht_engine_time_lane(ht_engine *engine, ht_lane *lane, const ht_kv_layer *kv, ht_error *error);
/* Median seconds of steps, one behind another, for so many tokens from `position` on. */
ht_status ht_engine_time_steps(ht_engine *engine, ht_lane *lane, const ht_kv_layer *kv, const ht_step *steps,
                               size_t n_steps, size_t tokens, size_t position, double *seconds, ht_error *error);
/* What lanes take beside each other: every two that share no cores, and where there are more, as many as share none. */
ht_status ht_engine_time_together(ht_engine *engine, const ht_kv_layer *kv, ht_error *error);
/* One lane's costs on a cache made for that, or by rule. */
ht_status ht_engine_measure_lane(ht_engine *engine, ht_lane *lane, ht_error *error);
void ht_lane_cost_by_rule(const ht_lanes *set, ht_lane *lane); /* the same (nominal.c) */
void ht_engine_keep_learnt(const ht_engine *engine);           /* beside the tables of times, for later processes */

/* Has the graphs of a schedule begun, and takes its shares for those that there are (expect.c). */
ht_status ht_engine_begin_graphs(ht_engine *engine, const ht_schedule *schedule, ht_error *error);

/* To be called behind a pass, by who holds the lanes (adapt.c). Where lanes' speeds have changed so much that graphs
 * which are not there would pay, has them built in the background, and takes them into account once they are. Fails
 * silently: passes go on with what is there. */
void ht_engine_adapt(ht_engine *engine);
/* A device has failed: its lanes go on without it, or are lost. False: nothing is left that computes the model
 * (recover.c). */
bool ht_engine_recover(ht_engine *engine);
/* Nothing is under way any more, devices that failed are done without, and the host may read and write what sessions
 * keep. The caller holds the engine. */
ht_status ht_engine_settle(ht_engine *engine, ht_error *error);

#endif
