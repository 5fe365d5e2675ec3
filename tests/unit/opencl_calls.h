/* An OpenCL device whose calls are watched, counted and made to fail, and one operator on it whose numbers are known. */
#ifndef HT_UNIT_OPENCL_CALLS_H
#define HT_UNIT_OPENCL_CALLS_H

#include "device/opencl/kernel.h"
#include "device/opencl/tiles.h"
#include "unit/test.h"
#include "slots.h"

#define ROWS 300
#define COLS 64
#define TOKENS 5
#define STRIDE 320 /* of both slots */
#define PAGES (((size_t)TOKENS * STRIDE * sizeof(float) + 4095) / 4096 * 4096)
#define REGION (TOKENS * STRIDE * sizeof(float)) /* of each: ends with the last row's stride */
#define FIRST 16                                 /* column of x where its numbers begin */

static const ht_hparams hparams = {.layers = 1,
                                   .embedding = COLS,
                                   .heads = 2,
                                   .kv_heads = 1,
                                   .head_dim = 32,
                                   .feed_forward = ROWS / 2,
                                   .vocabulary = 40,
                                   .context_length = 64,
                                   .eps = 1e-5f};

/* ---- what is called ---------------------------------------------------------------------------------------------------- */

static ht_cl *table; /* what devices call through */
static ht_cl real;

/* One call of `name`, the countdown-th, fails; with `for_good` all later ones of any name in the list below as well.
 * `spares`: calls of play's set_up are not counted. */
static struct {
    const char *name;
    long countdown;
    bool for_good, struck, spares;
} victim;
static bool in_set_up;
static long alive; /* objects made and not released */

static bool strikes(const char *name) {
    if (victim.struck && victim.for_good)
        return true;
    if (!victim.name || victim.struck || (victim.spares && in_set_up) || strcmp(name, victim.name) != 0 ||
        --victim.countdown > 0)
        return false;
    return victim.struck = true;
}

#define FAILS(name, parameters, arguments)                                 \
    static cl_int CL_API_CALL test_##name parameters {                     \
        return strikes(#name) ? CL_OUT_OF_RESOURCES : real.name arguments; \
    }
#define MAKES(type, name, parameters, arguments)      \
    static type CL_API_CALL test_##name parameters {  \
        if (strikes(#name)) {                         \
            *code = CL_MEM_OBJECT_ALLOCATION_FAILURE; \
            return NULL;                              \
        }                                             \
        type made = real.name arguments;              \
        alive += made != NULL;                        \
        return made;                                  \
    }
/* Those whose last parameter may ask for an event. */
#define EVENTS(name, parameters, arguments)            \
    static cl_int CL_API_CALL test_##name parameters { \
        if (strikes(#name))                            \
            return CL_OUT_OF_RESOURCES;                \
        const cl_int code = real.name arguments;       \
        alive += event && code == CL_SUCCESS;          \
        return code;                                   \
    }
#define RELEASES(name, type)                             \
    static cl_int CL_API_CALL test_##name(type object) { \
        alive--;                                         \
        return real.name(object);                        \
    }

MAKES(cl_context, CreateContext,
      (const cl_context_properties *p, cl_uint n, const cl_device_id *d,
       void(CL_CALLBACK *f)(const char *, const void *, size_t, void *), void *u, cl_int *code),
      (p, n, d, f, u, code))
MAKES(cl_command_queue, CreateCommandQueue, (cl_context c, cl_device_id d, cl_command_queue_properties p, cl_int *code),
      (c, d, p, code))
MAKES(cl_mem, CreateBuffer, (cl_context c, cl_mem_flags f, size_t n, void *h, cl_int *code), (c, f, n, h, code))
MAKES(cl_program, CreateProgramWithSource, (cl_context c, cl_uint n, const char **s, const size_t *l, cl_int *code),
      (c, n, s, l, code))
MAKES(cl_program, CreateProgramWithBinary,
      (cl_context c, cl_uint n, const cl_device_id *d, const size_t *l, const unsigned char **b, cl_int *s,
       cl_int *code),
      (c, n, d, l, b, s, code))
MAKES(cl_kernel, CreateKernel, (cl_program p, const char *n, cl_int *code), (p, n, code))
RELEASES(ReleaseContext, cl_context)
RELEASES(ReleaseCommandQueue, cl_command_queue)
RELEASES(ReleaseMemObject, cl_mem)
RELEASES(ReleaseProgram, cl_program)
RELEASES(ReleaseKernel, cl_kernel)
RELEASES(ReleaseEvent, cl_event)
EVENTS(EnqueueNDRangeKernel,
       (cl_command_queue q, cl_kernel k, cl_uint d, const size_t *o, const size_t *g, const size_t *l, cl_uint n,
        const cl_event *w, cl_event *event),
       (q, k, d, o, g, l, n, w, event))
EVENTS(EnqueueWriteBuffer,
       (cl_command_queue q, cl_mem m, cl_bool b, size_t o, size_t s, const void *h, cl_uint n, const cl_event *w,
        cl_event *event),
       (q, m, b, o, s, h, n, w, event))
EVENTS(EnqueueReadBuffer,
       (cl_command_queue q, cl_mem m, cl_bool b, size_t o, size_t s, void *h, cl_uint n, const cl_event *w,
        cl_event *event),
       (q, m, b, o, s, h, n, w, event))
/* As strict as NVIDIA's driver: whole pitches must lie inside the buffer. */
static bool whole_pitches(const size_t *origin, const size_t *rows, size_t pitch) {
    return origin[0] + rows[1] * pitch <= REGION;
}
EVENTS(EnqueueWriteBufferRect,
       (cl_command_queue q, cl_mem m, cl_bool b, const size_t *o, const size_t *ho, const size_t *r, size_t rp,
        size_t sp, size_t hrp, size_t hsp, const void *h, cl_uint n, const cl_event *w, cl_event *event),
       (whole_pitches(o, r, rp) ? q : NULL, m, b, o, ho, r, rp, sp, hrp, hsp, h, n, w, event))
EVENTS(EnqueueReadBufferRect,
       (cl_command_queue q, cl_mem m, cl_bool b, const size_t *o, const size_t *ho, const size_t *r, size_t rp,
        size_t sp, size_t hrp, size_t hsp, void *h, cl_uint n, const cl_event *w, cl_event *event),
       (whole_pitches(o, r, rp) ? q : NULL, m, b, o, ho, r, rp, sp, hrp, hsp, h, n, w, event))
EVENTS(EnqueueMarkerWithWaitList, (cl_command_queue q, cl_uint n, const cl_event *w, cl_event *event), (q, n, w, event))
FAILS(BuildProgram,
      (cl_program p, cl_uint n, const cl_device_id *d, const char *o, void(CL_CALLBACK *f)(cl_program, void *),
       void *u),
      (p, n, d, o, f, u))
FAILS(GetProgramInfo, (cl_program p, cl_program_info i, size_t n, void *v, size_t *s), (p, i, n, v, s))
FAILS(SetKernelArg, (cl_kernel k, cl_uint i, size_t n, const void *v), (k, i, n, v))
FAILS(Flush, (cl_command_queue q), (q))
FAILS(WaitForEvents, (cl_uint n, const cl_event *e), (n, e))
FAILS(GetEventInfo, (cl_event e, cl_event_info i, size_t n, void *v, size_t *s), (e, i, n, v, s))
FAILS(SetEventCallback, (cl_event e, cl_int t, void(CL_CALLBACK *f)(cl_event, cl_int, void *), void *u), (e, t, f, u))

/* Whatever it says, what this device was given before still runs, and in memory that the caller is about to free. */
static cl_int CL_API_CALL test_Finish(cl_command_queue q) {
    const cl_int code = real.Finish(q);
    return strikes("Finish") ? CL_OUT_OF_RESOURCES : code;
}

static void *CL_API_CALL test_EnqueueMapBuffer(cl_command_queue q, cl_mem m, cl_bool b, cl_map_flags f, size_t o,
                                               size_t s, cl_uint n, const cl_event *w, cl_event *e, cl_int *code) {
    if (strikes("EnqueueMapBuffer")) {
        *code = CL_MAP_FAILURE;
        return NULL;
    }
    return real.EnqueueMapBuffer(q, m, b, f, o, s, n, w, e, code);
}

/* clang-format off */
#define CAN_FAIL(X) \
    X(CreateContext) X(CreateCommandQueue) X(CreateBuffer) X(CreateProgramWithSource) X(CreateProgramWithBinary) \
    X(CreateKernel) X(EnqueueNDRangeKernel) X(EnqueueWriteBuffer) X(EnqueueReadBuffer) X(EnqueueWriteBufferRect) \
    X(EnqueueReadBufferRect) X(EnqueueMarkerWithWaitList) X(BuildProgram) X(GetProgramInfo) X(SetKernelArg) X(Flush) \
    X(Finish) X(WaitForEvents) X(GetEventInfo) X(SetEventCallback) X(EnqueueMapBuffer)
/* clang-format on */

static char log_text[16384]; /* lines at INFO or worse */

static void keep_log(ht_log_level level, const char *line, void *user) {
    const size_t used = strlen(log_text);
    snprintf(log_text + used, sizeof log_text - used, "%d %s\n", (int)level, line);
}

static int watch_calls(void **state) {
    victim.name = NULL;
    victim.struck = victim.spares = false;
    alive = 0;
    log_text[0] = '\0';
    ht_log_set(keep_log, NULL, HT_LOG_INFO); /* a test of failures would be noisy */
    *table = real;
#define PUT(name) table->name = test_##name;
    CAN_FAIL(PUT)
    PUT(ReleaseContext)
    PUT(ReleaseCommandQueue)
    PUT(ReleaseMemObject)
    PUT(ReleaseProgram)
    PUT(ReleaseKernel)
    PUT(ReleaseEvent)
#undef PUT
    return 0;
}

static int restore_calls(void **state) {
    ht_log_set(NULL, NULL, HT_LOG_WARN);
    *table = real;
    return 0;
}

/* ---- a device, and one operator on it ---------------------------------------------------------------------------------- */

static int reports; /* calls of progress */
static bool ended, stop;

static bool keep_report(const char *what, double done, double total, void *user) {
    assert_string_equal(what, "compiling kernels");
    assert_ptr_equal(user, &reports);
    assert_true(done >= 0 && done <= total);
    reports++;
    ended = done >= total;
    return !stop;
}

static ht_status open_device(const char *spec, ht_cl_device **d, ht_error *error) {
    static const ht_progress progress = {keep_report, &reports};
    const ht_device_options options = {.precision = HT_PRECISION_EXACT,
                                       .hparams = &hparams,
                                       .max_tokens = TOKENS,
                                       .max_context = 64,
                                       .progress = &progress};
    ht_device *device = NULL;
    reports = 0;
    ended = true;
    ht_status status = ht_device_open(spec, &options, &device, error);
    *d = (ht_cl_device *)device;
    return status;
}

static void close_device(ht_cl_device *d) {
    if (d)
        d->base.ops->close(&d->base);
}

static float weights[ROWS][COLS];
static ht_op matmul = {.kind = HT_OP_MATMUL,
                       .layer = 0,
                       .name = "blk.0.test",
                       .in = SLOT_NORMED,
                       .aux = HT_SLOT_NONE,
                       .out = SLOT_FFN,
                       .n_parts = 1};
static const ht_slice whole = {.row_end = ROWS, .reduction_end = COLS};
static float *x, *y; /* [TOKENS][STRIDE] each, in pages of their own */

static void make_numbers(void) {
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++)
            weights[r][c] = (float)((r * 31 + c * 7) % 23 - 11) / 64;
    matmul.parts[0] = (ht_matrix){.name = "test",
                                  .type = ht_type_by_name("F32"),
                                  .rows = ROWS,
                                  .cols = COLS,
                                  .data = (const uint8_t *)weights,
                                  .row_bytes = COLS * sizeof(float)};
    x = ht_pages_alloc(PAGES);
    y = ht_pages_alloc(PAGES);
    for (int t = 0; t < TOKENS; t++)
        for (int c = 0; c < COLS; c++)
            x[t * STRIDE + FIRST + c] = (float)((t * 13 + c * 5) % 17 - 8) / 32;
}

/* All these numbers are sums of few bits: exact in float32 whatever the order. */
static void check_numbers(void) {
    for (int t = 0; t < TOKENS; t++)
        for (int r = 0; r < ROWS; r++) {
            double sum = 0;
            for (int c = 0; c < COLS; c++)
                sum += (double)x[t * STRIDE + FIRST + c] * (double)weights[r][c];
            if ((double)y[t * STRIDE + r] != sum)
                fail_msg("token %d, row %d: %g, not %g", t, r, (double)y[t * STRIDE + r], sum);
        }
}

typedef struct scene {
    ht_cl_device *d;
    ht_task *task;
    ht_view slots[HT_MAX_SLOTS];
    bool has_x, has_y;
} scene;

static ht_status set_up(scene *s, const char *spec, ht_error *error) {
    *s = (scene){0};
    ht_status status = open_device(spec, &s->d, error);
    if (status)
        return status;
    const ht_device_ops *ops = s->d->base.ops;
    s->slots[SLOT_NORMED] = (ht_view){x + FIRST, STRIDE};
    s->slots[SLOT_FFN] = (ht_view){y, STRIDE};
    if ((status = ops->import(&s->d->base, x, REGION, error)))
        return status;
    s->has_x = true;
    if ((status = ops->import(&s->d->base, y, REGION, error)))
        return status;
    s->has_y = true;
    if ((status = ops->prepare(&s->d->base, &matmul, &whole, &s->task, error))) {
        s->task = NULL;
        return status;
    }
    return ops->warm(&s->d->base, s->task, TOKENS, error);
}

static ht_status submit(scene *s, ht_sync sync, ht_ticket *ticket, ht_error *error) {
    const ht_binding binding = {.slots = s->slots, .tokens = TOKENS, .sync = sync, .joined = true};
    return s->d->base.ops->submit(&s->d->base, s->task, &binding, NULL, 0, ticket, error);
}

static void tear_down(scene *s) {
    if (!s->d)
        return;
    const ht_device_ops *ops = s->d->base.ops;
    if (s->task)
        ops->release(&s->d->base, s->task);
    if (s->has_x)
        ops->forget(&s->d->base, x);
    if (s->has_y)
        ops->forget(&s->d->base, y);
    close_device(s->d);
}

/* All of a device's life; three submits in it. Numbers are checked if everything worked. */
static ht_status play(const char *spec, ht_sync sync, ht_error *error) {
    scene s;
    memset(y, 0xff, PAGES);
    in_set_up = true;
    ht_status status = set_up(&s, spec, error);
    in_set_up = false;
    for (int i = 0; i < 3 && !status; i++) {
        ht_ticket ticket;
        status = submit(&s, sync, &ticket, error);
        if (!status)
            status = s.d->base.ops->wait(&s.d->base, ticket, sync, error);
    }
    if (!status)
        check_numbers();
    tear_down(&s);
    return status;
}

static const ht_sync syncs[] = {HT_SYNC_AUTO, HT_SYNC_FINISH, HT_SYNC_EVENT, HT_SYNC_CALLBACK, HT_SYNC_FLAG};
static const char *const specs[] = {"opencl:0", "opencl:0:memory=copied", "opencl:0:variant=simt"};

#endif
