/* A part of the report in a process of its own. Its answer comes through a pipe as lines: "L" and a line of the log, as many as
 * there are, then "R" and the result or "E", the status' number and the error's text. */
#define _GNU_SOURCE /* pipe2 */
#include "report/report.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the child -------------------------------------------------------------------------------------------------------------- */

static void send_line(int pipe, char kind, const char *text) {
    ht_text line = {0};
    if (!ht_text_printf(&line, NULL, "%c%s\n", kind, text)) {
        for (size_t at = 0; at < line.bytes;) {
            const ssize_t n = write(pipe, line.data + at, line.bytes - at);
            if (n < 0 && errno != EINTR)
                break;
            at += n > 0 ? (size_t)n : 0;
        }
    }
    ht_text_free(&line);
}

/* In one write, which is whole: other threads log, too. */
static void send_log(ht_log_level level, const char *line, void *user) {
    send_line(*(const int *)user, 'L', line);
}

static void run_child(ht_part part, const void *user, int pipe) {
    char *json = NULL, text[sizeof((ht_error *)0)->text + 32];
    ht_error error = {0};
    ht_log_set(send_log, &pipe, HT_LOG_WARN);
    const ht_status status = part(user, &json, &error);
    snprintf(text, sizeof text, "%d %s", (int)status, error.text);
    send_line(pipe, status ? 'E' : 'R', status ? text : json);
}

/* ---- the parent ------------------------------------------------------------------------------------------------------------- */

/* Reads until the child is gone, or the time is up: drivers may leave processes behind that keep the pipe open. *status: as of
 * waitpid. */
static bool read_all(int pipe, pid_t child, double seconds, ht_text *answer, int *status) {
    const double end = ht_seconds() + seconds;
    bool gone = false;
    for (char bytes[4096];;) {
        struct pollfd wanted = {.fd = pipe, .events = POLLIN};
        poll(&wanted, 1, gone ? 0 : 50);
        const ssize_t n = read(pipe, bytes, sizeof bytes);
        if (n > 0 && ht_text_append(answer, bytes, (size_t)n, NULL))
            break;
        if (n > 0)
            continue;
        if (gone)
            return true;
        const pid_t ended = waitpid(child, status, WNOHANG);
        gone = ended == child || (ended < 0 && errno != EINTR);
        if (!gone && n == 0) /* it has closed the pipe: it is about to end */
            usleep(1000);
        if (ht_seconds() > end)
            break;
    }
    if (!gone) {
        kill(child, SIGKILL);
        waitpid(child, status, 0);
    }
    return gone;
}

static void set_error(json_t **object, ht_status status, const char *text) {
    ht_json_set(object, "error", json_string(text));
    ht_json_set(object, "status", json_string(ht_status_name(status)));
}

/* Lines into the object; false: there is neither result nor error. */
static bool read_lines(char *text, json_t **object) {
    json_t *log = json_array();
    bool ended = false;
    for (char *line = text, *next; line && *line; line = next) {
        char *end = strchr(line, '\n'), *rest;
        next = end ? end + 1 : NULL;
        if (!end) /* it was cut off */
            break;
        *end = '\0';
        if (*line == 'L') {
            ht_json_add(&log, json_string(line + 1));
        } else if (*line == 'E') {
            const long status = strtol(line + 1, &rest, 10);
            set_error(object, (ht_status)status, rest + (*rest == ' '));
            ended = true;
        } else if (*line == 'R') {
            json_t *result = json_loads(line + 1, JSON_DECODE_ANY, NULL);
            if ((ended = result != NULL)) /* else it is cut short */
                ht_json_set(object, "result", result);
        }
    }
    ht_json_set(object, "log", log);
    return ended;
}

json_t *ht_part_run(ht_part part, const void *user, double seconds) {
    json_t *object = json_object();
    ht_text answer = {0};
    char text[128];
    int pipes[2], status = 0;
    if (!object)
        return NULL;
    if (pipe2(pipes, O_CLOEXEC)) {
        set_error(&object, HT_ERROR_IO, strerror(errno));
        return object;
    }
    fflush(NULL); /* or the child has what is not written yet, too */
    const pid_t child = fork();
    if (child == 0) {
        close(pipes[0]);
        run_child(part, user, pipes[1]);
        _exit(0); /* drivers' own ends of the process are what may crash, and nothing is left to be done */
    }
    close(pipes[1]);
    fcntl(pipes[0], F_SETFL, O_NONBLOCK);
    bool whole = false;
    if (child > 0)
        whole = read_all(pipes[0], child, seconds, &answer, &status);
    if (!read_lines(answer.data, &object)) {
        if (child < 0)
            snprintf(text, sizeof text, "no process for it: %s", strerror(errno));
        else if (!whole)
            snprintf(text, sizeof text, "it hangs: no answer in %.0f s", seconds);
        else if (WIFSIGNALED(status))
            snprintf(text, sizeof text, "it crashed: signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
        else
            snprintf(text, sizeof text, "it ended without an answer");
        set_error(&object, HT_ERROR_DEVICE, text);
    }
    close(pipes[0]);
    ht_text_free(&answer);
    return object;
}
