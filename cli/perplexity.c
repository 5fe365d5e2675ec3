/* hetero perplexity: how well a model predicts a text, and how far from exact arithmetic. */
#include "cli.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int print_result(const cli_options *options, const ht_perplexity_result *result) {
    bool reference = result->has_reference;
    if (options->json)
        return cli_print_json(json_pack(
            "{s:o, s:I, s:o, s:o, s:o, s:o}", "perplexity", cli_json_real(result->perplexity), "tokens",
            (json_int_t)result->tokens, "reference_perplexity",
            cli_json_real(reference ? result->reference_perplexity : NAN), "kl_mean",
            cli_json_real(reference ? result->kl_mean : NAN), "kl_max", cli_json_real(reference ? result->kl_max : NAN),
            "top1_agreement", cli_json_real(reference ? result->top1_agreement : NAN)));
    printf("perplexity %.4f over %llu tokens\n", result->perplexity, (unsigned long long)result->tokens);
    if (reference)
        printf("exact      %.4f; KL divergence: mean %.6f, max %.6f nats; same top token: %.2f%%\n",
               result->reference_perplexity, result->kl_mean, result->kl_max, 100 * result->top1_agreement);
    return CLI_DONE;
}

static int measure(const cli_options *options, ht_model *model, const cli_text *text) {
    ht_error error;
    cli_session session, reference = {0};
    cli_setting setting = cli_setting_of(options);
    cli_expect(&setting, 512); /* its windows; a shorter context or text needs shorter graphs */
    int status = cli_open_session(options, &setting, model, &session);
    if (status != CLI_DONE)
        return status;
    if (options->reference.n) {
        setting.precision = cli_last(&options->reference);
        status = cli_open_session(options, &setting, model, &reference);
    }
    if (status == CLI_DONE) {
        ht_perplexity_result result;
        ht_status measured = ht_perplexity(session.session, reference.session, text->bytes, text->n, cli_progress,
                                           (void *)options, &result, &error);
        cli_progress_clear();
        status = measured ? cli_fail(options, &error) : print_result(options, &result);
    }
    cli_close_session(&reference);
    cli_close_session(&session);
    return status;
}

int cli_perplexity(const cli_options *options) {
    cli_text text;
    ht_model *model;
    int status = cli_read_text(options, true, &text);
    if (status != CLI_DONE)
        return status;
    status = cli_open_model(options, &model);
    if (status == CLI_DONE) {
        status = measure(options, model, &text);
        ht_model_close(model);
    }
    free(text.bytes);
    return status;
}
