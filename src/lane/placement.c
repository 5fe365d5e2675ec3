/* Who computes what. Until there is a planner: every operator whole, on the first device named that takes it; where a
 * device is slow with one token, decode and the head go to the next that takes them. A device that cannot keep its word
 * (a graph that does not compile, computes wrongly or finds no memory) loses that operator to the next.
 *
 * Tasks are prepared once and shared by both programs. What the first request needs is built before the engine is
 * there; other static lengths follow in the background. */
#include "lane/lane.h"

#include <stdlib.h>
#include <string.h>

ht_slice ht_whole_slice(const ht_op *op) {
    if (op->kind == HT_OP_MATMUL)
        return (ht_slice){.row_end = ht_op_rows(op), .reduction_end = ht_op_cols(op)};
    if (op->kind == HT_OP_FFN)
        return (ht_slice){.row_end = op->members[0].parts[0].rows};
    return (ht_slice){0};
}

const char *ht_device_refuses_whole(const ht_device *device, const ht_op *op) {
    const ht_slice slice = ht_whole_slice(op);
    return device->ops->refuses ? device->ops->refuses(device, op, &slice) : NULL;
}

bool ht_lanes_take_all(const ht_lanes *set, uint32_t devices) {
    for (size_t i = 0; i < set->model->n_ops; i++) {
        bool taken = false;
        for (size_t d = 0; d < set->n_devices && !taken; d++)
            taken = devices >> d & 1 && !ht_device_refuses_whole(set->devices[d], &set->model->ops[i]);
        if (!taken)
            return false;
    }
    return true;
}

/* ---- choosing
 * ------------------------------------------------------------------------------------------------------------ */

/* From task number `near` on, around: layers ask for their tasks in the order in which these were made. */
static ht_slice_task *find_slice(const ht_lanes *set, int device, const ht_op *op, const ht_slice *slice, size_t near) {
    for (size_t k = 0, i = near; k < set->n_tasks; k++, i++) {
        i = i < set->n_tasks ? i : 0;
        if (set->tasks[i].device == device && set->tasks[i].op == op &&
            !memcmp(&set->tasks[i].slice, slice, sizeof *slice))
            return &set->tasks[i];
    }
    return NULL;
}

static ht_slice_task *find_task(const ht_lanes *set, int device, const ht_op *op) {
    const ht_slice whole = ht_whole_slice(op);
    return find_slice(set, device, op, &whole, 0);
}

/* The operator itself, or the block that it is a part of. */
static bool is_dropped(const ht_lanes *set, int device, const ht_op *op) {
    if (!set->any_dropped)
        return false;
    const ht_slice_task *task = find_task(set, device, op);
    if (task && task->dropped)
        return true;
    const ht_block *block = ht_op_block(set->model, op);
    if (!block || !block->fused || op < block->fused->members || op >= block->fused->members + 3)
        return false;
    task = find_task(set, device, block->fused);
    return task && task->dropped;
}

/* Why the device leaves the operator, or one that it stands for, to another; NULL: it does not. */
static const char *why_left(const ht_lanes *set, size_t d, const ht_op *op) {
    const char *why = NULL;
    if (!set->left)
        return NULL;
    for (size_t i = 0; op->kind == HT_OP_FFN && i < 3 && !why; i++)
        why = why_left(set, d, &op->members[i]);
    if (op->kind == HT_OP_FFN)
        return why;
    const ht_leavers *left = &set->left[op - set->model->ops];
    return left->placed >> d & 1 ? "placed elsewhere by --place"
           : left->slow >> d & 1 ? set->quicker[d]
           : left->full >> d & 1 ? "there is no room for it, by limit= or in the device's own memory"
                                 : NULL;
}

/* The device of the lane that computes what a device which leaves some of EXPERTS has left; -1: there is none. */
static int choose_adder(const ht_lanes *set, const ht_lane *lane, const ht_op *op) {
    for (size_t d = 0; d < set->n_devices; d++)
        if (lane->devices >> d & 1 && ht_lanes_caps(set, d)->adds && !ht_device_refuses_whole(set->devices[d], op) &&
            !is_dropped(set, (int)d, op))
            return (int)d;
    return -1;
}

static bool leaves_some(const ht_lanes *set, size_t device, const ht_op *op) {
    return op->kind == HT_OP_EXPERTS && ht_lanes_caps(set, device)->leaves;
}

/* Why the device does not compute the operator; NULL: it does. */
static const char *why_not(const ht_lanes *set, const ht_lane *lane, size_t d, const ht_op *op) {
    const char *refusal = ht_device_refuses_whole(set->devices[d], op);
    if (!refusal && is_dropped(set, (int)d, op))
        refusal = "it failed there, or found no memory";
    if (!refusal)
        refusal = why_left(set, d, op);
    if (!refusal && leaves_some(set, d, op) && choose_adder(set, lane, op) < 0)
        refusal = "nobody beside it computes what is past the capacity of its graphs";
    return refusal;
}

/* Is it slow with a single token? Then that belongs elsewhere. */
static bool is_for_many(const ht_lanes *set, size_t d, const ht_op *op) {
    return ht_lanes_caps(set, d)->many_only || leaves_some(set, d, op);
}

/* The lane's devices in the order in which they are asked: those first for which the planner said what fits, for the
 * others would take all. Number k of them, or -1. */
static int asked_at(const ht_lanes *set, const ht_lane *lane, size_t k) {
    for (int bounded = 1; bounded >= 0; bounded--)
        for (size_t d = 0; d < set->n_devices; d++)
            if (lane->devices >> d & 1 && (*set->quicker[d] != 0) == bounded && k-- == 0)
                return (int)d;
    return -1;
}

int ht_lane_leaver(const ht_lanes *set, const ht_lane *lane, const ht_op *op, ht_form form, int device,
                   const char **why) {
    for (int k = 0, d; (d = asked_at(set, lane, (size_t)k)) >= 0 && d != device; k++) {
        *why = why_not(set, lane, (size_t)d, op);
        if (!*why && form == HT_FORM_ONE && is_for_many(set, (size_t)d, op))
            *why = "slow with a single token";
        if (*why)
            return d;
    }
    return -1;
}

/* The first device of the lane that takes op in this form, or -1 and why the last one does not. */
static int choose_device(const ht_lanes *set, const ht_lane *lane, const ht_op *op, ht_form form, const char **why) {
    int slow = -1;
    *why = "no device";
    for (int k = 0, d; (d = asked_at(set, lane, (size_t)k)) >= 0; k++) {
        const char *refusal = why_not(set, lane, (size_t)d, op);
        if (refusal)
            *why = refusal;
        else if (form == HT_FORM_MANY || !is_for_many(set, (size_t)d, op))
            return d;
        else if (slow < 0)
            slow = d;
    }
    return slow;
}

/* What is held of the task, where it is not there. */
static ht_status prepare(ht_lanes *set, ht_slice_task *task, ht_error *error) {
    ht_device *d = set->devices[task->device];
    const ht_slice *slice = task->holds == HT_HOLDS_SOME ? &task->held : &task->slice;
    if (task->task || task->dropped || task->holds == HT_HOLDS_NONE)
        return HT_OK;
    ht_status status = d->ops->prepare(d, task->op, slice, &task->task, error);
    if (!status)
        ht_op_drop_pages(task->op); /* the device has a copy of its own now */
    return status;
}

ht_status ht_lanes_prepare_steps(ht_lanes *set, ht_step *steps, size_t n, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t i = 0; i < n && !status; i++) {
        if (steps[i].task)
            continue;
        ht_slice_task *task = find_slice(set, steps[i].device, steps[i].op, &steps[i].slice, set->next_task);
        status = task ? prepare(set, task, error) : HT_OK;
        steps[i].task = task ? task->task : NULL;
    }
    return status;
}

ht_status ht_lanes_task(ht_lanes *set, int device, const ht_op *op, const ht_slice *slice, ht_slice_task **out,
                        ht_error *error) {
    if ((*out = find_slice(set, device, op, slice, set->next_task))) {
        set->next_task = (size_t)(*out - set->tasks) + 1;
        return set->late ? HT_OK : prepare(set, *out, error);
    }
    ht_status status =
        ht_grow((void **)&set->tasks, &set->cap_tasks, set->n_tasks + 1, sizeof *set->tasks, "a program", error);
    if (status)
        return status;
    ht_slice_task *task = &set->tasks[set->n_tasks];
    *task = (ht_slice_task){.device = device, .op = op, .slice = *slice};
    status = set->late ? HT_OK : prepare(set, task, error);
    if (status)
        return status;
    set->n_tasks++;
    *out = task;
    return HT_OK;
}

static ht_status get_task(ht_lanes *set, int device, const ht_op *op, ht_slice_task **out, ht_error *error) {
    const ht_slice whole = ht_whole_slice(op);
    return ht_lanes_task(set, device, op, &whole, out, error);
}

ht_status ht_lane_step(ht_lanes *set, const ht_lane *lane, const ht_op *op, ht_step *step, ht_error *error) {
    const char *why;
    const int device = choose_device(set, lane, op, HT_FORM_MANY, &why);
    if (device < 0)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s: no device in use takes this operator (%s)", op->name, why);
    *step = (ht_step){.op = op, .device = device, .slice = ht_whole_slice(op)};
    const ht_device *d = set->devices[device];
    if (op->kind == HT_OP_MATMUL && !d->ops->caps(d)->divisible)
        return HT_OK; /* a share of it will be asked for */
    ht_slice_task *task;
    ht_status status = get_task(set, device, op, &task, error);
    if (!status)
        step->task = task->task;
    return status;
}

/* The operator that stands at ops[i] of the model in this form: what its block can have as one, where the device that would
 * compute the first part takes all of it. */
static const ht_op *operator_at(const ht_lanes *set, const ht_lane *lane, size_t i, ht_form form) {
    const ht_op *op = &set->model->ops[i];
    const ht_block *block = ht_op_block(set->model, op);
    const char *why;
    if (!block || !block->fused || i != block->first + block->fused_from || set->ffn_apart)
        return op;
    const int device = choose_device(set, lane, block->fused, form, &why);
    return device >= 0 && device == choose_device(set, lane, op, form, &why) ? block->fused : op;
}

/* Behind the program's last step, where that leaves some of its operator: the same on another device, which adds the
 * rest. */
static ht_status add_rest(ht_lanes *set, ht_lane *lane, ht_program *program, ht_error *error) {
    ht_step *step = &program->steps[program->n_steps - 1];
    const int device = choose_adder(set, lane, step->op);
    ht_slice_task *task;
    if (!leaves_some(set, (size_t)step->device, step->op))
        return HT_OK;
    ht_status status = ht_lane_make_left(set, lane, error);
    if (!status)
        status = get_task(set, device, step->op, &task, error);
    if (status)
        return status;
    step->leaves = true;
    program->steps[program->n_steps++] =
        (ht_step){.op = step->op, .device = device, .slice = task->slice, .task = task->task, .rest = true};
    return HT_OK;
}

static size_t program_number(const ht_lanes *set, const ht_lane *lane, ht_form form) {
    return (size_t)(lane - set->lanes) * HT_FORMS + form;
}

static ht_status make_program(ht_lanes *set, ht_lane *lane, ht_form form, const ht_engine_options *options,
                              ht_error *error) {
    const ht_model *model = set->model;
    ht_program *program = &lane->programs[form];
    ht_status status = HT_OK;
    status = ht_grow((void **)&program->steps, &program->cap_steps, 2 * model->n_ops, sizeof *program->steps,
                     "a program", error); /* some have two steps */
    program->n_steps = 0;
    for (size_t i = 0; i < model->n_ops && !status; i++) {
        const ht_form here = i + HT_HEAD_STEPS >= model->n_ops ? HT_FORM_ONE : form; /* the head takes few tokens */
        const ht_op *op = operator_at(set, lane, i, here);
        const char *why;
        const int device = choose_device(set, lane, op, here, &why);
        if (device < 0)
            return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s: no device in use takes this operator (%s)", op->name, why);
        ht_slice_task *task;
        status = get_task(set, device, op, &task, error);
        if (status)
            break;
        program->steps[program->n_steps++] =
            (ht_step){.op = op, .device = device, .slice = task->slice, .task = task->task};
        status = add_rest(set, lane, program, error);
        if (op != &model->ops[i]) {
            const ht_block *block = ht_op_block(model, op);
            i = block->first + block->fused_to - 1;
        }
        if (options->progress && !set->late &&
            !options->progress("loading", (double)(program_number(set, lane, form) * model->n_ops + i + 1),
                               (double)(HT_FORMS * set->n_lanes * model->n_ops), options->progress_user))
            return ht_fail(error, HT_ERROR_CANCELLED, "loading was stopped");
    }
    program->head = status ? 0 : program->n_steps - HT_HEAD_STEPS;
    return status;
}

/* ---- warming
 * ------------------------------------------------------------------------------------------------------------- */

typedef ht_status (*warm_function)(ht_device *device, ht_task *task, size_t tokens, ht_error *error);

/* Calls `function` (a device's warm or settle) for one step and every number of tokens that it will soon see. */
static ht_status for_expected(const ht_lanes *set, const ht_engine_options *options, ht_form form, const ht_step *step,
                              bool settle, ht_error *error) {
    ht_device *device = set->devices[step->device];
    const ht_device_caps *caps = device->ops->caps(device);
    const warm_function function = settle ? device->ops->settle : device->ops->warm;
    ht_task *task = step->task;
    const size_t chunk = set->chunk;
    if (!function)
        return HT_OK;
    if (set->n_lanes > 1 && caps->n_lengths) /* the planner says which, later */
        return HT_OK;
    if (form == HT_FORM_ONE || step->op->layer < 0)
        return function(device, task, 1, error);
    ht_status status = HT_OK;
    for (size_t i = 0; i < options->n_prompts && !status; i++) {
        const size_t n = (size_t)options->prompts[i];
        if (n >= chunk)
            status = function(device, task, chunk, error);
        if (n % chunk > 1 && !status)
            status = function(device, task, n % chunk, error);
    }
    if (!options->n_prompts && !caps->n_lengths)
        status = function(device, task, chunk, error);
    else if (!options->n_prompts) /* any prompt: pieces of this, until the other lengths are there */
        status = function(device, task, (size_t)caps->lengths[caps->n_lengths / 2], error);
    return status;
}

/* Other static lengths, in the background: shorter ones first, for most prompts are short. */
static void warm_the_rest(const ht_lanes *set) {
    const ht_program *program = &set->lanes[0].programs[HT_FORM_MANY]; /* with several lanes all are there */
    for (size_t k = 0;; k++) {
        bool any = false;
        for (size_t i = 0; i < program->n_steps; i++) {
            ht_device *device = set->devices[program->steps[i].device];
            const ht_device_caps *caps = device->ops->caps(device);
            if (k >= caps->n_lengths || program->steps[i].op->layer < 0)
                continue;
            any = true;
            if (caps->lengths[k] > 1)
                device->ops->warm(device, program->steps[i].task, (size_t)caps->lengths[k], NULL);
        }
        if (!any)
            return;
    }
}

/* Everything that the first requests need. Tasks that turn out impossible are dropped: *dropped counts them. */
static ht_status warm_programs(ht_lanes *set, const ht_engine_options *options, size_t *dropped, ht_error *first,
                               ht_error *error) {
    for (int settle = 0; settle < 2; settle++)
        for (size_t p = 0; p < set->n_lanes * HT_FORMS; p++) {
            const int form = (int)(p % HT_FORMS);
            const ht_program *program = &set->lanes[p / HT_FORMS].programs[form];
            for (size_t i = 0; i < program->n_steps; i++) {
                const ht_step *step = &program->steps[i];
                const int device = step->device;
                if (is_dropped(set, device, step->op) || !step->task)
                    continue;
                ht_error failure = {0};
                ht_status status = for_expected(set, options, (ht_form)form, step, settle, &failure);
                if (settle)
                    ht_op_drop_pages(step->op);
                if (!status)
                    continue;
                if (set->n_devices == 1 || status == HT_ERROR_CANCELLED) {
                    if (error)
                        *error = failure;
                    return status;
                }
                if (!*dropped)
                    *first = failure;
                find_task(set, device, step->op)->dropped = set->any_dropped = true;
                ++*dropped;
            }
        }
    return HT_OK;
}

static void release_task(ht_lanes *set, ht_slice_task *task) {
    if (task->task)
        set->devices[task->device]->ops->release(set->devices[task->device], task->task);
    task->task = NULL;
}

void ht_lanes_release_late(ht_lanes *set) {
    for (size_t t = 0; t < set->n_tasks && set->late; t++)
        release_task(set, &set->tasks[t]);
}

void ht_lanes_hold(ht_lanes *set, ht_slice_task *task, ht_holding holds, const ht_slice *held) {
    if (task->holds != holds || (holds == HT_HOLDS_SOME && memcmp(&task->held, held, sizeof *held) != 0))
        release_task(set, task);
    task->holds = holds;
    task->held = *held;
}

void ht_lanes_hold_all(ht_lanes *set, uint32_t devices) {
    for (size_t t = 0; t < set->n_tasks; t++)
        if (devices >> set->tasks[t].device & 1)
            ht_lanes_hold(set, &set->tasks[t], HT_HOLDS_ALL, &set->tasks[t].slice);
}

void ht_lanes_drop_tasks(ht_lanes *set, size_t first) {
    while (set->n_tasks > first)
        release_task(set, &set->tasks[--set->n_tasks]);
}

void ht_lanes_drop_shares(ht_lanes *set) {
    size_t kept = 0;
    for (size_t t = 0; t < set->n_tasks; t++) {
        ht_slice_task *task = &set->tasks[t];
        const ht_slice whole = ht_whole_slice(task->op);
        const ht_device *device = set->devices[task->device];
        if (device->ops->caps(device)->n_lengths && memcmp(&whole, &task->slice, sizeof whole) != 0)
            release_task(set, task);
        else
            set->tasks[kept++] = *task;
    }
    set->n_tasks = kept;
}

/* The programs' steps have another task from now on. */
static void replace_task(ht_lanes *set, const ht_task *old, ht_task *task) {
    for (size_t l = 0; l < set->n_lanes; l++)
        for (size_t p = 0; p < HT_FORMS; p++) {
            ht_program *program = &set->lanes[l].programs[p];
            for (size_t k = 0; k < program->n_steps; k++)
                if (program->steps[k].task == old)
                    program->steps[k].task = task;
        }
}

ht_status ht_lanes_drop_graphs(ht_lanes *set, ht_error *error) {
    ht_status status = HT_OK;
    ht_lanes_drop_shares(set);
    for (size_t t = 0; t < set->n_tasks && !status; t++) {
        ht_slice_task *task = &set->tasks[t];
        ht_device *device = set->devices[task->device];
        ht_task *old = task->task;
        if (!old || task->dropped || !device->ops->caps(device)->n_lengths)
            continue;
        device->ops->release(device, old);
        task->task = NULL;
        status = device->ops->prepare(device, task->op, &task->slice, &task->task, error);
        replace_task(set, old, task->task);
    }
    return status;
}

ht_status ht_lanes_place(ht_lanes *set, const ht_engine_options *options, ht_error *error) {
    ht_status status = HT_OK;
    size_t dropped = 0;
    ht_error first = {0};
    for (bool again = true; again && !status;) {
        for (size_t l = 0; l < set->n_lanes && !status; l++)
            status = ht_lanes_place_lane(set, &set->lanes[l], options, error);
        const size_t before = dropped;
        if (!status)
            status = warm_programs(set, options, &dropped, &first, error);
        again = dropped > before;
        for (size_t i = 0; i < set->n_tasks; i++)
            if (set->tasks[i].dropped)
                release_task(set, &set->tasks[i]);
    }
    if (status)
        return status;
    if (dropped)
        ht_log(HT_LOG_WARN, "%zu operator%s moved to another device: %s", dropped, dropped > 1 ? "s are" : " is",
               first.text);
    if (!options->n_prompts && set->n_lanes == 1)
        warm_the_rest(set);
    return HT_OK;
}

uint64_t ht_lanes_task_bytes(const ht_lanes *set) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < set->n_tasks; i++) {
        const ht_slice_task *task = &set->tasks[i];
        const ht_device_ops *ops = set->devices[task->device]->ops;
        bytes += task->task && ops->task_bytes ? ops->task_bytes(task->task) : 0;
    }
    return bytes;
}

ht_status ht_lanes_place_lane(ht_lanes *set, ht_lane *lane, const ht_engine_options *options, ht_error *error) {
    ht_status status = HT_OK;
    for (int form = 0; form < HT_FORMS && !status; form++)
        status = make_program(set, lane, (ht_form)form, options, error);
    return status;
}

void ht_lanes_unplace(ht_lanes *set) {
    for (size_t i = 0; i < set->n_tasks; i++)
        release_task(set, &set->tasks[i]);
    free(set->tasks);
    free(set->left);
    for (size_t l = 0; l < set->n_lanes; l++)
        ht_lane_free_left(set, &set->lanes[l]);
    for (size_t p = 0; p < set->n_lanes * HT_FORMS; p++)
        free(set->lanes[p / HT_FORMS].programs[p % HT_FORMS].steps);
}

bool ht_lanes_use(const ht_lanes *set, size_t device, bool cache_only) {
    if (!set->lanes[0].programs[HT_FORM_ONE].n_steps) /* nothing is placed yet: it may */
        return true;
    for (size_t p = 0; p < set->n_lanes * HT_FORMS; p++) {
        const ht_program *program = &set->lanes[p / HT_FORMS].programs[p % HT_FORMS];
        for (size_t i = 0; i < program->n_steps; i++) {
            const ht_step *step = &program->steps[i];
            const bool cached = (ht_op_reads(step->op) | ht_op_writes(step->op)) & HT_BIT_KV;
            if (step->device == (int)device && (cached || !cache_only))
                return true;
        }
    }
    return false;
}
