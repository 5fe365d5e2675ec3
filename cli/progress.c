/* A progress bar on standard error. */
#include "cli.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool drawn; /* a bar is on the terminal's line */

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

void cli_progress_clear(void) {
    if (drawn)
        fputs("\r\033[K", stderr);
    drawn = false;
}

bool cli_progress(const char *what, double done, double total, void *user) {
    static double last; /* ten pictures a second are enough */
    const cli_options *options = user;
    if (options->quiet || !isatty(STDERR_FILENO))
        return true;
    double time = now();
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
