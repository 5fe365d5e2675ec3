/* Linux and Android: libraries, child processes, what a program does to itself. */
#define _GNU_SOURCE /* dladdr, pipe2 */
#include "base/os.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- libraries ------------------------------------------------------------------------------------------------------ */

void *ht_os_library_open(const char *path, char *reason, size_t capacity) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *text = dlerror();
        snprintf(reason, capacity, "%s", text ? text : path);
    }
    return library;
}

void *ht_os_library_symbol(void *library, const char *name) {
    return dlsym(library, name);
}

bool ht_os_library_folder(const void *symbol, char *out, size_t capacity) {
    Dl_info info;
    char path[HT_PATH_BYTES];
    if (!dladdr(symbol, &info) || !info.dli_fname || !ht_os_absolute(info.dli_fname, path, sizeof path))
        return false;
    char *slash = strrchr(path, '/');
    if (!slash || slash == path || (size_t)(slash - path) >= capacity)
        return false;
    *slash = '\0';
    memcpy(out, path, (size_t)(slash - path) + 1);
    return true;
}

/* ---- child processes ------------------------------------------------------------------------------------------------ */

struct ht_os_child {
    pid_t process;
    int pipe;
    bool ended;
    int status; /* as of waitpid, once it has ended */
};

ht_status ht_os_child_start(const char *const *command, ht_os_child **out, ht_error *error) {
    ht_os_child *child;
    int pipes[2], failed;
    ht_status status = ht_alloc((void **)&child, 1, sizeof *child, "a child process", error);
    if (status)
        return status;
    if (pipe2(pipes, O_CLOEXEC)) {
        free(child);
        return ht_fail(error, HT_ERROR_IO, "no pipe for a child process: %s", strerror(errno));
    }
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, pipes[1], STDOUT_FILENO);
    failed = posix_spawn(&child->process, command[0], &actions, NULL, (char *const *)(uintptr_t)command, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(pipes[1]);
    child->pipe = pipes[0];
    if (failed) {
        close(pipes[0]);
        free(child);
        return ht_fail(error, HT_ERROR_IO, "%s: cannot be started: %s", command[0], strerror(failed));
    }
    fcntl(child->pipe, F_SETFL, O_NONBLOCK);
    *out = child;
    return HT_OK;
}

long ht_os_child_read(ht_os_child *child, char *out, size_t capacity, int milliseconds) {
    struct pollfd wanted = {.fd = child->pipe, .events = POLLIN};
    poll(&wanted, 1, milliseconds);
    const ssize_t n = read(child->pipe, out, capacity);
    if (n > 0)
        return n;
    return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : -1;
}

bool ht_os_child_ended(ht_os_child *child, char *how, size_t capacity) {
    if (!child->ended) {
        const pid_t ended = waitpid(child->process, &child->status, WNOHANG);
        child->ended = ended == child->process || (ended < 0 && errno != EINTR);
    }
    if (child->ended && capacity) {
        const int status = child->status;
        *how = '\0';
        if (WIFSIGNALED(status))
            snprintf(how, capacity, "signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
    }
    return child->ended;
}

void ht_os_child_close(ht_os_child *child) {
    if (!child->ended) {
        kill(child->process, SIGKILL);
        while (waitpid(child->process, &child->status, 0) < 0 && errno == EINTR) {}
    }
    close(child->pipe);
    free(child);
}

/* ---- the program itself --------------------------------------------------------------------------------------------- */

bool ht_os_program_path(char *out, size_t capacity) {
    const ssize_t n = readlink("/proc/self/exe", out, capacity);
    if (n <= 0 || (size_t)n >= capacity)
        return false;
    out[n] = '\0';
    return true;
}

void ht_os_program_environment(const char *name, const char *value) {
    setenv(name, value, 0);
}

static int held = -1, holders; /* standard output itself, while descriptor 1 is standard error */

void ht_os_program_hold_output(void) {
    if (holders++ > 0)
        return;
    fflush(stdout);
    held = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    if (held >= 0)
        dup2(STDERR_FILENO, STDOUT_FILENO);
}

void ht_os_program_release_output(void) {
    if (holders == 0 || --holders > 0)
        return;
    fflush(stdout); /* what others wrote there */
    if (held >= 0) {
        dup2(held, STDOUT_FILENO);
        close(held);
    }
    held = -1;
}

FILE *ht_os_program_take_output(void) {
    fflush(stdout);
    const int own = held >= 0 ? held : fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    FILE *file = own < 0 ? NULL : fdopen(own, "w");
    if (file)
        dup2(STDERR_FILENO, STDOUT_FILENO);
    held = -1;
    return file;
}

/* ---- signals -------------------------------------------------------------------------------------------------------- */

static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
static void (*volatile clean_up)(void);
static void (*volatile interrupt)(void);

/* Runs `clean_up`, and then what the signal does by default. */
static void on_signal(int number) {
    const int before = errno;
    void (*const handler)(void) = interrupt;
    if (number == SIGINT && handler) {
        interrupt = NULL;
        handler();
        errno = before;
        return;
    }
    if (clean_up)
        clean_up();
    signal(number, SIG_DFL);
    raise(number); /* blocked until this returns */
    errno = before;
}

/* Not of a signal that is ignored: whoever started the program with it (nohup, a shell's background) wants it so. */
static void handle(int number) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, old;
    if (sigaction(number, NULL, &old) || old.sa_handler == SIG_IGN || old.sa_handler == on_signal)
        return;
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

void ht_os_program_on_end(void (*clean)(void)) {
    clean_up = clean;
    for (size_t i = 0; i < HT_COUNT(ending); i++)
        handle(ending[i]);
}

bool ht_os_program_ignores_interrupts(void) {
    struct sigaction action;
    return !sigaction(SIGINT, NULL, &action) && action.sa_handler == SIG_IGN;
}

void ht_os_program_say(const char *text, size_t bytes) {
    const ssize_t written = write(STDOUT_FILENO, text, bytes);
    (void)written;
}

void ht_os_program_on_interrupt(void (*handler)(void)) {
    interrupt = handler;
    if (handler)
        handle(SIGINT);
}

long ht_os_read_line(char **line, size_t *capacity, FILE *file) {
    return getline(line, capacity, file);
}
