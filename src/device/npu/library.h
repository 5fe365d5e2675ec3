/* Finding a runtime's library where Python's wheels, the user and the system keep it. */
#ifndef HT_NPU_LIBRARY_H
#define HT_NPU_LIBRARY_H

typedef struct ht_library {
    const char *name;      /* "OpenVINO" */
    const char *files;     /* pattern of its file: "libopenvino_c.so*" */
    const char *wheel;     /* folder inside site-packages that holds it: "openvino/libs" */
    const char *variable;  /* of the environment, that names it: "HETERO_OPENVINO" */
    const char *package;   /* of pip */
    const char *system[3]; /* names that the system may know it by, then NULL */
} ht_library;

/* Opens it (RTLD_LOCAL), and never closes it: its threads would outlive it. `path`: the file, or a folder that holds it as
 * wheels do, and then no other will do; "": the variable's value, else Python environments, then the system. NULL and
 * reason[256], for a person, if there is none that opens. */
void *ht_library_open(const ht_library *library, const char *path, char *reason);

#endif
