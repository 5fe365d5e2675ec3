/* hetero tokenize: a text as the model sees it, the text of special tokens included unless --no-special: nobody is answered
 * here, so nobody can forge a turn. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>

static int print_json(const ht_model *model, const int32_t *ids, size_t n) {
    json_t *pieces = json_array();
    for (size_t i = 0; i < n; i++) {
        size_t bytes = 0;
        const char *piece = ht_token_text(model, ids[i], true, &bytes);
        json_array_append_new(pieces, piece ? cli_json_text(piece, bytes) : json_null());
    }
    return cli_print_json(json_pack("{s:o, s:o}", "ids", cli_json_ids(ids, n), "pieces", pieces));
}

int cli_tokenize(const cli_options *options) {
    ht_error error;
    cli_text text;
    ht_model *model;
    int status = cli_read_text(options, false, &text);
    if (status != CLI_DONE)
        return status;
    status = cli_open_vocabulary(options, &model);
    if (status == CLI_DONE) {
        int32_t *ids;
        size_t n;
        const unsigned flags =
            options->no_special ? cli_text_flags(options) : HT_TOKENIZE_ADD_SPECIAL | HT_TOKENIZE_PARSE_SPECIAL;
        if (ht_tokenize(model, text.bytes, text.n, flags, &ids, &n, &error)) {
            status = cli_fail(options, &error);
        } else {
            if (options->json)
                status = print_json(model, ids, n);
            for (size_t i = 0; !options->json && i < n; i++) {
                printf("%7d  ", (int)ids[i]);
                cli_print_piece(model, ids[i]);
                putchar('\n');
            }
            ht_free(ids);
        }
        ht_model_close(model);
    }
    free(text.bytes);
    return status;
}
