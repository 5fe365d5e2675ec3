/* Finding a runtime's library where the user, Python's wheels and the system keep it. */
#ifndef HT_NPU_LIBRARY_H
#define HT_NPU_LIBRARY_H

typedef struct ht_library {
    const char *name;      /* "OpenVINO" */
    const char *files;     /* pattern of its file: "libopenvino_c.so*" */
    const char *wheel;     /* folder inside site-packages that holds it: "openvino/libs" */
    const char *variable;  /* of the environment, that names it: "HETERO_OPENVINO" */
    const char *package;   /* of pip */
    const char *system[3]; /* names that the system may know it by, then NULL */
    const char *places[2]; /* patterns of other folders where it is installed, then NULL */
} ht_library;

/* Opens it (its names for itself), and never closes it: its threads would outlive it. `path`: the file, or a folder that
 * holds it as wheels do, and then no other will do. "": the variable's value, which is taken the same way; else the Python
 * environment that is active ($VIRTUAL_ENV, $CONDA_PREFIX), then the system's own libraries, then what pip has installed for
 * this user and for all. Nothing is ever looked for relative to the current folder, but a relative path that the user gave;
 * and no other program is run. NULL and reason[256], for a person, if there is none that opens. */
void *ht_library_open(const ht_library *library, const char *path, char *reason);

#endif
