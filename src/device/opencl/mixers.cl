/* Recurrent mixers: CONV; DELTA_NET and SCAN (model.h, ht_recurrence).
 *
 * Built with TAPS, RUN (channels of a work-item), and for the latter two SCAN (0: DELTA_NET), KEY and DIM (of keys, and of a
 * head), HEADS (of a unit), COLS (columns of a head's state in a work-item). Numbers of units and heads are arguments; `first` is
 * the first unit of the part, whose state lies UNIT floats behind the one before. fresh: the state is zeros, whatever is there.
 */

/* ---- CONV --------------------------------------------------------------------------------------------------------------- */

/* What channel i of the convolution was at token s of the submit, or before it. */
static inline float product_at(__global const float *in, uint stride, uint width, __global const float *state, uint fresh,
                               int s, uint i) {
    if (s >= 0) return in[(ulong)s * stride + i] * in[(ulong)s * stride + 2 * width + i];
    return fresh ? 0.0f : state[(uint)(TAPS - 1 + s) * width + i];
}

/* Work-item (run, token): c * conv(b * x). */
__kernel void convolution(__global const float *in, ulong in_offset, uint in_stride, __global const float *weight,
                          __global const float *state, ulong state_offset, __global float *out, ulong out_offset,
                          uint out_stride, uint width, uint first, uint end, uint fresh) {
    int t = get_global_id(1);
    in += in_offset;
    for (uint i = first + get_global_id(0) * RUN, k = 0; k < RUN && i < end; i++, k++) {
        float sum = 0;
        for (int tap = 0; tap < TAPS; tap++)
            sum += weight[tap * width + i] *
                   product_at(in, in_stride, width, state + state_offset, fresh, t - (TAPS - 1) + tap, i);
        out[out_offset + (ulong)t * out_stride + i] = in[(ulong)t * in_stride + width + i] * sum;
    }
}

/* Behind it: the last products are kept. A row comes from a later one. */
__kernel void convolution_state(__global const float *in, ulong in_offset, uint in_stride, __global float *state,
                                ulong state_offset, uint width, uint first, uint end, uint fresh, uint tokens) {
    in += in_offset;
    state += state_offset;
    for (uint i = first + get_global_id(0) * RUN, k = 0; k < RUN && i < end; i++, k++)
        for (int row = 0; row < TAPS - 1; row++)
            state[row * width + i] =
                product_at(in, in_stride, width, state, fresh, (int)tokens - (TAPS - 1) + row, i);
}

/* ---- DELTA_NET, SCAN ------------------------------------------------------------------------------------------------------ */

#ifdef DIM
#define OWN (HEADS * DIM)       /* values of a unit */
#define ROWS (OWN + 2 * KEY)    /* its channels of the convolution */
#define UNIT ((TAPS - 1) * ROWS + OWN * KEY)

#if COLS == 1
#define floatc float
#define loadc(p) (*(p))
#define storec(v, p) (*(p) = (v))
#else
#define floatc CONCAT(float, COLS)
#define loadc(p) CONCAT(vload, COLS)(0, p)
#define storec(v, p) CONCAT(vstore, COLS)(v, 0, p)
#endif

static inline float silu(float x) { return x / (1.0f + exp(-x)); }
static inline float softplus(float x) { return x > 20.0f ? x : log1p(exp(x)); }

/* Channel c of a unit: where its value lies (in the other slot?), and its number in the convolution. */
static inline uint column_of(uint unit, uint c, uint units, uint groups, uint *channel, int *other) {
    uint keys = groups * KEY, inner = units * OWN;
#if SCAN
    *other = c >= OWN;
    if (c < OWN) {
        *channel = unit * OWN + c;
        return inner + *channel;
    }
    uint column = (c - OWN) / KEY * keys + unit * KEY + (c - OWN) % KEY;
    *channel = inner + column;
#else
    *other = c >= 2 * KEY;
    uint column = *other ? unit * OWN + c - 2 * KEY : c / KEY * keys + (REPEATED ? unit / (units / groups) : unit % groups) * KEY + c % KEY;
    *channel = *other ? 2 * keys + column : column;
#endif
    return column;
}

#define SOURCES                                                                                                   \
    __global const float *in, ulong in_offset, uint in_stride, __global const float *more, ulong more_offset,    \
        uint more_stride
#define NUMBERS uint units, uint groups, uint first, uint fresh, uint tokens

/* The channel's value at token s, or before the submit. */
static inline float channel_at(__global const float *from, uint stride, __global const float *rows, uint fresh, int s,
                               uint c) {
    if (s >= 0) return from[(ulong)s * stride];
    return fresh ? 0.0f : rows[(uint)(TAPS - 1 + s) * ROWS + c];
}

/* Work-item (run, unit, token): the unit's channels through the convolution and SiLU, to mixed [token][unit][ROWS]. */
__kernel void mix_channels(SOURCES, __global const float *state, ulong state_offset, __global const float *weight,
                  __global const float *bias, uint biased, __global float *mixed, NUMBERS) {
    uint u = get_global_id(1), own_units = get_global_size(1), channels = units * OWN + 2 * groups * KEY;
    int t = get_global_id(2);
    __global const float *rows = state + state_offset + (ulong)(first + u) * UNIT;
    for (uint c = get_global_id(0) * RUN, k = 0; k < RUN && c < ROWS; c++, k++) {
        uint channel;
        int other;
        uint column = column_of(first + u, c, units, groups, &channel, &other);
        __global const float *from = other ? more + more_offset + column : in + in_offset + column;
        uint stride = other ? more_stride : in_stride;
        float sum = biased ? bias[channel] : 0.0f;
        for (int tap = 0; tap < TAPS; tap++)
            sum += weight[tap * channels + channel] * channel_at(from, stride, rows, fresh, t - (TAPS - 1) + tap, c);
        mixed[((ulong)t * own_units + u) * ROWS + c] = silu(sum);
    }
}

/* Work-item (run, unit): the last values are kept. */
__kernel void mix_state(SOURCES, __global float *state, ulong state_offset, NUMBERS) {
    uint unit = first + get_global_id(1);
    __global float *rows = state + state_offset + (ulong)unit * UNIT;
    for (uint c = get_global_id(0) * RUN, k = 0; k < RUN && c < ROWS; c++, k++) {
        uint channel;
        int other;
        uint column = column_of(unit, c, units, groups, &channel, &other);
        __global const float *from = other ? more + more_offset + column : in + in_offset + column;
        for (int row = 0; row < TAPS - 1; row++)
            rows[row * ROWS + c] =
                channel_at(from, other ? more_stride : in_stride, rows, fresh, (int)tokens - (TAPS - 1) + row, c);
    }
}

/* Work-item (head, token): how much of the state is left, and how much is added, to scalars [token][head][2]. DELTA_NET's
 * queries and keys get their lengths. */
__kernel void mix_scalars(SOURCES, __global const float *a, __global const float *dt_bias, __global float *mixed,
                          __global float *scalars, float eps, NUMBERS) {
    uint h = get_global_id(0), own_heads = get_global_size(0), t = get_global_id(1), head = first * HEADS + h,
         inner = units * OWN;
    __global float *to = scalars + ((ulong)t * own_heads + h) * 2;
#if SCAN
    float step = softplus(in[in_offset + (ulong)t * in_stride + 2 * inner + head] + dt_bias[head]);
    to[0] = exp(a[head] * step);
    to[1] = step;
#else
    __global const float *from = more + more_offset + (ulong)t * more_stride + 2 * inner;
    to[0] = exp(a[head] * softplus(from[units + head] + dt_bias[head]));
    to[1] = 1.0f / (1.0f + exp(-from[head]));
    __global float *q = mixed + ((ulong)t * own_heads + h) * ROWS;
    for (int which = 0; which < 2; which++) {
        float sum = 0;
        for (int i = 0; i < KEY; i++) sum += q[which * KEY + i] * q[which * KEY + i];
        float by = 1.0f / sqrt(sum + eps);
        if (which == 0) by /= sqrt((float)KEY);
        for (int i = 0; i < KEY; i++) q[which * KEY + i] *= by;
    }
#endif
}

/* Work-item (COLS columns, head): these columns of its state, through all tokens. */
__kernel void recur(__global const float *mixed, __global const float *scalars, __global const float *skip,
                    __global float *state, ulong state_offset, __global float *out, ulong out_offset, uint out_stride,
                    NUMBERS) {
    uint c0 = get_global_id(0) * COLS, h = get_global_id(1), own_heads = get_global_size(1), u = h / HEADS,
         own_units = own_heads / HEADS, head = first * HEADS + h;
    __global float *at =
        state + state_offset + (ulong)(first + u) * UNIT + (TAPS - 1) * ROWS + h % HEADS * (KEY * DIM) + c0;
    floatc s[KEY];
    for (int r = 0; r < KEY; r++) s[r] = fresh ? (floatc)(0.0f) : loadc(at + r * DIM);
    out += out_offset + (ulong)head * DIM + c0;
    for (uint t = 0; t < tokens; t++) {
        __global const float *row = mixed + ((ulong)t * own_units + u) * ROWS;
        __global const float *scalar = scalars + ((ulong)t * own_heads + h) * 2;
        float decay = scalar[0], by = scalar[1];
        floatc sum = (floatc)(0.0f);
#if SCAN
        __global const float *k = row + OWN, *q = k + KEY;
        floatc x = loadc(row + h % HEADS * DIM + c0), u1 = by * x;
#else
        __global const float *q = row, *k = row + KEY;
        floatc said = (floatc)(0.0f);
        for (int r = 0; r < KEY; r++) said += k[r] * s[r];
        floatc u1 = by * (loadc(row + 2 * KEY + c0) - decay * said);
#endif
        for (int r = 0; r < KEY; r++) {
            s[r] = decay * s[r] + k[r] * u1;
            sum += q[r] * s[r];
        }
#if SCAN
        sum += skip[head] * x;
#endif
        storec(sum, out + (ulong)t * out_stride);
    }
    for (int r = 0; r < KEY; r++) storec(s[r], at + r * DIM);
}

#if LOCAL > 1
#define SHARED __local float shared[LOCAL];
#else
#define SHARED __local float *shared = 0;
#endif

/* A group a (unit, token): SCAN: y * silu(z), normed; DELTA_NET: o normed, times silu(z). */
__kernel void mix_norm(SOURCES, __global const float *weight, __global float *out, ulong out_offset, uint out_stride,
                       float eps, NUMBERS) {
    SHARED
    uint unit = first + get_group_id(0), t = get_group_id(1), lid = get_local_id(0);
    __global float *y = out + out_offset + (ulong)t * out_stride + (ulong)unit * OWN;
#if SCAN
    __global const float *z = in + in_offset + (ulong)t * in_stride + (ulong)unit * OWN, *w = weight + unit * OWN;
#else
    __global const float *z = more + more_offset + (ulong)t * more_stride + (ulong)(units + unit) * OWN, *w = weight;
#endif
    float sum = 0;
    for (uint i = lid; i < OWN; i += LOCAL) {
#if SCAN
        y[i] *= silu(z[i]);
#endif
        sum += y[i] * y[i];
    }
    float by = 1.0f / sqrt(group_sum(sum, shared) / (float)OWN + eps);
    for (uint i = lid; i < OWN; i += LOCAL) {
#if SCAN
        y[i] *= by * w[i];
#else
        y[i] *= by * w[i] * silu(z[i]);
#endif
    }
}
#endif
