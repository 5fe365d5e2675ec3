/* From a choice of the planner to programs: for each lane the steps it runs, what it waits for, and when it tells.
 *
 * A lane's own program says which device and task computes an operator whole. Programs take tokens of it (TOKENS), or a part of
 * the task where the device divides, or a task of that very share where graphs are static. Nothing is allocated in steady
 * decode: schedules are kept, and their arrays grow only.
 */
#include "pass/pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define POSITIONS 256 /* passes this much further back are planned anew: attention costs more */
#define JOIN_SECONDS 3e-6
#define EXCHANGE_SECONDS \
    0.25e-9 /* a byte from core to core: what passes by shares took more than their parts; drift learns the machine's own */

typedef struct builder {
    ht_passes *passes;
    ht_schedule *schedule;
    const ht_choice *choice;
    size_t n, wanted; /* tokens; the last `wanted` go to the end of the last layer */
    uint32_t joins;   /* so far */
    uint8_t told;     /* lanes that publish at the newest join */
    uint8_t wrote[3]; /* lanes that wrote sums to their buffer k - 1 */
    ht_status status;
    ht_error *error;
} builder;

/* ---- pieces ----------------------------------------------------------------------------------------------------------------- */

static ht_step *append(builder *b, size_t i, const ht_step *step) {
    ht_program *program = &b->schedule->programs[i];
    if (b->status)
        return NULL;
    b->status = ht_grow((void **)&program->steps, &program->cap_steps, program->n_steps + 1, sizeof *program->steps,
                        "a program", b->error);
    if (b->status)
        return NULL;
    program->steps[program->n_steps] = *step;
    return &program->steps[program->n_steps++];
}

/* The step of the lane's program that computes `op`, or the block that it is in; NULL: none. */
static const ht_step *step_of(const ht_program *program, const ht_op *op, size_t near) {
    for (size_t k = 0; k < 2 * program->n_steps; k++) { /* outward from where it is likely to stand */
        const size_t i = k % 2 ? near + (k + 1) / 2 : near - k / 2;
        const ht_step *step = i < program->n_steps ? &program->steps[i] : NULL;
        if (step &&
            (step->op == op || (step->op->kind == HT_OP_FFN && op >= step->op->members && op < step->op->members + 3)))
            return step;
    }
    return NULL;
}

/* Where operator number `op` of the model is likely to stand in a program, which has blocks for some. */
static size_t near_of(const builder *b, const ht_program *program, size_t op) {
    return op * program->n_steps / b->passes->set->model->n_ops;
}

/* Units [begin, begin + n) of a segment, as a slice of the operator. */
static ht_slice part_of(const ht_passes *passes, ht_segment segment, const ht_op *op, size_t begin, size_t n) {
    return ht_units_slice(passes->set->model, segment, &passes->units[segment], op, begin, begin + n);
}

/* Is the part all of the operator? */
static bool is_whole(const ht_op *op, const ht_slice *part) {
    const ht_slice whole = ht_whole_slice(op);
    return part->of ? part->row_begin == 0 && part->row_end == part->of : !memcmp(part, &whole, sizeof whole);
}

/* Makes the step compute `part` of its operator only. */
static void take_part(builder *b, ht_step *step, const ht_slice *part) {
    const ht_device *device = b->passes->set->devices[step->device];
    if (is_whole(step->op, part) && step->task)
        return;
    if (device->ops->caps(device)->divisible) {
        step->divides = true;
        step->part = *part;
        return;
    }
    ht_slice_task *task;
    if (!b->status)
        b->status = ht_lanes_task(b->passes->set, step->device, step->op, part, &task, b->error);
    if (!b->status)
        step->slice = task->slice, step->task = task->task;
}

/* What the lanes had to tell at the last join is waited for by this step. */
static void wait_for(const builder *b, ht_step *step, size_t own) {
    step->waits = (uint8_t)(b->told & ~(1u << own));
    step->need = b->joins;
}

/* ---- TOKENS ------------------------------------------------------------------------------------------------------------------ */

static void add_range(builder *b, size_t i, const ht_program *program, size_t first, size_t end, size_t begin,
                      size_t to) {
    const bool last = i + 1 == b->choice->n_lanes;
    for (size_t k = first; k < end && begin < to; k++) {
        ht_step step = program->steps[k];
        step.begin = (uint32_t)begin;
        step.end = (uint32_t)to;
        if (step.op->kind == HT_OP_ROPE && !last)
            step.publishes = (uint32_t)step.op->layer + 1;
        if (step.op->kind == HT_OP_ATTENTION) {
            step.waits = (uint8_t)((1u << i) - 1);
            step.need = (uint32_t)step.op->layer + 1;
        }
        append(b, i, &step);
    }
}

static void build_tokens(builder *b) {
    size_t begin = 0;
    for (size_t i = 0; i < b->choice->n_lanes; i++) {
        const ht_lane *lane = b->schedule->lanes[i];
        const size_t tokens = b->choice->tokens[i], end = begin + tokens, first = ht_max_size(b->n - b->wanted, begin);
        const ht_program *program = ht_lane_program(lane, tokens);
        add_range(b, i, program, 0, program->tail, begin, end);
        if (first < end) {
            program = ht_lane_program(lane, end - first);
            add_range(b, i, program, program->tail, program->head, first, end);
        }
        b->schedule->programs[i].head = b->schedule->programs[i].n_steps;
        begin = end;
    }
}

/* ---- SHARES ------------------------------------------------------------------------------------------------------------------- */

/* Slots that no other lane reads or writes within a segment. */
static uint32_t private_slots(ht_segment segment) {
    const uint32_t stream = 1u << HT_SLOT_X | 1u << HT_SLOT_NORMED;
    switch (segment) {
    case HT_SEGMENT_HEADS:
    case HT_SEGMENT_TOKENS:
        return stream | 1u << HT_SLOT_QKV | 1u << HT_SLOT_ATTN;
    case HT_SEGMENT_FEATURES:
        return stream | 1u << HT_SLOT_FFN | 1u << HT_SLOT_ACT;
    case HT_SEGMENT_GATE_UP:
        return stream | 1u << HT_SLOT_FFN;
    default:
        return stream;
    }
}

typedef struct share {
    ht_segment segment;
    size_t lane, begin, units;
    uint8_t in, out; /* which buffers of sums the norm adds and the last matrix writes; 0: the shared one */
} share;

/* One operator of a segment, on one lane. */
static void add_share(builder *b, const share *s, const ht_program *program, const ht_op *op, size_t at, size_t first,
                      bool *any) {
    const ht_step *whole = step_of(program, op, near_of(b, program, at));
    if (!whole || b->status)
        return;
    ht_step step = *whole;
    if (step.op->kind == HT_OP_FFN && s->segment != HT_SEGMENT_FEATURES) { /* its parts go their own ways here */
        b->status = ht_lane_step(b->passes->set, b->schedule->lanes[s->lane], op, &step, b->error);
        if (b->status)
            return;
    } else if (step.op->kind == HT_OP_FFN && op != step.op->members) {
        return; /* came with the block */
    }
    const ht_class class = ht_class_of(step.op);
    const bool sums = class == HT_CLASS_OUT || class == HT_CLASS_DOWN || class == HT_CLASS_FFN;
    step.resident &= private_slots(s->segment);
    step.kept &= private_slots(s->segment);
    step.own = true;
    step.begin = (uint32_t)first;
    step.end = (uint32_t)b->n;
    if (class == HT_CLASS_NORM) {
        step.delta = s->in;
        step.adds = b->wrote[s->in];
    } else {
        const ht_slice part = part_of(b->passes, s->segment, step.op, s->begin, s->units);
        if (s->units == 0)
            return;
        step.delta = sums ? s->out : 0;
        take_part(b, &step, &part);
    }
    if (!*any)
        wait_for(b, &step, s->lane);
    *any = true;
    append(b, s->lane, &step);
}

/* One operator of an attention block that is cut by tokens: a lane tells the ones behind it when its keys and values are
 * there. */
static void add_tokens(builder *b, const share *s, const size_t *units, const ht_op *op, size_t at, size_t tail,
                       bool *any) {
    const ht_class class = ht_class_of(op);
    const size_t end = class == HT_CLASS_NORM ? b->n : s->begin + s->units;
    size_t begin = class == HT_CLASS_NORM ? 0 : s->begin;
    if (at >= tail)
        begin = ht_max_size(begin, b->n - b->wanted);
    if (begin >= end || b->status)
        return;
    const ht_program *program = ht_lane_program(b->schedule->lanes[s->lane], end - begin);
    ht_step step = *step_of(program, op, near_of(b, program, at));
    step.resident &= private_slots(s->segment);
    step.kept &= private_slots(s->segment);
    step.begin = (uint32_t)begin;
    step.end = (uint32_t)end;
    step.own = true;
    if (class == HT_CLASS_NORM)
        step.delta = s->in, step.adds = b->wrote[s->in];
    if (!*any)
        wait_for(b, &step, s->lane);
    if (class == HT_CLASS_OUT) /* every lane's tokens to the first one's buffer: others may still read the shared one */
        step.delta = s->out, step.adds = 1;
    if (class == HT_CLASS_ROPE && end < b->n)
        step.publishes = b->joins + 1;
    for (size_t i = 0; i < s->lane && class == HT_CLASS_ATTENTION; i++)
        if (units[i]) {
            step.waits |= (uint8_t)(1u << i);
            step.need = b->joins + 1;
        }
    *any = true;
    append(b, s->lane, &step);
}

/* Operators [from, to) of the model as a segment on all lanes, and a join. */
static void add_segment(builder *b, ht_segment segment, size_t from, size_t to, const size_t *units, uint8_t in,
                        uint8_t out, size_t tail) {
    const ht_model *model = b->passes->set->model;
    share s = {.segment = segment, .in = in, .out = out};
    uint8_t told = 0, wrote = 0;
    for (s.lane = 0; s.lane < b->choice->n_lanes; s.begin += units[s.lane++]) {
        bool any = false;
        s.units = units[s.lane];
        wrote |= (uint8_t)((s.units > 0) << s.lane);
        for (size_t op = from; op < to && !b->status; op++) {
            const size_t first = op >= tail ? b->n - b->wanted : 0;
            const size_t tokens = b->n - first;
            if (segment == HT_SEGMENT_TOKENS) {
                add_tokens(b, &s, units, &model->ops[op], op, tail, &any);
                continue;
            }
            const ht_program *program = ht_lane_program(b->schedule->lanes[s.lane], ht_max_size(tokens, 1));
            if (tokens == 0)
                continue;
            add_share(b, &s, program, &model->ops[op], op, first, &any);
        }
        if (any && !b->status) {
            ht_program *program = &b->schedule->programs[s.lane];
            program->steps[program->n_steps - 1].publishes = b->joins + 2; /* + 1 is for within */
            told |= (uint8_t)(1u << s.lane);
        }
    }
    if (out)
        b->wrote[out] = segment == HT_SEGMENT_TOKENS ? 1 : wrote;
    if (told) {
        b->told = told;
        b->joins += 2;
    }
}

static void add_head(builder *b, uint8_t in) {
    const ht_model *model = b->passes->set->model;
    const size_t first = model->n_ops - HT_HEAD_STEPS;
    b->told = 0;
    b->joins = 0; /* the head is a pass of its own */
    for (size_t i = 0; i < b->choice->n_lanes; i++)
        b->schedule->programs[i].head = b->schedule->programs[i].n_steps;
    add_segment(b, HT_SEGMENT_LM_ROWS, first, first + 2, b->choice->units[1][HT_SEGMENT_LM_ROWS], in, 0, model->n_ops);
    for (size_t i = 0; i < b->choice->n_lanes && !b->status; i++) {
        ht_program *program = &b->schedule->programs[i];
        for (size_t k = program->head; k < program->n_steps; k++)
            program->steps[k].begin = program->steps[k].end = 0; /* the head's own tokens */
    }
    const ht_program *program = ht_lane_program(b->schedule->lanes[0], 1);
    ht_step pick = program->steps[program->n_steps - 1];
    pick.resident = 0;
    wait_for(b, &pick, 0);
    append(b, 0, &pick);
}

static void build_shares(builder *b) {
    const ht_model *model = b->passes->set->model;
    uint8_t in = 0; /* what the next norm adds */
    size_t op = 0;
    for (size_t i = 0; i < b->choice->n_lanes; i++) {
        ht_step embed = ht_lane_program(b->schedule->lanes[i], b->n)->steps[0];
        embed.own = true;
        append(b, i, &embed);
    }
    op++;
    for (int layer = 0; layer < model->hparams.layers; layer++, op += HT_AT_END) {
        const int last = layer + 1 == model->hparams.layers;
        const size_t tail = last ? op + HT_AT_ATTENTION : model->n_ops;
        for (size_t g = 0; g < b->choice->n_segments[last] && !b->status; g++) {
            const ht_segment s = b->choice->segments[last][g];
            const uint8_t out = s == HT_SEGMENT_FEATURES                             ? 2
                                : ht_segment_is_partial(s) || s == HT_SEGMENT_TOKENS ? 1
                                                                                     : 0;
            add_segment(b, s, op + (size_t)ht_segment_spans[s].from, op + (size_t)ht_segment_spans[s].to,
                        b->choice->units[last][s], in, out, tail);
            if (ht_segment_spans[s].to == HT_AT_NORM2 || ht_segment_spans[s].to == HT_AT_END)
                in = out;
        }
    }
    add_head(b, in);
}

/* ---- OWNER --------------------------------------------------------------------------------------------------------------------- */

/* The operator's step on lane i, for so many tokens. False: it came with a feed-forward block, or there is none. A lane that
 * takes such blocks as one has steps of their parts made where these are cut (`apart`). */
static bool owner_step(builder *b, size_t i, const ht_op *op, size_t near, size_t tokens, bool apart, ht_step *step) {
    const ht_program *program = ht_lane_program(b->schedule->lanes[i], tokens);
    const ht_step *whole = step_of(program, op, near_of(b, program, near));
    if (!whole || b->status)
        return false;
    *step = *whole;
    if (step->op->kind == HT_OP_FFN && apart)
        b->status = ht_lane_step(b->passes->set, b->schedule->lanes[i], op, step, b->error);
    step->resident = step->kept = 0;
    return !b->status && (step->op->kind != HT_OP_FFN || op == step->op->members);
}

/* Units [first, first + n) of a segment, for tokens [begin, end). */
typedef struct area {
    ht_segment segment;
    size_t first, n;
    size_t begin, end;
} area;

/* The step of operator number `at` of the model on lane i, for that area. NULL: it has none there. */
static ht_step *add_matrix(builder *b, size_t i, size_t at, const area *a) {
    ht_step step;
    const ht_op *op = &b->passes->set->model->ops[at];
    if (a->begin == a->end || a->n == 0 ||
        !owner_step(b, i, op, at, a->end - a->begin, a->segment != HT_SEGMENT_FEATURES, &step))
        return NULL;
    step.begin = (uint32_t)a->begin;
    step.end = (uint32_t)a->end;
    const ht_slice part = part_of(b->passes, a->segment, step.op, a->first, a->n);
    take_part(b, &step, &part);
    return append(b, i, &step);
}

/* Operators [op, op + count) of the model (one matrix, or a feed-forward block) on lane i, as add_matrix. */
static void add_block(builder *b, size_t i, size_t op, size_t count, const area *a, uint8_t delta, bool wait) {
    bool any = false;
    for (size_t k = op; k < op + count && !b->status; k++) {
        ht_step *step = add_matrix(b, i, k, a);
        if (!step)
            continue;
        if (wait && !any)
            wait_for(b, step, i);
        any = true;
        const ht_class class = ht_class_of(step->op);
        if (class == HT_CLASS_DOWN || class == HT_CLASS_FFN)
            step->delta = delta;
        if (step->op->kind == HT_OP_FFN)
            break;
    }
}

/* Marks the newest step of lane i as a join that only it tells of. */
static void tell(builder *b, size_t i) {
    ht_program *program = &b->schedule->programs[i];
    if (b->status || program->n_steps == 0)
        return;
    program->steps[program->n_steps - 1].publishes = ++b->joins;
    b->told = (uint8_t)(1u << i);
}

static void add_cut(builder *b, size_t op, size_t count, ht_segment segment, const ht_matrix_cut *cut, size_t first,
                    uint8_t *sums) {
    const size_t of = b->passes->units[segment].of, end = first + cut->tokens;
    const bool partial = segment == HT_SEGMENT_FEATURES && cut->units < of;
    const uint8_t delta = partial ? 1 : 0;
    const area others = {segment, 0, cut->units, first, end}, own = {segment, cut->units, of - cut->units, first, end},
               rest = {segment, 0, of, end, b->n};
    tell(b, 0);
    add_block(b, 1, op, count, &others, delta, true);
    tell(b, 1);
    const uint8_t told = b->told;
    add_block(b, 0, op, count, &own, delta, false);
    add_block(b, 0, op, count, &rest, delta, false);
    b->told = told; /* by the owner's next step */
    *sums = delta;
}

/* What is cut that begins with an operator of this class; NULL: it is not. */
static const ht_owner_matrix *owner_matrix(const ht_matrix_cut cuts[HT_CLASSES], ht_class class) {
    for (size_t i = 0; i < HT_OWNER_MATRICES; i++) {
        const ht_owner_matrix *m = &ht_owner_matrices[i];
        if (cuts[m->class].tokens && (m->class == HT_CLASS_FFN ? HT_CLASS_GATE_UP : m->class) == class)
            return m;
    }
    return NULL;
}

static void build_owner(builder *b) {
    const ht_model *model = b->passes->set->model;
    bool waiting = false; /* the other lane has told something that the owner's next step needs */
    uint8_t sums = 0;     /* the next norm adds what both lanes wrote, for tokens before sums_end */
    size_t sums_end = 0;
    for (size_t op = 0; op + HT_HEAD_STEPS < model->n_ops && !b->status; op++) {
        const ht_op *o = &model->ops[op];
        const int last = o->layer + 1 == model->hparams.layers;
        const size_t at = op > 0 ? (op - 1) % HT_AT_END : 0;
        const size_t first = last && at >= HT_AT_ATTENTION ? b->n - b->wanted : 0;
        const ht_matrix_cut *cuts = b->choice->cuts[last];
        if (first == b->n)
            break;
        const ht_owner_matrix *matrix = o->layer >= 0 ? owner_matrix(cuts, ht_class_of(o)) : NULL;
        if (matrix) {
            const size_t count = matrix->class == HT_CLASS_FFN ? 3 : 1;
            add_cut(b, op, count, matrix->segment, &cuts[matrix->class], first, &sums);
            sums_end = first + cuts[matrix->class].tokens;
            op += count - 1;
            waiting = true;
            continue;
        }
        const bool apart = o->layer >= 0 && (cuts[HT_CLASS_GATE_UP].tokens || cuts[HT_CLASS_DOWN].tokens);
        ht_step step;
        if (!owner_step(b, 0, o, op, b->n - first, apart, &step))
            continue;
        step.begin = (uint32_t)first;
        step.end = (uint32_t)b->n;
        if (waiting)
            wait_for(b, &step, 0);
        waiting = false;
        if (o->kind == HT_OP_NORM && sums) {
            step.delta = sums, step.adds = 3; /* both lanes */
            if (sums_end < b->n) {            /* what one lane computed whole is there once */
                step.end = (uint32_t)sums_end;
                append(b, 0, &step);
                step.waits = 0, step.adds = 0, step.begin = (uint32_t)sums_end, step.end = (uint32_t)b->n;
            }
            sums = 0;
        }
        append(b, 0, &step);
        if (step.op->kind == HT_OP_FFN)
            op += 2;
    }
    for (size_t i = 0; i < 2; i++)
        b->schedule->programs[i].head = b->schedule->programs[i].n_steps;
}

/* ---- schedules ------------------------------------------------------------------------------------------------------------------ */

/* Whose tasks a segment's shares are of, as bits. */
static unsigned segment_classes(ht_segment segment) {
    const unsigned down = 1u << HT_CLASS_DOWN, gate_up = 1u << HT_CLASS_GATE_UP;
    return segment == HT_SEGMENT_LM_ROWS     ? 1u << HT_CLASS_LM_HEAD
           : segment == HT_SEGMENT_DOWN_ROWS ? down
           : segment == HT_SEGMENT_GATE_UP   ? gate_up
           : segment == HT_SEGMENT_FEATURES  ? down | gate_up | 1u << HT_CLASS_FFN
                                             : 1u << HT_CLASS_QKV | 1u << HT_CLASS_OUT;
}

/* Collects what share_is_ready looks at: it is asked hundreds of times for one choice, of a few among a thousand tasks. */
static void find_samples(const ht_lanes *set, ht_question *q) {
    q->n_samples = 0;
    for (size_t t = 0; t < set->n_tasks && q->n_samples < HT_MAX_SAMPLES; t++) {
        const ht_slice_task *task = &set->tasks[t];
        const ht_op *op = task->op;
        const bool layer = op->layer == 0 || (op->layer < 0 && ht_class_of(op) == HT_CLASS_LM_HEAD);
        if (layer && task->task && set->devices[task->device]->ops->ready && !is_whole(op, &task->slice))
            q->samples[q->n_samples++] = task;
    }
}

/* ht_problem.ready: one layer stands for all, for their graphs are built together. */
static bool share_is_ready(const void *context, size_t lane, ht_segment segment, size_t units, size_t tokens) {
    const ht_question *q = context;
    const ht_lanes *set = q->passes->set;
    bool any = false;
    for (size_t t = 0; t < q->n_samples; t++) {
        const ht_slice_task *task = q->samples[t];
        ht_device *device = set->devices[task->device];
        if (!(set->lanes[lane].devices >> task->device & 1) ||
            task->op->layer != (segment == HT_SEGMENT_LM_ROWS ? -1 : 0) ||
            !(segment_classes(segment) >> ht_class_of(task->op) & 1))
            continue;
        const ht_slice part = part_of(q->passes, segment, task->op, 0, units);
        if (memcmp(&part, &task->slice, sizeof part) != 0)
            continue;
        any = true;
        if (!device->ops->ready(device, task->task, tokens))
            return false;
    }
    return any;
}

ht_problem ht_passes_problem(const ht_passes *passes, size_t n, size_t position, size_t wanted, const ht_pace *pace,
                             ht_question *question) {
    ht_solver_lane *lanes = question->lanes;
    question->passes = passes;
    find_samples(passes->set, question);
    ht_problem p = {.layers = passes->set->model->hparams.layers,
                    .lanes = lanes,
                    .n_lanes = passes->set->n_lanes,
                    .cuts = passes->policy.cuts,
                    .by_operator = passes->policy.by_operator,
                    .forced = passes->policy.must_share,
                    .tokens = n,
                    .wanted = wanted,
                    .position = position,
                    .join = JOIN_SECONDS,
                    .exchange =
                        passes->set->time ? 0 : EXCHANGE_SECONDS, /* simulated operators move their bytes themselves */
                    .embedding = (size_t)passes->set->model->hparams.embedding,
                    .qkv = ht_slot_width(&passes->set->model->hparams, HT_SLOT_QKV),
                    .attention = ht_slot_width(&passes->set->model->hparams, HT_SLOT_ATTN),
                    .feed_forward = (size_t)passes->set->model->hparams.feed_forward,
                    .ready = share_is_ready,
                    .ready_context = question,
                    .tokens_divide = true};
    memcpy(p.stall, pace->stall, sizeof p.stall);
    p.head = pace->head;
    for (size_t s = 0; s < HT_SEGMENTS; s++)
        p.of[s] = passes->units[s].of;
    for (size_t l = 0; l < passes->set->n_lanes; l++) {
        const ht_lane *lane = &passes->set->lanes[l];
        lanes[l] =
            (ht_solver_lane){.cost = ht_may_build(passes) && !passes->graphs.no_room ? &lane->cost : &lane->whole,
                             .shares = &lane->cost,
                             .cores = lane->cores,
                             .lost = lane->lost,
                             .may_build = ht_may_build(passes),
                             .no_room = passes->graphs.no_room};
        memcpy(lanes[l].built, passes->graphs.built[l], sizeof lanes[l].built);
        memcpy(lanes[l].drift, pace->lanes[l], sizeof lanes[l].drift);
        const ht_device_facts facts = ht_lanes_facts(passes->set, lane->devices);
        if (facts.static_caps) {
            lanes[l].built_only = true;
            lanes[l].built_only_one = !facts.static_caps->many_only;
            lanes[l].lengths = facts.static_caps->lengths;
            lanes[l].n_lengths = facts.static_caps->n_lengths;
        }
        /* the head of every wanted token runs on the last lane: it must see the others' */
        p.tokens_divide &= !facts.copies;
    }
    return p;
}

/* Has each wait its signal? Runs the lanes' programs, or their heads, in mind: each as far as what the others have published by
 * then lets it. False: some lane would wait for ever. */
static bool comes_to_end(const ht_schedule *s, bool head) {
    size_t at[HT_MAX_LANES], left = 0;
    uint32_t points[HT_MAX_LANES] = {0};
    for (size_t i = 0; i < s->n_lanes; i++) {
        at[i] = head ? s->programs[i].head : 0;
        left += (head ? s->programs[i].n_steps : s->programs[i].head) - at[i];
    }
    for (bool moved = true; moved;) {
        moved = false;
        for (size_t i = 0; i < s->n_lanes; i++)
            for (; at[i] < (head ? s->programs[i].n_steps : s->programs[i].head); at[i]++, left--) {
                const ht_step *step = &s->programs[i].steps[at[i]];
                bool waits = false;
                for (size_t k = 0; k < s->n_lanes; k++)
                    waits |= (step->waits >> k & 1) && points[k] < step->need;
                if (waits)
                    break;
                points[i] = step->publishes ? step->publishes : points[i];
                moved = true;
            }
    }
    return left == 0;
}

static ht_status build(ht_passes *passes, ht_schedule *schedule, ht_error *error) {
    builder b = {.passes = passes,
                 .schedule = schedule,
                 .choice = &schedule->choice,
                 .n = schedule->tokens,
                 .wanted = schedule->wanted,
                 .error = error};
    schedule->n_lanes = schedule->choice.n_lanes;
    for (size_t i = 0; i < schedule->n_lanes; i++) {
        schedule->lanes[i] = &passes->set->lanes[schedule->choice.lanes[i]];
        schedule->programs[i].n_steps = 0;
    }
    if (schedule->choice.regime == HT_REGIME_TOKENS)
        build_tokens(&b);
    else if (schedule->choice.regime == HT_REGIME_SHARES)
        build_shares(&b);
    else if (schedule->choice.regime == HT_REGIME_OWNER)
        build_owner(&b);
    if (!b.status && schedule->n_lanes > 1 && !(comes_to_end(schedule, false) && comes_to_end(schedule, true)))
        return ht_fail(error, HT_ERROR_DEVICE, "internal error: a lane waits for what no other tells");
    return b.status;
}

static ht_status solve(ht_passes *passes, ht_schedule *schedule, ht_error *error) {
    ht_question question;
    const ht_problem p =
        ht_passes_problem(passes, schedule->tokens, schedule->position, schedule->wanted, &schedule->pace, &question);
    if (schedule->held)
        schedule->choice = schedule->best;
    else
        ht_solve(&p, &schedule->choice);
    schedule->solved = schedule->pace;
    if (schedule->choice.n_lanes == 0)
        return ht_fail(error, HT_ERROR_DEVICE, "no device left can compute this model");
    for (size_t i = 0; i < schedule->choice.n_lanes; i++)
        schedule->lanes_take[i] = ht_choice_estimate(&p, &schedule->choice, i);
    schedule->runs = 0;
    schedule->heads = false;
    schedule->stale = false;
    const ht_choice *c = &schedule->choice;
    ht_log(HT_LOG_DEBUG,
           "%zu tokens at %zu: %s, %.3f ms; lanes %zu %zu: tokens %zu %zu, heads %zu %zu, features %zu %zu, drift %.2f "
           "%.2f",
           schedule->tokens, schedule->position, ht_regime_name(c->regime), c->seconds * 1e3, c->lanes[0], c->lanes[1],
           c->tokens[0], c->tokens[1], c->units[0][HT_SEGMENT_HEADS][0], c->units[0][HT_SEGMENT_HEADS][1],
           c->units[0][HT_SEGMENT_FEATURES][0], c->units[0][HT_SEGMENT_FEATURES][1],
           schedule->pace.lanes[c->lanes[0]][c->regime], schedule->pace.lanes[c->lanes[1]][c->regime]);
    return build(passes, schedule, error);
}

/* Of those for one token, or for many, the one whose number of tokens is nearest to n; NULL: none. */
static const ht_schedule *nearest_schedule(const ht_passes *passes, size_t n) {
    const ht_schedule *nearest = NULL;
    double least = INFINITY;
    for (size_t i = 0; i < HT_SCHEDULES; i++) {
        const ht_schedule *s = &passes->schedules[i];
        if (!s->tokens || (s->tokens > 1) != (n > 1))
            continue;
        const double away = fabs(log((double)s->tokens / (double)n));
        if (away < least)
            least = away, nearest = s;
    }
    return nearest;
}

ht_schedule *ht_passes_find_schedule(ht_passes *passes, size_t n, size_t position, size_t wanted) {
    const size_t bucket = position / POSITIONS * POSITIONS;
    ht_schedule *oldest = &passes->schedules[0];
    passes->clock++;
    for (size_t i = 0; i < HT_SCHEDULES; i++) {
        ht_schedule *s = &passes->schedules[i];
        if (s->tokens == n && s->position == bucket && s->wanted == wanted) {
            s->age = passes->clock;
            return s;
        }
        if (s->age < oldest->age)
            oldest = s;
    }
    const ht_schedule *nearest = nearest_schedule(passes, n);
    const ht_pace pace = nearest ? nearest->pace : ht_even_pace, usual = nearest ? nearest->usual : ht_even_pace;
    oldest->tokens = n, oldest->position = bucket, oldest->wanted = wanted;
    oldest->age = passes->clock;
    oldest->tried = false, oldest->stale = true;
    oldest->held = false, oldest->best_took = 0, oldest->runs = 0;
    oldest->pace = pace, oldest->usual = usual;
    return oldest;
}

/* A choice is to be made: by the solver, or the best one so far is gone back to, where what the solver found since was worse.
 * When that one takes another time than it did, the machine has changed, and nothing is known any more. */
static void choose_anew(const ht_passes *passes, ht_schedule *s) {
    const bool worse = ht_passes_is_worse(s) && !s->stale;
    if (s->held && !s->stale)
        s->best_took = 0;
    else if (!s->held && s->runs >= 2 && (s->best_took <= 0 || s->took < s->best_took))
        s->best = s->choice, s->best_took = s->took;
    s->held = worse;
    if (ht_may_build(passes))
        s->best_took = 0, s->held = false;
}

ht_status ht_passes_schedule(ht_passes *passes, size_t n, size_t position, size_t wanted, ht_schedule **out,
                             ht_error *error) {
    ht_schedule *found = ht_passes_find_schedule(passes, n, position, wanted);
    ht_status status = HT_OK;
    const bool moved = ht_passes_have_moved(passes, found);
    if (found->stale || moved) {
        choose_anew(passes, found);
        status = solve(passes, found, error);
    }
    if (moved && !found->held)
        passes->moved = found;
    if (status)
        found->tokens = 0;
    *out = found;
    return status;
}

void ht_passes_solve_anew(ht_passes *passes) {
    for (size_t i = 0; i < HT_SCHEDULES; i++)
        passes->schedules[i].stale = true;
}

void ht_passes_forget_schedules(ht_passes *passes) {
    for (size_t i = 0; i < HT_SCHEDULES; i++)
        passes->schedules[i].tokens = 0;
    passes->current = NULL;
}
