/* Lines for the chat: edited, with history, on a terminal; as they are otherwise, and in builds without libedit. */
#include "cli.h"

#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef HETERO_HAVE_LIBEDIT
#include <histedit.h>
#include <stdatomic.h>
#include <wchar.h>
#endif

struct cli_lines {
    bool interactive;
    bool more; /* the next line goes on with a message */
#ifdef HETERO_HAVE_LIBEDIT
    EditLine *editor; /* NULL: lines are read as they are */
    History *history;
    char history_path[4096]; /* "": none is kept */
    bool brackets;           /* the terminal understands bracketed paste */
#endif
};

bool cli_lines_interactive(const cli_lines *lines) {
    return lines->interactive;
}

static const char *prompt_of(const cli_lines *lines) {
    return lines->more ? "... " : "> ";
}

/* Takes the end off line[0..bytes): LF or CR LF. A CR inside is a character like others. */
static size_t without_end(char *line, size_t bytes) {
    if (bytes && line[bytes - 1] == '\n')
        bytes--;
    if (bytes && line[bytes - 1] == '\r')
        bytes--;
    line[bytes] = 0;
    return bytes;
}

static char *read_plain(const cli_lines *lines, size_t *bytes) {
    char *line = NULL;
    size_t space = 0;
    if (lines->interactive) {
        fputs(prompt_of(lines), stdout);
        fflush(stdout);
    }
    const long got = ht_os_read_line(&line, &space, stdin);
    if (got < 0) {
        free(line);
        return NULL;
    }
    *bytes = without_end(line, (size_t)got);
    return line;
}

#ifdef HETERO_HAVE_LIBEDIT
static char *prompt_text(EditLine *editor) {
    static char text[8];
    cli_lines *lines = NULL;
    el_get(editor, EL_CLIENTDATA, &lines);
    snprintf(text, sizeof text, "%s", prompt_of(lines));
    return text;
}

/* ---- bracketed paste: the terminal says where a pasted text begins and ends, so that its lines are one message ---- */

#define PASTE_ON "\033[?2004h"
#define PASTE_OFF "\033[?2004l"
#define PASTE_BEGIN "\\e[200~" /* as the editor writes keys */
#define PASTE_END L"\033[201~"

/* Called where a paste begins: takes what comes up to its end into the line. Terminals send Return for the end of a line. */
static unsigned char insert_paste(EditLine *editor, int key) {
    const size_t end = wcslen(PASTE_END);
    wchar_t *text = NULL, next, last = 0;
    size_t n = 0, space = 0;
    for (; el_wgetc(editor, &next) == 1; last = next) {
        if (next == L'\n' && last == L'\r')
            continue;
        if (n + 2 > space) {
            wchar_t *grown = realloc(text, (space += 4096) * sizeof *grown);
            if (!grown)
                break;
            text = grown;
        }
        text[n++] = next == L'\r' ? L'\n' : next ? next : L'\uFFFD'; /* a NUL would end the text */
        if (n >= end && !wmemcmp(text + n - end, PASTE_END, end)) {
            n -= end;
            break;
        }
    }
    if (text)
        text[n] = 0;
    const bool failed = !text || (n && el_winsertstr(editor, text));
    free(text);
    return failed ? CC_ERROR : CC_REFRESH;
}

static atomic_bool marks; /* the terminal is in this mode */

/* el_gets while the terminal marks what is pasted. */
static const char *get_line(cli_lines *lines, int *count) {
    if (!lines->brackets)
        return el_gets(lines->editor, count);
    atomic_store(&marks, true);
    fputs(PASTE_ON, stdout);
    fflush(stdout);
    const char *typed = el_gets(lines->editor, count);
    fputs(PASTE_OFF, stdout);
    fflush(stdout);
    atomic_store(&marks, false);
    return typed;
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
    const bool ignored = ht_os_program_ignores_interrupts();
    const char *terminal = getenv("TERM");
    lines->brackets = terminal && *terminal && strcmp(terminal, "dumb") != 0 && ht_os_is_terminal(stdout);
    el_set(lines->editor, EL_CLIENTDATA, lines);
    el_set(lines->editor, EL_PROMPT, prompt_text);
    el_set(lines->editor, EL_EDITOR, "emacs");
    el_set(lines->editor, EL_ADDFN, "hetero-paste", "Insert pasted text", insert_paste);
    el_set(lines->editor, EL_BIND, PASTE_BEGIN, "hetero-paste", NULL);
    /* The editor puts the terminal right before a signal ends the program. It would end the input at a Ctrl-C that is
     * ignored, so it does not see signals then. */
    el_set(lines->editor, EL_SIGNAL, !ignored);
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

static char *read_edited(cli_lines *lines, size_t *bytes) {
    int count = 0;
    const char *typed = get_line(lines, &count);
    if (!typed || count <= 0)
        return NULL;
    HistEvent event;
    if (lines->history && typed[strspn(typed, " \r\n")]) {
        history(lines->history, &event, H_ENTER, typed);
        if (*lines->history_path) /* at once: a signal may end the program */
            history(lines->history, &event, H_SAVE, lines->history_path);
    }
    char *line = strdup(typed); /* the editor takes no NUL */
    if (!line)
        return NULL;
    *bytes = without_end(line, strlen(line));
    while (*bytes && line[*bytes - 1] == '\n') /* what was pasted ended a line, and Enter ended another */
        line[--*bytes] = 0;
    return line;
}
#endif

void cli_lines_restore(void) {
#ifdef HETERO_HAVE_LIBEDIT
    if (atomic_load(&marks))
        ht_os_program_say(PASTE_OFF, sizeof PASTE_OFF - 1);
#endif
}

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

char *cli_lines_read(cli_lines *lines, bool more, size_t *bytes) {
    lines->more = more;
#ifdef HETERO_HAVE_LIBEDIT
    if (lines->editor)
        return read_edited(lines, bytes);
#endif
    return read_plain(lines, bytes);
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
