/* Lanes: the devices of an engine, grouped so that each group computes the whole model, with the buffers, caches and
 * prepared tasks that they work on.
 *
 * What is here knows where an operator can be computed and what moves for it, but not how a pass is divided between lanes
 * (src/pass). Who calls holds the lanes (ht_lanes_lock), unless it says otherwise; while an engine is created nobody else
 * has it. */
#ifndef HT_LANE_H
#define HT_LANE_H

#include "base/turns.h"
#include "device/common.h"
#include "plan/plan.h"

#include <stdatomic.h>

#define HT_MAX_DEVICES 8 /* of an engine */
_Static_assert(HT_MAX_DEVICES == HT_MAX_LANES, "each device may have a lane of its own");
#define HT_LANE_SUMS 2

/* ---- programs
 * ---------------------------------------------------------------------------------------------------------- */

/* One operator, or a slice of it, on one device. The fields of the second half are for passes that several lanes share. */
typedef struct ht_step {
    const ht_op *op;
    int device; /* index into ht_lanes.devices */
    ht_slice slice;
    ht_task *task;
    /* Of its binding (device.h): what need not move on devices with memory of their own. */
    uint32_t resident, kept;
    bool yields; /* likewise */

    /* EXPERTS: what is past the capacity of its device's graphs is left to the next step; that one computes the rest,
     * and adds it. Nothing stands between the two. */
    bool leaves, rest;

    bool divides;  /* only `part` of the task */
    bool own;      /* slots that every lane has all of are the lane's own: every lane computes the same norms */
    uint8_t feeds; /* not 0: they are those of lane number feeds - 1 of the pass, which cannot fill them itself */
    /* NORM, of slot number k that it adds: what lane i of the pass wrote to its buffer number sums[k] - 1, for every
     * bit i; others, k = 0: write to lane i's. */
    uint8_t adds[HT_MAX_ADDED];
    uint32_t publishes;         /* not 0: how far the lane is once this is complete, for the others to know */
    uint8_t sums[HT_MAX_ADDED]; /* its slots of sums are 0: the shared ones; else the lane's own, number sums[k] - 1 */
    uint8_t waits;              /* bit i: begins once lane i of the pass has published `need` times */
    uint32_t need;
    uint32_t begin, end; /* tokens of the pass; 0, 0: all */
    ht_slice part;
} ht_step;

/* Steps in order. A lane's own programs are a whole forward pass, each operator whole; those of a schedule (src/pass)
 * are one lane's part of a pass that several share. */
typedef struct ht_program {
    ht_step *steps;
    size_t n_steps, cap_steps;
    /* Of a lane's own: the first step that only tokens need whose logits are wanted, the last layer's ATTENTION; `head`:
     * every token runs all steps. */
    size_t tail;
    size_t head; /* where the head begins: of a lane's own, the last HT_HEAD_STEPS */
} ht_program;

#define HT_HEAD_STEPS 3 /* final norm, lm_head, argmax */

/* A lane has two programs, by the tokens of a pass: devices that are slow with one leave it to others. */
typedef enum ht_form { HT_FORM_ONE, HT_FORM_MANY, HT_FORMS } ht_form;

/* ---- a lane
 * ------------------------------------------------------------------------------------------------------------ */

/* How far the devices of a lane have been given work. */
typedef struct ht_front {
    ht_ticket newest[HT_MAX_DEVICES]; /* 0: nothing under way that anyone must wait for */
    ht_ticket mark[HT_MAX_DEVICES];   /* the front some steps ago: devices may be ahead of it, not behind */
} ht_front;

/* Devices that together compute every operator, on cores of their own: a whole device, or a partial one and the CPU that
 * does the rest on the same cores. Lanes that share no core may compute parts of a pass at the same time. */
typedef struct ht_lane {
    uint32_t devices; /* bit d: ht_lanes.devices[d] */
    ht_cores cores;   /* of the machine, that it occupies */
    bool lost;        /* one of its devices failed: it takes no part any more */
    bool crowded;     /* a device's own threads compute on these cores: the lane's thread must not poll meanwhile */
    ht_program programs[HT_FORMS];
    ht_front front;
    ht_lane_cost cost;  /* what its operators take (plan/cost.c) */
    ht_lane_cost whole; /* the same, with the lengths only whose graphs of whole operators are there */
    /* By slots, no data: not allocated, or of another role. Where every lane computes the residual stream: */
    ht_view own[HT_MAX_SLOTS];
    /* [chunk][experts]: what one device of the lane leaves to another (ht_binding.left); no data: none does. */
    ht_view left;
    size_t left_bytes;
    ht_view sums[HT_LANE_SUMS][HT_MAX_SLOTS]; /* partial sums, of one block and the next in turn */
} ht_lane;

/* ---- all lanes
 * --------------------------------------------------------------------------------------------------------- */

/* How much of a task's slice its lane is to hold: plans ask for no more. */
typedef enum ht_holding { HT_HOLDS_ALL, HT_HOLDS_SOME, HT_HOLDS_NONE } ht_holding;

/* A slice prepared on a device: steps of several programs may share it. */
typedef struct ht_slice_task {
    int device;
    const ht_op *op;
    ht_slice slice;
    ht_holding holds;
    ht_slice held; /* HT_HOLDS_SOME: what is prepared */
    ht_task *task; /* NULL: not prepared as yet (ht_lanes.late), or never */
    bool dropped;  /* its device could not do what it said it could */
} ht_slice_task;

/* Which devices leave an operator to others, by reason. Bit d: ht_lanes.devices[d]. */
typedef struct ht_leavers {
    uint32_t placed; /* a person placed it elsewhere */
    uint32_t slow;   /* there would be room, and another device of the lane is quicker: ht_lanes.quicker says which */
    uint32_t full;   /* there is no room */
} ht_leavers;

typedef struct ht_lanes {
    const ht_model *model;
    size_t chunk, context;      /* most tokens of a pass, and of a session */
    ht_kv_type kv_type;         /* of caches */
    ht_sync sync;               /* how devices are waited for; HT_SYNC_AUTO: as each lane was measured to be quickest */
    ht_clock *time;             /* of the devices; NULL: the machine's own */
    struct ht_machine *machine; /* of simulated devices */
    ht_device *devices[HT_MAX_DEVICES];
    size_t n_devices;
    uint64_t limits[HT_MAX_DEVICES];  /* bytes that a device may hold; 0: any number */
    ht_leavers *left;                 /* [operators of the model]; NULL: nothing is left by anyone */
    char quicker[HT_MAX_DEVICES][96]; /* why a device leaves what it would have room for: "quicker on cpu" */
    atomic_uint failed;               /* bit d: device d has failed since the last recovery */
    ht_lane lanes[HT_MAX_DEVICES];    /* in the order in which they take tokens */
    size_t n_lanes;
    bool ffn_apart; /* what a block could have as one operator never is: the cuts asked for are of single matrices */
    ht_slice_task *tasks;
    size_t n_tasks, cap_tasks;
    size_t next_task;            /* behind the one that was found last: where the next is likely to be */
    bool any_dropped;            /* of the tasks */
    bool late;                   /* tasks are not prepared yet, for it is to be found out what lanes hold */
    ht_view slots[HT_MAX_SLOTS]; /* of the model: one pool of buffers, which every layer uses again */
    size_t slot_bytes[HT_MAX_SLOTS];
    uint64_t buffer_bytes; /* of slots and of the lanes' own buffers */
    ht_turns turns;        /* one pass at a time: sessions take turns */
} ht_lanes;

/* What is true of some devices (bits) together. */
typedef struct ht_device_facts {
    ht_cores cores;
    size_t granule;                    /* the largest; 0: any number of tokens */
    int static_device;                 /* the first with static lengths; -1: none */
    const ht_device_caps *static_caps; /* its; NULL: none */
    bool many_only;                    /* one is slow with a single token */
    bool copies;                       /* one has memory of its own */
    bool own_threads;                  /* one computes on cores of the machine in threads of its own */
} ht_device_facts;
ht_device_facts ht_lanes_facts(const ht_lanes *set, uint32_t devices);
static inline const ht_device_caps *ht_lanes_caps(const ht_lanes *set, size_t device) {
    return set->devices[device]->ops->caps(set->devices[device]);
}

/* Closes the devices and frees all that the lanes hold; nothing is under way. */
void ht_lanes_close(ht_lanes *set);
/* Takes and gives the lanes for one or more passes, in the order in which they were asked for. Any thread. */
void ht_lanes_lock(ht_lanes *set);
void ht_lanes_unlock(ht_lanes *set);

/* Waits until every device has reached tickets[] [n_devices], whatever comes of the others; the first error. */
ht_status ht_lanes_wait(ht_lanes *set, const ht_ticket *tickets, ht_sync sync, ht_error *error);
/* The same of what the lane gave its devices. */
ht_status ht_lane_join(ht_lanes *set, ht_lane *lane, ht_sync sync, ht_error *error);
/* The same of all lanes. */
ht_status ht_lanes_join(ht_lanes *set, ht_sync sync, ht_error *error);
/* Everything under way ends, whatever comes of it. */
void ht_lanes_settle(ht_lanes *set);
/* How a lane is waited for: as was asked for, else as was measured to be quickest. */
static inline ht_sync ht_lane_sync(const ht_lanes *set, const ht_lane *lane) {
    return set->sync == HT_SYNC_AUTO ? lane->cost.sync : set->sync;
}
/* ht_stay_on the lane's cores: a lane's thread would else take time from another lane's devices. Cores of a simulated
 * machine are not this one's. */
void ht_stay_on_cores(const ht_lanes *set, const ht_lane *lane, ht_stay *stay);

/* ---- pages (pages.c)
 * --------------------------------------------------------------------------------------------------- */

/* Pages for a buffer that every device of the set sees. The view has them also where a device fails. */
ht_status ht_lanes_make_view(ht_lanes *set, size_t bytes, size_t stride, ht_view *view, ht_error *error);
/* lane->left, where it is not there; and away with it, while its devices are open. */
ht_status ht_lane_make_left(ht_lanes *set, ht_lane *lane, ht_error *error);
void ht_lane_free_left(ht_lanes *set, ht_lane *lane);

/* ---- buffers and caches (buffers.c)
 * ------------------------------------------------------------------------------------ */

#define HT_HEAD_TOKENS 32 /* most tokens of one head: logits are wide */

/* Rows of a slot's buffer, what lies between two of them in elements, and bytes, whether it is there or not (held.c). */
size_t ht_lanes_slot_tokens(const ht_lanes *set, ht_slot slot);
size_t ht_lanes_slot_stride(const ht_lanes *set, ht_slot slot);
size_t ht_lanes_slot_bytes(const ht_lanes *set, ht_slot slot);
uint64_t ht_lanes_pool_bytes(const ht_lanes *set); /* of all of them */
/* The pool, which every device sees. */
ht_status ht_lanes_make_slots(ht_lanes *set, ht_error *error);
void ht_lanes_free_slots(ht_lanes *set);
void ht_lanes_clear_ids(ht_lanes *set); /* tokens whose ids nobody has given are number 0 */
/* Buffers of each lane's own, for passes in which every lane computes the residual stream. */
ht_status ht_lanes_make_buffers(ht_lanes *set, ht_error *error);
void ht_lane_free_buffers(ht_lanes *set, ht_lane *lane);

uint64_t ht_kv_bytes(const ht_lanes *set); /* of one session's keys, values and states */
/* Keys, values and states of one session: [caches of the model]. Pages are touched as tokens arrive. Both take the
 * lanes for a moment: devices import and forget the pages. Any thread. */
ht_status ht_kv_create(ht_lanes *set, ht_kv_layer **kv, ht_error *error);
void ht_kv_destroy(ht_lanes *set, ht_kv_layer *kv);
/* The same for who holds the lanes already. */
ht_status ht_kv_create_locked(ht_lanes *set, ht_kv_layer **kv, ht_error *error);
void ht_kv_destroy_locked(ht_lanes *set, ht_kv_layer *kv);
/* Is all that sequences keep in the host's memory, so that it may copy it? No device has a copy of its own. What
 * follows is for such lanes only, while nothing is under way. */
bool ht_kv_is_hosts(const ht_lanes *set);
/* Each run of bytes that is kept of tokens [from, to), and its place in a twin (NULL: none), until one call is false;
 * states, which stand for all tokens, with those from token 0 on. */
typedef bool (*ht_kv_function)(void *data, void *twin, size_t bytes, void *user);
bool ht_kv_each(const ht_lanes *set, const ht_kv_layer *kv, const ht_kv_layer *twin, size_t from, size_t to,
                ht_kv_function call, void *user);
/* What `from` keeps of its first n tokens; states, which stand for all of its tokens, as they are. */
void ht_kv_copy(const ht_lanes *set, ht_kv_layer *to, const ht_kv_layer *from, size_t n);
/* Gives memory back in which nothing is kept of tokens before `n`, and says whether it could: not where a device may
 * hold on to it. */
bool ht_kv_drop(const ht_lanes *set, ht_kv_layer *kv, size_t n);

/* ---- placement (placement.c)
 * ------------------------------------------------------------------------------------------- */

/* A lane's program for `tokens` tokens. */
static inline const ht_program *ht_lane_program(const ht_lane *lane, size_t tokens) {
    return &lane->programs[tokens > 1 ? HT_FORM_MANY : HT_FORM_ONE];
}
ht_slice ht_whole_slice(const ht_op *op);
/* Why the device does not compute the operator whole; NULL: it does. */
const char *ht_device_refuses_whole(const ht_device *device, const ht_op *op);
/* The first device of the lane before `device` that is not used for the operator in this form, and why; -1: `device` is
 * the first. */
int ht_lane_leaver(const ht_lanes *set, const ht_lane *lane, const ht_op *op, ht_form form, int device,
                   const char **why);
#define HT_REST_REASON "past the capacity of its graphs"
/* Does any of these devices (bits) compute each of the model's operators? */
bool ht_lanes_take_all(const ht_lanes *set, uint32_t devices);
/* Is the device part of any program; cache_only: of its steps that have to do with caches? */
bool ht_lanes_use(const ht_lanes *set, size_t device, bool cache_only);
/* Fills the lanes' programs, prepares their tasks, builds what the first requests need. */
ht_status ht_lanes_place(ht_lanes *set, const ht_engine_options *options, ht_error *error);
void ht_lanes_unplace(ht_lanes *set); /* nothing is under way */
/* Fills one lane's programs anew, after it has lost a device. */
ht_status ht_lanes_place_lane(ht_lanes *set, ht_lane *lane, const ht_engine_options *options, ht_error *error);
uint64_t ht_lanes_task_bytes(const ht_lanes *set);     /* memory that all tasks hold */
uint64_t ht_lanes_matrix_bytes(const ht_model *model); /* of all matrices, as the file has them */
uint64_t ht_lanes_file_bytes(const ht_model *model);   /* the same, a matrix that two operators read once */
/* Is the operator's only matrix what an EMBED reads, too? */
bool ht_op_is_table(const ht_model *model, const ht_op *op);
uint64_t ht_lanes_weight_bytes(const ht_lanes *set, size_t device); /* of one device's tasks */
/* What one device holds: its tasks, the keys, values and states of one session that it computes with, and where it has
 * memory of its own a copy of the pool. */
uint64_t ht_lanes_device_bytes(const ht_lanes *set, size_t device);
/* Of one session, bytes of what one cache has: as much as who writes it needs. */
typedef struct ht_cache_bytes {
    size_t keys, values, state;
    size_t kv_heads;
} ht_cache_bytes;
ht_cache_bytes ht_lanes_cache(const ht_lanes *set, size_t cache);
uint64_t ht_lanes_cache_bytes(const ht_lanes *set, size_t cache); /* of all of it */
/* Of the whole model with one session's caches and the pool, by what the file takes: devices may keep weights in
 * forms that are a little larger. */
uint64_t ht_lanes_model_bytes(const ht_lanes *set);
/* May device d hold that, and a third more? */
bool ht_lanes_fits(const ht_lanes *set, size_t d);
/* A task of a slice of op on a device, prepared now if it is not there. */
ht_status ht_lanes_task(ht_lanes *set, int device, const ht_op *op, const ht_slice *slice, ht_slice_task **task,
                        ht_error *error);
/* Steps whose tasks are not there get them, whole: for measuring before it is known what lanes hold. And away with all of
 * these; nothing is under way. */
ht_status ht_lanes_prepare_steps(ht_lanes *set, ht_step *steps, size_t n, ht_error *error);
void ht_lanes_release_late(ht_lanes *set);
/* From now on the task is to hold this; it is gone until it is placed again if it holds something else. */
void ht_lanes_hold(ht_lanes *set, ht_slice_task *task, ht_holding holds, const ht_slice *held);
/* Releases tasks of these devices (bits) of which some is held only: whoever asks for them next gets them whole. */
void ht_lanes_hold_all(ht_lanes *set, uint32_t devices);
/* Releases tasks [first, n_tasks), which no program has. */
void ht_lanes_drop_tasks(ht_lanes *set, size_t first);
/* Releases all static graphs of shares; no schedule is there. */
void ht_lanes_drop_shares(ht_lanes *set);
/* Releases all static graphs, of whole operators, too; no schedule is there. Their tasks are prepared anew, so that
 * graphs are built when they are asked for. */
ht_status ht_lanes_drop_graphs(ht_lanes *set, ht_error *error);
/* The step of a part of a feed-forward block by itself, on the lane's device that takes it: whole, or where graphs are
 * static without a task yet. */
ht_status ht_lane_step(ht_lanes *set, const ht_lane *lane, const ht_op *op, ht_step *step, ht_error *error);

/* Fills the lanes' tables of whole operators with what graphs are there for (ready.c). */
void ht_lanes_keep_ready(ht_lanes *set);

/* ---- transfers (transfers.c)
 * ------------------------------------------------------------------------------------------- */

/* What moves between devices with memory of their own, and who hands over cores, worked out from who computes which step.
 * alone: as if this lane were the only one; NULL: all may write a cache. */
void ht_lanes_plan_transfers(ht_lanes *set, const ht_lane *alone);

#endif
