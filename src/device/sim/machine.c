#include "device/sim/machine.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FEW 64              /* commands that a queue holds at first */
#define FRAME_BANDWIDTH 0.5 /* of the processor's own, that another program's frame asks for: estimated */

typedef struct command {
    ht_work work;
    double begin; /* not before */
} command;

typedef struct load { /* of another program */
    double share, period;
    double due; /* when its next frame is */
    bool waits, runs;
    size_t drawn, all;
} load;

typedef struct processor {
    double launch, empty, bandwidth, priority, sync[HT_SYNC_FLAG + 1];
    command *queue; /* [capacity], a ring; the first may be running */
    size_t first, n, capacity;
    ht_ticket given, done, seen; /* seen: some wait noticed its end */
    double idle_since;           /* when its queue ran empty */
    load load;
    /* what runs, ours or a frame */
    bool runs;
    ht_work work;
    double left;  /* of work.seconds */
    double speed; /* seconds of work a second, now */
    double end;   /* when it ends at this speed */
    double got;   /* bytes a second, now */
    ht_machine_use use;
} processor;

struct ht_machine {
    ht_soc *soc;
    ht_clock *clock;
    ht_machine **shared;
    size_t users;
    double now; /* of the commands: the clock's, but for the moment in which it moves */
    double together, reached;
    processor processors[HT_SOC_MAX_PROCESSORS];
};

/* ---- sharing -------------------------------------------------------------------------------------------------------- */

static double demand(const processor *p) {
    const double moving = p->work.seconds - p->work.apart;
    return p->runs && moving > 0 ? p->work.bytes / moving : 0;
}

/* Serves all of one priority: in proportion to what they ask for, if there is not enough. */
static double serve(ht_machine *m, double priority, double left) {
    double asked = 0;
    for (size_t i = 0; i < m->soc->n_processors; i++)
        if (m->processors[i].priority == priority)
            asked += demand(&m->processors[i]);
    const double part = asked > left ? left / asked : 1;
    for (size_t i = 0; i < m->soc->n_processors; i++)
        if (m->processors[i].priority == priority)
            m->processors[i].got = part * demand(&m->processors[i]);
    return asked > left ? 0 : left - asked;
}

/* What every running command gets from now on, and when it ends therefore. */
static void share_memory(ht_machine *m) {
    size_t running = 0;
    for (size_t i = 0; i < m->soc->n_processors; i++)
        running += m->processors[i].runs && m->processors[i].work.bytes > 0;
    double left = running < 2 ? INFINITY : running == 2 ? m->together : m->reached;
    for (double priority = INFINITY;;) {
        double next = -INFINITY; /* the highest below those that were served */
        for (size_t i = 0; i < m->soc->n_processors; i++)
            if (m->processors[i].priority < priority)
                next = fmax(next, m->processors[i].priority);
        if (next == -INFINITY)
            break;
        left = serve(m, next, left);
        priority = next;
    }
    for (size_t i = 0; i < m->soc->n_processors; i++) {
        processor *p = &m->processors[i];
        if (!p->runs)
            continue;
        const double asked = demand(p);
        const double slower = p->got < asked ? asked / fmax(p->got, 1e-9 * asked) : 1; /* never for ever */
        p->speed = p->work.seconds / (p->work.apart + (p->work.seconds - p->work.apart) * slower);
        if (slower == 1)
            p->speed = 1; /* of no seconds at all, too */
        p->end = m->now + p->left / p->speed;
    }
}

/* ---- events --------------------------------------------------------------------------------------------------------- */

/* The processor is free: a frame comes before our next command. */
static bool begin_next(ht_machine *m, processor *p) {
    const command *c = p->n ? &p->queue[p->first] : NULL;
    if (p->runs)
        return false;
    if (p->load.waits) {
        const double seconds = p->load.share * p->load.period;
        p->load.waits = false;
        p->load.runs = true;
        p->work = (ht_work){.seconds = seconds, .bytes = FRAME_BANDWIDTH * seconds * p->bandwidth};
    } else if (c && c->begin <= m->now) {
        p->work = c->work;
    } else {
        return false;
    }
    p->runs = true;
    p->left = p->work.seconds;
    return true;
}

static void end_running(ht_machine *m, processor *p) {
    p->runs = false;
    if (p->load.runs) {
        p->load.runs = false;
        p->load.drawn++;
        return;
    }
    p->use.bytes += p->work.bytes;
    p->use.flops += p->work.flops;
    p->first = (p->first + 1) % p->capacity;
    p->n--;
    p->done++;
    if (p->n == 0)
        p->idle_since = m->now;
}

/* A frame is due; one that waits or runs still is late, and the new one is left out. */
static void tick(processor *p) {
    p->load.due += p->load.period;
    p->load.all++;
    p->load.waits |= !p->load.runs;
}

/* The processor's next event; a frame counts only where it may stand before something of ours. */
static double next_of(const processor *p, bool frames) {
    double when = frames && p->load.share > 0 ? p->load.due : INFINITY;
    if (p->runs)
        when = fmin(when, p->end);
    else if (p->n)
        when = fmin(when, p->queue[p->first].begin);
    return when;
}

/* INFINITY where only frames are to come: nobody waits for these. */
static double next_event(void *context) {
    const ht_machine *m = context;
    double when = INFINITY;
    bool ours = false;
    for (size_t i = 0; i < m->soc->n_processors; i++)
        ours |= m->processors[i].n > 0;
    for (size_t i = 0; i < m->soc->n_processors && ours; i++)
        when = fmin(when, next_of(&m->processors[i], true));
    return when;
}

/* Some seconds pass in which n processors compute for us. What memory that is short makes a command longer is memory's. */
static void count_parts(processor *p, double seconds, size_t n) {
    const double share = seconds / (double)n;
    p->use.parts[HT_PART_MEMORY] += share * (1 - p->speed);
    for (int part = 0; part < HT_WORK_PARTS && p->work.seconds > 0; part++)
        p->use.parts[part] += share * p->speed * p->work.parts[part] / p->work.seconds;
}

static void move_to(ht_machine *m, double to) {
    size_t ours = 0;
    for (size_t i = 0; i < m->soc->n_processors; i++)
        ours += m->processors[i].runs && !m->processors[i].load.runs;
    for (size_t i = 0; i < m->soc->n_processors; i++) {
        processor *p = &m->processors[i];
        if (!p->runs)
            continue;
        p->left = fmax(p->left - (to - m->now) * p->speed, 0);
        if (p->load.runs)
            continue;
        p->use.busy += to - m->now;
        count_parts(p, to - m->now, ours);
    }
    m->now = to;
}

static void begin_all(ht_machine *m) {
    for (size_t i = 0; i < m->soc->n_processors; i++)
        begin_next(m, &m->processors[i]);
    share_memory(m);
}

static void advance(void *context, double to) {
    ht_machine *m = context;
    for (;;) {
        double when = INFINITY;
        for (size_t i = 0; i < m->soc->n_processors; i++)
            when = fmin(when, next_of(&m->processors[i], true));
        if (when > to)
            break;
        move_to(m, fmax(when, m->now));
        for (size_t i = 0; i < m->soc->n_processors; i++) {
            processor *p = &m->processors[i];
            if (p->runs && p->end <= m->now)
                end_running(m, p);
            if (p->load.share > 0 && p->load.due <= m->now)
                tick(p);
        }
        begin_all(m);
    }
    move_to(m, fmax(to, m->now));
}

/* ---- made, shared, ended -------------------------------------------------------------------------------------------- */

static void read_processor(const ht_soc_processor *from, processor *p) {
    const ht_figure *f = from->figures;
    *p = (processor){.launch = f[HT_SOC_LAUNCH].value,
                     .empty = f[HT_SOC_EMPTY].value,
                     .bandwidth = f[HT_SOC_BANDWIDTH].value,
                     .priority = f[HT_SOC_PRIORITY].value,
                     .sync = {[HT_SYNC_FINISH] = f[HT_SOC_FINISH].value,
                              [HT_SYNC_EVENT] = f[HT_SOC_EVENT].value,
                              [HT_SYNC_CALLBACK] = f[HT_SOC_CALLBACK].value,
                              [HT_SYNC_FLAG] = f[HT_SOC_FLAG].value},
                     .idle_since = -INFINITY};
    p->sync[HT_SYNC_AUTO] = p->sync[HT_SYNC_FINISH];
    for (int sync = HT_SYNC_EVENT; sync <= HT_SYNC_FLAG; sync++)
        p->sync[HT_SYNC_AUTO] = fmin(p->sync[HT_SYNC_AUTO], p->sync[sync]);
}

static void destroy(ht_machine *m) {
    for (size_t i = 0; i < HT_SOC_MAX_PROCESSORS; i++)
        free(m->processors[i].queue);
    ht_clock_destroy(m->clock);
    ht_soc_free(m->soc);
    free(m);
}

static ht_status create(const char *spec, ht_machine **machine, ht_error *error) {
    ht_machine *m;
    ht_status status = ht_alloc((void **)&m, 1, sizeof *m, "a simulated machine", error);
    if (status)
        return status;
    status = ht_soc_load(spec, &m->soc, error);
    for (size_t i = 0; !status && i < m->soc->n_processors; i++) {
        processor *p = &m->processors[i];
        read_processor(&m->soc->processors[i], p);
        status = ht_grow((void **)&p->queue, &p->capacity, FEW, sizeof *p->queue, "a simulated queue", error);
    }
    if (!status) {
        const ht_figure *f = m->soc->figures;
        const ht_clock_host host = {
            .poll = f[HT_SOC_POLL].value, .late = f[HT_SOC_SLEEP_LATE].value, .wake = f[HT_SOC_SWITCH].value};
        const ht_clock_source source = {.context = m, .next = next_event, .advance = advance};
        m->together = f[HT_SOC_TOGETHER].value;
        m->reached = f[HT_SOC_REACHED_MEMORY].value;
        status = ht_clock_create(&host, &source, &m->clock, error);
    }
    if (status)
        destroy(m);
    else
        *machine = m;
    return status;
}

ht_status ht_machine_join(ht_machine **shared, const char *spec, ht_machine **machine, ht_error *error) {
    ht_status status = HT_OK;
    if (shared && *shared) {
        if (strcmp((*shared)->soc->spec, spec) != 0)
            return ht_fail(error, HT_ERROR_ARGUMENT, "device sim:%s: only one SoC at a time (in use: %s)", spec,
                           (*shared)->soc->spec);
        *machine = *shared;
    } else {
        status = create(spec, machine, error);
    }
    if (status)
        return status;
    (*machine)->users++;
    (*machine)->shared = shared;
    if (shared)
        *shared = *machine;
    return HT_OK;
}

void ht_machine_leave(ht_machine *m) {
    if (!m || --m->users)
        return;
    if (m->shared)
        *m->shared = NULL;
    destroy(m);
}

ht_clock *ht_machine_clock(ht_machine *m) {
    return m->clock;
}

const ht_soc *ht_machine_soc(const ht_machine *m) {
    return m->soc;
}

/* ---- submitting, waiting -------------------------------------------------------------------------------------------- */

/* A ring that is full becomes twice as long. False: no memory. */
static bool make_room(processor *p) {
    if (p->n < p->capacity)
        return true;
    command *grown = malloc(2 * p->capacity * sizeof *grown);
    if (!grown)
        return false;
    for (size_t i = 0; i < p->n; i++)
        grown[i] = p->queue[(p->first + i) % p->capacity];
    free(p->queue);
    p->queue = grown;
    p->first = 0;
    p->capacity *= 2;
    return true;
}

/* A queue counts as empty once it has been so for longer than a launch: a host that submits one tiny command after the other
 * keeps the processor awake. */
ht_ticket ht_machine_submit(ht_machine *m, size_t i, const ht_work *work) {
    processor *p = &m->processors[i];
    ht_clock_charge(m->clock, p->launch);
    if (!make_room(p))
        return 0;
    m->now = fmax(m->now, ht_clock_now(m->clock));
    const bool asleep = p->n == 0 && m->now - p->idle_since > p->launch * (1 + 1e-9);
    p->queue[(p->first + p->n++) % p->capacity] = (command){.work = *work, .begin = m->now + (asleep ? p->empty : 0)};
    p->given++;
    if (begin_next(m, p))
        share_memory(m);
    return p->given;
}

ht_ticket ht_machine_completed(const ht_machine *m, size_t i) {
    return m->processors[i].done;
}

typedef struct awaited {
    const processor *p;
    ht_ticket ticket;
} awaited;

static bool is_done(const void *context) {
    const awaited *a = context;
    return a->p->done >= a->ticket;
}

ht_status ht_machine_wait(ht_machine *m, size_t i, ht_ticket ticket, ht_sync sync, ht_error *error) {
    processor *p = &m->processors[i];
    if (ticket > p->given)
        return ht_fail(error, HT_ERROR_DEVICE, "sim:%s/%s: ticket %llu was never given", m->soc->name,
                       m->soc->processors[i].name, (unsigned long long)ticket);
    if (ticket <= p->seen)
        return HT_OK;
    const awaited a = {p, sync == HT_SYNC_FINISH ? p->given : ticket};
    /* what has ended before is known at once, but for a queue that is to be drained */
    const bool known = is_done(&a) && sync != HT_SYNC_FINISH;
    if (!ht_clock_await(m->clock, is_done, &a, INFINITY))
        return ht_fail(error, HT_ERROR_DEVICE, "sim:%s/%s: deadlock: nothing in progress can end this wait",
                       m->soc->name, m->soc->processors[i].name);
    p->seen = a.ticket;
    if (!known)
        ht_clock_charge(m->clock, p->sync[sync]);
    return HT_OK;
}

/* ---- other load, accounts ------------------------------------------------------------------------------------------- */

void ht_machine_load(ht_machine *m, size_t i, double share, double frames) {
    processor *p = &m->processors[i];
    p->load = (load){.share = share, .period = 1 / frames, .due = ht_clock_now(m->clock)};
}

void ht_machine_use_of(ht_machine *m, size_t i, ht_machine_use *use) {
    const processor *p = &m->processors[i];
    *use = p->use;
    use->seconds = ht_clock_now(m->clock);
    use->frames = p->load.drawn;
    use->frames_due = p->load.all;
}
