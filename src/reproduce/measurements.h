/* What was measured on real chips, as published: the JSON files in measurements/, embedded at build.
 *
 * rows.json has one measured number a row (speeds, and energies), each marked for fitting or for testing before anything was fitted. engines.json
 * has what is an engine's and not a chip's: how it holds weights and cache, in which pieces it computes a prompt, what its
 * host costs. Every figure there has its source; "fit": true marks those that were fitted to rows. */
#ifndef HT_MEASUREMENTS_H
#define HT_MEASUREMENTS_H

#include "base/json.h"
#include "device/sim/law.h"

typedef enum ht_engine_key {
    HT_ENGINE_WEIGHT_BITS,     /* of a weight, scales included */
    HT_ENGINE_HEAD_BITS,       /* of a weight of the output head */
    HT_ENGINE_KV_BYTES,        /* of a value in the cache */
    HT_ENGINE_CHUNK,           /* tokens of a prefill pass; 0: the whole prompt */
    HT_ENGINE_PAD,             /* a pass is padded up to a multiple of so many tokens */
    HT_ENGINE_CONTEXT,         /* keys that attention computes over; 0: those that there are */
    HT_ENGINE_CROSSINGS,       /* calls from the host to the processor and back, a pass */
    HT_ENGINE_LAUNCHES,        /* kernels a layer that the host submits; 0: none, a crossing starts a whole graph */
    HT_ENGINE_PASS,            /* seconds of the host, a pass */
    HT_ENGINE_MATRIX_SHARE,    /* of the processor's arithmetic */
    HT_ENGINE_BANDWIDTH_SHARE, /* of its bandwidth */
    HT_ENGINE_EXPAND,          /* weights a second that its kernels expand to fp16; 0: as the processor's runtime */
    /* What few engines do: 0 where the file leaves it out. */
    HT_ENGINE_NO_PROMPT_HEAD, /* 1: a prompt's last token is left to decode, so no head is computed in prefill */
    HT_ENGINE_HEAD_ON_CPU,    /* 1: the CPU computes the head */
    HT_ENGINE_WRITTEN_BITS,  /* of a weight that a program of its own writes to memory before a prefill pass reads it */
    HT_ENGINE_LAYER_PREFILL, /* seconds a layer that a prefill pass takes besides: programs that are loaded */
    HT_ENGINE_LAYER_CALLS,   /* calls from the host a layer, besides those a pass */
    HT_ENGINE_FEW,           /* a pass of fewer tokens than this is the vector unit's, */
    HT_ENGINE_FEW_RATE,      /* which does so many operations a second of products */
    HT_ENGINE_KEYS
} ht_engine_key;

const char *ht_engine_key_name(ht_engine_key key); /* as in the file: "pass_us" */
double ht_engine_key_unit(ht_engine_key key);      /* what a file's number is multiplied by */

typedef struct ht_measured_engine { /* on one kind of processor */
    const char *name, *about;
    ht_device_kind kind;
    ht_sim_activations activations;
    ht_json_figure figures[HT_ENGINE_KEYS]; /* SI units */
} ht_measured_engine;

typedef struct ht_measured_row {
    const char *chip, *model; /* names of a description and of a shape */
    const ht_measured_engine *engine;
    bool decode, test;
    size_t prompt;       /* tokens of the prefill, or that stand before the token that is decoded */
    double tps;          /* tokens a second */
    double range[2];     /* of which tps is the middle; 0, 0: one figure */
    const char *weights; /* type of the weights where it is not the engine's own; "" */
    double bits[2];      /* then of a weight and of one of the head; 0: the engine's */
    const char *source, *note;
} ht_measured_row;

/* Energy while a model decodes. The rail's watts are given, and one figure was measured besides. */
typedef struct ht_measured_energy {
    ht_measured_row row; /* chip, use, source, note; of joules also engine, model and prompt */
    ht_device_kind kind;
    double rail;          /* watts of the processor */
    double joules, total; /* a token, of the rail; watts of all processors, without DRAM; one of them is 0 */
} ht_measured_energy;

typedef struct ht_measurements {
    ht_arena strings;
    ht_measured_engine *engines;
    ht_measured_row *rows;
    ht_measured_energy *energies;
    struct ht_left_out {
        const char *what, *why;
    } * left_out;
    size_t n_engines, n_rows, n_energies, n_left_out, cap_engines, cap_rows, cap_energies, cap_left_out;
} ht_measurements;

/* The embedded ones. */
ht_status ht_measurements_load(ht_measurements **measurements, ht_error *error);
/* The same of texts, called engines.json and rows.json in errors, which name line and key: HT_ERROR_FORMAT. */
ht_status ht_measurements_parse(const char *engines, const char *rows, ht_measurements **measurements, ht_error *error);
void ht_measurements_free(ht_measurements *measurements); /* NULL is allowed */

#endif
