/* The table of MATMUL kernels, which of them can multiply a matrix, and the rule that chooses. */
#include "device/opencl/matmul.h"

#if HT_HAVE_OPENCL
#define MANY 0xffffffffu

/* clang-format off */
#define MATVEC(tokens, most, lanes, blocks, speed) \
    {"matmul_simt", "matvec_simt", "-DINT8=0 -DTOKENS=" #tokens " -DLANES=" #lanes " -DBLOCKS=" #blocks, HT_CL_SIMT, \
     1, most, 16 * (blocks), tokens, 1, speed, 0, 1, {16, lanes}, (blocks) * (tokens) * (lanes) * 64}
#define MATMUL(tile_rows, tile_tokens, rows, tokens, speed) \
    {"matmul_simt", "matmul_simt", "-DINT8=0 " TILE(tile_rows, tile_tokens, rows, tokens), HT_CL_SIMT, 5, MANY, \
     tile_rows, tile_tokens, 1, speed, 0, 16, {(tile_rows) * (tile_tokens) / ((rows) * (tokens)), 1}, \
     128 * ((tile_rows) + (tile_tokens))}
#define MATVEC_INT8(tokens, most, lanes, blocks, speed) \
    {"matmul_simt", "matvec_simt", "-DINT8=1 -DTOKENS=" #tokens " -DLANES=" #lanes " -DBLOCKS=" #blocks, \
     HT_CL_SIMT | HT_CL_DOT, 1, most, 16 * (blocks), tokens, 1, speed, RECORDS, 1, {16, lanes}, \
     (blocks) * (tokens) * (lanes) * 64}
#define MATMUL_INT8(tile_rows, tile_tokens, rows, tokens, speed) \
    {"matmul_simt", "matmul_simt", "-DINT8=1 " TILE(tile_rows, tile_tokens, rows, tokens), HT_CL_SIMT | HT_CL_DOT, 5, \
     MANY, tile_rows, tile_tokens, 1, speed, RECORDS, 16, {(tile_rows) * (tile_tokens) / ((rows) * (tokens)), 1}, \
     56 * ((tile_rows) + (tile_tokens))}
#define TILE(tile_rows, tile_tokens, rows, tokens) \
    "-DTILE_ROWS=" #tile_rows " -DTILE_TOKENS=" #tile_tokens " -DITEM_ROWS=" #rows " -DITEM_TOKENS=" #tokens
#define RECORDS 64 /* work-items of a group of its pack_acts */
/* clang-format on */

/* Of equal cost (see ht_cl_matmul_cost) the first is taken. Speeds of SIMT rows are an H100's; what differs elsewhere is found by
 * measuring (tiles.c). */
static const ht_cl_matmul_row table[] = {
    {"matmul_vector", "matvec_vector", "-DTOKENS=1", HT_CL_VECTOR, 1, 1, 32, 1, 1, 100, 0, 1, {1, 1}, 0},
    {"matmul_vector", "matvec_vector", "-DTOKENS=2", HT_CL_VECTOR, 1, 2, 32, 2, 1, 100, 0, 1, {1, 1}, 0},
    {"matmul_vector", "matvec_vector", "-DTOKENS=4", HT_CL_VECTOR, 1, 4, 16, 4, 1, 100, 0, 1, {1, 1}, 0},
    {"matmul_vector", "matmul_vector", "-DTILE=12 -DRUN=8", HT_CL_VECTOR, 2, MANY, 32, 12, 8, 100, 1, 1, {1, 1}, 0},
    MATVEC(1, 1, 16, 2, 100),
    MATVEC(1, 1, 32, 2, 102),
    MATVEC(1, 1, 16, 4, 97),
    MATVEC(1, 1, 32, 4, 90),
    MATVEC(1, 1, 64, 2, 80),
    MATVEC(1, 1, 32, 1, 75),
    MATVEC(1, 1, 16, 1, 60),
    MATVEC(2, 2, 16, 2, 170),
    MATVEC(2, 2, 32, 2, 165),
    MATVEC(4, 4, 16, 2, 180),
    MATVEC(4, 4, 32, 2, 175),
    MATVEC(4, 4, 16, 1, 115),
    MATVEC(8, 8, 16, 2, 220),
    MATVEC(8, 8, 16, 1, 190),
    MATMUL(128, 128, 8, 8, 530),
    MATMUL(128, 64, 8, 4, 500),
    MATMUL(64, 64, 8, 4, 490),
    MATMUL(128, 32, 8, 4, 460),
    MATMUL(64, 32, 4, 4, 430),
    MATMUL(32, 32, 4, 4, 400),
    MATVEC_INT8(1, 1, 16, 2, 125),
    MATVEC_INT8(1, 1, 32, 2, 125),
    MATVEC_INT8(1, 1, 64, 2, 100),
    MATVEC_INT8(2, 2, 16, 2, 235),
    MATVEC_INT8(2, 2, 32, 2, 235),
    MATVEC_INT8(4, 4, 16, 2, 370),
    MATVEC_INT8(4, 4, 32, 2, 370),
    MATVEC_INT8(8, 8, 16, 1, 450),
    MATVEC_INT8(8, 8, 16, 2, 470),
    MATMUL_INT8(128, 128, 8, 8, 1000),
    MATMUL_INT8(128, 64, 8, 4, 1000),
    MATMUL_INT8(64, 64, 8, 4, 950),
    MATMUL_INT8(128, 32, 8, 4, 1100),
    MATMUL_INT8(32, 32, 4, 4, 720),
};

int ht_cl_matmul_candidates(const ht_cl_device *d, const ht_cl_form *form, size_t rows, size_t cols, size_t tokens,
                            const ht_cl_matmul_row *out[], int max) {
    (void)rows, (void)cols; /* every kernel there is takes all of them */
    int n = 0;
    for (const ht_cl_matmul_row *row = table; row < table + HT_COUNT(table) && n < max; row++)
        if ((row->features & d->features) == row->features && (form->bits <= 8 || !(row->features & HT_CL_DOT)) &&
            tokens >= row->min_tokens && tokens <= row->max_tokens && row->local_bytes <= d->local_bytes &&
            row->local[0] * row->local[1] <= d->largest_group)
            out[n++] = row;
    return n;
}

static size_t count_tiles(const ht_cl_matmul_row *row, size_t rows, size_t tokens) {
    return ((rows + row->tile_rows - 1) / row->tile_rows) * ((tokens + row->tile_tokens - 1) / row->tile_tokens);
}

/* Groups that keep every unit busy. Behind few tokens a unit waits for memory and wants as many work-items as it holds;
 * one of a CPU's drivers runs a group at a time, and two leave none idle at the end. */
static size_t full_groups(const ht_cl_device *d, const ht_cl_matmul_row *row) {
    const size_t items = row->local[0] * row->local[1], wanted = row->parts > 1 ? 512 : 1024;
    return d->units * (row->features & HT_CL_VECTOR ? 2 : ht_max_size(1, wanted / items));
}

#define PART_GROUPS 8 /* groups of 32 columns that are worth a part */

/* Parts of the columns that fill the device. */
size_t ht_cl_matmul_parts(const ht_cl_device *d, const ht_cl_matmul_row *row, size_t rows, size_t cols, size_t tokens) {
    const size_t wanted = full_groups(d, row) / count_tiles(row, rows, tokens);
    return ht_max_size(1, ht_min_size(ht_min_size(wanted, row->parts), cols / (32 * PART_GROUPS)));
}

/* Work of all tiles, what they waste included, and no less than a full device would do: one that is not full takes as
 * long, and so does a last round of groups that does not fill it. Packing activations costs another launch, which weighs
 * as much as this many weights at speed 1. */
#define PACK_WEIGHTS 112000.0
double ht_cl_matmul_cost(const ht_cl_device *d, const ht_cl_matmul_row *row, size_t rows, size_t cols, size_t tokens) {
    const size_t parts = ht_cl_matmul_parts(d, row, rows, cols, tokens), full = full_groups(d, row);
    const size_t groups = ht_round_up(count_tiles(row, rows, tokens) * parts, row->features & HT_CL_SIMT ? full : 1);
    return (double)ht_max_size(groups, full) / (double)parts * row->tile_rows * row->tile_tokens / row->speed +
           (row->packed > 1 ? PACK_WEIGHTS / (double)cols : 0);
}

const ht_cl_matmul_row *ht_cl_matmul_by_rule(const ht_cl_device *d, const ht_cl_form *form, size_t rows, size_t cols,
                                             size_t tokens) {
    const ht_cl_matmul_row *best = NULL, *found[HT_COUNT(table)];
    const int n = ht_cl_matmul_candidates(d, form, rows, cols, tokens, found, HT_COUNT(table));
    for (int i = 0; i < n; i++)
        if (!best ||
            ht_cl_matmul_cost(d, found[i], rows, cols, tokens) < ht_cl_matmul_cost(d, best, rows, cols, tokens))
            best = found[i];
    return best;
}

const ht_cl_matmul_row *ht_cl_matmul_row_at(size_t i) {
    return i < HT_COUNT(table) ? &table[i] : NULL;
}

uint64_t ht_cl_matmul_bit(const ht_cl_matmul_row *row) {
    _Static_assert(HT_COUNT(table) <= HT_CL_MATMUL_ROWS, "a bit each");
    return UINT64_C(1) << (row - table);
}

/* Groups that compute at once never leave more sums than these, however many parts there are. */
size_t ht_cl_matmul_most_sums(const ht_cl_device *d, const ht_cl_matmul_row *row, size_t rows, size_t cols,
                              size_t tokens) {
    const size_t parts = ht_min_size(row->parts, cols / (32 * PART_GROUPS));
    return parts < 2 ? 0 : ht_min_size(parts * tokens * rows, full_groups(d, row) * row->tile_rows * row->tile_tokens);
}

#else
typedef int ht_cl_candidates_is_empty; /* ISO C wants something in every file */
#endif
