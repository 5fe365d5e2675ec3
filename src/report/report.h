/* The report for bugs (hetero report): what its files share. */
#ifndef HT_REPORT_H
#define HT_REPORT_H

#include "base/json.h"
#include "device/device.h"

/* ---- build.c ---------------------------------------------------------------------------------------------------------------- */

const char *ht_build_compiler(void); /* "GCC 12.2.0" */
const char *ht_build_flags(void);    /* "RelWithDebInfo -O3 -g"; may hold paths */
const char *ht_build_target(void);   /* "aarch64 Android" */

/* ---- host.c ----------------------------------------------------------------------------------------------------------------- */

/* Processor, cores and their groups, memory, system, SoC, drivers, as files below `root` ("" outside tests) tell. Only files and
 * fields that identify nobody are read: no serial number, no host name, no address. NULL: memory ran out. */
json_t *ht_host_json(const char *root);

/* ---- scrub.c ---------------------------------------------------------------------------------------------------------------- */

/* Takes out of a text what tells who made it and where: paths become "~" (below the home folder) or "PATH", of which the name
 * of a library stays ("PATH/libOpenCL.so"); model and other files "MODEL" and "FILE"; the user's names "USER", the host's
 * "HOST". Names that thousands have ("root", "ubuntu") stay. */
typedef struct ht_scrubber ht_scrubber;
/* model, devices: as the user gave them, for they may hold names of files; NULL: none. */
ht_status ht_scrubber_create(const char *model, const char *devices, ht_scrubber **scrubber, ht_error *error);
void ht_scrubber_destroy(ht_scrubber *scrubber);
ht_status ht_scrub(const ht_scrubber *scrubber, const char *text, ht_text *clean, ht_error *error);
/* All strings of a tree, and its keys but for plain words, which are ours. */
ht_status ht_scrub_json(const ht_scrubber *scrubber, json_t *tree, ht_error *error);

/* ---- part.c ----------------------------------------------------------------------------------------------------------------- */

/* A part of the report. asked: "key=value", ..., NULL; *json: text in one line, from malloc. */
typedef ht_status (*ht_part)(const char *const *asked, char **json, ht_error *error);
typedef struct ht_part_row { /* a table of them ends with name NULL */
    const char *name;
    ht_part run;
} ht_part_row;
const char *ht_part_value(const char *const *asked, const char *key); /* NULL: not among them */

/* Runs the part that asked's "part=NAME" names: in a process of its own, for drivers crash and hang, where there is a `program`
 * (a command line, the last one NULL): asked[] follows its arguments, and it is to hand them to ht_part_serve. Else in this
 * one. {"result": what it gave} or {"error": text, "status": name}, in both cases "log" with the lines that were logged in
 * the other process, if any. NULL: memory ran out. */
json_t *ht_part_run(const char *const *program, const ht_part_row *parts, const char *const *asked, double seconds);
/* The other process' side: takes standard output for the answer, and ends the process. Returns only what it exits with when
 * it cannot. */
int ht_part_serve(const ht_part_row *parts, const char *const *asked);

#endif
