/* hetero score: how probable a model finds given tokens. */
#include "cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The tokens of --ids, -p or -f: *ids from malloc or the library, which ht_free releases alike. */
static int read_ids(const cli_options *options, const ht_model *model, int32_t **ids, size_t *n) {
    if (options->ids.n && (options->prompt.n || options->file.n))
        return cli_wrong(options->command, "--ids cannot be combined with -p or -f");
    if (!options->ids.n) {
        cli_text text;
        int status = cli_read_text(options, false, &text);
        if (status == CLI_DONE)
            status = cli_tokens_of(options, model, &text, ids, n);
        free(text.bytes);
        return status;
    }
    *n = options->ids.n;
    *ids = malloc(*n * sizeof **ids);
    if (!*ids) {
        return cli_no_memory(options->command);
    }
    for (size_t i = 0; i < *n; i++)
        (*ids)[i] = (int32_t)options->ids.at[i];
    return CLI_DONE;
}

static void print_table(const ht_model *model, const int32_t *ids, size_t n, const float *logprobs,
                        const ht_token_logprob *top, size_t n_top) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (isfinite(logprobs[i]))
            printf("%7d  %10.4f  ", (int)ids[i], logprobs[i]);
        else /* the first one follows nothing */
            printf("%7d  %10s  ", (int)ids[i], "-");
        cli_print_piece(model, ids[i]);
        for (size_t k = 0; k < n_top; k++) {
            printf("%s%d %.4f ", k ? ", " : "  next: ", (int)top[i * n_top + k].id, top[i * n_top + k].logprob);
            cli_print_piece(model, top[i * n_top + k].id);
        }
        putchar('\n');
        if (isfinite(logprobs[i]))
            sum += logprobs[i];
    }
    if (n < 2)
        puts("one token: too few to score, for each is scored behind those before it");
    else
        printf("sum %.4f nats, mean %.4f over %zu tokens\n", sum, sum / (double)(n - 1), n - 1);
}

static json_t *logprobs_json(const float *logprobs, size_t n) {
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, cli_json_real(logprobs[i]));
    return list;
}

static int score(const cli_options *options, ht_model *model, ht_session *session, const int32_t *ids, size_t n) {
    ht_error error = {HT_ERROR_MEMORY, "out of memory"};
    size_t n_top = (size_t)options->top;
    float *logprobs = malloc((n + 1) * sizeof *logprobs); /* never 0 bytes */
    ht_token_logprob *top = n_top ? malloc(n * n_top * sizeof *top) : NULL;
    int status = CLI_DONE;
    if (!logprobs || (n_top && !top) ||
        ht_session_score(session, ids, n, (int)options->chunk, logprobs, n_top, top, &error)) {
        status = cli_fail(options, &error);
    } else if (options->json) {
        json_t *object = json_pack("{s:o, s:o}", "ids", cli_json_ids(ids, n), "logprobs", logprobs_json(logprobs, n));
        if (object && n_top)
            json_object_set_new(object, "top", cli_json_top(top, n, n_top));
        status = cli_print_json(object);
    } else {
        print_table(model, ids, n, logprobs, top, n_top);
    }
    free(logprobs);
    free(top);
    return status;
}

int cli_score(const cli_options *options) {
    ht_model *model;
    int32_t *ids = NULL;
    size_t n = 0;
    int status = cli_open_model(options, &model);
    if (status != CLI_DONE)
        return status;
    status = read_ids(options, model, &ids, &n);
    if (status == CLI_DONE) {
        cli_session session;
        cli_setting setting = cli_setting_of(options);
        if (options->chunk && (int64_t)n > options->chunk) { /* whole chunks, and what is left */
            cli_expect(&setting, options->chunk);
            cli_expect(&setting, (int64_t)n % options->chunk);
        } else {
            cli_expect(&setting, (int64_t)n);
        }
        status = cli_open_session(options, &setting, model, &session);
        if (status == CLI_DONE) {
            status = score(options, model, session.session, ids, n);
            cli_close_session(&session);
        }
        ht_free(ids);
    }
    ht_model_close(model);
    return status;
}
