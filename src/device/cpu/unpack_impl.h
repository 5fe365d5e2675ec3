/* Steps of small forms to steps of bytes (kernels.h tells both): what a product of rarer types is preceded by. One
 * function a file of primitives, whose cases are these. Part of kernels_impl.h. */
#ifndef HT_CPU_UNPACK_IMPL_H
#define HT_CPU_UNPACK_IMPL_H

#ifndef UNPACK_UNROLL /* before loops over quads and octets */
#define UNPACK_UNROLL UNROLL
#endif
enum { RUN_STEPS = 8 }; /* that are unpacked at once: no span of a small form is longer, and any divides it */
#define WINDOW(form) \
    (RUN_STEPS * ((form) == HT_FORM_B6O ? 1536 : (form) == HT_FORM_B6 || (form) == HT_FORM_B8 ? 1280 : 8))
/* Where a step lies in what the kernel reads. */
INLINE size_t place_of(ht_pack_form form, size_t step) {
    return is_bytes(form) ? step % RUN_STEPS : step;
}

/* A step of bytes, of row vector v. */
typedef struct bytes_step {
    float *scales;
    uint8_t *codes;
} bytes_step;
INLINE bytes_step bytes_at(uint8_t *window, size_t step, int v, bool offsets) {
    uint8_t *at = window + step % RUN_STEPS * (offsets ? 1536 : 1280);
    return (bytes_step){(float *)(void *)at + v * VW,
                        at + (offsets ? 512 : 256) + (size_t)block_of(v) * 512 + lane_offset(v)};
}
INLINE void put_quad(bytes_step to, int quad, vi codes) {
    vi_store(to.codes + quad * 64, codes);
}
INLINE void put_scales(bytes_step to, vf first, vf second) {
    vf_store(to.scales, first);
    vf_store(to.scales + HT_STRIP, second);
}

/* Chunk number `chunk` of this vector's rows, where a block of 16 has `chunks` of them. */
INLINE vi chunk_of(const uint8_t *codes, int v, int chunks, int chunk) {
    return vi_load(codes + lane_offset(v) + (block_of(v) * chunks + chunk) * 64);
}
INLINE vi each_byte(int byte) {
    return vi_bcast((int32_t)((uint32_t)byte * 0x01010101u));
}
INLINE vi bits_of(vi from, int shift, int mask) { /* the same bits of each byte, or of each lane */
    return vi_and(vi_srl(from, shift), vi_bcast(mask));
}
INLINE vf half_row(const uint8_t *rows, int v) {
    return vf_half((const uint16_t *)(const void *)rows + v * VW);
}
INLINE vf scaled_by(vf d, const uint8_t *rows, int v) { /* d times signed bytes */
    return vf_mul(d, vf_i8((const int8_t *)rows + v * VW));
}

/* ---- codes that are numbers or names
 * -------------------------------------------------------------------------------------------- */

/* Quads of 1 to 3 bits, each plus `base`. */
INLINE void unpack_planes(int bits, const uint8_t *codes, int v, int base, bytes_step to) {
    UNPACK_UNROLL
    for (int j = 0; j < 8; j++) {
        vi quad;
        if (bits == 1)
            quad = vi_sll(bits_of(chunk_of(codes, v, 1, 0), j, 0x01010101), 1); /* twice: codes are -1 and 1 */
        else
            quad = bits_of(chunk_of(codes, v, 2, j / 4), j % 4 * 2, 0x03030303);
        if (bits == 3)
            quad = vi_or(quad, vi_sll(bits_of(chunk_of(codes + 256, v, 1, 0), j, 0x01010101), 2));
        put_quad(to, j, base ? vi_add(quad, each_byte(base)) : quad);
    }
}

INLINE void unpack_names(const uint8_t *codes, int v, const uint8_t table[16], bytes_step to) {
    UNPACK_UNROLL
    for (int j = 0; j < 8; j++)
        put_quad(to, j, vi_pick(quad_of(4, codes, v, j / 4, j % 4), table));
}

/* Five quads a chunk, of the eight steps from `begin` on: three times a fraction is its next digit and what is left, in
 * 16 bits. */
INLINE void unpack_digits(const uint8_t *codes, int v, size_t begin, uint8_t *window) {
    const vi bytes = vi_bcast(0x00FF00FF), base = each_byte(31);
    for (int c = 0; c < 13; c++) {
        const vi chunk = chunk_of(codes, v, 13, c);
        vi even = vi_and(chunk, bytes), odd = vi_and(vi_srl(chunk, 8), bytes);
        for (int quad = 5 * c; quad < 5 * c + 5 && quad < 64; quad++) {
            even = vi_add(even, vi_sll(even, 1)), odd = vi_add(odd, vi_sll(odd, 1));
            const vi digits = vi_or(bits_of(even, 8, 0x00030003), vi_and(odd, vi_bcast(0x03000300)));
            put_quad(bytes_at(window, begin + (size_t)quad / 8, v, false), quad % 8, vi_add(digits, base));
            even = vi_and(even, bytes), odd = vi_and(odd, bytes);
        }
    }
}

/* ---- places in codebooks
 * -------------------------------------------------------------------------------------------------------- */

/* Four places of two bits, the first lowest, to the low bits of four bytes. */
INLINE vi spread_places(vi places) {
    const vi near = vi_or(places, vi_sll(places, 6));
    return vi_and(vi_or(near, vi_sll(near, 12)), vi_bcast(0x03030303));
}
/* Four sign bits, the first lowest, in a byte that may have others above, to bit 3 of four bytes. */
INLINE vi spread_signs(vi signs) {
    const vi near = vi_or(vi_sll(signs, 3), vi_sll(signs, 10));
    return vi_and(vi_or(near, vi_sll(near, 14)), vi_bcast(0x08080808));
}

/* Octets of IQ2: `high` has their indices' higher bits, `bits` of each. */
INLINE void unpack_iq2(const uint16_t *grid, int index_bits, const uint8_t *codes, int v, vi high, bytes_step to) {
    static const uint8_t levels[16] = {128 + 8, 128 + 25, 128 + 43, 0, [8] = 128 - 8, 128 - 25, 128 - 43};
    const vi low = chunk_of(codes, v, 2, 0), signs = chunk_of(codes, v, 2, 1), byte = vi_bcast(255);
    const int more = index_bits - 8;
    UNPACK_UNROLL
    for (int o = 0; o < 4; o++) {
        vi index = bits_of(low, 8 * o, 255);
        if (more)
            index = vi_or(index, vi_sll(bits_of(high, 2 * o, (1 << more) - 1), 8));
        const vi entry = vi_look(grid, index), sign = bits_of(signs, 8 * o, 255);
        put_quad(to, 2 * o, vi_pick(vi_or(spread_places(vi_and(entry, byte)), spread_signs(sign)), levels));
        put_quad(to, 2 * o + 1,
                 vi_pick(vi_or(spread_places(bits_of(entry, 8, 255)), spread_signs(vi_srl(sign, 4))), levels));
    }
}

/* Octets of IQ1: three more bits of an index every `each` bits of `high`, and one that says whether they are shifted down at
 * every `shift_each` from `shift_at` on. */
INLINE void unpack_iq1(const uint8_t *codes, int v, vi high, int each, int shift_at, int shift_each, bytes_step to) {
    static const uint8_t levels[16] = {23, 31, 39}; /* less the shift, which is 1 up or down */
    const vi low = chunk_of(codes, v, 1, 0), byte = vi_bcast(255);
    UNPACK_UNROLL
    for (int o = 0; o < 4; o++) {
        const vi index = vi_or(bits_of(low, 8 * o, 255), vi_sll(bits_of(high, each * o, 7), 8));
        const vi up = vi_sll(vi_and(vi_not(vi_srl(high, shift_at + shift_each * o)), vi_bcast(1)), 1);
        const vi two = vi_or(up, vi_sll(up, 8)), four = vi_or(two, vi_sll(two, 16)),
                 entry = vi_look(ht_grid_iq1, index);
        put_quad(to, 2 * o, vi_add(vi_pick(spread_places(vi_and(entry, byte)), levels), four));
        put_quad(to, 2 * o + 1, vi_add(vi_pick(spread_places(bits_of(entry, 8, 255)), levels), four));
    }
}

INLINE void unpack_iq3(const uint16_t *grid, const uint8_t levels[16], const uint8_t *codes, int v, vi high, bool more,
                       bytes_step to) {
    const vi signs = chunk_of(codes, v, 3, 2);
    for (int half = 0; half < 2; half++) {
        const vi low = chunk_of(codes, v, 3, half);
        UNPACK_UNROLL
        for (int i = 0; i < 4; i++) {
            const int j = 4 * half + i;
            vi index = bits_of(low, 8 * i, 255);
            if (more)
                index = vi_or(index, vi_sll(bits_of(high, j, 1), 8));
            const vi entry = vi_and(vi_look(grid, index), vi_bcast(0xFFFF));
            const vi two = vi_and(vi_or(entry, vi_sll(entry, 8)), vi_bcast(0x00FF00FF));
            const vi places = vi_and(vi_or(two, vi_sll(two, 4)), vi_bcast(0x0F0F0F0F));
            put_quad(to, j, vi_pick(vi_or(places, spread_signs(bits_of(signs, 4 * j, 15))), levels));
        }
    }
}

/* ---- a step
 * ----------------------------------------------------------------------------------------------------------------------- */

/* Levels with their bias, of IQ4, and of IQ3: with bit 3 set the negative ones. */
static const uint8_t levels_iq4[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241},
                     levels_iq3_xxs[16] = {34, 38, 42, 46, 50, 54, 58, 63, 30, 26, 22, 18, 14, 10, 6, 1},
                     levels_iq3_s[16] = {33, 35, 37, 39, 41, 43, 45, 47, 31, 29, 27, 25, 23, 21, 19, 17};

/* Of a byte of each row: the low or the high four bits s as the scale d (2 s + 1). */
INLINE vf odd_scale(vf d, vi nibbles, int shift, int mask) {
    return vf_mul(d, vf_from_vi(vi_or(vi_sll(bits_of(nibbles, shift, mask), 1), vi_bcast(1))));
}

INLINE void unpack_step(ht_pack_form form, const ht_packed *p, const uint8_t *here, size_t step, int v,
                        uint8_t *window) {
    const bytes_step to = bytes_at(window, step, v, form == HT_FORM_2SO);
    const uint8_t *head = ht_forms[form].span ? head_of(form, here, step) : NULL;
    const vf d = half_row(head ? head : here, v);
    switch (form) {
    case HT_FORM_2SO: {
        const vf dmin = half_row(head + 64, v);
        vf scale[2], low[2];
        for (int h = 0; h < 2; h++) {
            const vi byte = vi_u8(here + h * HT_STRIP + v * VW);
            scale[h] = vf_mul(d, vf_from_vi(vi_and(byte, vi_bcast(15))));
            low[h] = vf_mul(dmin, vf_from_vi(vi_srl(byte, 4)));
        }
        put_scales(to, scale[0], scale[1]);
        put_scales((bytes_step){to.scales + 2 * HT_STRIP, NULL}, low[0], low[1]);
        unpack_planes(2, here + 64, v, 0, to);
        return;
    }
    case HT_FORM_3S:
        put_scales(to, scaled_by(d, here, v), scaled_by(d, here + HT_STRIP, v));
        unpack_planes(3, here + 64, v, 32 - 4, to);
        return;
    case HT_FORM_4N:
        put_scales(to, d, d);
        unpack_names(here + 64, v, levels_iq4, to);
        return;
    case HT_FORM_4NS:
        put_scales(to, scaled_by(d, here, v), scaled_by(d, here, v));
        unpack_names(here + HT_STRIP, v, levels_iq4, to);
        return;
    case HT_FORM_4X16: {
        const vf all = vf_bcast(p->factor);
        put_scales(to, vf_mul(d, all), vf_mul(half_row(here + 64, v), all));
        unpack_names(here + 128, v, ht_named_codes, to);
        return;
    }
    case HT_FORM_1R:
        put_scales(to, d, d);
        unpack_planes(1, here, v, 31, to);
        return;
    case HT_FORM_2H:
        put_scales(to, d, d);
        unpack_planes(2, here + 64, v, 31, to);
        return;
    case HT_FORM_2R:
        put_scales(to, d, d);
        unpack_planes(2, here, v, 31, to);
        return;
    case HT_FORM_DIGITS:
        put_scales(to, d, d);
        if (step % RUN_STEPS == 0)
            unpack_digits(head + 64, v, step, window);
        return;
    default:
        return;
    }
}

INLINE void unpack_grid_step(ht_pack_form form, const uint8_t *here, size_t step, int v, uint8_t *window) {
    const bytes_step to = bytes_at(window, step, v, false);
    const vf eighth = vf_mul(half_row(head_of(form, here, step), v), vf_bcast(0.125f));
    const vi first = vi_u8(here + v * VW); /* the first bytes of a step's rows */
    switch (form) {
    case HT_FORM_IQ1_S: {
        const vi high = vi_or(first, vi_sll(vi_u8(here + HT_STRIP + v * VW), 8));
        const vf scale = odd_scale(eighth, high, 12, 7);
        put_scales(to, scale, scale);
        unpack_iq1(here + 64, v, high, 3, 15, 0, to);
        return;
    }
    case HT_FORM_IQ1_M: {
        const vi high = vi_or(first, vi_sll(vi_u8(here + HT_STRIP + v * VW), 8)),
                 sub = vi_u8(here + 2 * HT_STRIP + v * VW);
        put_scales(to, odd_scale(eighth, sub, 0, 7), odd_scale(eighth, sub, 3, 7));
        unpack_iq1(here + 96, v, high, 4, 3, 4, to);
        return;
    }
    case HT_FORM_IQ2_XXS: {
        const vf scale = odd_scale(eighth, first, 0, 15);
        put_scales(to, scale, scale);
        unpack_iq2(ht_grid_iq2_xxs, 8, here + 32, v, first, to);
        return;
    }
    case HT_FORM_IQ2_XS:
    case HT_FORM_IQ2_S: {
        put_scales(to, odd_scale(eighth, first, 0, 15), odd_scale(eighth, first, 4, 15));
        const bool s = form == HT_FORM_IQ2_S;
        unpack_iq2(s ? ht_grid_iq2_s : ht_grid_iq2_xs, s ? 10 : 9, here + 64, v, vi_u8(here + HT_STRIP + v * VW), to);
        return;
    }
    case HT_FORM_IQ3_XXS: {
        const vf scale = odd_scale(vf_mul(eighth, vf_bcast(4)), first, 0, 15);
        put_scales(to, scale, scale);
        unpack_iq3(ht_grid_iq3_xxs, levels_iq3_xxs, here + 32, v, first, false, to);
        return;
    }
    case HT_FORM_IQ3_S: {
        const vf scale = odd_scale(vf_mul(eighth, vf_bcast(8)), first, 0, 15);
        put_scales(to, scale, scale);
        unpack_iq3(ht_grid_iq3_s, levels_iq3_s, here + 64, v, vi_u8(here + HT_STRIP + v * VW), true, to);
        return;
    }
    default:
        return;
    }
}

/* Row vectors [v0, v1) of steps [begin, end), which lie in one run of RUN_STEPS from a multiple of these on, to the
 * window's bytes; what comes next is fetched meanwhile. */
static __attribute__((noinline)) void unpack_steps(const ht_packed *p, size_t strip, size_t begin, size_t end, int v0,
                                                   int v1, uint8_t *window) {
    const uint8_t *data = p->data + strip * p->strip_bytes;
    const uint8_t *ahead = data + ht_form_bytes(p->form, begin + RUN_STEPS);
    const size_t lines = (ht_form_bytes(p->form, RUN_STEPS) + 63) / 64;
    for (size_t line = 0; line < lines; line++)
        __builtin_prefetch(ahead + line * 64);
    switch (p->form) {
#define UNPACK_CASE(FORM, CALL)                                \
    case FORM:                                                 \
        for (size_t s = begin; s < end; s++) {                 \
            const uint8_t *here = step_address(FORM, data, s); \
            for (int v = v0; v < v1; v++)                      \
                CALL;                                          \
        }                                                      \
        return;
#define PLAIN_CASE(FORM) UNPACK_CASE(FORM, unpack_step(FORM, p, here, s, v, window))
#define GRID_CASE(FORM) UNPACK_CASE(FORM, unpack_grid_step(FORM, here, s, v, window))
        PLAIN_CASE(HT_FORM_2SO)
        PLAIN_CASE(HT_FORM_3S)
        PLAIN_CASE(HT_FORM_4N)
        PLAIN_CASE(HT_FORM_4NS)
        PLAIN_CASE(HT_FORM_4X16)
        PLAIN_CASE(HT_FORM_1R)
        PLAIN_CASE(HT_FORM_2H)
        PLAIN_CASE(HT_FORM_2R)
        PLAIN_CASE(HT_FORM_DIGITS)
        GRID_CASE(HT_FORM_IQ1_S)
        GRID_CASE(HT_FORM_IQ1_M)
        GRID_CASE(HT_FORM_IQ2_XXS)
        GRID_CASE(HT_FORM_IQ2_XS)
        GRID_CASE(HT_FORM_IQ2_S)
        GRID_CASE(HT_FORM_IQ3_XXS)
        GRID_CASE(HT_FORM_IQ3_S)
    default:
        return;
    }
}

#endif
