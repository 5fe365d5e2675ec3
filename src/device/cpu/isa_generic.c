/* Plain C primitives for any processor (GNU vector types, which compilers lower to what is there); the contract is in
 * isa_avx512.c. Right rather than fast: the fallback, and the independent third opinion in tests. */
#include "device/cpu/kernels.h"

#include <math.h>
#include <string.h>

#define VW 8
#define RV 1
#define TILE 4
#define PREFETCH_BYTES 512
#define SUMS 8
#define UNPACK_UNROLL AS_A_LOOP
#define FEW 1 /* code would be large, and is not what this is for */
#define KERNELS ht_kernels_generic
#define ISA_NAME "scalar"

typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef uint32_t vu __attribute__((vector_size(32)));
#define PRIM static inline __attribute__((always_inline))
#define EACH(i) for (int i = 0; i < VW; i++)

PRIM vf vf_bcast(float x) {
    return (vf){x, x, x, x, x, x, x, x};
}
PRIM vi vi_bcast(int32_t x) {
    return (vi){x, x, x, x, x, x, x, x};
}
PRIM vf vf_zero(void) {
    return vf_bcast(0);
}
PRIM vf vf_load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
PRIM void vf_store(float *p, vf v) {
    memcpy(p, &v, sizeof v);
}
PRIM vf vf_half(const uint16_t *p) {
    vf v;
    EACH(i) v[i] = ht_f16_to_f32(p[i]);
    return v;
}
PRIM void vf_store_half(uint16_t *p, vf v) {
    EACH(i) p[i] = ht_f32_to_f16(v[i]);
}
PRIM vf vf_bf16(const uint16_t *p) {
    vf v;
    EACH(i) v[i] = ht_bf16_to_f32(p[i]);
    return v;
}
PRIM vf vf_i8(const int8_t *p) {
    vf v;
    EACH(i) v[i] = (float)p[i];
    return v;
}
PRIM vf vf_add(vf a, vf b) {
    return a + b;
}
PRIM vf vf_sub(vf a, vf b) {
    return a - b;
}
PRIM vf vf_mul(vf a, vf b) {
    return a * b;
}
PRIM vf vf_div(vf a, vf b) {
    return a / b;
}
PRIM vf vf_fma(vf a, vf b, vf c) {
    return a * b + c;
}
PRIM vf vf_max(vf a, vf b) {
    vf v;
    EACH(i) v[i] = a[i] > b[i] ? a[i] : b[i];
    return v;
}
PRIM vf vf_min(vf a, vf b) {
    vf v;
    EACH(i) v[i] = a[i] < b[i] ? a[i] : b[i];
    return v;
}
PRIM vi vf_bits(vf a) {
    vi v;
    memcpy(&v, &a, sizeof v);
    return v;
}
PRIM vf from_bits(vi a) {
    vf v;
    memcpy(&v, &a, sizeof v);
    return v;
}
PRIM vf vf_abs(vf a) {
    return from_bits(vf_bits(a) & vi_bcast(0x7FFFFFFF));
}
PRIM void vf_transpose(vf x[VW]) {
    for (int i = 0; i < VW; i++)
        for (int k = 0; k < i; k++) {
            const float at = x[i][k];
            x[i][k] = x[k][i];
            x[k][i] = at;
        }
}
PRIM float vf_hsum(vf a) {
    return ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]));
}
PRIM float vf_hmax(vf a) {
    float most = a[0];
    EACH(i) most = a[i] > most ? a[i] : most;
    return most;
}
PRIM vf vf_from_vi(vi a) {
    vf v;
    EACH(i) v[i] = (float)a[i];
    return v;
}
PRIM vf vf_scale2(vf a, vi n) {
    return from_bits((vi)((vu)vf_bits(a) + ((vu)n << 23)));
}
PRIM vf vf_exp_masked(vf e, vf x) {
    EACH(i) e[i] = x[i] > -3e38f ? e[i] : 0;
    return e;
}

PRIM vi vi_load(const void *p) {
    vi v;
    memcpy(&v, p, sizeof v);
    return v;
}
PRIM vi vi_bcast_4(const int8_t *p) {
    int32_t x;
    memcpy(&x, p, 4);
    return vi_bcast(x);
}
PRIM vi vi_and(vi a, vi b) {
    return a & b;
}
PRIM vi vi_or(vi a, vi b) {
    return a | b;
}
PRIM vi vi_pick(vi a, const uint8_t table[16]) {
    uint8_t bytes[sizeof a];
    memcpy(bytes, &a, sizeof a);
    for (size_t i = 0; i < sizeof a; i++)
        bytes[i] = table[bytes[i] & 15];
    memcpy(&a, bytes, sizeof a);
    return a;
}
PRIM vi vi_add(vi a, vi b) {
    return (vi)((vu)a + (vu)b);
}
PRIM vi vi_not(vi a) {
    return ~a;
}
PRIM void vi_store(void *p, vi a) {
    memcpy(p, &a, sizeof a);
}
PRIM vi vi_u8(const uint8_t *p) {
    vi v;
    EACH(i) v[i] = p[i];
    return v;
}
PRIM vi vi_look(const uint16_t *table, vi index) {
    vi v;
    EACH(i) v[i] = table[index[i]];
    return v;
}
PRIM vi vi_srl(vi a, int n) {
    return (vi)((vu)a >> n);
}
PRIM vi vi_sll(vi a, int n) {
    return (vi)((vu)a << n);
}
PRIM vi vi_round(vf a) {
    vi v;
    EACH(i) v[i] = (int32_t)lrintf(a[i]);
    return v;
}
PRIM void vi_store_i8(int8_t *p, vi a) {
    EACH(i) p[i] = (int8_t)a[i];
}
PRIM int32_t vi_hsum(vi a) {
    int32_t sum = 0;
    EACH(i) sum += a[i];
    return sum;
}
PRIM vi vi_dot(vi acc, vi w, vi x, bool wide) {
    for (int k = 0; k < 4; k++) {
        vi byte = (vi)((vu)w >> (8 * k)) & vi_bcast(255);
        vi signed_byte = (vi)((vu)x << (24 - 8 * k)) >> 24;
        acc += byte * signed_byte;
    }
    return acc;
}

#include "device/cpu/kernels_impl.h"
