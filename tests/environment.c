/* Linked into every test program and bench: what `hetero` itself does first (cli/main.c), and the runtimes that `make test` has
 * installed in .venv of the checkout, where programs run. What is set already stays. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void set_environment(void) {
    static const char *const runtimes[] = {"HETERO_OPENVINO", "HETERO_ONNXRUNTIME"};
    char folder[3072], path[4096];
    setenv("POCL_AFFINITY", "1", 0);
    if (!getcwd(folder, sizeof folder) || access(".venv/bin/python", X_OK) != 0)
        return;
    snprintf(path, sizeof path, "%s/.venv", folder);
    for (size_t i = 0; i < sizeof runtimes / sizeof *runtimes; i++)
        setenv(runtimes[i], path, 0);
}
