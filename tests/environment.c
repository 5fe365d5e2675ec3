/* Linked into every test program and bench: what `hetero` itself does first (cli/main.c), and as active environment the .venv
 * that `make test` has made in the checkout, where programs run. What is set already stays. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void set_environment(void) {
    char folder[3072], path[4096];
    setenv("POCL_AFFINITY", "1", 0);
    /* Where PoCL keeps what it has compiled, unless told otherwise: many a test has its own files elsewhere, in a
     * folder that is empty, and would have the same kernels compiled at every run. */
    const char *cache = getenv("XDG_CACHE_HOME");
    if (cache && snprintf(path, sizeof path, "%s/pocl/kcache", cache) < (int)sizeof path)
        setenv("POCL_CACHE_DIR", path, 0);
#ifdef __SANITIZE_ADDRESS__ /* or OpenVINO's TBB opens libraries in a way that AddressSanitizer ends */
    setenv("TBB_ENABLE_SANITIZERS", "1", 0);
#endif
    if (!getcwd(folder, sizeof folder) || access(".venv/bin/python", X_OK) != 0)
        return;
    snprintf(path, sizeof path, "%s/.venv", folder);
    setenv("VIRTUAL_ENV", path, 0);
}

/* Drivers keep what their compiler made until the process ends, and not always where LeakSanitizer looks. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libpocl\nleak:libLLVM\nleak:libclang\n";
}
