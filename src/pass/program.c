/* From a choice of the planner to programs: for each lane the steps it runs, what it waits for, and when it tells. A
 * regime says who does which piece of every operator; one pass over the pieces makes steps of them.
 *
 * A lane's own program says which device and task computes an operator whole. Programs take tokens of it (TOKENS), or a
 * part of the task where the device divides, or a task of that very share where graphs are static. Nothing is allocated
 * in steady decode: schedules are kept, and their arrays grow only.
 */
#include "pass/pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define POSITIONS 256 /* passes this much further back are planned anew: attention costs more */
#define JOIN_SECONDS 3e-6
#define EXCHANGE_SECONDS \
    0.25e-9 /* a byte from core to core: what passes by shares took more than their parts; drift learns the machine's own */

/* What a slot of sums holds: where, of which lanes (bits), for tokens before `end`; behind them the first lane's. */
typedef struct held {
    uint8_t buffer; /* of lanes' own, from 1 on; 0: the shared slot */
    uint8_t wrote;
    uint8_t turn; /* counts blocks: they take one buffer and the other */
    size_t end;
} held;

typedef struct builder {
    ht_passes *passes;
    const ht_model *model;
    ht_schedule *schedule;
    const ht_choice *choice;
    size_t n, wanted; /* tokens; the last `wanted` go through the model's tail */
    uint32_t joins;   /* so far */
    uint8_t told;     /* lanes that publish at the newest join */
    held held[HT_MAX_SLOTS];
    uint32_t own, sums;         /* slots of these roles */
    uint32_t fed[HT_MAX_LANES]; /* slots that another lane has filled for this one, and it has not written since */
    ht_status status;
    ht_error *error;
} builder;

/* ---- pieces
 * ----------------------------------------------------------------------------------------------------------------- */

#define ALL SIZE_MAX
#define EVERY_SLOT UINT32_MAX

/* What one lane does of one operator: what every regime is written as. lower() makes a step of it. */
typedef struct piece {
    size_t lane;       /* number of the schedule's lanes */
    size_t op;         /* of the model */
    size_t begin, end; /* tokens; equal: nothing to do */
    size_t axis;       /* of the model, of which it has units [first, first + units); ALL: it has all of the operator */
    size_t first, units;
    size_t from,
        to; /* operators of the model that the lane has the same part of: those that are one there may be one step */
    uint32_t spared; /* slots and caches that nobody else has to do with meanwhile */
    bool own;        /* the residual stream is the lane's own */
    uint8_t out;     /* its sums go to buffer number out - 1; 0: the shared slot */
    bool to_first;   /* of the first lane, not of its own */
    uint8_t waits;   /* for these lanes to have published `need` times */
    uint32_t need;
} piece;

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

/* Does the step compute the operator, by itself or with others as one? */
static bool computes(const ht_model *model, const ht_step *step, const ht_op *op) {
    if (step->op == op || step->op->kind != HT_OP_FFN)
        return step->op == op && !step->rest;
    const ht_block *block = ht_op_block(model, step->op);
    const size_t place = (size_t)(op - model->ops) - block->first;
    return op->block == step->op->block && place >= block->fused_from && place < block->fused_to;
}

/* The step of the lane's program that computes operator number `op` of the model; NULL: none. */
static const ht_step *step_of(const builder *b, const ht_program *program, size_t op) {
    const size_t near =
        op * program->n_steps / b->model->n_ops;        /* programs have one step for some operators together */
    for (size_t k = 0; k < 2 * program->n_steps; k++) { /* outward from where it is likely to stand */
        const size_t i = k % 2 ? near + (k + 1) / 2 : near - k / 2;
        if (i < program->n_steps && computes(b->model, &program->steps[i], &b->model->ops[op]))
            return &program->steps[i];
    }
    return NULL;
}

/* Is the part all of the operator? */
static bool is_whole(const ht_op *op, const ht_slice *part) {
    const ht_slice whole = ht_whole_slice(op);
    return !memcmp(part, &whole, sizeof whole);
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

/* The slice of an operator that units [begin, begin + n) of an axis are. */
static ht_slice part_of(const ht_passes *passes, size_t axis, const ht_op *op, size_t begin, size_t n) {
    const ht_model *model = passes->set->model;
    return ht_units_slice(&model->axes[axis], &passes->units[axis], op, ht_op_place(model, op), begin, begin + n);
}

/* The piece's step in the lane's own program. False: it has nothing to do, or came with the operators before it. */
static bool find_step(builder *b, const piece *p, ht_step *step) {
    const ht_lane *lane = b->schedule->lanes[p->lane];
    const ht_op *op = &b->model->ops[p->op];
    if (p->begin >= p->end || (p->axis != ALL && p->units == 0) || b->status)
        return false;
    const ht_step *whole = step_of(b, ht_lane_program(lane, p->end - p->begin), p->op);
    if (!whole)
        return false;
    *step = *whole;
    if (whole->op == op)
        return true;
    const ht_block *block = ht_op_block(b->model, op);
    if (p->from <= block->first + block->fused_from && block->first + block->fused_to <= p->to)
        return p->op == block->first + block->fused_from;
    b->status = ht_lane_step(b->passes->set, lane, op, step, b->error); /* its parts go their own ways here */
    return !b->status;
}

/* What the step leaves, as the lane's next one. */
static ht_step *append_rest(builder *b, const piece *p, const ht_step *step) {
    const ht_program *program = ht_lane_program(b->schedule->lanes[p->lane], p->end - p->begin);
    const ht_step *whole = step_of(b, program, p->op) + 1; /* behind that which leaves it */
    ht_step rest = *step;
    rest.leaves = false, rest.rest = true;
    rest.device = whole->device, rest.slice = whole->slice, rest.task = whole->task;
    rest.resident = whole->resident & p->spared, rest.kept = whole->kept & p->spared;
    rest.yields = whole->yields;
    rest.waits = 0, rest.need = 0;
    if (p->axis != ALL) {
        const ht_slice part = part_of(b->passes, p->axis, rest.op, p->first, p->units);
        take_part(b, &rest, &part);
    }
    return append(b, p->lane, &rest);
}

/* The piece as a step (and another, where that one leaves some) at the end of its lane's program. Returns the last of these;
 * NULL: it is none. */
static ht_step *lower(builder *b, const piece *p) {
    ht_step step;
    if (!find_step(b, p, &step))
        return NULL;
    step.resident &= p->spared & ~b->fed[p->lane];
    step.kept &= p->spared;
    b->fed[p->lane] &= ~ht_op_writes(step.op);
    step.own = p->own;
    step.begin = (uint32_t)p->begin;
    step.end = (uint32_t)p->end;
    step.waits = p->waits;
    step.need = p->need;
    for (size_t k = 0; k < ht_op_added(step.op); k++) {
        const held *h = &b->held[ht_op_addend(step.op, k)];
        step.sums[k] = h->buffer;
        step.adds[k] = !h->buffer ? 0 : p->begin < h->end ? h->wrote : 1;
    }
    if (ht_op_writes(step.op) & b->sums)
        step.sums[0] = p->out, step.adds[0] = p->out && p->to_first;
    if (p->axis != ALL) {
        const ht_slice part = part_of(b->passes, p->axis, step.op, p->first, p->units);
        take_part(b, &step, &part);
    }
    ht_step *appended = append(b, p->lane, &step);
    return appended && step.leaves ? append_rest(b, p, &step) : appended;
}

/* What the lanes had to tell at the last join is waited for by this piece. */
static void wait_for(const builder *b, piece *p) {
    p->waits = (uint8_t)(b->told & ~(1u << p->lane));
    p->need = b->joins;
}

/* First token of the pass that operator number `op` of the model computes. */
static size_t first_token(const builder *b, size_t op) {
    return op >= b->model->tail && b->model->ops[op].layer >= 0 ? b->n - b->wanted : 0;
}

static size_t head_op(const ht_model *model) {
    return model->blocks[model->n_blocks - 1].first;
}

/* ---- TOKENS
 * ------------------------------------------------------------------------------------------------------------------ */

/* The head of the lane's own tokens: which of them, whoever asks for it says (ht_passes_head). */
static void add_whole_head(builder *b, const piece *of) {
    piece p = *of;
    p.begin = 0, p.end = 1, p.waits = 0, p.need = 0;
    for (p.op = head_op(b->model); p.op < b->model->n_ops; p.op++)
        lower(b, &p);
}

/* Keys and values flow one way: who writes a cache tells, who reads it waits for the lanes before; but not where lanes
 * have whole sequences. */
static void build_tokens(builder *b) {
    const ht_model *model = b->model;
    const bool apart = b->choice->apart;
    piece p = {.axis = ALL, .from = 0, .to = model->n_ops, .spared = EVERY_SLOT};
    size_t begin = 0;
    for (; p.lane < b->choice->n_lanes; p.lane++) {
        const size_t tokens = b->choice->tokens[p.lane];
        const ht_program *program = ht_lane_program(b->schedule->lanes[p.lane], tokens);
        const bool split = program->tail < program->head, last = p.lane + 1 == b->choice->n_lanes;
        p.end = begin + tokens;
        for (p.op = 0; p.op < head_op(model); p.op++) {
            const ht_op *op = &model->ops[p.op];
            p.begin = split ? ht_max_size(begin, first_token(b, p.op)) : begin;
            p.need = (uint32_t)op->cache + 1;
            p.waits = ht_op_reads(op) & HT_BIT_KV && !apart ? (uint8_t)((1u << p.lane) - 1) : 0;
            ht_step *step = lower(b, &p);
            if (step && !p.waits)
                step->need = 0;
            if (step && ht_op_writes(op) & HT_BIT_KV && !last && !apart)
                step->publishes = (uint32_t)op->cache + 1;
        }
        b->schedule->programs[p.lane].head = b->schedule->programs[p.lane].n_steps;
        if (apart)
            add_whole_head(b, &p);
        begin = p.end;
    }
}

/* ---- SHARES
 * ------------------------------------------------------------------------------------------------------------------- */

/* Slots that no other lane reads or writes from operator `from` of the model to `to`: the residual stream, and what is
 * written and read inside. */
static uint32_t spared_slots(const builder *b, size_t from, size_t to) {
    const ht_model *model = b->model;
    uint32_t written = 0, read = 0, before = 0;
    for (size_t i = from; i < to; i++) {
        before |= ht_op_reads(&model->ops[i]) & ~written;
        read |= ht_op_reads(&model->ops[i]) & written;
        written |= ht_op_writes(&model->ops[i]);
    }
    return b->own | (read & ~before & ~HT_BIT_KV & ~b->sums);
}

/* An axis of a block, and how much of it each lane has. */
typedef struct stretch {
    const ht_block *block;
    const ht_axis *axis;
    size_t number; /* of the model's axes */
    const size_t *units;
    uint8_t out; /* which buffer of sums is written; 0: the shared one */
} stretch;

/* Units of the lanes before lane number i. */
static size_t units_before(const stretch *s, size_t lane) {
    size_t begin = 0;
    for (size_t i = 0; i < lane; i++)
        begin += s->units[i];
    return begin;
}

/* Units of a group of the axis; 0: it has no groups. */
static size_t group_of(const builder *b, const stretch *s) {
    return s->axis->group / b->passes->units[s->number].grain;
}

/* The lane that makes what the group has in common within which unit `begin` stands, as a bit; 0: a group begins
 * there. */
static uint8_t maker_of(const stretch *s, size_t group, size_t begin) {
    size_t lane = 0, end = s->units[0];
    if (begin % group == 0)
        return 0;
    while (end <= begin / group * group)
        end += s->units[++lane];
    return (uint8_t)(1u << lane);
}

/* Does a lane behind need what this one makes of the groups, and its operator writes? */
static bool makes_for_others(const builder *b, const stretch *s, size_t lane) {
    const size_t begin = units_before(s, lane);
    return ht_group_goes_on(group_of(b, s), begin, begin + s->units[lane]);
}

/* The piece of an operator that lane p->lane has; `begin`: units of the lanes before it. */
static void fill_piece(const builder *b, const stretch *s, size_t begin, piece *p) {
    const ht_op *op = &b->model->ops[p->op];
    const ht_map map = s->axis->maps[p->op - s->block->first];
    p->begin = first_token(b, p->op);
    p->end = b->n;
    if (s->block->kind == HT_BLOCK_HEAD) /* its own tokens */
        p->begin = 0, p->end = 1;
    p->axis = ALL;
    p->waits = 0;
    if (map == HT_MAP_EVERY)
        return;
    if (s->axis->kind == HT_AXIS_TOKENS) {
        p->begin = ht_max_size(p->begin, begin);
        p->end = begin + s->units[p->lane];
        for (size_t i = 0; i < p->lane && ht_op_reads(op) & HT_BIT_KV && s->axis->ordered; i++)
            p->waits |= (uint8_t)((s->units[i] > 0) << i);
        p->need = b->joins + 1;
    } else if (s->units[p->lane] == 0) {
        p->end = p->begin;
    } else if (map != HT_MAP_REPLICATED) {
        p->axis = s->number;
        p->first = begin;
        p->units = s->units[p->lane];
        if (s->axis->group && s->axis->ready && ht_op_reads(op) & HT_BIT_KV) {
            p->waits = maker_of(s, group_of(b, s), begin);
            p->need = b->joins + 1;
        }
    }
}

/* A stretch on all lanes, and a join. */
static void add_stretch(builder *b, const stretch *s) {
    const size_t from = s->block->first + s->axis->from, to = s->block->first + s->axis->to;
    const bool tokens = s->axis->kind == HT_AXIS_TOKENS;
    piece p = {.from = from,
               .to = to,
               .spared = spared_slots(b, from, to),
               .own = true,
               .out = s->out,
               .to_first = tokens}; /* others may still read the shared one */
    uint8_t told = 0, wrote = 0;
    for (size_t begin = 0; p.lane < b->choice->n_lanes; begin += s->units[p.lane++]) {
        ht_step *newest = NULL;
        wrote |= (uint8_t)((s->units[p.lane] > 0) << p.lane);
        for (p.op = from; p.op < to && !b->status; p.op++) {
            fill_piece(b, s, begin, &p);
            if (!newest && !p.waits)
                wait_for(b, &p);
            ht_step *step = lower(b, &p);
            const bool lends = tokens ? p.end < b->n : makes_for_others(b, s, p.lane);
            if (step && lends && ht_op_writes(step->op) & HT_BIT_KV)
                step->publishes = b->joins + 1; /* to the lanes behind */
            newest = step ? step : newest;
        }
        if (newest && !b->status) {
            newest->publishes = b->joins + 2; /* + 1 is for within */
            told |= (uint8_t)(1u << p.lane);
        }
    }
    if (s->axis->to == s->block->n) {
        held *h = &b->held[b->model->ops[to - 1].out];
        *h = (held){s->out, tokens ? 1 : wrote, h->turn, SIZE_MAX};
    }
    if (told) {
        b->told = told;
        b->joins += 2;
    }
}

/* The axes of a block's choice. Blocks write a slot's sums to one buffer and to the other in turn: nobody overwrites
 * what is still read. */
static void add_axes(builder *b, size_t block) {
    const ht_model *model = b->model;
    stretch s = {.block = &model->blocks[block]};
    const ht_group_choice *c = &b->choice->groups[s.block->group];
    const uint8_t buffer =
        (uint8_t)(1 + b->held[model->ops[s.block->first + s.block->n - 1].out].turn++ % HT_LANE_SUMS);
    const size_t load = b->choice->by_load ? ht_passes_block_load(b->passes, block) : HT_MAX_LOADS;
    for (size_t a = 0; a < c->n_axes && !b->status; a++) {
        size_t loaded[HT_MAX_SUMS];
        s.number = s.block->first_axis + c->axes[a];
        s.axis = &model->axes[s.number];
        s.units = c->units[c->axes[a]];
        if (s.axis->kind == HT_AXIS_EXPERTS && load < HT_MAX_LOADS) {
            for (size_t i = 0; i < b->choice->n_lanes; i++)
                loaded[i] = b->choice->loaded[load][i];
            s.units = loaded;
        }
        s.out = s.axis->result == HT_RESULT_COLUMNS ? 0 : buffer;
        add_stretch(b, &s);
    }
}

static void add_head(builder *b) {
    const ht_model *model = b->model;
    b->told = 0;
    b->joins = 0; /* the head is a pass of its own */
    for (size_t i = 0; i < b->choice->n_lanes; i++)
        b->schedule->programs[i].head = b->schedule->programs[i].n_steps;
    add_axes(b, model->n_blocks - 1);
    piece pick = {.op = model->n_ops - 1, .end = 1, .axis = ALL, .to = model->n_ops};
    wait_for(b, &pick);
    lower(b, &pick);
    for (size_t i = 0; i < b->choice->n_lanes && !b->status; i++) {
        ht_program *program = &b->schedule->programs[i];
        for (size_t k = program->head; k < program->n_steps; k++)
            program->steps[k].begin = program->steps[k].end = 0; /* the head's own tokens */
    }
}

/* Does the lane look up tokens itself? One that holds no table leaves it to another. */
static bool embeds(const builder *b, size_t lane) {
    const ht_program *program = ht_lane_program(b->schedule->lanes[lane], b->n);
    bool there = true;
    for (size_t op = 0; op < b->model->blocks[0].first; op++) {
        const ht_step *step = step_of(b, program, op);
        there &= step && step->task;
    }
    return there;
}

/* The first lane that looks up tokens does so for those that do not, each into its own slots: a row is read from the
 * file, and written, faster than another device could hold all of them. */
static void feed(builder *b, size_t lane, piece embed) {
    for (size_t i = 0; i < b->choice->n_lanes; i++) {
        if (embeds(b, i))
            continue;
        for (embed.op = 0; embed.op < b->model->blocks[0].first; embed.op++) {
            ht_step *step = lower(b, &embed);
            if (!step)
                return;
            step->feeds = (uint8_t)(i + 1);
            step->kept = 0;
            b->fed[i] |= ht_op_writes(step->op);
        }
        b->told = (uint8_t)(1u << lane);
    }
    if (b->told)
        b->schedule->programs[lane].steps[b->schedule->programs[lane].n_steps - 1].publishes = b->joins = 1;
}

static void build_shares(builder *b) {
    piece embed = {.end = b->n, .axis = ALL, .to = b->model->n_ops, .spared = EVERY_SLOT, .own = true};
    bool fed = false;
    for (; embed.lane < b->choice->n_lanes && !b->status; embed.lane++) {
        for (embed.op = 0; embed.op < b->model->blocks[0].first && embeds(b, embed.lane); embed.op++)
            lower(b, &embed);
        if (!fed && embeds(b, embed.lane))
            fed = true, feed(b, embed.lane, embed);
    }
    for (size_t block = 0; block + 1 < b->model->n_blocks && !b->status; block++)
        add_axes(b, block);
    add_head(b);
}

/* ---- OWNER
 * --------------------------------------------------------------------------------------------------------------------- */

/* Marks the newest step of lane i as a join that only it tells of. */
static void tell(builder *b, size_t i) {
    ht_program *program = &b->schedule->programs[i];
    if (b->status || program->n_steps == 0)
        return;
    program->steps[program->n_steps - 1].publishes = ++b->joins;
    b->told = (uint8_t)(1u << i);
}

/* What the piece says of operators [p->from, p->to); the first step waits for what was told, where it is to. */
static void add_pieces(builder *b, piece p, bool wait) {
    for (p.op = p.from; p.op < p.to && !b->status; p.op++) {
        p.waits = 0;
        if (wait)
            wait_for(b, &p);
        wait &= lower(b, &p) == NULL;
    }
}

/* Operators that an axis hands over: the other lane's part, and what is left of them for the owner. */
static void add_handed(builder *b, const ht_block *block, size_t number, const ht_matrix_cut *cut) {
    const ht_axis *axis = &b->model->axes[number];
    const size_t of = b->passes->units[number].of;
    piece p = {.from = block->first + axis->hand_from,
               .to = block->first + axis->hand_to,
               .axis = number,
               .out = axis->result == HT_RESULT_SUMS && cut->units < of};
    const size_t first = first_token(b, p.from), end = first + cut->tokens;
    p.begin = first;
    p.end = end;
    p.lane = 1;
    p.units = cut->units;
    tell(b, 0);
    add_pieces(b, p, true);
    tell(b, 1);
    p.lane = 0;
    p.first = cut->units;
    p.units = of - cut->units;
    add_pieces(b, p, false);
    p.begin = end;
    p.end = b->n;
    p.first = 0;
    p.units = of;
    add_pieces(b, p, false);
    b->held[b->model->ops[p.to - 1].out] = (held){p.out, 3, 0, first + cut->tokens};
}

/* A piece of the owner's, in parts where what it adds was written by both lanes for some tokens only. False: it was
 * no step. */
static const ht_step *add_owned(builder *b, piece p, bool *waiting) {
    const ht_op *op = &b->model->ops[p.op];
    const size_t n = p.end;
    const ht_step *step = NULL;
    do {
        p.end = n;
        for (size_t k = 0; k < ht_op_added(op); k++) {
            const held *h = &b->held[ht_op_addend(op, k)];
            p.end = h->buffer && h->end > p.begin ? ht_min_size(p.end, h->end) : p.end;
        }
        if (*waiting)
            wait_for(b, &p);
        step = lower(b, &p);
        *waiting &= step == NULL;
        p.waits = 0;
        p.begin = p.end;
    } while (p.begin < n && !b->status);
    for (size_t k = 0; k < ht_op_added(op); k++)
        b->held[ht_op_addend(op, k)].buffer = 0;
    return step;
}

static void build_owner(builder *b) {
    const ht_model *model = b->model;
    bool waiting = false; /* the other lane has told something that the owner's next step needs */
    size_t number;
    for (size_t op = 0; op < head_op(model) && !b->status;) {
        const ht_block *block = ht_op_block(model, &model->ops[op]);
        const ht_group_choice *c = block ? &b->choice->groups[block->group] : NULL;
        const size_t place = block ? op - block->first : 0;
        const ht_axis *axis = c ? ht_choice_handed(model, block, c, place, &number) : NULL;
        if (first_token(b, op) == b->n)
            break;
        if (axis) {
            add_handed(b, block, block->first_axis + number, &c->cuts[number]);
            op = block->first + axis->hand_to;
            waiting = true;
            continue;
        }
        size_t to = op + 1; /* nothing of what may be one operator is handed over */
        if (block && block->fused && place == block->fused_from) {
            to = block->first + block->fused_to;
            for (size_t i = place; i < block->fused_to; i++)
                to = ht_choice_handed(model, block, c, i, &number) ? op + 1 : to;
        }
        const piece p = {.op = op, .begin = first_token(b, op), .end = b->n, .axis = ALL, .from = op, .to = to};
        const ht_step *step = add_owned(b, p, &waiting);
        op = step && step->op != &model->ops[op] ? to : op + 1; /* it came with others */
    }
    for (size_t i = 0; i < 2; i++)
        b->schedule->programs[i].head = b->schedule->programs[i].n_steps;
}

/* ---- schedules
 * ------------------------------------------------------------------------------------------------------------------ */

/* Is it the first of the blocks that are alike? */
static bool is_first_of_kind(const ht_model *model, int block) {
    for (int k = 0; k < block; k++)
        if (model->blocks[k].signature == model->blocks[block].signature)
            return false;
    return true;
}

/* Collects what share_is_ready looks at: it is asked hundreds of times for one choice, of a few among a thousand tasks. */
static void find_samples(const ht_lanes *set, ht_question *q) {
    q->n_samples = 0;
    for (size_t t = 0; t < set->n_tasks && q->n_samples < HT_MAX_SAMPLES; t++) {
        const ht_slice_task *task = &set->tasks[t];
        const ht_op *op = task->op;
        if (op->block >= 0 && task->task && set->devices[task->device]->ops->ready && !is_whole(op, &task->slice) &&
            is_first_of_kind(set->model, op->block))
            q->samples[q->n_samples++] = task;
    }
}

/* ht_problem.ready: one block stands for all that are alike, for their graphs are built together. */
static bool share_is_ready(const void *context, size_t lane, size_t axis, size_t units, size_t tokens) {
    const ht_question *q = context;
    const ht_lanes *set = q->passes->set;
    const ht_axis *a = &set->model->axes[axis];
    bool any = false;
    for (size_t t = 0; t < q->n_samples; t++) {
        const ht_slice_task *task = q->samples[t];
        ht_device *device = set->devices[task->device];
        const ht_block *block = ht_op_block(set->model, task->op);
        const size_t place = ht_op_place(set->model, task->op);
        if (!(set->lanes[lane].devices >> task->device & 1) || axis < block->first_axis ||
            axis >= block->first_axis + block->n_axes || place < a->from || place >= a->to)
            continue;
        const ht_slice part = part_of(q->passes, axis, task->op, 0, units);
        if (memcmp(&part, &task->slice, sizeof part) != 0)
            continue;
        any = true;
        if (!device->ops->ready(device, task->task, tokens))
            return false;
    }
    return any;
}

ht_problem ht_passes_problem(const ht_passes *passes, size_t n, size_t position, size_t wanted, size_t apart,
                             const ht_pace *pace, ht_question *question) {
    ht_solver_lane *lanes = question->lanes;
    question->passes = passes;
    find_samples(passes->set, question);
    ht_problem p = {.model = passes->set->model,
                    .lanes = lanes,
                    .n_lanes = passes->set->n_lanes,
                    .cuts = passes->policy.cuts & ~(passes->set->model->both_ways ? HT_CUT_CAUSAL : 0u),
                    .by_operator = passes->policy.by_operator,
                    .forced = passes->policy.must_share,
                    .tokens = n,
                    .wanted = wanted,
                    .position = position,
                    .apart = apart,
                    .join = JOIN_SECONDS,
                    .exchange =
                        passes->set->time ? 0 : EXCHANGE_SECONDS, /* simulated operators move their bytes themselves */
                    .ready = share_is_ready,
                    .ready_context = question,
                    .loads = passes->loads.plans,
                    .n_loads = passes->loads.moves ? passes->loads.n : 0,
                    .tokens_divide = true};
    memcpy(p.stall, pace->stall, sizeof p.stall);
    p.head = pace->head;
    for (size_t axis = 0; axis < passes->set->model->n_axes; axis++)
        p.of[axis] = passes->units[axis].of, p.unable[axis] = ~passes->units[axis].lanes;
    for (size_t l = 0; l < passes->set->n_lanes; l++) {
        const ht_lane *lane = &passes->set->lanes[l];
        lanes[l] =
            (ht_solver_lane){.cost = ht_may_build(passes) && !passes->graphs.no_room ? &lane->cost : &lane->whole,
                             .shares = &lane->cost,
                             .cores = lane->cores,
                             .lost = lane->lost,
                             .may_build = ht_may_build(passes),
                             .holds = &passes->holds[l],
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

/* Has each wait its signal? Runs the lanes' programs, or their heads, in mind: each as far as what the others have
 * published by then lets it. False: some lane would wait for ever. */
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
                 .model = passes->set->model,
                 .schedule = schedule,
                 .choice = &schedule->choice,
                 .n = schedule->tokens,
                 .wanted = schedule->wanted,
                 .own = ht_model_slots(passes->set->model, HT_ROLE_OWN) |
                        ht_model_slots(passes->set->model, HT_ROLE_PRIVATE),
                 .sums = ht_model_slots(passes->set->model, HT_ROLE_SUMS),
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

static void log_choice(const ht_schedule *schedule) {
    const ht_choice *c = &schedule->choice;
    ht_log(HT_LOG_DEBUG, "%zu tokens at %zu: %s, %.3f ms", schedule->tokens, schedule->position,
           ht_regime_name(c->regime), c->seconds * 1e3);
    for (size_t i = 0; i < c->n_lanes; i++)
        ht_log(HT_LOG_DEBUG,
               "  lane %zu: %zu tokens; of the first block's cut %zu units, of the second's %zu; drift %.2f",
               c->lanes[i], c->tokens[i], c->groups[0].units[c->groups[0].axes[0]][i],
               c->groups[1].units[c->groups[1].axes[0]][i], schedule->pace.lanes[c->lanes[i]][c->regime]);
}

/* Is there a lane alone that was not tried, and is usually quicker than all that was? What it took lately it took with
 * others. */
static bool find_alone(ht_problem p, const ht_schedule *s, ht_choice *found) {
    ht_solver_lane lanes[HT_MAX_LANES];
    if (p.forced)
        return false;
    memcpy(lanes, p.lanes, p.n_lanes * sizeof *lanes);
    for (size_t l = 0; l < p.n_lanes; l++)
        memcpy(lanes[l].drift, s->usual.lanes[l], sizeof lanes[l].drift);
    p.lanes = lanes;
    p.cuts = HT_CUT_NONE;
    ht_solve(&p, found);
    return found->seconds - found->head < s->best_took && !ht_passes_was_left(s, found);
}

/* The solver's choice. Where that way was tried and left, the best one so far is gone back to. */
static void choose(const ht_problem *p, ht_schedule *s) {
    ht_choice found;
    ht_solve(p, &found);
    s->held = !ht_passes_same_way(&s->choice, &found) && ht_passes_was_left(s, &found) && !find_alone(*p, s, &found);
    s->choice = s->held ? s->best : found;
}

static ht_status solve(ht_passes *passes, ht_schedule *schedule, ht_error *error) {
    ht_question question;
    const ht_problem p = ht_passes_problem(passes, schedule->tokens, schedule->position, schedule->wanted,
                                           schedule->apart, &schedule->pace, &question);
    schedule->moves = passes->loads.moves;
    if (schedule->held)
        schedule->choice = schedule->best;
    else
        choose(&p, schedule);
    schedule->solved = schedule->pace;
    if (schedule->choice.n_lanes == 0)
        return ht_fail(error, HT_ERROR_DEVICE, "no device left can compute this model");
    for (size_t i = 0; i < schedule->choice.n_lanes; i++)
        schedule->lanes_take[i] = ht_choice_estimate(&p, &schedule->choice, i);
    schedule->runs = 0;
    schedule->heads = false;
    schedule->stale = false;
    log_choice(schedule);
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

ht_schedule *ht_passes_find_schedule(ht_passes *passes, size_t n, size_t position, size_t wanted, size_t apart) {
    const size_t bucket = position / POSITIONS * POSITIONS;
    ht_schedule *oldest = &passes->schedules[0];
    passes->clock++;
    for (size_t i = 0; i < HT_SCHEDULES; i++) {
        ht_schedule *s = &passes->schedules[i];
        if (s->tokens == n && s->position == bucket && s->wanted == wanted && s->apart == apart) {
            s->age = passes->clock;
            return s;
        }
        if (s->age < oldest->age)
            oldest = s;
    }
    const ht_schedule *nearest = nearest_schedule(passes, n);
    const ht_pace pace = nearest ? nearest->pace : ht_even_pace, usual = nearest ? nearest->usual : ht_even_pace;
    oldest->tokens = n, oldest->position = bucket, oldest->wanted = wanted, oldest->apart = apart;
    oldest->age = passes->clock;
    oldest->tried = false, oldest->stale = true;
    oldest->runs = 0;
    oldest->moves = passes->loads.moves;
    ht_passes_forget_left(oldest);
    oldest->pace = pace, oldest->usual = usual;
    return oldest;
}

/* A choice is to be made: by the solver, or the best one so far is gone back to, where what the solver found since
 * was worse. When that one takes another time than it did, the machine has changed, and nothing is known any more;
 * nor for ever, for nothing is learnt of the others meanwhile. */
static void choose_anew(const ht_passes *passes, ht_schedule *s) {
    const bool worse = ht_passes_is_worse(s) && !s->stale;
    if (ht_may_build(passes) || (s->held && !s->stale)) {
        ht_passes_forget_left(s);
        return;
    }
    ht_passes_leave(s);
    s->held = worse;
    if (s->stale) /* every way may have become another one: there are new graphs */
        s->n_left = 0;
}

/* Experts are chosen otherwise than the schedule's choice has it. Lanes that were slower than predicted, or quicker,
 * for which experts they have are so no more, for it will be predicted; none comes to be further from what is usual by
 * that, for not all of it may have been learnt. What other choices took is known no more. */
static void explain(const ht_passes *passes, ht_schedule *s) {
    const ht_choice *c = &s->choice;
    ht_question question;
    const ht_problem p = ht_passes_problem(passes, s->tokens, s->position, s->wanted, s->apart, &s->solved, &question);
    for (size_t i = 0; i < c->n_lanes && c->regime == HT_REGIME_SHARES && s->runs; i++) {
        const double now = ht_choice_estimate(&p, c, i).busy, ratio = s->lanes_take[i].busy / now;
        double *pace = s->pace.lanes[c->lanes[i]];
        const double *usual = s->usual.lanes[c->lanes[i]];
        for (size_t r = 0; r < HT_REGIMES && ratio > 0 && ratio < INFINITY; r++)
            pace[r] = ratio < 1 ? fmax(pace[r] * ratio, fmin(pace[r], usual[r]))
                                : fmin(pace[r] * ratio, fmax(pace[r], usual[r]));
    }
    ht_passes_forget_left(s);
}

ht_status ht_passes_schedule(ht_passes *passes, size_t n, size_t position, size_t wanted, size_t apart,
                             ht_schedule **out, ht_error *error) {
    ht_schedule *found = ht_passes_find_schedule(passes, n, position, wanted, apart);
    ht_status status = HT_OK;
    const bool moved = ht_passes_have_moved(passes, found);
    const bool loads = found->moves != passes->loads.moves;
    if (loads)
        explain(passes, found);
    else if (found->stale || moved)
        choose_anew(passes, found);
    if (found->stale || moved || loads)
        status = solve(passes, found, error);
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
