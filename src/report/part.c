/* A part of the report in a process of its own. Its answer comes through a pipe as lines: "L" and a line of the log, as many as
 * there are, then "R" and the result or "E", the status' number and the error's text. */
#include "base/os.h"
#include "report/report.h"

#include <stdlib.h>
#include <string.h>

const char *ht_part_value(const char *const *asked, const char *key) {
    const size_t n = strlen(key);
    for (; *asked; asked++)
        if (strncmp(*asked, key, n) == 0 && (*asked)[n] == '=')
            return *asked + n + 1;
    return NULL;
}

static ht_status run(const ht_part_row *parts, const char *const *asked, char **json, ht_error *error) {
    const char *name = ht_part_value(asked, "part");
    while (parts->name && (!name || strcmp(parts->name, name) != 0))
        parts++;
    if (!parts->name)
        return ht_fail(error, HT_ERROR_ARGUMENT, "the report has no part '%s'", name ? name : "");
    return parts->run(asked, json, error);
}

/* ---- the child -------------------------------------------------------------------------------------------------------------- */

/* In one call: other threads log, too. */
static void send_log(ht_log_level level, const char *line, void *user) {
    fprintf(user, "L%s\n", line);
    fflush(user);
}

int ht_part_serve(const ht_part_row *parts, const char *const *asked) {
    static const char *const runtimes[] = {"openvino", "onnxruntime"};
    char *json = NULL;
    ht_error error = {0};
    FILE *out = ht_os_program_take_output();
    if (!out)
        return 1;
    for (size_t i = 0; i < HT_COUNT(runtimes); i++)
        if (ht_part_value(asked, runtimes[i]))
            ht_runtime_path(runtimes[i], ht_part_value(asked, runtimes[i]), NULL);
    ht_log_set(send_log, out, HT_LOG_WARN);
    const ht_status status = run(parts, asked, &json, &error);
    if (status)
        fprintf(out, "E%d %s\n", (int)status, error.text);
    else
        fprintf(out, "R%s\n", json);
    fflush(out);
    _Exit(0); /* drivers' own ends of the process are what may crash, and nothing is left to be done */
}

/* ---- the parent ------------------------------------------------------------------------------------------------------------- */

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

/* Reads until the child is gone, or the time is up: drivers may leave processes behind that keep the pipe open. False: it
 * did not end. */
static bool read_all(ht_os_child *child, double seconds, ht_text *answer) {
    const double end = ht_seconds() + seconds;
    bool gone = false;
    for (char bytes[4096];;) {
        const long n = ht_os_child_read(child, bytes, sizeof bytes, gone ? 0 : 50);
        if (n > 0 && ht_text_append(answer, bytes, (size_t)n, NULL))
            return gone;
        if (n > 0)
            continue;
        if (gone)
            return true;
        gone = ht_os_child_ended(child, NULL, 0);
        if (!gone && n < 0) /* it has closed the pipe: it is about to end */
            ht_os_nap(1000000);
        if (!gone && ht_seconds() > end)
            return false;
    }
}

/* program[] and asked[] in one list, from malloc. */
static const char **join(const char *const *program, const char *const *asked) {
    size_t n = 0, m = 0;
    while (program[n])
        n++;
    while (asked[m])
        m++;
    const char **command = calloc(n + m + 1, sizeof *command);
    for (size_t i = 0; i < n + m && command; i++)
        command[i] = i < n ? program[i] : asked[i - n];
    return command;
}

static void run_apart(const char *const *program, const char *const *asked, double seconds, json_t **object) {
    ht_os_child *child;
    ht_error error = {0};
    ht_text answer = {0};
    char text[128], how[96] = "";
    const char **command = join(program, asked);
    ht_status status = command ? ht_os_child_start(command, &child, &error)
                               : ht_fail(&error, HT_ERROR_MEMORY, "no memory for a command line");
    free(command);
    if (status) {
        set_error(object, status, error.text);
        return;
    }
    const bool whole = read_all(child, seconds, &answer);
    if (!read_lines(answer.data, object)) {
        if (!whole)
            snprintf(text, sizeof text, "it hangs: no answer in %.0f s", seconds);
        else if (ht_os_child_ended(child, how, sizeof how) && *how)
            snprintf(text, sizeof text, "it crashed: %s", how);
        else
            snprintf(text, sizeof text, "it ended without an answer");
        set_error(object, HT_ERROR_DEVICE, text);
    }
    ht_os_child_close(child);
    ht_text_free(&answer);
}

static void run_here(const ht_part_row *parts, const char *const *asked, json_t **object) {
    char *json = NULL;
    ht_error error = {0};
    const ht_status status = run(parts, asked, &json, &error);
    if (status)
        set_error(object, status, error.text);
    else
        ht_json_set(object, "result", json_loads(json, JSON_DECODE_ANY, NULL));
    free(json);
}

json_t *ht_part_run(const char *const *program, const ht_part_row *parts, const char *const *asked, double seconds) {
    json_t *object = json_object();
    if (object && program)
        run_apart(program, asked, seconds, &object);
    else if (object)
        run_here(parts, asked, &object);
    return object;
}
