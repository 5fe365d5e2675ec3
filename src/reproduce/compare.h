/* Chips side by side: for each chip, model and phase the best plan, what one processor alone has, and what a planner that cuts
 * single operators, as the paper's, makes of the same chip. */
#ifndef HT_COMPARE_H
#define HT_COMPARE_H

#include "reproduce/reproduce.h"

/* What is run of a phase: one processor alone, all that the planner may use, and planners that know a term more each. */
typedef enum ht_way {
    HT_WAY_GPU,
    HT_WAY_NPU, /* what it does not take on the CPU */
    HT_WAY_CPU,
    HT_WAY_PAIR, /* GPU and NPU */
    HT_WAY_AUTO, /* and the CPU */
    HT_WAYS
} ht_way;

#define HT_TERMS 8 /* of the planner as the paper's, slow joins, to all that ours may cut, the CPU included */

typedef struct ht_compared { /* one phase of one model on one chip */
    const ht_soc *soc;
    const ht_model *model;
    int prompt, gen; /* one of them is 0 */
    ht_outcome ways[HT_WAYS];
    ht_outcome terms[HT_TERMS]; /* tps NAN: of this phase they are not run */
    double roomy; /* tokens a second of HT_WAY_AUTO with all memory for graphs, not what sessions hold; NAN: no NPU */
    ht_way best, alone; /* the fastest, and the fastest of one processor; HT_WAYS: none */
} ht_compared;

typedef struct ht_comparison {
    ht_soc *socs[16];
    size_t n_socs;
    ht_compared *cells; /* by chip, model, phase */
    size_t n_cells, capacity;
} ht_comparison;

/* Runs all phases of r->models on one more chip; r is made ready for it. `done` of `all` chips were before. */
ht_status ht_compare_chip(ht_reproduction *r, ht_comparison *c, const char *soc, size_t done, size_t all,
                          ht_progress_function progress, void *user);
void ht_comparison_clear(ht_comparison *c);

/* What the time of a run went to, the largest parts first and at most so many: "memory 62%, NPU's matrix unit 21%". */
void ht_limits_text(const ht_soc *soc, const ht_spent *spent, size_t most, char text[160]);

#endif
