/* The in-order queue: submits, tickets, and four ways to wait for one.
 *
 * A ticket is a number; events are made only where somebody will look: for submits that are joined, and for every few
 * others so that `completed` moves on. A ticket without an event of its own is complete when a later one is; whoever waits
 * for one that none covers gets a marker. Every wait but FINISH gives up when nothing has finished for a while, so that a
 * driver that has lost its device cannot hang a session.
 *
 * FLAG is the paper's fast synchronisation (HeteroInfer): sleep for the time that the same task took before, then watch a
 * word in host-visible memory that a last kernel writes. Whether such a write is seen before the queue is drained differs
 * between drivers, so it is probed once; where it is not, the event is watched instead.
 */
#include "base/os.h"
#include "device/opencl/flag.h"
#include "device/opencl/kernel.h"
#include "device/opencl/ops.h"
#include "device/opencl/queue.h"
#include "device/opencl/slice.h"

#if HT_HAVE_OPENCL
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define EVENT_EVERY 8         /* submits from one event to the next when nobody waits */
#define YIELD_SECONDS 200e-6  /* polling past this only steals time from a CPU driver's threads */
#define NAP_NANOSECONDS 20000 /* between looks after that */
#define SLACK_SECONDS 80e-6   /* a sleep ends this much before the predicted end: timers are late by up to this */
#define PREDICTIONS 256       /* tasks whose times are remembered */

typedef enum probe { UNKNOWN, SEEN, NOT_SEEN } probe;

typedef struct prediction {
    const void *task; /* a name, never read through: the task may be gone */
    size_t tokens;
    double seconds;
} prediction;

struct ht_cl_queue_state {
    ht_ticket last, done;
    ht_ticket reads; /* newest with values on their way to the host, of which d->unread tells */
    struct in_flight {
        ht_ticket ticket;
        cl_event event;
    } ring[HT_CL_IN_FLIGHT]; /* oldest first, from `first` on */
    size_t first, count;
    cl_int failed; /* first error a command ended with; every later wait tells it */
    double limit;  /* seconds without progress after which a wait gives up */

    probe flag_probe;
    cl_mem flag;
    _Atomic(cl_uint) *flag_host; /* the device writes it; what it computed before is read after */
    cl_kernel raise;
    ht_ticket raised; /* newest ticket with a flag behind it */
    prediction predictions[PREDICTIONS];
    struct {
        const void *task;
        size_t tokens;
        double submitted;
    } newest; /* joined submit */

    pthread_mutex_t lock; /* of called_back */
    pthread_cond_t wake;
    ht_ticket called_back;
    int outstanding; /* callbacks that have not come yet */
    bool abandoned;  /* the device is closed: the last callback frees this */
};

/* ---- creation ---------------------------------------------------------------------------------------------------------- */

ht_status ht_cl_queue_create(ht_cl_device *d, double limit, ht_error *error) {
    ht_status status = ht_alloc((void **)&d->state, 1, sizeof *d->state, d->caps.name, error);
    if (status)
        return status;
    d->state->limit = limit;
    pthread_mutex_init(&d->state->lock, NULL);
    ht_os_cond_init(&d->state->wake);
    cl_int code;
    d->queue = d->cl->CreateCommandQueue(d->context, d->id, 0, &code);
    return ht_cl_check(code, d->caps.name, "clCreateCommandQueue", error);
}

static void free_state(struct ht_cl_queue_state *q) {
    pthread_cond_destroy(&q->wake);
    pthread_mutex_destroy(&q->lock);
    free(q);
}

void ht_cl_queue_release(ht_cl_device *d) {
    struct ht_cl_queue_state *q = d->state;
    if (!q)
        return;
    if (d->queue && !q->failed)
        d->cl->Finish(d->queue);
    for (size_t i = 0; i < q->count; i++)
        d->cl->ReleaseEvent(q->ring[(q->first + i) % HT_CL_IN_FLIGHT].event);
    if (d->last_event)
        d->cl->ReleaseEvent(d->last_event);
    if (q->flag_host)
        d->cl->EnqueueUnmapMemObject(d->queue, q->flag, (void *)(uintptr_t)q->flag_host, 0, NULL, NULL);
    if (q->flag)
        d->cl->ReleaseMemObject(q->flag);
    if (d->queue)
        d->cl->ReleaseCommandQueue(d->queue);
    /* Callbacks come on the driver's own threads, a little after Finish; of a driver that hangs they may come late, or
     * never: what they write to is then left to the last of them. */
    for (int i = 0; i < 100; i++) {
        pthread_mutex_lock(&q->lock);
        const bool last = i == 99, done = q->outstanding == 0;
        q->abandoned = last && !done;
        pthread_mutex_unlock(&q->lock);
        if (done)
            free_state(q);
        if (done || last)
            return;
        ht_os_nap(1000000);
    }
}

/* ---- the flag ---------------------------------------------------------------------------------------------------------- */

static const ht_cl_grid one_item = {1, (const size_t[]){1}, NULL};

static ht_status launch_raise(ht_cl_device *d, cl_uint value, ht_error *error) {
    const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(d->state->flag), HT_CL_ARGUMENT(value)};
    return ht_cl_launch(d, NULL, d->state->raise, arguments, HT_COUNT(arguments), &one_item, error);
}

/* Seconds until the flag holds `value`, watching it beside an event; negative: the event ended first. */
static double watch_flag(ht_cl_device *d, cl_uint value, cl_event event) {
    const double start = ht_seconds();
    for (;;) {
        if (*d->state->flag_host == value)
            return ht_seconds() - start;
        cl_int state = CL_COMPLETE;
        d->cl->GetEventInfo(event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
        if (state <= CL_COMPLETE || ht_seconds() - start > 5)
            return -1;
        ht_os_yield();
    }
}

static ht_status make_flag(ht_cl_device *d, ht_error *error) {
    struct ht_cl_queue_state *q = d->state;
    cl_int code;
    ht_status status = ht_cl_kernel(d, "queue", "raise_flag", "", &q->raise, error);
    if (!status)
        status = ht_cl_buffer(d, 4096, CL_MEM_READ_WRITE | CL_MEM_ALLOC_HOST_PTR, "flag", &q->flag, error);
    if (status)
        return status;
    q->flag_host =
        d->cl->EnqueueMapBuffer(d->queue, q->flag, CL_TRUE, CL_MAP_READ | CL_MAP_WRITE, 0, 4096, 0, NULL, NULL, &code);
    if (code != CL_SUCCESS)
        q->flag_host = NULL;
    return ht_cl_check(code, d->caps.name, "clEnqueueMapBuffer(flag)", error);
}

/* Raises the flag, then keeps the queue busy: a flag that is seen before the queue is idle can be watched. */
static ht_status probe_flag(ht_cl_device *d, ht_error *error) {
    struct ht_cl_queue_state *q = d->state;
    cl_kernel busy;
    cl_mem sink = NULL;
    cl_event event = NULL;
    q->flag_probe = NOT_SEEN;
    ht_status status = make_flag(d, error);
    if (!status)
        status = ht_cl_kernel(d, "queue", "keep_busy", "", &busy, error);
    if (!status)
        status = ht_cl_buffer(d, 4, CL_MEM_READ_WRITE, "flag", &sink, error);
    int seen = 0;
    for (cl_uint i = 1; i <= 4 && !status && q->flag_host; i++) { /* the first compiles */
        const cl_uint rounds = 4000000;                           /* some milliseconds */
        *q->flag_host = 0;
        const ht_cl_argument arguments[] = {HT_CL_ARGUMENT(sink), HT_CL_ARGUMENT(rounds)};
        if ((status = launch_raise(d, i, error)))
            break;
        d->want_event = true;
        status = ht_cl_launch(d, NULL, busy, arguments, HT_COUNT(arguments), &one_item, error);
        d->want_event = false;
        event = d->last_event;
        d->last_event = NULL;
        if (status)
            break;
        d->cl->Flush(d->queue);
        seen += watch_flag(d, i, event) >= 0;
        status = ht_cl_check(d->cl->Finish(d->queue), d->caps.name, "clFinish", error);
        d->cl->ReleaseEvent(event);
    }
    if (sink)
        d->cl->ReleaseMemObject(sink);
    if (!status && q->flag_host) { /* what it raised is no ticket of anyone's */
        *q->flag_host = 0;
        q->flag_probe = seen >= 3 ? SEEN : NOT_SEEN;
    }
    if (!status)
        ht_log(HT_LOG_INFO, "%s: a flag written by a kernel is %s", d->caps.name,
               seen >= 3 ? "seen at once" : "not visible before the queue is drained: watching events instead");
    return status;
}

/* Whether joins may watch the flag; probed at the first question. */
static bool can_flag(ht_cl_device *d) {
    ht_error error = {0};
    if (d->state->flag_probe == UNKNOWN && probe_flag(d, &error))
        ht_log(HT_LOG_WARN, "%s", error.text);
    return d->state->flag_probe == SEEN;
}

/* ---- tickets ----------------------------------------------------------------------------------------------------------- */

/* The oldest event in flight leaves. */
static void pop(ht_cl_device *d) {
    struct ht_cl_queue_state *q = d->state;
    struct in_flight *oldest = &q->ring[q->first];
    d->cl->ReleaseEvent(oldest->event);
    q->done = ht_max_size(q->done, oldest->ticket);
    q->first = (q->first + 1) % HT_CL_IN_FLIGHT;
    q->count--;
}

static void push(ht_cl_device *d, ht_ticket ticket, cl_event event) {
    struct ht_cl_queue_state *q = d->state;
    q->ring[(q->first + q->count++) % HT_CL_IN_FLIGHT] = (struct in_flight){ticket, event};
}

/* An event for everything submitted so far, if the newest has none. */
static ht_status cover(ht_cl_device *d, ht_error *error) {
    struct ht_cl_queue_state *q = d->state;
    const size_t newest = (q->first + q->count + HT_CL_IN_FLIGHT - 1) % HT_CL_IN_FLIGHT;
    if (q->done == q->last || (q->count && q->ring[newest].ticket == q->last))
        return HT_OK;
    cl_event event;
    cl_int code = d->cl->EnqueueMarkerWithWaitList(d->queue, 0, NULL, &event);
    ht_status status = ht_cl_check(code, d->caps.name, "clEnqueueMarkerWithWaitList", error);
    if (status)
        return status;
    push(d, q->last, event);
    return ht_cl_check(d->cl->Flush(d->queue), d->caps.name, "clFlush", error);
}

ht_ticket ht_cl_completed(ht_device *device) {
    ht_cl_device *d = (ht_cl_device *)device;
    struct ht_cl_queue_state *q = d->state;
    while (q->count) {
        cl_int state = CL_COMPLETE;
        cl_int code =
            d->cl->GetEventInfo(q->ring[q->first].event, CL_EVENT_COMMAND_EXECUTION_STATUS, sizeof state, &state, NULL);
        if (code != CL_SUCCESS)
            state = code;
        if (state > CL_COMPLETE)
            break;
        /* A failed command counts as complete, lest a join polls for ever; wait tells. */
        if (state < 0 && !q->failed)
            q->failed = state;
        pop(d);
    }
    if (!q->count && q->done < q->last && cover(d, NULL))
        q->done = q->last; /* the queue takes no more commands: nothing will ever come, and wait tells */
    return q->done;
}

/* ---- waiting ----------------------------------------------------------------------------------------------------------- */

static ht_status give_up(const ht_cl_device *d, ht_error *error) {
    d->state->failed = d->state->failed ? d->state->failed : CL_OUT_OF_RESOURCES;
    return ht_fail(error, HT_ERROR_DEVICE, "%s: nothing has finished for %.0f s: the device or its driver hangs",
                   d->caps.name, d->state->limit);
}

/* Asks again and again until `ticket` is done: without pause at first, then with naps. `flag`: a raised flag says so. */
static ht_status poll(ht_cl_device *d, ht_ticket ticket, bool flag, ht_error *error) {
    struct ht_cl_queue_state *q = d->state;
    const double start = ht_seconds();
    double progress = start;
    ht_ticket before = q->done;
    for (unsigned i = 0;; i++) {
        if (flag && ht_cl_flag_reached(q->flag_host, ticket)) {
            q->done = ht_max_size(q->done, ticket);
            return HT_OK;
        }
        /* the driver is asked seldom while a flag is watched: for failures, which raise none */
        if ((!flag || i % 64 == 63) && ht_cl_completed(&d->base) >= ticket)
            return HT_OK;
        const double now = ht_seconds();
        if (q->done != before)
            before = q->done, progress = now;
        if (now - progress > q->limit)
            return give_up(d, error);
        if (now - start < YIELD_SECONDS)
            ht_os_yield();
        else
            ht_os_nap(NAP_NANOSECONDS);
    }
}

typedef struct call_back_data {
    struct ht_cl_queue_state *state;
    ht_ticket ticket;
} call_back_data;

static void CL_CALLBACK called_back(cl_event event, cl_int state, void *user) {
    call_back_data *data = user;
    struct ht_cl_queue_state *q = data->state;
    pthread_mutex_lock(&q->lock);
    q->called_back = ht_max_size(q->called_back, data->ticket);
    const bool mine = --q->outstanding == 0 && q->abandoned; /* the device is closed, and nobody else is left */
    pthread_cond_broadcast(&q->wake);
    pthread_mutex_unlock(&q->lock);
    if (mine)
        free_state(q);
    free(data);
}

static ht_status wait_for_call(ht_cl_device *d, ht_ticket ticket, ht_error *error) {
    struct ht_cl_queue_state *q = d->state;
    const struct in_flight *covering = NULL;
    for (size_t i = 0; i < q->count && !covering; i++)
        if (q->ring[(q->first + i) % HT_CL_IN_FLIGHT].ticket >= ticket)
            covering = &q->ring[(q->first + i) % HT_CL_IN_FLIGHT];
    if (!covering) /* done in the meantime */
        return HT_OK;
    /* of its own, because it may be called long after a wait that gave up */
    call_back_data *data = malloc(sizeof *data);
    if (!data)
        return poll(d, ticket, false, error);
    *data = (call_back_data){q, covering->ticket};
    pthread_mutex_lock(&q->lock);
    q->outstanding++;
    pthread_mutex_unlock(&q->lock);
    cl_int code = d->cl->SetEventCallback(covering->event, CL_COMPLETE, called_back, data);
    if (code != CL_SUCCESS) {
        free(data);
        pthread_mutex_lock(&q->lock);
        q->outstanding--;
        pthread_mutex_unlock(&q->lock);
        return ht_cl_check(code, d->caps.name, "clSetEventCallback", error);
    }
    const double until = ht_seconds() + q->limit + 1;
    bool in_time = true;
    pthread_mutex_lock(&q->lock);
    while (q->called_back < ticket && in_time)
        in_time = ht_os_cond_wait(&q->wake, &q->lock, until);
    const bool called = q->called_back >= ticket;
    pthread_mutex_unlock(&q->lock);
    return called ? HT_OK : give_up(d, error);
}

static prediction *predicted(struct ht_cl_queue_state *q) {
    const uintptr_t mixed = ((uintptr_t)q->newest.task >> 6) * 31 + q->newest.tokens;
    return &q->predictions[mixed % PREDICTIONS];
}

/* Sleeps for most of the time that the newest joined submit took before, counted from its submission. */
static ht_status wait_for_flag(ht_cl_device *d, ht_ticket ticket, ht_error *error) {
    struct ht_cl_queue_state *q = d->state;
    const bool flag = can_flag(d) && q->raised >= ticket;
    prediction *p = predicted(q);
    const bool known = p->task == q->newest.task && p->tokens == q->newest.tokens;
    if (known) {
        const double left = q->newest.submitted + p->seconds * 0.95 - SLACK_SECONDS - ht_seconds();
        if (left > 0)
            ht_os_nap((uint64_t)(left * 1e9));
    }
    ht_status status = poll(d, ticket, flag, error);
    if (!status && ticket == q->last) {
        const double took = ht_seconds() - q->newest.submitted;
        /* a little less than it was: having slept too long hides how long it really takes */
        const double seconds = known ? ht_next_wait(p->seconds, took > p->seconds ? took : 0.98 * took) : took;
        *p = (prediction){q->newest.task, q->newest.tokens, seconds};
    }
    return status;
}

ht_status ht_cl_wait(ht_device *device, ht_ticket ticket, ht_sync sync, ht_error *error) {
    ht_cl_device *d = (ht_cl_device *)device;
    struct ht_cl_queue_state *q = d->state;
    if (ticket > q->last)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: ticket %llu was never given", d->caps.name,
                       (unsigned long long)ticket);
    ht_status status = HT_OK;
    if (ht_cl_completed(device) < ticket && !q->failed) {
        if (sync != HT_SYNC_FINISH)
            status = cover(d, error);
        if (status)
            return status;
        switch (sync) {
        case HT_SYNC_FINISH:
            status = ht_cl_check(d->cl->Finish(d->queue), d->caps.name, "clFinish", error);
            if (!status && ht_cl_completed(device) < q->last)
                q->done = q->last;
            break;
        case HT_SYNC_CALLBACK:
            status = wait_for_call(d, ticket, error);
            break;
        case HT_SYNC_FLAG:
            status = wait_for_flag(d, ticket, error);
            break;
        default:
            status = poll(d, ticket, false, error);
        }
        ht_cl_completed(device);
    }
    if (!status && q->failed)
        status = ht_cl_check(q->failed, d->caps.name, "a submitted kernel", error);
    return status;
}

/* ---- submitting -------------------------------------------------------------------------------------------------------- */

static ht_status enqueue(ht_cl_device *d, ht_task *task, const ht_binding *binding, bool flag, ht_error *error) {
    ht_cl_call call = {.binding = binding, .tokens = (cl_uint)binding->tokens, .shape_tokens = binding->tokens};
    ht_status status = ht_cl_find_places(d, task, binding, &call, error);
    if (!status)
        status = ht_cl_bring_in(d, task, &call, error);
    if (!status)
        status = ht_cl_ops[task->op->kind].enqueue(d, task, &call, error);
    if (!status)
        status = ht_cl_hand_out(d, task, &call, error);
    if (!status && flag)
        status = launch_raise(d, (cl_uint)(d->state->last + 1), error);
    return status;
}

/* NULL, or why this cannot be submitted. */
static const char *refuses_binding(const ht_cl_device *d, const ht_task *task, const ht_binding *binding) {
    if (binding->n_pieces > HT_MAX_PIECES)
        return "too many pieces";
    if (!binding->part)
        return NULL;
    if (!ht_cl_is_whole(d, task->op, &task->slice) &&
        (task->op->kind != HT_OP_MATMUL || !ht_slice_lies_in(task->op, binding->part, &task->slice)))
        return "a part of a slice without it";
    return ht_cl_refuses_part(&d->base, task->op, binding->part);
}

ht_status ht_cl_submit(ht_device *device, ht_task *task, const ht_binding *binding, const ht_dependency *after,
                       size_t n_after, ht_ticket *ticket, ht_error *error) {
    ht_cl_device *d = (ht_cl_device *)device;
    struct ht_cl_queue_state *q = d->state;
    if (binding->tokens == 0 || binding->tokens > d->max_tokens)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s: %zu tokens in one submit", d->caps.name, task->op->name,
                       binding->tokens);
    const char *why = refuses_binding(d, task, binding);
    if (why)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s: %s", d->caps.name, task->op->name, why);
    /* The host waits for the others. A GPU that is to stay busy across a join needs user events here. */
    ht_status status = ht_wait_all(device, after, n_after, binding->sync, error);
    if (!status && q->count == HT_CL_IN_FLIGHT)
        status = ht_cl_wait(device, q->ring[q->first].ticket, HT_SYNC_EVENT, error);
    if (!status && q->failed)
        status = ht_cl_check(q->failed, d->caps.name, "an earlier kernel", error);
    if (status)
        return status;
    const bool flag = binding->joined && binding->sync == HT_SYNC_FLAG && can_flag(d);
    d->want_event = binding->joined || (q->last + 1) % EVENT_EVERY == 0;
    const double start = ht_seconds();
    d->unread = d->unread && ht_cl_completed(device) < q->reads;
    status = enqueue(d, task, binding, flag, error);
    cl_event event = d->last_event;
    d->want_event = false;
    d->last_event = NULL;
    if (status) {
        if (event)
            d->cl->ReleaseEvent(event);
        return status;
    }
    *ticket = ++q->last;
    q->reads = d->unread ? q->last : 0;
    if (flag)
        q->raised = q->last;
    if (binding->joined)
        q->newest.task = task, q->newest.tokens = binding->tokens, q->newest.submitted = start;
    if (!event)
        return HT_OK;
    push(d, q->last, event);
    return ht_cl_check(d->cl->Flush(d->queue), d->caps.name, "clFlush", error);
}

/* Runs the kernels that a submit of `tokens` tokens takes, on one token of memory that nobody reads: drivers compile and
 * load kernels when they are first run (PoCL for 60-700 ms each). */
ht_status ht_cl_warm(ht_device *device, ht_task *task, size_t tokens, ht_error *error) {
    ht_cl_device *d = (ht_cl_device *)device;
    const ht_hparams *h = &task->shape;
    const size_t head = ht_max_size((size_t)h->head_dim, 1),
                 caches = task->op->cache > 0 ? (size_t)task->op->cache + 1 : 1;
    size_t width = ht_max_size((size_t)(h->heads + 2 * h->kv_heads) * head, 2 * (size_t)h->feed_forward);
    width = ht_max_size(width, ht_max_size((size_t)h->vocabulary, (size_t)h->embedding));
    width = ht_max_size(width, task->op->more_first + ht_op_more_width(task->op, h));
    width = ht_max_size(width, ht_max_size(ht_op_in_width(task->op, h), ht_op_out_width(task->op, h)));
    if (task->op->kind == HT_OP_MATMUL)
        width = ht_max_size(width, ht_max_size(task->slice.row_end, task->slice.reduction_end));
    width = ht_max_size(width, ht_max_size(ht_op_in_width(task->op, h), ht_op_out_width(task->op, h)));
    const size_t floats = 3 * width + ht_op_state(task->op, h);
    ht_status status = ht_cl_scratch(d, HT_CL_SCRATCH_WARM, floats * sizeof(float), error);
    ht_kv_layer *kv = NULL;
    if (!status)
        status = ht_alloc((void **)&kv, caches, sizeof *kv, "warming", error);
    if (status)
        return status;
    for (size_t i = 0; i < caches; i++)
        kv[i] = (ht_kv_layer){.positions = 1, .type = d->kv_type};
    const ht_cl_region region = {NULL, floats * sizeof(float), d->scratch[HT_CL_SCRATCH_WARM], false};
    ht_view slots[HT_MAX_SLOTS] = {{NULL, 0}};
    const ht_binding binding = {.slots = slots, .kv = kv, .tokens = 1};
    ht_cl_call call = {
        .binding = &binding,
        .tokens = 1,
        .shape_tokens = tokens,
        .part = task->slice,
        .in = {.region = &region, .stride = width},
        .aux = {.region = &region, .offset = width, .stride = width},
        .out = {.region = &region, .offset = task->op->in == task->op->out ? 0 : 2 * width, .stride = width},
        .keys = &region,
        .values = &region,
        .keys_offset = width * sizeof(float),
        .values_offset = 2 * width * sizeof(float),
        .state = &region,
        .state_offset = 3 * width};
    status = ht_cl_ops[task->op->kind].enqueue(d, task, &call, error);
    if (!status && task->op->kind == HT_OP_NORM && task->op->aux != HT_SLOT_NONE) {
        call.pieces[call.n_pieces++] = call.aux; /* another kernel adds pieces */
        status = ht_cl_ops[task->op->kind].enqueue(d, task, &call, error);
    }
    const ht_status finished = ht_cl_check(d->cl->Finish(d->queue), d->caps.name, "clFinish", status ? NULL : error);
    free(kv);
    return status ? status : finished;
}

#else
typedef int ht_cl_queue_is_empty; /* ISO C wants something in every file */
#endif
