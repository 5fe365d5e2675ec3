/* Descriptions of systems on a chip: JSON files in socs/, embedded at build, or a user's own.
 *
 *   {"name": "my-chip",
 *    "memory": {"peak_GBps": {"value": 68, "source": "data sheet"}},
 *    "processors": [
 *      {"name": "gpu", "kind": "gpu", "reached_TFLOPS": {"value": 1.0, "source": "estimated"}},
 *      {"name": "npu", "kind": "npu", "reached_TFLOPS": {"value": 10, "source": "estimated"}},
 *      {"name": "cpu", "kind": "cpu", "cores": "0-7", "reached_TFLOPS": {"value": 0.4, "source": "estimated"}}]}
 *
 * Every figure is {"value": number, "source": text}, with "fit": true where it was fitted to rows of measurements/, and with
 * "low" and "high" where it may be anything between: results that depend on it carry the range. One that is left out has its
 * default (soc.c's table), with the source "estimated". In the struct all are in SI units: bytes, seconds, operations and
 * bytes a second, watts.
 *
 * What the figures mean (the laws that the machine follows; law.c):
 *
 *   A command moves `bytes` and computes for `compute` seconds. Alone it takes, once launched,
 *       max(compute, bytes / BANDWIDTH) + (1 - OVERLAP) * min(compute, bytes / BANDWIDTH) + OPERATOR
 *   of which what does not hide behind moving, and OPERATOR, ask the memory for nothing. Weights count as the file's bytes,
 *   activations ACTIVATION_BYTES a value. With two processors at work their bytes a second add up to at most memory TOGETHER,
 *   with more to at most memory REACHED; who has the higher PRIORITY is served first, equals share in proportion to what they
 *   ask for.
 *
 *   GPU, CPU: compute = flops / REACHED.
 *
 *   NPU: compute = matrix + vector: the two units take turns (a product's weights are expanded before it, its results written
 *   back behind it). That is what one open implementation shows: 45% of a product's time goes into writing back, 13% into
 *   expanding (llama.cpp PR#26501).
 *     matrix: M tokens and a matrix of N rows and K columns, each padded up to a multiple of ARRAY (a). Tiles of a x a values of
 *     the stationary operand are loaded, which takes as long as TILE_LOAD rows of the other operand take to stream through:
 *         weights stationary:      (K/a) (N/a) (TILE_LOAD + M) rows
 *         activations stationary:  (K/a) (M/a) (TILE_LOAD + N) rows
 *     A row does 2 a^2 operations, at REACHED (fp16) or REACHED_INTEGER.
 *     vector: M N / VECTOR for the results; with fp16 activations and weights of 8 bits or less K N / EXPAND besides. One token
 *     needs no more than that: the vector unit multiplies while it expands. Norms, rope and GLU: their values / VECTOR;
 *     attention: its scores / SCORES, of M padded to ARRAY.
 *   A graph takes GRAPH besides on its side. What one graph holds stays on the chip: inside a feed-forward block, and everywhere
 *   in an engine whose whole model is one graph.
 *
 *   A product that is a graph of its own has its activations in memory. All ARRAYS hold a column of tiles each, and load the next
 *   meanwhile: a reduction of which that is more than ONCHIP / 2 (4 a K ARRAYS > ONCHIP, at two bytes a value) has no room for
 *   its partial sums. They go to memory and back, 4 bytes each, for every SPILL columns:
 *       bytes += 8 N (M not padded) (K / SPILL - 1)
 *   Two things stand for it: FFN-down reaches 0.5 to 1.5 times the GPU in HeteroLLM (arXiv 2501.14794), and as single products of
 *   15360 columns took 2.5 to 3.2 times as long as of 3840 at equal work on 8 Gen 3 and 8 Elite Gen 5 (operator screen S5-V0 of a
 *   llama.cpp fork, 2026-07-11). Against it everywhere else: 7B and 8B models, whose down is as long, reach more TFLOPS than
 *   small ones in engines of one graph, so nothing spills there.
 *
 *   What was fitted to what is in the files: "source" says it, and "fit": true marks what was fitted to rows of measurements/
 *   (`hetero reproduce --validate` lists these).
 */
#ifndef HT_SIM_SOC_H
#define HT_SIM_SOC_H

#include "device/device.h"

typedef enum ht_soc_key {
    /* memory */
    HT_SOC_PEAK_BANDWIDTH,   /* theoretical; bounds nothing */
    HT_SOC_TOGETHER,         /* of two processors at work at once */
    HT_SOC_REACHED_MEMORY,   /* of three and more */
    HT_SOC_ACTIVATION_BYTES, /* a value of a slot, in memory */
    HT_SOC_BASE_WATTS, /* DRAM and what of the package is no processor of the list, while anything runs; 0: left out */
    /* the host: the thread that submits and waits */
    HT_SOC_POLL,       /* seconds between two looks at a flag */
    HT_SOC_SLEEP_LATE, /* a sleep ends so much later than asked for */
    HT_SOC_SWITCH,     /* one thread wakes another */
    /* every processor */
    HT_SOC_PEAK,      /* theoretical operations a second, fp16; bounds nothing */
    HT_SOC_REACHED,   /* by matrix multiplications of any size that is large enough */
    HT_SOC_BANDWIDTH, /* alone */
    HT_SOC_PRIORITY,  /* when bandwidth is short: higher is served first */
    HT_SOC_OVERLAP,   /* 0..1: share of the shorter of computing and moving that hides behind the longer */
    HT_SOC_LAUNCH,    /* a submit keeps its caller so long */
    HT_SOC_EMPTY,     /* more from submit to start when the queue was empty */
    HT_SOC_FINISH,    /* from the end of work to knowing it: draining the queue, */
    HT_SOC_EVENT,     /* asking an event again and again, */
    HT_SOC_CALLBACK,  /* an event's callback, */
    HT_SOC_FLAG,      /* the device's own write into memory */
    HT_SOC_COPY,      /* an explicit copy, whatever its size */
    HT_SOC_MEMORY,    /* bytes it can hold */
    HT_SOC_WATTS,     /* busy; 0: not known */
    HT_SOC_IDLE_WATTS,
    /* NPUs */
    HT_SOC_ARRAY,            /* side of a systolic array */
    HT_SOC_ARRAYS,           /* number of them */
    HT_SOC_TILE_LOAD,        /* rows that could stream while a tile is loaded */
    HT_SOC_ONCHIP,           /* bytes */
    HT_SOC_SPILL,            /* columns of a long reduction between two writes of its partial sums */
    HT_SOC_REACHED_INTEGER,  /* as REACHED, of 16-bit integers by weights of 4 or 8 bits */
    HT_SOC_INTEGER_GRAPHS,   /* 1: graphs of ours hold activations as 16-bit integers; 0: as fp16 */
    HT_SOC_VECTOR,           /* values a second that the vector unit writes back or passes through once */
    HT_SOC_SCORES,           /* scores of attention a second, that it makes probabilities of */
    HT_SOC_EXPAND,           /* weights a second that it expands to fp16 */
    HT_SOC_OPERATOR,         /* seconds that an operator of a graph takes besides, */
    HT_SOC_GRAPH,            /* and a graph, on the NPU's side */
    HT_SOC_SESSION,          /* bytes of graphs a session can hold, */
    HT_SOC_SESSIONS,         /* and how many sessions there can be */
    HT_SOC_BUILD,            /* seconds to build a graph, */
    HT_SOC_BUILD_PER_WEIGHT, /* and for each of its weights */
    HT_SOC_KEYS
} ht_soc_key;

typedef struct ht_figure {
    double value;       /* SI units */
    double low, high;   /* what it may be: low <= value <= high */
    const char *source; /* "estimated", or where it is from; never NULL */
    bool given;         /* in the file (or an override), not a default */
    bool fitted;        /* "fit": true: a free parameter of the laws, chosen so that measurements come out */
} ht_figure;

#define HT_SOC_MAX_PROCESSORS 6
#define HT_SOC_MAX_LENGTHS 16

typedef struct ht_soc_processor {
    char name[16]; /* "gpu": of sim:SOC/gpu */
    ht_device_kind kind;
    char description[96];
    char companion[16]; /* NPUs: the CPU that computes what they do not take; "": the last CPU */
    ht_cores cores;     /* CPUs: of the SoC, however many the machine at hand has */
    int lengths[HT_SOC_MAX_LENGTHS];
    size_t n_lengths; /* NPUs: static lengths, ascending */
    ht_figure figures[HT_SOC_KEYS];
} ht_soc_processor;

typedef struct ht_soc {
    char name[64], description[160];
    char spec[256]; /* as it was asked for, overrides included */
    uint64_t hash;  /* of the file's text and the overrides: what cost tables depend on */
    ht_soc_processor processors[HT_SOC_MAX_PROCESSORS];
    size_t n_processors;
    ht_figure figures[HT_SOC_KEYS]; /* of memory and host */
    ht_arena strings;
} ht_soc;

/* SPEC is the name of an embedded description or a path (it holds a slash or ends in .json), then overrides:
 * "snapdragon-8-gen-3@memory.together_GBps=80@gpu.finish_us=100", in the file's own units. Errors name the file, the line and
 * the key at fault. */
ht_status ht_soc_load(const char *spec, ht_soc **soc, ht_error *error);
/* The same of a text; `file` is what errors call it. */
ht_status ht_soc_parse(const char *file, const char *text, size_t bytes, ht_soc **soc, ht_error *error);
void ht_soc_free(ht_soc *soc); /* NULL is allowed */

/* Names of the embedded descriptions; NULL: no more. */
const char *ht_soc_name(size_t index);

const ht_soc_processor *ht_soc_find(const ht_soc *soc, const char *name); /* NULL: it has none of this name */
/* Is it only there beside an NPU, as its companion? */
bool ht_soc_is_companion(const ht_soc *soc, const ht_soc_processor *processor);
/* The first processor of a kind that is not only there beside an NPU; NULL: none. */
const ht_soc_processor *ht_soc_first(const ht_soc *soc, ht_device_kind kind);

/* How a figure is called in files ("launch_us"), and what its SI value is divided by to give the file's number. */
const char *ht_soc_key_name(ht_soc_key key);
double ht_soc_key_unit(ht_soc_key key);
/* Does the section ("memory", "host", or a processor's kind: "cpu", "gpu", "npu") have this figure? */
bool ht_soc_key_is_of(ht_soc_key key, const char *section);

#endif
