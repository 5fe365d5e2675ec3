/* Importance matrices: for each matrix of weights the sums of squares of what its columns were multiplied by, over a
 * text. The file is the GGUF form of llama.cpp's llama-imatrix: F32 tensors NAME.in_sum2 [columns, matrices] and
 * NAME.counts [1, matrices] for each tensor NAME, "matrices" being experts, or 1; counts are the rows that were summed. */
#ifndef HT_IMATRIX_H
#define HT_IMATRIX_H

#include "gguf/gguf.h"

typedef struct ht_imatrix ht_imatrix;

/* Checks all of it: errors name file and tensor. */
ht_status ht_imatrix_open(const char *path, ht_imatrix **imatrix, ht_error *error);
void ht_imatrix_close(ht_imatrix *imatrix); /* NULL is allowed */
/* Is there an entry for a tensor of this name? */
bool ht_imatrix_has(const ht_imatrix *imatrix, const char *name);
/* What the columns of a tensor's matrices are worth, [matrices][columns], from ht_alloc: 1 on average in each matrix,
 * above zero everywhere; those of an expert that met no token are all 1. HT_ERROR_FORMAT: the entry is of another
 * shape. */
ht_status ht_imatrix_weights(const ht_imatrix *imatrix, const ht_tensor *tensor, float **weights, ht_error *error);

/* An entry to be written. */
typedef struct ht_imatrix_entry {
    const char *name; /* of the tensor of weights */
    size_t cols, matrices;
    double *sums;     /* [matrices][cols] */
    uint64_t *counts; /* [matrices] */
} ht_imatrix_entry;
/* text: where the rows come from, a name; they were computed in `chunks` pieces of `chunk` tokens. */
ht_status ht_imatrix_write(const char *path, const ht_imatrix_entry *entries, size_t n, const char *text,
                           uint32_t chunks, uint32_t chunk, ht_error *error);

#endif
