/* The table of weight types. */
#include "gguf/types.h"

#include <strings.h>

/* clang-format off */
static const ht_type_traits traits[] = {
    /* type         name      block bytes bits group offset */
    {HT_TYPE_F32,    "F32",    1,   4,    32,  0,    false},
    {HT_TYPE_F16,    "F16",    1,   2,    16,  0,    false},
    {HT_TYPE_BF16,   "BF16",   1,   2,    16,  0,    false},
    {HT_TYPE_Q4_0,   "Q4_0",   32,  18,   4,   32,   false},
    {HT_TYPE_Q4_1,   "Q4_1",   32,  20,   4,   32,   true},
    {HT_TYPE_Q5_0,   "Q5_0",   32,  22,   8,   32,   false},
    {HT_TYPE_Q5_1,   "Q5_1",   32,  24,   8,   32,   true},
    {HT_TYPE_Q8_0,   "Q8_0",   32,  34,   8,   32,   false},
    {HT_TYPE_Q2_K,   "Q2_K",   256, 84,   4,   16,   true},
    {HT_TYPE_Q3_K,   "Q3_K",   256, 110,  4,   16,   false},
    {HT_TYPE_Q4_K,   "Q4_K",   256, 144,  4,   32,   true},
    {HT_TYPE_Q5_K,   "Q5_K",   256, 176,  8,   32,   true},
    {HT_TYPE_Q6_K,   "Q6_K",   256, 210,  6,   16,   false},
    {HT_TYPE_IQ4_NL, "IQ4_NL", 32,  18,   8,   32,   false},
    {HT_TYPE_IQ4_XS, "IQ4_XS", 256, 136,  8,   32,   false},
    {HT_TYPE_MXFP4,  "MXFP4",  32,  17,   8,   32,   false},
    {HT_TYPE_NVFP4,  "NVFP4",  64,  36,   8,   16,   false},
    {HT_TYPE_IQ1_S,  "IQ1_S",  256, 50,   6,   32,   false},
    {HT_TYPE_IQ1_M,  "IQ1_M",  256, 56,   6,   16,   false},
    {HT_TYPE_IQ2_XXS, "IQ2_XXS", 256, 66, 8,   32,   false},
    {HT_TYPE_IQ2_XS, "IQ2_XS", 256, 74,   8,   16,   false},
    {HT_TYPE_IQ2_S,  "IQ2_S",  256, 82,   8,   16,   false},
    {HT_TYPE_IQ3_XXS, "IQ3_XXS", 256, 98, 6,   32,   false},
    {HT_TYPE_IQ3_S,  "IQ3_S",  256, 110,  6,   32,   false},
    {HT_TYPE_TQ1_0,  "TQ1_0",  256, 54,   4,   32,   false},
    {HT_TYPE_TQ2_0,  "TQ2_0",  256, 66,   4,   32,   false},
    {HT_TYPE_Q1_0,   "Q1_0",   128, 18,   4,   32,   false},
    {HT_TYPE_Q2_0,   "Q2_0",   64,  18,   4,   32,   false},
    /* not for weights, bits 0: some files carry tables of these, which no operator reads */
    {(ht_type)HT_TYPE_I8,     "I8",     1,   1,    0,   0,    false},
    {(ht_type)HT_TYPE_I16,    "I16",    1,   2,    0,   0,    false},
    {(ht_type)HT_TYPE_I32,    "I32",    1,   4,    0,   0,    false},
    {(ht_type)HT_TYPE_I64,    "I64",    1,   8,    0,   0,    false},
    {(ht_type)HT_TYPE_F64,    "F64",    1,   8,    0,   0,    false},
};
/* clang-format on */

const ht_type_traits *ht_type_get(ht_type type) {
    for (size_t i = 0; i < HT_COUNT(traits); i++) {
        if (traits[i].type == type)
            return &traits[i];
    }
    return NULL;
}

const ht_type_traits *ht_type_by_name(const char *name) {
    for (size_t i = 0; i < HT_COUNT(traits); i++) {
        if (traits[i].bits && !strcasecmp(traits[i].name, name))
            return &traits[i];
    }
    return NULL;
}

const char *ht_type_foreign_name(uint32_t number) {
    /* ggml's numbering, those it has since withdrawn included: old files still carry them. */
    static const char *const names[] = {
        "F32",        "F16",        "Q4_0",       "Q4_1",  "Q4_2",     "Q4_3",     "Q5_0",     "Q5_1",    "Q8_0",
        "Q8_1",       "Q2_K",       "Q3_K",       "Q4_K",  "Q5_K",     "Q6_K",     "Q8_K",     "IQ2_XXS", "IQ2_XS",
        "IQ3_XXS",    "IQ1_S",      "IQ4_NL",     "IQ3_S", "IQ2_S",    "IQ4_XS",   "I8",       "I16",     "I32",
        "I64",        "F64",        "IQ1_M",      "BF16",  "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",   "TQ2_0",
        "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4", "NVFP4",    "Q1_0",     "Q2_0",
    };
    return number < HT_COUNT(names) ? names[number] : NULL;
}
