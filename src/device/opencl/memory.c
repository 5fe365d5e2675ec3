/* What the device sees of the host's memory, and what moves.
 *
 * Memory of the pool becomes a buffer once, at import: over the same pages (USE_HOST_PTR) where device and host share
 * memory and the driver maps the buffer back to the very same address, else a buffer of its own (mirrored), and then a
 * submit moves what its task reads and others wrote, and what it writes and others read; the binding says which. On
 * unified memory results are taken to be visible to the host when their event is complete, without mapping: OpenCL does
 * not promise it, PoCL and integrated GPUs do it.
 */
#include "device/opencl/memory.h"
#include "device/opencl/slice.h"

#if HT_HAVE_OPENCL
#include <stdlib.h>
#include <string.h>

/* ---- buffers
 * ----------------------------------------------------------------------------------------------------------- */

void ht_cl_drop(ht_cl_device *d, cl_mem memory) {
    d->dropped++;
    d->cl->ReleaseMemObject(memory);
}

ht_status ht_cl_buffer(ht_cl_device *d, size_t bytes, cl_mem_flags flags, const char *what, cl_mem *memory,
                       ht_error *error) {
    if (bytes > d->largest)
        return ht_fail(error, HT_ERROR_DEVICE, "%s: %s: %zu bytes in one buffer, but the device takes at most %llu",
                       d->caps.name, what, bytes, (unsigned long long)d->largest);
    cl_int code;
    cl_mem made = d->cl->CreateBuffer(d->context, flags, ht_max_size(bytes, 4), NULL, &code);
    if (code != CL_SUCCESS)
        return ht_fail(error, HT_ERROR_DEVICE, "%s: %s: no buffer of %zu bytes: %s (%d)", d->caps.name, what, bytes,
                       ht_cl_error_name(code), (int)code);
    *memory = made;
    return HT_OK;
}

ht_status ht_cl_upload(ht_cl_device *d, const void *data, size_t bytes, const char *what, cl_mem *memory,
                       ht_error *error) {
    cl_mem made;
    ht_status status = ht_cl_buffer(d, bytes, CL_MEM_READ_ONLY, what, &made, error);
    if (status)
        return status;
    cl_int code = d->cl->EnqueueWriteBuffer(d->queue, made, CL_TRUE, 0, bytes, data, 0, NULL, NULL);
    status = ht_cl_check(code, d->caps.name, "clEnqueueWriteBuffer", error);
    if (status) {
        ht_cl_drop(d, made);
        return ht_error_prefix(error, status, "%s", what);
    }
    *memory = made;
    return HT_OK;
}

ht_status ht_cl_scratch(ht_cl_device *d, int which, size_t bytes, ht_error *error) {
    if (bytes <= d->scratch_bytes[which])
        return HT_OK;
    cl_mem grown;
    ht_status status = ht_cl_buffer(d, bytes, CL_MEM_READ_WRITE, "scratch", &grown, error);
    if (status)
        return status;
    if (d->scratch[which])
        ht_cl_drop(d, d->scratch[which]); /* commands in flight hold their own reference */
    d->scratch[which] = grown;
    d->scratch_bytes[which] = bytes;
    return HT_OK;
}

/* ---- import
 * ------------------------------------------------------------------------------------------------------------ */

/* Index of the first region that begins past `host`. */
static size_t region_after(const ht_cl_device *d, const char *host) {
    size_t low = 0, high = d->n_regions;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (d->regions[middle].host <= host)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* A buffer over the host's own pages; false if this driver makes a copy behind it. */
static bool share_pages(ht_cl_device *d, void *host, size_t bytes, cl_mem *memory) {
    cl_int code;
    cl_mem made = d->cl->CreateBuffer(d->context, CL_MEM_READ_WRITE | CL_MEM_USE_HOST_PTR, bytes, host, &code);
    if (code != CL_SUCCESS)
        return false;
    void *mapped =
        d->cl->EnqueueMapBuffer(d->queue, made, CL_TRUE, CL_MAP_READ | CL_MAP_WRITE, 0, bytes, 0, NULL, NULL, &code);
    const bool same = code == CL_SUCCESS && mapped == host;
    if (code == CL_SUCCESS) {
        d->cl->EnqueueUnmapMemObject(d->queue, made, mapped, 0, NULL, NULL);
        d->cl->Finish(d->queue);
    }
    if (!same) {
        ht_cl_drop(d, made);
        ht_log(HT_LOG_INFO, "%s: the driver copies host memory: using transfers instead", d->caps.name);
        return false;
    }
    *memory = made;
    return true;
}

ht_status ht_cl_import(ht_device *device, void *host, size_t bytes, ht_error *error) {
    ht_cl_device *d = (ht_cl_device *)device;
    if (bytes > d->largest)
        return ht_fail(
            error, HT_ERROR_DEVICE,
            "%s: a buffer of %zu bytes is to be shared, but the device takes at most %llu (a shorter context "
            "or chunk needs less)",
            d->caps.name, bytes, (unsigned long long)d->largest);
    ht_status status =
        ht_grow((void **)&d->regions, &d->cap_regions, d->n_regions + 1, sizeof *d->regions, "imported buffers", error);
    if (status)
        return status;
    ht_cl_region region = {host, bytes, NULL, d->mirrored};
    if (!region.mirrored && !share_pages(d, host, bytes, &region.memory))
        region.mirrored = d->mirrored = !(d->caps.unified_memory = false);
    if (region.mirrored && (status = ht_cl_buffer(d, bytes, CL_MEM_READ_WRITE, "pool", &region.memory, error)))
        return status;
    const size_t at = region_after(d, host);
    memmove(d->regions + at + 1, d->regions + at, (d->n_regions - at) * sizeof *d->regions);
    d->regions[at] = region;
    d->n_regions++;
    return HT_OK;
}

void ht_cl_forget(ht_device *device, void *host) {
    ht_cl_device *d = (ht_cl_device *)device;
    const size_t at = region_after(d, host);
    if (at == 0 || d->regions[at - 1].host != (char *)host)
        return;
    d->cl->Finish(d->queue); /* nothing may read pages that are about to go */
    ht_cl_drop(d, d->regions[at - 1].memory);
    memmove(d->regions + at - 1, d->regions + at, (d->n_regions - at) * sizeof *d->regions);
    d->n_regions--;
}

void ht_cl_memory_release(ht_cl_device *d) {
    for (size_t i = 0; i < d->n_regions; i++)
        ht_cl_drop(d, d->regions[i].memory);
    for (size_t i = 0; i < d->n_shared; i++)
        if (d->shared[i].memory)
            ht_cl_drop(d, d->shared[i].memory);
    for (size_t i = 0; i < HT_CL_SCRATCHES; i++)
        if (d->scratch[i])
            ht_cl_drop(d, d->scratch[i]);
    free(d->regions);
    free(d->shared);
}

/* ---- places
 * ------------------------------------------------------------------------------------------------------------ */

static const ht_cl_region *find_region(const ht_cl_device *d, const void *host, size_t bytes) {
    const size_t at = region_after(d, host);
    if (at == 0)
        return NULL;
    const ht_cl_region *r = &d->regions[at - 1];
    return (size_t)((const char *)host - r->host) + bytes <= r->bytes ? r : NULL;
}

/* Where a view lies; its runs are there already. */
static ht_status find_view(const ht_cl_device *d, const ht_op *op, const ht_binding *b, const ht_view *view,
                           const char *what, int number, ht_cl_place *place, ht_error *error) {
    const ht_cl_run *last = &place->runs[place->n_runs - 1];
    const size_t end = last->first + last->width;
    if (b->tokens > 1 && view->stride < end)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s: a stride of %zu holds no %zu values", d->caps.name, op->name,
                       view->stride, end);
    place->region = find_region(d, view->data, ((b->tokens - 1) * view->stride + end) * 4);
    if (!place->region)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s: %s %d is not in imported memory", d->caps.name, op->name,
                       what, number);
    place->offset = (size_t)((const char *)view->data - place->region->host) / 4;
    place->stride = view->stride;
    return HT_OK;
}

static ht_status find_place(const ht_cl_device *d, const ht_op *op, const ht_binding *b, ht_slot slot,
                            ht_cl_place *place, ht_error *error) {
    return find_view(d, op, b, &b->slots[slot], "slot", slot, place, error);
}

static void add_columns(ht_cl_place *place, size_t first, size_t width) {
    ht_cl_add_run(place->runs, &place->n_runs, first, width);
}

static size_t kv_size(const ht_kv_layer *kv) {
    return kv->type == HT_KV_F32 ? sizeof(float) : sizeof(uint16_t);
}

static ht_status find_cache(const ht_cl_device *d, const ht_task *task, const ht_binding *b, ht_cl_call *call,
                            ht_error *error) {
    const ht_op *op = task->op;
    const ht_kv_layer *kv = &b->kv[op->cache];
    const size_t bytes = (size_t)task->shape.kv_heads * kv->positions * (size_t)task->shape.head_dim * kv_size(kv);
    call->keys = find_region(d, kv->keys, bytes);
    const void *const values_at = op->value_dim ? kv->keys : kv->values; /* some are the keys' first values */
    call->values = find_region(d, values_at, bytes);
    if (!call->keys || !call->values)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s: the KV cache is not in imported memory", d->caps.name,
                       op->name);
    if (b->position + b->tokens > kv->positions)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s: position %zu in a cache of %zu", d->caps.name, op->name,
                       b->position + b->tokens - 1, kv->positions);
    call->keys_offset = (size_t)((char *)kv->keys - call->keys->host);
    call->values_offset = (size_t)((const char *)values_at - call->values->host);
    return HT_OK;
}

static ht_status find_state(const ht_cl_device *d, const ht_task *task, const ht_binding *b, ht_cl_call *call,
                            ht_error *error) {
    const float *state = b->kv[task->op->cache].state;
    call->state = find_region(d, state, ht_op_state(task->op, &d->hparams) * sizeof *state);
    if (!call->state)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: %s: the state is not in imported memory", d->caps.name,
                       task->op->name);
    call->state_offset = (size_t)((const char *)state - call->state->host) / sizeof *state;
    return HT_OK;
}

/* Columns of a recurrent mixer: of each thing that its units have theirs. Key heads are everybody's. */
static void mixer_columns(const ht_task *task, const ht_slice *part, ht_cl_place *in, ht_cl_place *more,
                          ht_cl_place *out) {
    const ht_op *op = task->op;
    const ht_hparams *h = &task->shape;
    const bool scan = op->kind == HT_OP_SCAN;
    const size_t first = part->row_begin, n = part->row_end - first, heads = (size_t)h->heads / part->of,
                 inner = (size_t)h->heads * (size_t)h->head_dim, key_dim = (size_t)op->recurrence.key_dim,
                 keys = (size_t)h->kv_heads * key_dim, own = inner / part->of;
    if (op->kind == HT_OP_CONV) {
        for (size_t i = 0; i < 3; i++)
            add_columns(in, i * part->of + first, n);
        add_columns(out, first, n);
        return;
    }
    for (size_t i = 0; i < 2; i++) /* z, x; v, z */
        add_columns(scan ? in : more, i * inner + first * own, n * own);
    for (size_t i = 0; i < (scan ? 1 : 2); i++) /* dt; beta, alpha */
        add_columns(scan ? in : more, 2 * inner + (i * part->of + first) * heads, n * heads);
    for (size_t i = 0; i < 2; i++) /* B, C; q, k */
        if (scan)
            add_columns(more, i * keys + first * key_dim, n * key_dim);
        else
            add_columns(in, i * keys, keys);
    add_columns(out, first * own, n * own);
}

/* Columns that the operator reads and writes for this part; more: of its side input. */
static void find_columns(const ht_task *task, const ht_slice *part, ht_cl_place *in, ht_cl_place *more,
                         ht_cl_place *out) {
    const ht_op *op = task->op;
    const ht_hparams *h = &task->shape;
    const size_t dim = (size_t)h->head_dim, kvs = (size_t)h->kv_heads, heads = (size_t)h->heads,
                 first = part->row_begin, n = part->row_end - first;
    ht_heads own = {0};
    if (op->kind == HT_OP_ROPE || op->kind == HT_OP_ATTENTION || op->kind == HT_OP_HEADS)
        own = ht_slice_heads(part, h);
    const size_t queries = (own.queries_end - own.queries) * dim, made = (own.used_end - own.own) * dim;
    switch (op->kind) {
    case HT_OP_MATMUL:
        add_columns(in, part->reduction_begin, part->reduction_end - part->reduction_begin);
        out->n_runs = ht_cl_matmul_runs(op, part, out->runs);
        break;
    case HT_OP_ROPE:
        add_columns(in, own.queries * dim, queries);
        add_columns(in, (heads + own.own) * dim, op->shared ? 0 : made);
        add_columns(in, (heads + kvs + own.own) * dim, op->value_dim || op->shared ? 0 : made);
        *out = *in;
        break;
    case HT_OP_ATTENTION: /* queries alone */
        add_columns(in, own.queries * dim, queries);
        *out = *in;
        break;
    case HT_OP_HEADS: {
        const size_t made_of = op->parts[0].rows / heads + (size_t)op->rest,
                     copied = own.own < own.used_end ? op->n_copied : 0;
        add_columns(in, own.queries * dim, queries);
        add_columns(in, heads * dim, op->n_more ? 0 : copied);
        add_columns(more, op->more_first, op->n_more ? copied : 0);
        add_columns(out, own.queries * made_of, (own.queries_end - own.queries) * made_of);
        add_columns(out, heads * made_of, copied);
        break;
    }
    case HT_OP_GLU: {
        const size_t each = (size_t)h->feed_forward / part->of;
        add_columns(in, first * each, n * each);
        add_columns(out, first * each, n * each);
        add_columns(more, op->more_first + first * each, op->n_more ? n * each : 0);
        if (!op->n_more && !op->ungated)
            add_columns(in, (size_t)h->feed_forward + first * each, n * each);
        break;
    }
    case HT_OP_CONV:
    case HT_OP_DELTA_NET:
    case HT_OP_SCAN:
        mixer_columns(task, part, in, more, out);
        break;
    default:
        add_columns(in, 0, ht_op_in_width(op, h));
        add_columns(out, 0, ht_op_out_width(op, h));
        add_columns(more, op->more_first, ht_op_more_width(op, h));
    }
}

ht_status ht_cl_find_places(ht_cl_device *d, const ht_task *task, const ht_binding *b, ht_cl_call *call,
                            ht_error *error) {
    const ht_op *op = task->op;
    call->part = b->part ? ht_cl_resolve(d, op, b->part) : task->slice;
    find_columns(task, &call->part, &call->in, &call->aux, &call->out);
    ht_status status = HT_OK;
    if (op->aux != HT_SLOT_NONE && op->kind == HT_OP_NORM) {
        call->aux = call->in;
        status = find_place(d, op, b, op->aux, &call->aux, error);
        for (; call->n_pieces < b->n_pieces && !status; call->n_pieces++) {
            ht_cl_place *piece = &call->pieces[call->n_pieces];
            *piece = (ht_cl_place){.runs = {call->in.runs[0]}, .n_runs = 1};
            status = find_view(d, op, b, &b->pieces[call->n_pieces], "piece", (int)call->n_pieces, piece, error);
        }
    }
    if (call->aux.n_runs && op->kind != HT_OP_NORM)
        status = find_place(d, op, b, op->more[0], &call->aux, error);
    if (!status)
        status = find_place(d, op, b, op->in, &call->in, error);
    if (!status)
        status = find_place(d, op, b, op->out, &call->out, error);
    if (!status && ((op->kind == HT_OP_ROPE && !op->shared) || op->kind == HT_OP_ATTENTION))
        status = find_cache(d, task, b, call, error);
    if (!status && ht_op_state_units(op, &d->hparams))
        status = find_state(d, task, b, call, error);
    return status;
}

/* ---- transfers
 * --------------------------------------------------------------------------------------------------------- */

/* `rows` runs of `width` bytes, `pitch` apart, from `offset` on: between a mirrored buffer and the host's pages, in the
 * queue's order. */
static ht_status move(ht_cl_device *d, const ht_cl_region *r, size_t offset, size_t width, size_t rows, size_t pitch,
                      bool to_device, ht_error *error) {
    /* Drivers want whole pitches inside the buffer (NVIDIA's refuses others), though the last row needs no more than its
     * width: it goes by itself then. */
    if (rows > 1 && width != pitch && offset + rows * pitch > r->bytes) {
        ht_status status = move(d, r, offset, width, rows - 1, pitch, to_device, error);
        return status ? status : move(d, r, offset + (rows - 1) * pitch, width, 1, pitch, to_device, error);
    }
    /* Two moves of the same pages keep the queue's order as far as the device's memory is concerned. The host's may
     * be read when the write is submitted (NVIDIA's driver does that), before an earlier command has handed out what
     * belongs there. */
    cl_int code = to_device && d->unread ? d->cl->Finish(d->queue) : CL_SUCCESS;
    if (code != CL_SUCCESS)
        return ht_cl_check(code, d->caps.name, "clFinish", error);
    d->unread = !to_device;
    cl_event event = NULL, *wanted = d->want_event ? &event : NULL;
    if (rows == 1 || width == pitch) {
        const size_t bytes = width * rows;
        code = to_device ? d->cl->EnqueueWriteBuffer(d->queue, r->memory, CL_FALSE, offset, bytes, r->host + offset, 0,
                                                     NULL, wanted)
                         : d->cl->EnqueueReadBuffer(d->queue, r->memory, CL_FALSE, offset, bytes, r->host + offset, 0,
                                                    NULL, wanted);
    } else {
        const size_t origin[3] = {offset, 0, 0}, extent[3] = {width, rows, 1};
        code = to_device ? d->cl->EnqueueWriteBufferRect(d->queue, r->memory, CL_FALSE, origin, origin, extent, pitch,
                                                         0, pitch, 0, r->host, 0, NULL, wanted)
                         : d->cl->EnqueueReadBufferRect(d->queue, r->memory, CL_FALSE, origin, origin, extent, pitch, 0,
                                                        pitch, 0, r->host, 0, NULL, wanted);
    }
    if (event) {
        if (d->last_event)
            d->cl->ReleaseEvent(d->last_event);
        d->last_event = event;
    }
    return ht_cl_check(code, d->caps.name, to_device ? "a write to the device" : "a read from the device", error);
}

static ht_status move_place(ht_cl_device *d, const ht_cl_place *p, size_t tokens, bool to_device, ht_error *error) {
    if (!p->region || !p->region->mirrored)
        return HT_OK;
    ht_status status = HT_OK;
    for (size_t i = 0; i < p->n_runs && !status; i++)
        status = move(d, p->region, (p->offset + p->runs[i].first) * 4, p->runs[i].width * 4, tokens, p->stride * 4,
                      to_device, error);
    return status;
}

/* The cache rows of this submit's tokens, of the heads that it makes, or to the device of those that it uses; to the
 * device also those before that it has not seen. */
static ht_status move_cache(ht_cl_device *d, const ht_task *task, const ht_cl_call *call, bool to_device,
                            ht_error *error) {
    if (!call->keys->mirrored)
        return HT_OK;
    const ht_kv_layer *kv = &call->binding->kv[task->op->cache];
    const size_t row = (size_t)task->shape.head_dim * kv_size(kv), position = call->binding->position;
    const size_t first = to_device ? ht_min_size(call->binding->cached, position) : position;
    const ht_heads own = ht_slice_heads(&call->part, &task->shape);
    const size_t begin = to_device ? own.used : own.own, heads = own.used_end - begin;
    const size_t width = (position + call->tokens - first) * row, pitch = kv->positions * row,
                 at = begin * pitch + first * row;
    if (heads == 0)
        return HT_OK;
    ht_status status = move(d, call->keys, call->keys_offset + at, width, heads, pitch, to_device, error);
    return status || task->op->value_dim
               ? status
               : move(d, call->values, call->values_offset + at, width, heads, pitch, to_device, error);
}

/* The state of the part's units, whole: to the device unless the submit begins with zeros. */
static ht_status move_state(ht_cl_device *d, const ht_task *task, const ht_cl_call *call, bool to_device,
                            ht_error *error) {
    const size_t all = ht_op_state(task->op, &d->hparams) * sizeof(float), first = call->part.row_begin,
                 n = call->part.row_end - first, at = call->state_offset * sizeof(float);
    if (!call->state->mirrored || (to_device && call->binding->position == 0))
        return HT_OK;
    if (task->op->kind == HT_OP_CONV) {
        const size_t rows = (size_t)task->op->taps - 1;
        return move(d, call->state, at + first * sizeof(float), n * sizeof(float), rows, all / rows, to_device, error);
    }
    const size_t unit = all / call->part.of;
    return move(d, call->state, at + first * unit, n * unit, 1, n * unit, to_device, error);
}

static bool has_bit(uint32_t bits, ht_slot slot) {
    return slot != HT_SLOT_NONE && bits >> slot & 1;
}

ht_status ht_cl_bring_in(ht_cl_device *d, const ht_task *task, const ht_cl_call *call, ht_error *error) {
    if (!d->mirrored)
        return HT_OK;
    const uint32_t resident = call->binding->resident;
    ht_status status = HT_OK;
    if (!has_bit(resident, task->op->in))
        status = move_place(d, &call->in, call->tokens, true, error);
    const ht_op *op = task->op;
    if (!status && call->aux.region && !has_bit(resident, op->kind == HT_OP_NORM ? op->aux : op->more[0]))
        status = move_place(d, &call->aux, call->tokens, true, error);
    const bool added_to = (op->kind == HT_OP_EMBED && op->positions) || (op->kind == HT_OP_NORM && op->adds_normed) ||
                          (op->kind == HT_OP_MIX && op->mix.function == HT_MIX_SIDE);
    if (!status && added_to && !has_bit(resident, op->out))
        status = move_place(d, &call->out, call->tokens, true, error);
    for (size_t i = 0; i < call->n_pieces && !status; i++) /* others' by nature */
        status = move_place(d, &call->pieces[i], call->tokens, true, error);
    if (!status && task->op->kind == HT_OP_ATTENTION && !(resident & HT_BIT_KV))
        status = move_cache(d, task, call, true, error);
    if (!status && call->state && !(resident & HT_BIT_KV))
        status = move_state(d, task, call, true, error);
    return status;
}

ht_status ht_cl_hand_out(ht_cl_device *d, const ht_task *task, const ht_cl_call *call, ht_error *error) {
    if (!d->mirrored)
        return HT_OK;
    const uint32_t kept = call->binding->kept;
    ht_status status = HT_OK;
    const bool adds = task->op->kind == HT_OP_NORM && ht_norm_writes_stream(task->op),
               caps = task->op->kind == HT_OP_ARGMAX && task->op->soft_cap > 0;
    if ((adds || caps) && !has_bit(kept, task->op->in))
        status = move_place(d, &call->in, call->tokens, false, error);
    if (!status && ht_mix_in_place(task->op) && !has_bit(kept, task->op->more[0]))
        status = move_place(d, &call->aux, call->tokens, false, error);
    if (!status && task->op->kind == HT_OP_ROPE && !task->op->shared && !(kept & HT_BIT_KV))
        status = move_cache(d, task, call, false, error);
    if (!status && call->state && !(kept & HT_BIT_KV))
        status = move_state(d, task, call, false, error);
    if (!status && !has_bit(kept, task->op->out))
        status = move_place(d, &call->out, call->tokens, false, error);
    return status;
}

#else
typedef int ht_cl_memory_is_empty; /* ISO C wants something in every file */
#endif
