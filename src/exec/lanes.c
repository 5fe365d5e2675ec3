/* Several lanes in one pass: the causal cut.
 *
 * A later token needs the keys and values of earlier ones, never the reverse. So one lane takes the first tokens through all
 * layers, the next the ones behind them, and all that flows between them is one way: a lane publishes a layer once its keys
 * and values of it are in the cache, and the lanes behind look for that before the layer's attention. Nobody waits for a
 * later lane, so there is no joint step in which the quicker one stands still; and since weights are not divided, the cut
 * moves from pass to pass without preparing anything.
 *
 * The first lane runs in the caller's thread, the others in threads of their own: devices that compute in their caller's
 * thread would else stand in each other's way.
 */
#define _GNU_SOURCE /* cpu_set_t */
#include "device/common.h"
#include "exec/exec.h"

#include <pthread.h>
#include <stdlib.h>

typedef struct part {
    ht_run run;
    ht_binding binding;
    ht_view slots[HT_SLOT_COUNT];
    size_t wanted; /* logits of these tokens on */
    ht_status status;
    ht_error error;
    int published; /* layers whose keys and values are there */
} part;

typedef struct worker {
    struct ht_crew *crew;
    pthread_t thread;
    part *part; /* to do; NULL: nothing */
} worker;

struct ht_crew {
    pthread_mutex_t mutex;
    pthread_cond_t work, progress; /* a part was handed out; one has published or ended */
    worker workers[HT_MAX_DEVICES];
    size_t n_workers;
    part parts[HT_MAX_DEVICES];
    size_t n_parts, n_running; /* of the pass; parts under way in workers */
    bool failed, closing;
};

/* ---- between lanes ------------------------------------------------------------------------------------------------------ */

ht_status ht_crew_before(const ht_run *run, const ht_step *step, ht_error *error) {
    ht_crew *crew = run->crew;
    if (step->op->kind != HT_OP_ATTENTION || run->index == 0)
        return HT_OK;
    ht_status status = HT_OK;
    pthread_mutex_lock(&crew->mutex);
    for (size_t i = 0; i < run->index && !status; i++)
        while (!status && crew->parts[i].published <= step->op->layer) {
            if (crew->failed)
                status = ht_fail(error, HT_ERROR_CANCELLED, "another lane of this pass failed");
            else
                pthread_cond_wait(&crew->progress, &crew->mutex);
        }
    pthread_mutex_unlock(&crew->mutex);
    return status;
}

ht_status ht_crew_after(const ht_run *run, const ht_step *step, ht_sync sync, ht_error *error) {
    ht_crew *crew = run->crew;
    if (step->op->kind != HT_OP_ROPE || run->index + 1 == crew->n_parts)
        return HT_OK;
    ht_status status = ht_lane_join(run->engine, run->lane, sync, error);
    if (status)
        return status;
    pthread_mutex_lock(&crew->mutex);
    crew->parts[run->index].published = step->op->layer + 1;
    pthread_cond_broadcast(&crew->progress);
    pthread_mutex_unlock(&crew->mutex);
    return HT_OK;
}

/* ---- threads ----------------------------------------------------------------------------------------------------------- */

/* A lane's thread stays on the lane's cores: it would else take time from another lane's devices. Best effort. */
static bool stay_on(uint64_t cores, cpu_set_t *before) {
    if (!cores || pthread_getaffinity_np(pthread_self(), sizeof *before, before) != 0)
        return false;
    cpu_set_t own;
    ht_core_set(cores, &own);
    return pthread_setaffinity_np(pthread_self(), sizeof own, &own) == 0;
}

static void run_part(ht_crew *crew, part *p) {
    cpu_set_t before;
    const bool moved = stay_on(p->run.lane->cores, &before);
    p->status = ht_run_body(&p->run, &p->binding, p->wanted, &p->error);
    const bool last = p->run.index + 1 == crew->n_parts;
    if (!p->status && !last) /* the last one's work is waited for by the head */
        p->status = ht_lane_join(p->run.engine, p->run.lane, p->binding.sync, &p->error);
    if (moved)
        pthread_setaffinity_np(pthread_self(), sizeof before, &before);
    if (!p->status)
        return;
    pthread_mutex_lock(&crew->mutex);
    crew->failed = true;
    pthread_cond_broadcast(&crew->progress);
    pthread_mutex_unlock(&crew->mutex);
}

static void *work(void *argument) {
    worker *w = argument;
    ht_crew *crew = w->crew;
    pthread_mutex_lock(&crew->mutex);
    for (;;) {
        while (!w->part && !crew->closing)
            pthread_cond_wait(&crew->work, &crew->mutex);
        if (crew->closing)
            break;
        pthread_mutex_unlock(&crew->mutex);
        run_part(crew, w->part);
        pthread_mutex_lock(&crew->mutex);
        w->part = NULL;
        crew->n_running--;
        pthread_cond_broadcast(&crew->progress);
    }
    pthread_mutex_unlock(&crew->mutex);
    return NULL;
}

ht_status ht_crew_create(size_t lanes, ht_crew **out, ht_error *error) {
    ht_crew *crew;
    *out = NULL;
    ht_status status = ht_alloc((void **)&crew, 1, sizeof *crew, "the lanes' threads", error);
    if (status)
        return status;
    pthread_mutex_init(&crew->mutex, NULL);
    pthread_cond_init(&crew->work, NULL);
    pthread_cond_init(&crew->progress, NULL);
    for (size_t i = 0; i + 1 < lanes && !status; i++) {
        crew->workers[i].crew = crew;
        if (pthread_create(&crew->workers[i].thread, NULL, work, &crew->workers[i]) != 0)
            status = ht_fail(error, HT_ERROR_MEMORY, "no thread for a lane");
        else
            crew->n_workers++;
    }
    if (status)
        ht_crew_destroy(crew);
    else
        *out = crew;
    return status;
}

void ht_crew_destroy(ht_crew *crew) {
    if (!crew)
        return;
    pthread_mutex_lock(&crew->mutex);
    crew->closing = true;
    pthread_cond_broadcast(&crew->work);
    pthread_mutex_unlock(&crew->mutex);
    for (size_t i = 0; i < crew->n_workers; i++)
        pthread_join(crew->workers[i].thread, NULL);
    pthread_cond_destroy(&crew->progress);
    pthread_cond_destroy(&crew->work);
    pthread_mutex_destroy(&crew->mutex);
    free(crew);
}

/* ---- a pass ------------------------------------------------------------------------------------------------------------ */

static void divide(ht_crew *crew, ht_engine *engine, const ht_cut *cut, const ht_binding *binding, size_t first,
                   const atomic_bool *cancel) {
    size_t begin = 0;
    crew->n_parts = 0;
    crew->failed = false;
    for (size_t l = 0; l < engine->n_lanes; l++) {
        const size_t tokens = cut->tokens[l];
        if (!tokens)
            continue;
        part *p = &crew->parts[crew->n_parts];
        *p = (part){
            .run = {
                .engine = engine, .lane = &engine->lanes[l], .cancel = cancel, .crew = crew, .index = crew->n_parts}};
        p->binding = ht_binding_from(binding, begin, p->slots);
        p->binding.tokens = tokens;
        p->binding.cached = 0; /* the lanes before write what this one has not seen */
        p->wanted = first > begin ? ht_min_size(first - begin, tokens) : 0;
        begin += tokens;
        if (begin < binding->tokens)
            p->binding.room = tokens; /* rows behind are another lane's */
        crew->n_parts++;
    }
}

ht_status ht_crew_run(ht_crew *crew, ht_engine *engine, const ht_cut *cut, const ht_binding *binding, size_t first,
                      const atomic_bool *cancel, ht_error *error) {
    divide(crew, engine, cut, binding, first, cancel);
    pthread_mutex_lock(&crew->mutex);
    for (size_t i = 1; i < crew->n_parts; i++)
        crew->workers[i - 1].part = &crew->parts[i];
    crew->n_running = crew->n_parts - 1;
    pthread_cond_broadcast(&crew->work);
    pthread_mutex_unlock(&crew->mutex);
    run_part(crew, &crew->parts[0]);
    pthread_mutex_lock(&crew->mutex);
    while (crew->n_running)
        pthread_cond_wait(&crew->progress, &crew->mutex);
    pthread_mutex_unlock(&crew->mutex);
    const part *last = &crew->parts[crew->n_parts - 1], *failed = NULL;
    for (size_t i = 0; i < crew->n_parts; i++) /* a lane that only gave up is not the reason */
        if (crew->parts[i].status && (!failed || failed->status == HT_ERROR_CANCELLED))
            failed = &crew->parts[i];
    engine->running = last->run.lane;
    engine->plan = last->run.plan;
    if (!failed)
        return HT_OK;
    ht_engine_settle(engine);
    if (error)
        *error = failed->error;
    return failed->status;
}
