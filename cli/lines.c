/* Lines for the chat: edited, with history, on a terminal; as they are otherwise, and in builds without libedit. */
#include "cli.h"

#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef HETERO_HAVE_LIBEDIT
#include <histedit.h>
#endif

struct cli_lines {
    bool interactive;
#ifdef HETERO_HAVE_LIBEDIT
    EditLine *editor; /* NULL: lines are read as they are */
    History *history;
    char history_path[4096]; /* "": none is kept */
#endif
};

bool cli_lines_interactive(const cli_lines *lines) {
    return lines->interactive;
}

static char *read_plain(const cli_lines *lines) {
    char *line = NULL;
    size_t space = 0;
    if (lines->interactive) {
        fputs("> ", stdout);
        fflush(stdout);
    }
    if (ht_os_read_line(&line, &space, stdin) < 0) {
        free(line);
        return NULL;
    }
    line[strcspn(line, "\r\n")] = 0;
    return line;
}

#ifdef HETERO_HAVE_LIBEDIT
static char *prompt_text(EditLine *editor) {
    static char text[] = "> ";
    return text;
}

/* $XDG_STATE_HOME/hetero/history, its folders made; "" if there is no place for it. */
static void find_history(char path[4096]) {
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int length = 0;
    if (state && ht_os_is_absolute(state)) /* by the XDG rules a relative path is ignored */
        length = snprintf(path, 4096, "%s/hetero/history", state);
    else if (home && ht_os_is_absolute(home))
        length = snprintf(path, 4096, "%s/.local/state/hetero/history", home);
    if (length >= 4096)
        length = 0;
    path[length] = 0;
    if (length && ht_make_folders(path, false, NULL))
        path[0] = 0;
}

static void open_editor(cli_lines *lines) {
    HistEvent event;
    lines->editor = el_init("hetero", stdin, stdout, stderr);
    if (!lines->editor)
        return;
    el_set(lines->editor, EL_PROMPT, prompt_text);
    el_set(lines->editor, EL_EDITOR, "emacs");
    el_set(lines->editor, EL_SIGNAL, 1); /* the terminal is put right before a signal ends the program */
    lines->history = history_init();
    if (!lines->history)
        return;
    find_history(lines->history_path);
    history(lines->history, &event, H_SETSIZE, 1000);
    history(lines->history, &event, H_SETUNIQUE, 1);
    el_set(lines->editor, EL_HIST, history, lines->history);
    if (*lines->history_path)
        history(lines->history, &event, H_LOAD, lines->history_path);
}

static char *read_edited(cli_lines *lines) {
    int count = 0;
    const char *typed = el_gets(lines->editor, &count);
    if (!typed || count <= 0)
        return NULL;
    HistEvent event;
    if (lines->history && typed[strspn(typed, " \r\n")]) {
        history(lines->history, &event, H_ENTER, typed);
        if (*lines->history_path) /* at once: a signal may end the program */
            history(lines->history, &event, H_SAVE, lines->history_path);
    }
    return ht_copy_text(typed, strcspn(typed, "\r\n"));
}
#endif

cli_lines *cli_lines_open(void) {
    cli_lines *lines = calloc(1, sizeof *lines);
    if (!lines)
        return NULL;
    lines->interactive = ht_os_is_terminal(stdin);
#ifdef HETERO_HAVE_LIBEDIT
    if (lines->interactive)
        open_editor(lines);
#endif
    return lines;
}

char *cli_lines_read(cli_lines *lines) {
#ifdef HETERO_HAVE_LIBEDIT
    if (lines->editor)
        return read_edited(lines);
#endif
    return read_plain(lines);
}

void cli_lines_close(cli_lines *lines) {
    if (!lines)
        return;
#ifdef HETERO_HAVE_LIBEDIT
    if (lines->history)
        history_end(lines->history);
    if (lines->editor)
        el_end(lines->editor);
#endif
    free(lines);
}
