/* What the simulated processors do by themselves, measured by the profiler; what the paper says of them; what the planner
 * decides where the paper says what it decided. */
#include "reproduce/reproduce.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS 14336 /* the feed-forward matrices of the paper's largest model */
#define COLS 4096
#define FUSED 28672                                  /* gate and up in one */
#define DECODE_LENGTHS "lengths=1+32+64+128+256+512" /* of an NPU that is to do with one token what it can */

/* ---- the profiler on this SoC -------------------------------------------------------------------------------------------------- */

typedef struct bench { /* devices of the SoC, and what was measured of them */
    ht_profiler profiler;
    ht_profile_options options;
    ht_profile_result result;
    int gpu, npu, cpu; /* of result.devices; -1: none */
} bench;

static ht_status add_device(ht_reproduction *r, bench *b, const char *name, const char *options, int *index) {
    *index = -1;
    if (!name)
        return HT_OK;
    ht_status status = ht_grow((void **)&b->result.devices, &b->profiler.device_capacity, b->result.n_devices + 1,
                               sizeof *b->result.devices, "the profile", r->error);
    if (status)
        return status;
    ht_profile_device *device = &b->result.devices[ *index = (int)b->result.n_devices++];
    *device = (ht_profile_device){.static_graphs = *options != 0};
    const int bytes =
        snprintf(device->spec, sizeof device->spec, "sim:%s/%s%s%s", r->soc->spec, name, *options ? ":" : "", options);
    snprintf(device->name, sizeof device->name, "%s", name);
    return bytes < (int)sizeof device->spec ? HT_OK
                                            : ht_fail(r->error, HT_ERROR_ARGUMENT, "%s: too long", r->soc->spec);
}

/* lengths: of the NPU, as an option of its device. */
static ht_status begin_bench(ht_reproduction *r, bench *b, const char *lengths) {
    *b = (bench){.options = {.precision = HT_PRECISION_EXACT}};
    b->profiler = (ht_profiler){.model = r->models[0], .options = &b->options, .result = &b->result};
    ht_status status = add_device(r, b, r->gpu, "", &b->gpu);
    if (!status)
        status = add_device(r, b, r->npu, lengths, &b->npu);
    return status ? status : add_device(r, b, r->cpu, "", &b->cpu);
}

static void end_bench(bench *b) {
    free(b->result.points);
    free(b->result.devices);
}

/* Seconds of one product, joins left out; NAN: there is no such device. */
static ht_status time_product(ht_reproduction *r, bench *b, int device, const char *more, size_t rows, size_t cols,
                              size_t tokens, double *seconds) {
    const ht_product product = {device, more, rows, cols, tokens};
    *seconds = NAN;
    return device < 0 ? HT_OK : ht_characterise_cut(&b->profiler, &product, 1, 32, seconds, r->error);
}

static double rate(size_t rows, size_t cols, size_t tokens, double seconds) { /* TFLOP/s */
    return 2e-12 * (double)rows * (double)cols * (double)tokens / seconds;
}

/* ---- curves ------------------------------------------------------------------------------------------------------------------------ */

static ht_status put_stairs(ht_reproduction *r) {
    static const size_t tokens[] = {1, 16, 32, 33, 48, 64, 65, 80, 96, 97, 112, 128, 129, 144, 160, 161, 176, 192};
    ht_sheet *sheet = ht_sheet_add(r, "npu-staircase", "NPU, [tokens, 4096] × [4096, 14336]", "tokens,ms",
                                   HT_CHART_STAIRS, "tokens", "ms");
    ht_status status = HT_OK;
    for (size_t i = 0; i < HT_COUNT(tokens) && r->npu && !status; i++) {
        char length[32];
        bench b;
        double seconds = NAN;
        snprintf(length, sizeof length, "lengths=%zu", tokens[i]);
        status = begin_bench(r, &b, length);
        if (!status)
            status = time_product(r, &b, b.npu, "", ROWS, COLS, tokens[i], &seconds);
        if (!status)
            status = ht_sheet_row(r, sheet, "dd", (double)tokens[i], seconds * 1e3);
        end_bench(&b);
    }
    return status;
}

ht_status ht_reproduce_curves(ht_reproduction *r) {
    static const size_t tokens[] = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256, 512},
                        widths[] = {256, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192};
    bench b;
    double gpu, npu, cpu;
    ht_status status = begin_bench(r, &b, "lengths=1+32+64+128+256+512");
    ht_sheet *sheet = ht_sheet_add(r, "flops-by-tokens", "Arithmetic, [tokens, 4096] × [4096, 14336]",
                                   "tokens,GPU,NPU,CPU", HT_CHART_LINES, "tokens (logarithmic)", "TFLOP/s");
    if (sheet)
        sheet->log_x = true;
    for (size_t i = 0; i < HT_COUNT(tokens) && !status; i++) {
        status = time_product(r, &b, b.gpu, "", ROWS, COLS, tokens[i], &gpu);
        if (!status)
            status = time_product(r, &b, b.npu, "", ROWS, COLS, tokens[i], &npu);
        if (!status)
            status = time_product(r, &b, b.cpu, "", ROWS, COLS, tokens[i], &cpu);
        if (!status)
            status = ht_sheet_row(r, sheet, "dddd", (double)tokens[i], rate(ROWS, COLS, tokens[i], gpu),
                                  rate(ROWS, COLS, tokens[i], npu), rate(ROWS, COLS, tokens[i], cpu));
    }
    sheet = ht_sheet_add(r, "flops-by-size", "Arithmetic, [4, size] × [size, size]", "size,GPU,NPU,CPU", HT_CHART_LINES,
                         "size (logarithmic)", "TFLOP/s");
    if (sheet)
        sheet->log_x = true;
    for (size_t i = 0; i < HT_COUNT(widths) && !status; i++) {
        status = time_product(r, &b, b.gpu, "", widths[i], widths[i], 4, &gpu);
        if (!status)
            status = time_product(r, &b, b.npu, "", widths[i], widths[i], 4, &npu);
        if (!status)
            status = time_product(r, &b, b.cpu, "", widths[i], widths[i], 4, &cpu);
        if (!status)
            status = ht_sheet_row(r, sheet, "dddd", (double)widths[i], rate(widths[i], widths[i], 4, gpu),
                                  rate(widths[i], widths[i], 4, npu), rate(widths[i], widths[i], 4, cpu));
    }
    end_bench(&b);
    return status ? status : put_stairs(r);
}

ht_status ht_reproduce_order(ht_reproduction *r) {
    static const size_t tokens[] = {32, 64, 128, 256, 512};
    bench b;
    ht_status status = begin_bench(r, &b, DECODE_LENGTHS);
    ht_sheet *sheet = ht_sheet_add(r, "order-of-operands", "[14336, 4096] × [4096, tokens], ms",
                                   "tokens,weights held,activations held,times", HT_CHART_BARS, "tokens", "ms");
    if (sheet)
        sheet->n_drawn = 2;
    for (size_t i = 0; i < HT_COUNT(tokens) && r->npu && !status; i++) {
        double weights, activations;
        status = time_product(r, &b, b.npu, "order=activations", ROWS, COLS, tokens[i], &weights);
        if (!status)
            status = time_product(r, &b, b.npu, "order=weights", ROWS, COLS, tokens[i], &activations);
        if (!status)
            status = ht_sheet_row(r, sheet, "dddd", (double)tokens[i], weights * 1e3, activations * 1e3,
                                  weights / activations);
    }
    end_bench(&b);
    return status;
}

ht_status ht_reproduce_shape(ht_reproduction *r) {
    static const size_t shapes[][2] = {{2048, 28672}, {4096, 14336}, {5120, 11456},
                                       {7680, 7680},  {14336, 4096}, {28672, 2048}};
    static const size_t tokens[] = {64, 128, 256, 512};
    bench b;
    double gpu, npu;
    ht_status status = begin_bench(r, &b, DECODE_LENGTHS);
    ht_sheet *sheet = ht_sheet_add(r, "shape-of-weights", "As many weights, 256 tokens", "rows × columns,GPU,NPU",
                                   HT_CHART_BARS, "", "TFLOP/s");
    for (size_t i = 0; i < HT_COUNT(shapes) && !status; i++) {
        const size_t rows = shapes[i][0], cols = shapes[i][1];
        char name[48];
        snprintf(name, sizeof name, "%zu × %zu", rows, cols);
        status = time_product(r, &b, b.gpu, "", rows, cols, 256, &gpu);
        if (!status)
            status = time_product(r, &b, b.npu, "", rows, cols, 256, &npu);
        if (!status)
            status = ht_sheet_row(r, sheet, "sdd", name, rate(rows, cols, 256, gpu), rate(rows, cols, 256, npu));
    }
    sheet = ht_sheet_add(r, "ffn-down", "FFN-down, [tokens, 14336] × [14336, 4096]: NPU over GPU",
                         "tokens,times the GPU", HT_CHART_BARS, "tokens", "times the GPU's speed");
    for (size_t i = 0; i < HT_COUNT(tokens) && r->npu && r->gpu && !status; i++) {
        status = time_product(r, &b, b.gpu, "", COLS, ROWS, tokens[i], &gpu);
        if (!status)
            status = time_product(r, &b, b.npu, "", COLS, ROWS, tokens[i], &npu);
        if (!status)
            status = ht_sheet_row(r, sheet, "dd", (double)tokens[i], gpu / npu);
    }
    end_bench(&b);
    return status;
}

/* ---- bandwidth, joins, graphs: the profile's own tables ----------------------------------------------------------------------------- */

static double bandwidth(const bench *b, int device, int with) {
    for (size_t i = 0; i < b->result.n_points && device >= 0; i++) {
        const ht_profile_point *p = &b->result.points[i];
        if (p->table == HT_PROFILE_BANDWIDTH && p->device == device && p->with == with)
            return ht_profile_rate(p);
    }
    return NAN;
}

ht_status ht_reproduce_bandwidth(ht_reproduction *r) {
    bench b;
    ht_status status = begin_bench(r, &b, DECODE_LENGTHS);
    if (!status)
        status = ht_characterise_bandwidth(&b.profiler, r->error);
    ht_sheet *sheet = ht_sheet_add(r, "bandwidth-of-weights", "Weights read in decode", "who,first,second,sum",
                                   HT_CHART_BARS, "", "GB/s");
    const int devices[] = {b.gpu, b.npu, b.cpu};
    for (size_t i = 0; i < HT_COUNT(devices) && !status; i++)
        if (devices[i] >= 0)
            status = ht_sheet_row(r, sheet, "sddd", b.result.devices[devices[i]].name, bandwidth(&b, devices[i], -1),
                                  (double)NAN, (double)NAN);
    for (size_t i = 0; i < HT_COUNT(devices); i++)
        for (size_t k = i + 1; k < HT_COUNT(devices) && !status; k++) {
            const double first = bandwidth(&b, devices[i], devices[k]), second = bandwidth(&b, devices[k], devices[i]);
            char name[64];
            if (!isfinite(first) || !isfinite(second))
                continue;
            snprintf(name, sizeof name, "%.15s and %.15s", b.result.devices[devices[i]].name,
                     b.result.devices[devices[k]].name);
            status = ht_sheet_row(r, sheet, "sddd", name, first, second, first + second);
        }
    end_bench(&b);
    return status;
}

/* The profile's points of one table of one device. */
static ht_status put_points(ht_reproduction *r, const bench *b, ht_profile_table table, int device, ht_sheet *sheet) {
    ht_status status = HT_OK;
    for (size_t i = 0; i < b->result.n_points && !status; i++) {
        const ht_profile_point *p = &b->result.points[i];
        char name[64];
        if (p->table != table || p->device != device)
            continue;
        snprintf(name, sizeof name, "%zu × %zu", p->rows, p->cols);
        status = ht_sheet_row(r, sheet, "sd", table == HT_PROFILE_JOINS ? p->what : name,
                              p->seconds * (table == HT_PROFILE_JOINS ? 1e6 : 1e3));
    }
    return status;
}

ht_status ht_reproduce_joins(ht_reproduction *r) {
    bench b;
    ht_status status = begin_bench(r, &b, "lengths=1+64");
    const int devices[] = {b.gpu, b.npu};
    for (size_t i = 0; i < HT_COUNT(devices) && !status; i++) {
        if (devices[i] < 0)
            continue;
        char id[32], title[64];
        snprintf(id, sizeof id, "joins-%.15s", b.result.devices[devices[i]].name);
        snprintf(title, sizeof title, "%s: from submit to knowing", i ? "NPU" : "GPU");
        ht_sheet *sheet = ht_sheet_add(r, id, title, "way of waiting,µs", HT_CHART_BARS, "", "µs");
        status = ht_characterise_joins(&b.profiler, devices[i], r->error);
        if (!status)
            status = put_points(r, &b, HT_PROFILE_JOINS, devices[i], sheet);
    }
    end_bench(&b);
    return status;
}

ht_status ht_reproduce_graphs(ht_reproduction *r) {
    static const size_t shapes[][2] = {{1024, 1024},  {4096, 4096},  {6144, 4096},
                                       {4096, 14336}, {28672, 4096}, {128256, 4096}};
    ht_status status = HT_OK;
    if (!r->npu)
        return HT_OK;
    ht_sheet *sheet =
        ht_sheet_add(r, "graph-building", "One graph of 64 tokens", "rows × columns,ms", HT_CHART_BARS, "", "ms");
    bench b;
    status = begin_bench(r, &b, "lengths=64");
    for (size_t i = 0; i < HT_COUNT(shapes) && !status; i++) {
        const size_t before = b.result.n_points;
        char name[48];
        status = ht_characterise_build(&b.profiler, b.npu, shapes[i][0], shapes[i][1], 64, r->error);
        snprintf(name, sizeof name, "%zu × %zu", shapes[i][0], shapes[i][1]);
        if (!status)
            status = ht_sheet_row(r, sheet, "sd", name, b.result.points[before].seconds * 1e3);
    }
    end_bench(&b);
    return status;
}

/* ---- against the paper ----------------------------------------------------------------------------------------------------------------- */

typedef struct facts { /* measured */
    double value[16];
} facts;
enum {
    GPU_REACHED,
    NPU_REACHED,
    GPU_ALONE,
    NPU_ALONE,
    CPU_ALONE,
    TOGETHER,
    GPU_PLATEAU,
    GPU_LINEAR,
    FINISH,
    SUBMIT,
    EMPTY,
    STAIR,
    ORDER,
    DOWN_LEAST,
    DOWN_MOST,
    DECODE
};

/* What the first submit after the queue ran empty takes more, and one behind others: from the profile's joins by flag. */
static ht_status measure_joins(ht_reproduction *r, bench *b, facts *f) {
    double behind = NAN, idle = NAN, finish = NAN;
    ht_status status = b->gpu < 0 ? HT_OK : ht_characterise_joins(&b->profiler, b->gpu, r->error);
    for (size_t i = 0; i < b->result.n_points; i++) {
        const ht_profile_point *p = &b->result.points[i];
        if (p->table != HT_PROFILE_JOINS)
            continue;
        if (!strcmp(p->what, "flag, behind 20"))
            behind = p->seconds;
        else if (!strcmp(p->what, "flag, after 5 ms"))
            idle = p->seconds;
        else if (!strcmp(p->what, "finish, behind 20"))
            finish = p->seconds;
    }
    double submit = NAN;
    if (!status) /* many in a row: each is a launch, for there is next to nothing to do */
        status = time_product(r, b, b->gpu, "", 32, 256, 1, &submit);
    f->value[SUBMIT] = submit * 1e6;
    f->value[EMPTY] = (idle - behind) * 1e6;
    f->value[FINISH] = (finish - submit) * 1e6;
    return status;
}

static ht_status measure_products(ht_reproduction *r, bench *b, facts *f) {
    static const struct {
        int what;
        bool npu;
        const char *more;
        size_t rows, cols, tokens;
    } products[] = {{GPU_REACHED, false, "", ROWS, COLS, 512},
                    {GPU_LINEAR, false, "", ROWS, COLS, 1},
                    {GPU_PLATEAU, false, "", ROWS, COLS, 2}};
    ht_status status = HT_OK;
    double seconds = 0, other = 1;
    for (size_t i = 0; i < HT_COUNT(products) && !status; i++) {
        const size_t rows = products[i].rows, cols = products[i].cols, n = products[i].tokens;
        status = time_product(r, b, products[i].npu ? b->npu : b->gpu, products[i].more, rows, cols, n, &seconds);
        f->value[products[i].what] = rate(rows, cols, n, seconds);
    }
    /* twice the work in the same time while memory is the limit */
    f->value[GPU_LINEAR] = f->value[GPU_PLATEAU] / f->value[GPU_LINEAR];
    if (!status)
        status = time_product(r, b, b->npu, "order=activations", ROWS, COLS, 64, &seconds);
    if (!status)
        status = time_product(r, b, b->npu, "order=weights", ROWS, COLS, 64, &other);
    f->value[ORDER] = seconds / other;
    f->value[DOWN_LEAST] = INFINITY, f->value[DOWN_MOST] = 0;
    for (size_t n = 64; n <= 512 && !status; n *= 2) {
        status = time_product(r, b, b->gpu, "", COLS, ROWS, n, &seconds);
        if (!status)
            status = time_product(r, b, b->npu, "", COLS, ROWS, n, &other);
        f->value[DOWN_LEAST] = fmin(f->value[DOWN_LEAST], seconds / other);
        f->value[DOWN_MOST] = fmax(f->value[DOWN_MOST], seconds / other);
    }
    if (!status)
        status = time_product(r, b, b->npu, "", FUSED, COLS, 1, &seconds);
    if (!status)
        status = time_product(r, b, b->gpu, "", FUSED, COLS, 1, &other);
    f->value[DECODE] = seconds / other;
    return status;
}

/* Weights of 4 bits have to be expanded, so they show neither what memory gives an NPU nor what its matrix unit reaches; those
 * of 16 bits do. */
static ht_status measure_npu_in_fp16(ht_reproduction *r, facts *f) {
    ht_model *model;
    bench b;
    double seconds;
    ht_status status = ht_model_open("shape:llama-3-8b:f16", &model, r->error);
    if (status)
        return status;
    status = begin_bench(r, &b, "lengths=1+512");
    b.profiler.model = model;
    if (!status)
        status = time_product(r, &b, b.npu, "", FUSED, COLS, 1, &seconds);
    if (!status)
        f->value[NPU_ALONE] = 2e-9 * FUSED * COLS / seconds;
    if (!status)
        status = time_product(r, &b, b.npu, "", FUSED, COLS, 512, &seconds);
    if (!status)
        f->value[NPU_REACHED] = rate(FUSED, COLS, 512, seconds);
    end_bench(&b);
    ht_model_close(model);
    return status;
}

/* The number of tokens between two steps of the staircase: where graphs of other lengths begin to take longer. */
static ht_status measure_stair(ht_reproduction *r, facts *f) {
    double first = NAN, seconds = NAN;
    size_t low = 0;
    ht_status status = HT_OK;
    f->value[STAIR] = NAN;
    for (size_t n = 60; n <= 160 && r->npu && !status; n++) {
        char length[32];
        bench b;
        snprintf(length, sizeof length, "lengths=%zu", n);
        status = begin_bench(r, &b, length);
        if (!status)
            status = time_product(r, &b, b.npu, "", ROWS, COLS, n, &seconds);
        end_bench(&b);
        if (n > 60 && seconds > 1.02 * first) { /* more activations alone are no step */
            if (low) {
                f->value[STAIR] = (double)(n - low);
                return status;
            }
            low = n;
        }
        first = seconds;
    }
    return status;
}

ht_status ht_reproduce_paper(ht_reproduction *r) {
    static const struct {
        const char *tag, *what, *unit;
        int fact;
        double low, high;
        const char *input;
    } rows[] = {
        {"GPU", "reached by matrix multiplications", "TFLOP/s", GPU_REACHED, 1, 1, "input"},
        {"NPU", "reached (W16A16)", "TFLOP/s", NPU_REACHED, 10, 10, "fitted"},
        {"memory", "GPU alone", "GB/s", GPU_ALONE, 43.3, 43.3, "input"},
        {"memory", "NPU alone (W16A16)", "GB/s", NPU_ALONE, 40, 45, "input"},
        {"memory", "CPU alone", "GB/s", CPU_ALONE, 40, 45, "input"},
        {"memory", "GPU and NPU together", "GB/s", TOGETHER, 59.5, 59.5, "input"},
        {"GPU-1", "speed with twice the work, memory-bound", "times", GPU_LINEAR, 2, 2, "predicted"},
        {"GPU-2", "clFinish", "µs", FINISH, 400, 400, "input"},
        {"GPU-2", "submit to a busy queue", "µs", SUBMIT, 10, 20, "input"},
        {"GPU-2", "more after the queue ran empty", "µs", EMPTY, 50, 100, "input"},
        {"NPU-1", "tokens from step to step", "tokens", STAIR, 32, 32, "input"},
        {"NPU-2", "order of operands, up to", "times", ORDER, 6, 6, "fitted"},
        {"NPU-3", "FFN-down against the GPU, least", "times", DOWN_LEAST, 0.5, 1.5, "fitted"},
        {"NPU-3", "FFN-down against the GPU, most", "times", DOWN_MOST, 0.5, 1.5, "fitted"},
        {"decode", "GPU over NPU at [28672,4096] × [4096,1]", "times", DECODE, 1.36, 1.36, "fitted"},
    };
    bench b;
    facts f;
    for (size_t i = 0; i < HT_COUNT(f.value); i++)
        f.value[i] = NAN;
    ht_status status = begin_bench(r, &b, DECODE_LENGTHS);
    if (!status)
        status = ht_characterise_bandwidth(&b.profiler, r->error);
    f.value[GPU_ALONE] = bandwidth(&b, b.gpu, -1);
    f.value[CPU_ALONE] = bandwidth(&b, b.cpu, -1);
    f.value[TOGETHER] = bandwidth(&b, b.gpu, b.npu) + bandwidth(&b, b.npu, b.gpu);
    if (!status)
        status = measure_joins(r, &b, &f);
    if (!status)
        status = measure_products(r, &b, &f);
    if (!status)
        status = measure_npu_in_fp16(r, &f);
    if (!status)
        status = measure_stair(r, &f);
    end_bench(&b);
    ht_sheet *sheet = ht_sheet_add(r, "paper-figures", "Figures of the paper's first table",
                                   "tag,figure,paper,simulated,unit,error,is", HT_CHART_NONE, "", "");
    size_t good = 0, all = 0;
    for (size_t i = 0; i < HT_COUNT(rows) && !status; i++) {
        const double value = f.value[rows[i].fact];
        char paper[48], error[48] = "inside";
        if (!isfinite(value))
            continue;
        snprintf(paper, sizeof paper, rows[i].low < rows[i].high ? "%.4g–%.4g" : "%.4g", rows[i].low, rows[i].high);
        const double nearest = fmin(fmax(value, rows[i].low), rows[i].high);
        good += fabs(value / nearest - 1) <= 0.1;
        all++;
        if (rows[i].low == rows[i].high || value != nearest)
            snprintf(error, sizeof error, "%+.1f%%", 100 * (value / nearest - 1));
        status = ht_sheet_row(r, sheet, "sssdsss", rows[i].tag, rows[i].what, paper, value, rows[i].unit, error,
                              rows[i].input);
    }
    ht_headline_add(r, "of the paper's figures within 10% or inside their range, inputs included", "%zu of %zu", good,
                    all);
    return status;
}

/* ---- decisions ------------------------------------------------------------------------------------------------------------------------- */

/* What the planner does with one operator of a middle layer, as a person would say it; *share: the GPU's part of the rows. */
static void describe(const ht_reproduction *r, const ht_plan_row *rows, size_t n, const char *op, char *text,
                     size_t capacity, double *share) {
    size_t at = 0;
    *text = 0;
    *share = 0;
    for (size_t i = 0; i < n; i++) {
        const ht_plan_row *row = &rows[i];
        const char *slash = strrchr(row->device, '/');
        if (strncmp(row->op, "blk.1.", 6) != 0 || strcmp(row->op + 6, op) != 0 || at >= capacity)
            continue;
        const double part = (double)(row->row_end - row->row_begin) / (double)row->rows;
        at += (size_t)snprintf(text + at, capacity - at, "%s%s: %.0f%% of rows, tokens %zu-%zu", at ? "; " : "",
                               slash ? slash + 1 : row->device, 100 * part, row->token_begin, row->token_end - 1);
        if (slash && r->gpu && !strcmp(slash + 1, r->gpu) && row->token_begin == 0)
            *share = part;
    }
}

static ht_status decide(ht_reproduction *r, ht_sheet *sheet, const char *question, const char *paper, const char *op,
                        int tokens) {
    char devices[700], text[300], answer[192];
    double share;
    ht_engine *engine;
    ht_plan_row *rows;
    size_t n;
    snprintf(devices, sizeof devices, "sim:%s/%s,sim:%s/%s", r->soc->spec, r->npu, r->soc->spec, r->gpu);
    const ht_engine_options options =
        HT_INIT(ht_engine_options, .devices = devices, .precision = HT_PRECISION_EXACT, .context = 1024,
                .strategy = HT_STRATEGY_TENSOR, .cuts = "row,sequence,hybrid,layer", .prompts = &tokens,
                .n_prompts = tokens > 1, .npu_memory = ht_reproduce_graph_memory(r));
    ht_status status = ht_engine_create(r->models[0], &options, &engine, r->error);
    if (status)
        return status;
    status = ht_engine_plan(engine, tokens, &rows, &n, NULL, r->error);
    if (!status) {
        describe(r, rows, n, op, text, sizeof text, &share);
        snprintf(answer, sizeof answer, "%.191s", text);
        if (tokens == 1) {
            snprintf(answer, sizeof answer, "%.2f : 1", share / (1 - share));
            ht_headline_add(r, "GPU:NPU for [28672,4096] × [4096,1], which the paper cuts at 3 : 1", "%s", answer);
        }
        status = ht_sheet_row(r, sheet, "sss", question, paper, answer);
        ht_free(rows);
    }
    ht_engine_destroy(engine);
    return status;
}

ht_status ht_reproduce_decisions(ht_reproduction *r) {
    static const size_t lengths[] = {64, 512};
    if (!r->gpu || !r->npu)
        return HT_OK;
    ht_sheet *sheet = ht_sheet_add(r, "decisions-taken", "With the paper's cuts, llama-3-8b", "question,paper,here",
                                   HT_CHART_NONE, "", "");
    ht_status status = decide(r, sheet, "GPU:NPU of rows, [28672,4096] × [4096,1]", "3 : 1", "ffn_gate_up", 1);
    if (!status)
        status = decide(r, sheet, "FFN-down at length 320", "hybrid: 256 on the NPU, cut by rows too, 64 on the GPU",
                        "ffn_down", 320);
    bench b;
    if (!status)
        status = begin_bench(r, &b, "lengths=1+64+512");
    else
        return status;
    for (size_t i = 0; i < HT_COUNT(lengths) && !status; i++) {
        double weights, activations;
        char question[80];
        const size_t n = lengths[i];
        status = time_product(r, &b, b.npu, "order=activations", ROWS, COLS, n, &weights);
        if (!status)
            status = time_product(r, &b, b.npu, "order=weights", ROWS, COLS, n, &activations);
        snprintf(question, sizeof question, "operand held at [%zu,4096] × [4096,14336]", n);
        if (!status)
            status = ht_sheet_row(r, sheet, "sss", question, "the smaller one: the activations",
                                  activations < weights ? "the activations" : "the weights");
    }
    end_bench(&b);
    return status;
}

/* ---- the description ----------------------------------------------------------------------------------------------------------------------- */

static ht_status put_section(ht_reproduction *r, const char *section, const char *name, const ht_figure *figures) {
    char id[64], title[64];
    snprintf(id, sizeof id, "figures-%s", name);
    snprintf(title, sizeof title, "%s", name);
    ht_sheet *sheet = ht_sheet_add(r, id, title, "figure,value,source", HT_CHART_NONE, "", "");
    ht_status status = HT_OK;
    for (int key = 0; key < HT_SOC_KEYS && !status; key++) {
        const ht_figure *f = &figures[key];
        char source[192];
        if (!ht_soc_key_is_of((ht_soc_key)key, section) || !f->source)
            continue;
        snprintf(source, sizeof source, "%s%s", f->given ? "" : "default: ", f->source);
        status = ht_sheet_row(r, sheet, "sds", ht_soc_key_name((ht_soc_key)key),
                              f->value / ht_soc_key_unit((ht_soc_key)key), source);
    }
    return status;
}

ht_status ht_reproduce_figures(ht_reproduction *r) {
    static const char *const kinds[] = {[HT_DEVICE_CPU] = "cpu", [HT_DEVICE_GPU] = "gpu", [HT_DEVICE_NPU] = "npu"};
    ht_status status = put_section(r, "memory", "memory", r->soc->figures);
    if (!status)
        status = put_section(r, "host", "host", r->soc->figures);
    for (size_t i = 0; i < r->soc->n_processors && !status; i++)
        status = put_section(r, kinds[r->soc->processors[i].kind], r->soc->processors[i].name,
                             r->soc->processors[i].figures);
    return status;
}
