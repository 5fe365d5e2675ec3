/* A progress bar on standard error. */
#include "cli.h"

#include "base/os.h"

#include <stdio.h>
#include <string.h>

static bool drawn; /* a bar is on the terminal's line */

void cli_progress_clear(void) {
    if (drawn)
        fputs("\r\033[K", stderr);
    drawn = false;
}

bool cli_progress(const char *what, double done, double total, void *user) {
    static double last; /* ten pictures a second are enough */
    const cli_options *options = user;
    if (options->quiet || !ht_os_is_terminal(stderr))
        return true;
    double time = ht_seconds();
    if (done >= total) {
        cli_progress_clear();
    } else if (time - last > 0.1) {
        char bar[33];
        int filled = total > 0 && done > 0 ? (int)(32 * done / total) : 0;
        memset(bar, ' ', 32);
        memset(bar, '=', (size_t)filled);
        bar[32] = 0;
        fprintf(stderr, "\r\033[K%s [%s] %3.0f%%", what, bar, total > 0 ? 100 * done / total : 0);
        fflush(stderr);
        last = time;
        drawn = true;
    }
    return true;
}
