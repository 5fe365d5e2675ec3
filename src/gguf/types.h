/* Types of weights: their numbers and names in files, and how they are laid out. */
#ifndef HT_TYPES_H
#define HT_TYPES_H

#include "base/base.h"

/* ggml's type numbers, as the files carry them. Only those with a row in the type table are readable. */
typedef enum ht_type {
    HT_TYPE_F32 = 0,
    HT_TYPE_F16 = 1,
    HT_TYPE_Q4_0 = 2,
    HT_TYPE_Q4_1 = 3,
    HT_TYPE_Q5_0 = 6,
    HT_TYPE_Q5_1 = 7,
    HT_TYPE_Q8_0 = 8,
    HT_TYPE_Q2_K = 10,
    HT_TYPE_Q3_K = 11,
    HT_TYPE_Q4_K = 12,
    HT_TYPE_Q5_K = 13,
    HT_TYPE_Q6_K = 14,
    HT_TYPE_IQ2_XXS = 16,
    HT_TYPE_IQ2_XS = 17,
    HT_TYPE_IQ3_XXS = 18,
    HT_TYPE_IQ1_S = 19,
    HT_TYPE_IQ4_NL = 20,
    HT_TYPE_IQ3_S = 21,
    HT_TYPE_IQ2_S = 22,
    HT_TYPE_IQ4_XS = 23,
    HT_TYPE_IQ1_M = 29,
    HT_TYPE_BF16 = 30,
    HT_TYPE_TQ1_0 = 34,
    HT_TYPE_TQ2_0 = 35,
    HT_TYPE_MXFP4 = 39,
    HT_TYPE_NVFP4 = 40,
    HT_TYPE_Q1_0 = 41,
    HT_TYPE_Q2_0 = 42
} ht_type;
/* Tensors of these are carried along; no operator takes them as weights, so whatever switches over ht_type need not know. */
enum { HT_TYPE_I8 = 24, HT_TYPE_I16, HT_TYPE_I32, HT_TYPE_I64, HT_TYPE_F64 };

typedef struct ht_type_traits {
    ht_type type;
    const char *name;       /* "Q4_0" */
    int block, block_bytes; /* weights a block, bytes a block */
    /* The canonical form that its blocks are read as (quant.h): bits of a code, 4, 6 or 8, while 16 (F16, BF16) and 32
     * (F32) stay floating, 0: no weights; columns a scale covers, 0 for floats; asymmetric or not. */
    int bits, group;
    bool offset;
} ht_type_traits;

const ht_type_traits *ht_type_get(ht_type type);         /* NULL: not known */
const ht_type_traits *ht_type_by_name(const char *name); /* of weights; case-insensitive; NULL: not known */
/* Name of any ggml type number, for errors; "type 77" style names are the caller's business: NULL if not known. */
const char *ht_type_foreign_name(uint32_t number);

#endif
