/* A pass as a timeline in Chrome's trace-event format, which Perfetto and chrome://tracing draw: a track for each lane, as
 * predicted (each lane's rows in order, waiting where its steps wait) and as it went. */
#include "base/json.h"
#include "engine/listing.h"
#include "session/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PREDICTED = 1, MEASURED = 2 }; /* pid */

/* ---- events
 * ------------------------------------------------------------------------------------------------------------- */

static void add_name(json_t **events, const char *what, int pid, size_t tid, const char *name) {
    json_t *event = json_pack("{s:s, s:s, s:i, s:{s:s}}", "name", what, "ph", "M", "pid", pid, "args", "name", name);
    if (tid)
        ht_json_set(&event, "tid", json_integer((json_int_t)tid));
    ht_json_add(events, event);
}

/* "cpu", "openvino:CPU + cpu": the lane's devices. */
static void name_lane(const ht_engine *engine, const ht_lane *lane, char *text, size_t size) {
    size_t used = 0;
    *text = 0;
    for (size_t d = 0; d < engine->set.n_devices && used < size; d++)
        if (lane->devices >> d & 1)
            used += (size_t)snprintf(text + used, size - used, "%s%s", used ? " + " : "",
                                     ht_lanes_caps(&engine->set, d)->name);
}

static void add_tracks(const ht_engine *engine, json_t **events, int pid) {
    add_name(events, "process_name", pid, 0, pid == PREDICTED ? "predicted" : "measured");
    for (size_t l = 0; l < engine->set.n_lanes; l++) {
        char name[HT_MAX_DEVICES * 72];
        name_lane(engine, &engine->set.lanes[l], name, sizeof name);
        add_name(events, "thread_name", pid, l + 1, name);
    }
}

/* Takes the reference of args. Times in seconds. */
static void add_event(json_t **events, int pid, size_t lane, const char *name, double begin, double end, json_t *args) {
    ht_json_add(events, json_pack("{s:s, s:s, s:s, s:i, s:I, s:f, s:f, s:o}", "name", name, "cat",
                                  strcmp(name, "wait") ? "operator" : "wait", "ph", "X", "pid", pid, "tid",
                                  (json_int_t)lane + 1, "ts", begin * 1e6, "dur", (end - begin) * 1e6, "args", args));
}

/* ---- predicted
 * ---------------------------------------------------------------------------------------------------------- */

typedef struct timeline {
    const ht_engine *engine;
    const ht_schedule *schedule;
    const ht_listed *rows;
    double *end; /* of rows that are done; negative: not yet */
    size_t n, next[HT_MAX_DEVICES];
    double clock[HT_MAX_DEVICES]; /* how far each lane is */
    double join;                  /* from one lane's having told to another's going on */
    json_t **events;
} timeline;

/* When what row i waits for has been told; negative: nobody has computed it yet. */
static double told(const timeline *t, size_t i) {
    const ht_step *step = t->rows[i].step;
    double when = 0;
    for (size_t lane = 0; lane < HT_MAX_DEVICES; lane++) {
        if (!(step->waits >> lane & 1))
            continue;
        size_t k = 0;
        while (k < t->n && (t->rows[k].lane != lane || t->rows[k].head != t->rows[i].head ||
                            t->rows[k].step->publishes < step->need))
            k++;
        if (k == t->n || t->end[k] < 0)
            return -1;
        when = t->end[k] + t->join > when ? t->end[k] + t->join : when;
    }
    return when;
}

static void place(timeline *t, size_t i, double begin) {
    const ht_listed *row = &t->rows[i];
    const size_t lane = t->schedule ? (size_t)(t->schedule->lanes[row->lane] - t->engine->set.lanes) : 0;
    double *clock = &t->clock[row->lane];
    if (begin > *clock) {
        add_event(t->events, PREDICTED, lane, "wait", *clock, begin, json_object());
        *clock = begin;
    }
    t->end[i] = *clock + row->row.seconds + row->join;
    add_event(t->events, PREDICTED, lane, row->row.op, *clock, t->end[i],
              json_pack("{s:s, s:s, s:I, s:I}", "device", row->row.device, "cut", row->row.cut, "token_begin",
                        (json_int_t)row->row.token_begin, "token_end", (json_int_t)row->row.token_end));
    *clock = t->end[i];
}

/* Every lane goes on as far as it can, until none can: all rows of the head, or all others. */
static void run_rows(timeline *t, bool head) {
    bool moved = true;
    for (size_t lane = 0; lane < HT_MAX_DEVICES; lane++)
        t->next[lane] = 0;
    while (moved) {
        moved = false;
        for (size_t lane = 0; lane < HT_MAX_DEVICES; lane++)
            for (size_t *i = &t->next[lane]; *i < t->n; (*i)++) {
                if (t->rows[*i].lane != lane || t->rows[*i].head != head)
                    continue;
                const double when = told(t, *i);
                if (when < 0)
                    break;
                place(t, *i, when);
                moved = true;
            }
    }
}

static ht_status predict(const ht_engine *engine, const ht_schedule *schedule, const ht_listed *rows, size_t n,
                         json_t **events, ht_error *error) {
    timeline t = {.engine = engine, .schedule = schedule, .rows = rows, .n = n, .events = events};
    ht_question question;
    double latest = 0;
    ht_status status = ht_alloc((void **)&t.end, n, sizeof *t.end, "a timeline", error);
    if (status)
        return status;
    for (size_t i = 0; i < n; i++)
        t.end[i] = -1;
    if (schedule)
        t.join = ht_passes_problem(&engine->passes, schedule->tokens, 0, 1, schedule->apart, &schedule->pace, &question)
                     .join;
    add_tracks(engine, events, PREDICTED);
    run_rows(&t, false);
    for (size_t lane = 0; lane < HT_MAX_DEVICES; lane++)
        latest = t.clock[lane] > latest ? t.clock[lane] : latest;
    for (size_t lane = 0; lane < HT_MAX_DEVICES; lane++) /* the head begins when all lanes are done */
        t.clock[lane] = latest;
    run_rows(&t, true);
    free(t.end);
    return HT_OK;
}

/* ---- measured
 * ----------------------------------------------------------------------------------------------------------- */

static ht_status run_pass(ht_session *session, const int32_t *ids, size_t n, ht_error *error) {
    const float *logits;
    session->n_tokens = 0;
    ht_status status = ht_session_feed(session, ids, n, n - 1, &session->cancel, error);
    return status ? status : ht_passes_head(&session->engine->passes, n - 1, 1, &logits, error);
}

/* A pass to warm up and one that is recorded. What the planner has learnt stays as it was: a recorded pass is slower. */
static ht_status record(ht_session *session, const int32_t *ids, size_t n, ht_error *error) {
    ht_engine *engine = session->engine;
    ht_status status = run_pass(session, ids, n, error);
    if (status)
        return status;
    ht_schedule *schedule = engine->passes.current;
    ht_pace pace;
    if (schedule)
        pace = schedule->pace;
    status = ht_alloc((void **)&engine->passes.recordings, HT_MAX_DEVICES, sizeof *engine->passes.recordings,
                      "recordings", error);
    if (!status)
        status = run_pass(session, ids, n, error);
    if (schedule && schedule == engine->passes.current)
        schedule->pace = pace;
    return status;
}

static void add_measured(const ht_engine *engine, json_t **events) {
    double start = -1;
    if (!engine->passes.recordings)
        return;
    add_tracks(engine, events, MEASURED);
    for (size_t l = 0; l < engine->set.n_lanes; l++) {
        const ht_recording *r = &engine->passes.recordings[l];
        if (r->n && (start < 0 || r->events[0].begin < start))
            start = r->events[0].begin;
    }
    for (size_t l = 0; l < engine->set.n_lanes; l++)
        for (size_t i = 0; i < engine->passes.recordings[l].n; i++) {
            const ht_event *e = &engine->passes.recordings[l].events[i];
            add_event(events, MEASURED, l, e->what, e->begin - start, e->end - start,
                      *e->device ? json_pack("{s:s}", "device", e->device) : json_object());
        }
}

static ht_status measure(ht_engine *engine, size_t n, json_t **events, ht_error *error) {
    ht_session *session;
    int32_t *ids = NULL;
    ht_status status = ht_session_create(engine, &session, error);
    if (status)
        return status;
    status = ht_alloc((void **)&ids, n, sizeof *ids, "made-up tokens", error);
    for (size_t i = 0; i < n && !status; i++)
        ids[i] = (int32_t)((i + 1) * 2654435761u % ht_session_vocabulary(session));
    ht_lanes_lock(&engine->set);
    if (!status)
        do {
            ht_passes_forget_recordings(&engine->passes);
            status = record(session, ids, n, error);
        } while (status == HT_ERROR_DEVICE && ht_engine_recover(engine));
    if (!status)
        add_measured(engine, events);
    ht_passes_forget_recordings(&engine->passes);
    ht_lanes_unlock(&engine->set);
    free(ids);
    ht_session_destroy(session);
    return status;
}

/* ---- both
 * --------------------------------------------------------------------------------------------------------------- */

static ht_status predict_pass(ht_engine *engine, size_t tokens, bool needed, json_t **events, ht_error *error) {
    ht_schedule *schedule = NULL;
    ht_listed *rows = NULL;
    size_t n = 0;
    ht_status status = HT_OK;
    ht_lanes_lock(&engine->set);
    if (engine->set.n_lanes > 1)
        status = ht_passes_schedule(&engine->passes, tokens, 0, 1, 0, &schedule, error);
    if (!status && (!schedule || engine->info.emulated) && needed)
        status = ht_fail(error, HT_ERROR_ARGUMENT,
                         "one device alone has no predicted times: its trace needs a measured pass");
    if (!status)
        status = ht_plan_list(engine, schedule, tokens, &rows, &n, error);
    if (!status && schedule && !engine->info.emulated)
        status = predict(engine, schedule, rows, n, events, error);
    ht_lanes_unlock(&engine->set);
    free(rows);
    return status;
}

ht_status ht_engine_trace(ht_engine *engine, int tokens, bool run, char **json, ht_error *error) {
    if (tokens < 1)
        return ht_fail(error, HT_ERROR_ARGUMENT, "tokens: must be at least 1 (got %d)", tokens);
    const size_t n = ht_min_size((size_t)tokens, (size_t)engine->info.chunk);
    json_t *events = json_array();
    ht_status status = predict_pass(engine, n, !run, &events, error);
    if (!status && run)
        status = measure(engine, n, &events, error);
    if (status) {
        json_decref(events);
        return status;
    }
    json_t *all = json_pack("{s:o, s:s}", "traceEvents", events, "displayTimeUnit", "ms");
    return ht_json_text(all, JSON_COMPACT | JSON_REAL_PRECISION(10), "a trace", json, error);
}
