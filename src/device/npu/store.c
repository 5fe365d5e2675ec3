/* The graph store: every graph is built once, by threads of its own, checked, counted against a budget, and kept on disk
 * where loading is quicker than compiling.
 *
 * Graphs that somebody waits for come first, and then all builders work; with nobody waiting one builds, so that a
 * request that is being answered meanwhile keeps most of the machine. */
#include "base/os.h"
#include "device/lengths.h"
#include "device/npu/npu.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BUILDERS 16

typedef enum graph_state { ABSENT, QUEUED, BUILDING, READY, FAILED } graph_state;

typedef struct graph_slot { /* one graph at one length; all but `program` under the store's lock */
    _Atomic(ht_npu_program *) program;
    graph_state state;
    uint64_t bytes; /* taken from the budget */
    ht_error error; /* FAILED: why */
    bool refused;   /* FAILED: for want of room in the budget, before anything was tried */
    uint64_t freed; /* FAILED: the store's count then */
} graph_slot;

struct ht_npu_entry {
    ht_npu_store *store;
    ht_npu_graph graph;
    pthread_mutex_t probing; /* two lengths of a graph may be built at once */
    ht_npu_probe *probe;
    uint64_t shared; /* taken from the budget for all lengths together */
    graph_slot slots[HT_MOST_LENGTHS];
};

typedef struct job {
    ht_npu_entry *entry;
    size_t i;
} job;

struct ht_npu_store {
    ht_npu_store_options o;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t threads[MAX_BUILDERS];
    int started;
    bool stop;
    int waiting; /* callers of await */
    bool told;   /* of a failure that nobody waited for */
    job *jobs;   /* the next one first */
    size_t n, capacity;
    size_t wanted, done; /* since the store was last idle: for progress */
    uint64_t used;
    uint64_t freed; /* counts graphs that went: one that found no memory is tried again afterwards */
};

/* ---- the disk
 * ------------------------------------------------------------------------------------------------------------ */

#define MAGIC "hetero graph 1\n"

/* All that a program depends on, as text; the cache file's name is a hash of it, and the file begins with it. */
static ht_status full_key(const ht_npu_entry *entry, size_t length, ht_text *key, ht_error *error) {
    const ht_npu_store_options *o = &entry->store->o;
    ht_status status =
        ht_text_printf(key, error, MAGIC "%s; %s; %s; %s; %s %s; length %zu; ", o->facts->info.runtime,
                       o->facts->info.name, o->facts->info.description, o->facts->identity,
                       o->config->precision == HT_PRECISION_EXACT ? "exact" : "fast", o->config->hint, length);
    return status == HT_OK ? ht_npu_key(&entry->graph, key, error) : status;
}

static ht_status cache_path(const ht_text *key, char path[1024], ht_error *error) {
    char file[64];
    snprintf(file, sizeof file, "npu/%016llx.bin", (unsigned long long)ht_hash(HT_HASH_START, key->data, key->bytes));
    return ht_cache_path(file, path, 1024, error);
}

/* The payload of a cache file's bytes, or NULL and why it is none of this key. Layout: key, "\n", then "SIZE HASH\n" in
 * decimal and hexadecimal, then SIZE bytes. */
static const uint8_t *payload_of(const ht_mapping *file, const ht_text *key, size_t *bytes, const char **why) {
    *why = "it holds another graph";
    if (file->bytes < key->bytes || memcmp(file->data, key->data, key->bytes) != 0)
        return NULL;
    char line[48] = "";
    const uint8_t *at = file->data + key->bytes;
    memcpy(line, at, ht_min_size(sizeof line - 1, file->bytes - key->bytes));
    unsigned long long size, hash;
    int used = 0;
    *why = "it is cut short";
    if (sscanf(line, "\n%llu %llx%n", &size, &hash, &used) != 2 || line[used] != '\n')
        return NULL;
    at += used + 1;
    if (size != (size_t)(file->data + file->bytes - at))
        return NULL;
    *why = "it is damaged";
    if (ht_hash(HT_HASH_START, at, size) != hash)
        return NULL;
    *bytes = size;
    return at;
}

/* True and *program if the disk has it. A file that is not what it should be is named and built anew. */
static bool load_program(ht_npu_entry *entry, size_t length, const ht_text *key, ht_npu_program **program) {
    const ht_npu_store_options *o = &entry->store->o;
    char path[1024];
    ht_mapping file;
    if (cache_path(key, path, NULL) != HT_OK || ht_mapping_open(path, &file, NULL) != HT_OK)
        return false;
    size_t bytes;
    const char *why;
    const uint8_t *payload = payload_of(&file, key, &bytes, &why);
    ht_error error = {0};
    bool loaded = payload && o->runtime->load(o->npu, &entry->graph, length, payload, bytes, program, &error) == HT_OK;
    if (!loaded)
        ht_log(HT_LOG_WARN, "%s: ignored: %s; rebuilding the graph of %s at length %zu", path,
               payload ? error.text : why, entry->graph.op->name, length);
    ht_mapping_close(&file);
    return loaded;
}

/* For the next time; doing without is no failure. */
static void save_program(ht_npu_entry *entry, const ht_text *key, ht_npu_program *program) {
    const ht_npu_store_options *o = &entry->store->o;
    ht_text payload = {0}, file = {0};
    char path[1024];
    ht_error error = {0};
    ht_status status = o->runtime->save(o->npu, program, &payload, &error);
    if (status == HT_OK)
        status = ht_text_append(&file, key->data, key->bytes, &error);
    if (status == HT_OK)
        status = ht_text_printf(&file, &error, "\n%llu %016llx\n", (unsigned long long)payload.bytes,
                                (unsigned long long)ht_hash(HT_HASH_START, payload.data, payload.bytes));
    if (status == HT_OK)
        status = ht_text_append(&file, payload.data, payload.bytes, &error);
    if (status == HT_OK)
        status = cache_path(key, path, &error);
    if (status == HT_OK)
        status = ht_file_write(path, file.data, file.bytes, &error);
    if (status != HT_OK)
        ht_log(HT_LOG_INFO, "%s: its graph was not saved: %s", entry->graph.op->name, error.text);
    ht_text_free(&payload);
    ht_text_free(&file);
}

/* ---- building
 * -------------------------------------------------------------------------------------------------------------- */

static ht_status check_program(ht_npu_entry *entry, ht_npu_program *program, size_t length, ht_error *error) {
    pthread_mutex_lock(&entry->probing);
    ht_status status = ht_npu_probe_check(&entry->probe, &entry->store->o, &entry->graph, program, length, error);
    pthread_mutex_unlock(&entry->probing);
    return status;
}

/* Programs stay until their entry goes, which waits for builds. */
static const ht_npu_program *any_program(const ht_npu_entry *entry) {
    for (size_t i = 0; i < entry->store->o.n_lengths; i++)
        if (ht_npu_entry_program(entry, i))
            return ht_npu_entry_program(entry, i);
    return NULL;
}

static ht_status build(ht_npu_entry *entry, size_t i, ht_npu_program **out, ht_error *error) {
    const ht_npu_store_options *o = &entry->store->o;
    const size_t length = (size_t)o->lengths[i];
    const double start = ht_seconds();
    ht_text key = {0};
    ht_npu_program *program = NULL;
    const bool cache = o->cache && o->runtime->save && full_key(entry, length, &key, NULL) == HT_OK;
    bool loaded = cache && load_program(entry, length, &key, &program);
    ht_status status = loaded ? check_program(entry, program, length, error) : HT_OK;
    if (loaded && status != HT_OK) { /* right when it was kept: something about the device has changed */
        o->runtime->discard(o->npu, program);
        program = NULL;
        loaded = false;
    }
    if (!loaded) {
        status = o->runtime->compile(o->npu, &entry->graph, length, any_program(entry), &program, error);
        if (status == HT_OK)
            status = check_program(entry, program, length, error);
        if (status == HT_OK && cache)
            save_program(entry, &key, program);
    }
    ht_text_free(&key);
    if (status != HT_OK) {
        if (program)
            o->runtime->discard(o->npu, program);
        return ht_error_prefix(error, status, "%s at length %zu", entry->graph.op->name, length);
    }
    ht_log(HT_LOG_DEBUG, "%s: graph of %s at length %zu %s in %.0f ms", o->config->name, entry->graph.op->name, length,
           loaded ? "loaded" : "built", 1e3 * (ht_seconds() - start));
    *out = program;
    return HT_OK;
}

typedef struct builder_start {
    ht_npu_store *store;
    int index;
} builder_start;

/* Of a build that failed. Who waits says what comes of it. Else the first one is a warning, for it costs speed and
 * nobody would know why; others are likely to be like it. */
static void tell_failure(ht_npu_store *s, const char *text) {
    pthread_mutex_lock(&s->lock);
    const bool warn = s->waiting == 0 && !s->told;
    s->told |= warn;
    pthread_mutex_unlock(&s->lock);
    ht_log(warn ? HT_LOG_WARN : HT_LOG_DEBUG, "%s: continuing without a graph: %s", s->o.config->name, text);
}

static void *builder_main(void *argument) {
    const builder_start start = *(builder_start *)argument;
    free(argument);
    ht_npu_store *s = start.store;
    ht_stay_on(&s->o.config->cores, &(ht_stay){0}); /* for good: OpenVINO's threads inherit their maker's cores */
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->stop && (s->n == 0 || (start.index > 0 && s->waiting == 0)))
            pthread_cond_wait(&s->changed, &s->lock);
        if (s->stop)
            break;
        const job next = s->jobs[0];
        memmove(s->jobs, s->jobs + 1, --s->n * sizeof *s->jobs);
        graph_slot *slot = &next.entry->slots[next.i];
        slot->state = BUILDING;
        pthread_mutex_unlock(&s->lock);
        ht_npu_program *program = NULL;
        ht_error error = {0};
        const ht_status status = build(next.entry, next.i, &program, &error);
        if (status != HT_OK)
            tell_failure(s, error.text);
        pthread_mutex_lock(&s->lock);
        if (status == HT_OK) {
            atomic_store_explicit(&slot->program, program, memory_order_release);
        } else {
            s->used -= slot->bytes;
            slot->bytes = 0;
            slot->error = error;
            slot->refused = false;
            slot->freed = s->freed;
        }
        slot->state = status == HT_OK ? READY : FAILED;
        s->done++;
        pthread_cond_broadcast(&s->changed);
        if (s->done == s->wanted) { /* compilers leave much behind */
            pthread_mutex_unlock(&s->lock);
            ht_memory_trim();
            pthread_mutex_lock(&s->lock);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- the store
 * --------------------------------------------------------------------------------------------------------------- */

ht_status ht_npu_store_create(const ht_npu_store_options *options, ht_npu_store **out, ht_error *error) {
    ht_npu_store *s;
    ht_status status = ht_alloc((void **)&s, 1, sizeof *s, "the graph store", error);
    if (status != HT_OK)
        return status;
    s->o = *options;
    pthread_mutex_init(&s->lock, NULL);
    ht_os_cond_init(&s->changed);
    const int n = options->builders < MAX_BUILDERS ? options->builders : MAX_BUILDERS;
    for (int i = 0; i < n && status == HT_OK; i++) {
        builder_start *start = malloc(sizeof *start);
        if (start)
            *start = (builder_start){s, i};
        if (!start || pthread_create(&s->threads[i], NULL, builder_main, start) != 0) {
            free(start);
            status =
                ht_fail(error, HT_ERROR_MEMORY, "%s: cannot start a thread to build graphs", options->config->name);
        } else {
            s->started++;
        }
    }
    if (status == HT_OK)
        *out = s;
    else
        ht_npu_store_destroy(s);
    return status;
}

void ht_npu_store_destroy(ht_npu_store *s) {
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; i < s->started; i++)
        pthread_join(s->threads[i], NULL);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s->jobs);
    free(s);
}

ht_status ht_npu_entry_create(ht_npu_store *store, const ht_npu_graph *graph, ht_npu_entry **entry, ht_error *error) {
    ht_status status = ht_alloc((void **)entry, 1, sizeof **entry, graph->op->name, error);
    if (status != HT_OK)
        return status;
    (*entry)->store = store;
    (*entry)->graph = *graph;
    pthread_mutex_init(&(*entry)->probing, NULL);
    return HT_OK;
}

static void unqueue(ht_npu_store *s, const ht_npu_entry *entry, size_t i) {
    for (size_t j = 0; j < s->n; j++)
        if (s->jobs[j].entry == entry && s->jobs[j].i == i) {
            memmove(s->jobs + j, s->jobs + j + 1, (--s->n - j) * sizeof *s->jobs);
            return;
        }
}

void ht_npu_entry_destroy(ht_npu_entry *entry) {
    if (!entry)
        return;
    ht_npu_store *s = entry->store;
    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->o.n_lengths; i++) {
        graph_slot *slot = &entry->slots[i];
        if (slot->state == QUEUED) {
            unqueue(s, entry, i);
            s->wanted--;
        }
        while (slot->state == BUILDING)
            pthread_cond_wait(&s->changed, &s->lock);
    }
    for (size_t i = 0; i < s->o.n_lengths; i++) { /* only now: a build makes use of another length's program */
        ht_npu_program *program = atomic_load_explicit(&entry->slots[i].program, memory_order_relaxed);
        if (program)
            s->o.runtime->discard(s->o.npu, program);
        s->used -= entry->slots[i].bytes;
        s->freed += entry->slots[i].bytes > 0;
    }
    s->used -= entry->shared;
    pthread_mutex_unlock(&s->lock);
    ht_npu_probe_free(entry->probe);
    pthread_mutex_destroy(&entry->probing);
    free(entry);
}

/* ABSENT to QUEUED, or to FAILED for want of memory. Under the lock. */
static void queue(ht_npu_entry *entry, size_t i) {
    ht_npu_store *s = entry->store;
    graph_slot *slot = &entry->slots[i];
    const uint64_t shared = entry->shared ? 0 : ht_npu_estimate_shared(&entry->graph);
    double more = s->o.facts->more_graph;
    for (int k = 0; k < entry->graph.n_parts; k++)
        more += s->o.facts->more_weight * (double)ht_npu_sets(&entry->graph) * (double)entry->graph.parts[k].rows *
                (double)entry->graph.parts[k].cols;
    const uint64_t own = ht_npu_estimate(&entry->graph, (size_t)s->o.lengths[i]) + (uint64_t)more, bytes = own + shared;
    if (s->n == 0 && s->done == s->wanted)
        s->done = s->wanted = 0;
    slot->state = FAILED;
    slot->freed = s->freed;
    slot->refused = true;
    if (bytes > s->o.budget || s->used > s->o.budget - bytes)
        ht_fail(&slot->error, HT_ERROR_MEMORY,
                "%s at length %d: a graph of %.0f MiB, where %.0f of the %.0f MiB for graphs are left",
                entry->graph.op->name, s->o.lengths[i], (double)bytes / 1048576,
                (double)(s->o.budget - s->used) / 1048576, (double)s->o.budget / 1048576);
    else if (ht_grow((void **)&s->jobs, &s->capacity, s->n + 1, sizeof *s->jobs, "graphs to build", &slot->error) ==
             HT_OK) {
        s->jobs[s->n++] = (job){entry, i};
        s->wanted++;
        s->used += bytes;
        slot->bytes = own;
        entry->shared += shared;
        slot->state = QUEUED;
        pthread_cond_broadcast(&s->changed);
    }
}

/* Nobody has asked for it yet, or it found no memory: room in the budget is looked for again each time, which costs
 * nothing; a compiler that ran out of memory is only asked again once there is more. Under the lock. */
static bool is_to_be_queued(const ht_npu_entry *entry, size_t i) {
    const graph_slot *slot = &entry->slots[i];
    return slot->state == ABSENT || (slot->state == FAILED && slot->error.status == HT_ERROR_MEMORY &&
                                     (slot->refused || slot->freed != entry->store->freed));
}

void ht_npu_entry_want(ht_npu_entry *entry, size_t i) {
    pthread_mutex_lock(&entry->store->lock);
    if (is_to_be_queued(entry, i))
        queue(entry, i);
    pthread_mutex_unlock(&entry->store->lock);
}

/* A moment's sleep, woken by any change. False: the user wants to stop. Under the lock. */
static bool pause_for_builders(ht_npu_store *s) {
    ht_os_cond_wait(&s->changed, &s->lock, ht_seconds() + 0.1);
    const double done = (double)s->done, wanted = (double)s->wanted;
    pthread_mutex_unlock(&s->lock);
    const bool go_on = ht_progress_tell(s->o.progress, "building graphs", done, wanted);
    pthread_mutex_lock(&s->lock);
    return go_on;
}

ht_status ht_npu_entry_await(ht_npu_entry *entry, size_t i, ht_error *error) {
    ht_npu_store *s = entry->store;
    graph_slot *slot = &entry->slots[i];
    ht_status status = HT_OK;
    pthread_mutex_lock(&s->lock);
    if (is_to_be_queued(entry, i))
        queue(entry, i);
    if (slot->state == QUEUED) {
        unqueue(s, entry, i);
        memmove(s->jobs + 1, s->jobs, s->n++ * sizeof *s->jobs);
        s->jobs[0] = (job){entry, i};
    }
    s->waiting++;
    pthread_cond_broadcast(&s->changed);
    while (status == HT_OK && (slot->state == QUEUED || slot->state == BUILDING))
        if (!pause_for_builders(s))
            status = ht_fail(error, HT_ERROR_CANCELLED, "building graphs was stopped");
    s->waiting--;
    if (status == HT_OK && slot->state == FAILED) {
        status = slot->error.status;
        if (error)
            *error = slot->error;
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}

ht_npu_program *ht_npu_entry_program(const ht_npu_entry *entry, size_t i) {
    return atomic_load_explicit(&entry->slots[i].program, memory_order_acquire);
}

uint64_t ht_npu_entry_bytes(const ht_npu_entry *entry) {
    uint64_t bytes = 0;
    pthread_mutex_lock(&entry->store->lock);
    for (size_t i = 0; i < entry->store->o.n_lengths; i++)
        if (entry->slots[i].state == READY)
            bytes += entry->slots[i].bytes;
    bytes += bytes ? entry->shared : 0;
    pthread_mutex_unlock(&entry->store->lock);
    return bytes;
}
