/* A plan as rows, and which step of which lane each row stands for: what `ht_engine_plan` and the trace share. */
#ifndef HT_LISTING_H
#define HT_LISTING_H

#include "engine/engine.h"

typedef struct ht_listed {
    ht_plan_row row;
    const ht_step *step;
    size_t lane; /* number of the schedule's lanes; 0 of an engine with one lane */
    double join; /* predicted seconds of telling the other lanes, behind row.seconds */
    bool head;   /* a pass of its own: begins once all lanes are done with the rest */
} ht_listed;

/* How a pass of `tokens` from position 0 on is computed, one lane's steps behind the other's. schedule: NULL where the
 * engine has one lane. *rows from malloc, valid as long as the schedule; the caller holds the engine. */
ht_status ht_plan_list(const ht_engine *engine, const ht_schedule *schedule, size_t tokens, ht_listed **rows, size_t *n,
                       ht_error *error);

#endif
