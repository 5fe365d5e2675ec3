/* JSON and text as the commands print them. */
#include "cli.h"

#include "base/os.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int holds; /* as many cli_release_output are to come */

void cli_hold_output(void) {
    holds++;
    ht_os_program_hold_output();
}

void cli_release_output(void) {
    holds--;
    ht_os_program_release_output();
}

int cli_print_json(json_t *object) {
    if (!object) {
        fprintf(stderr, "hetero: out of memory while writing JSON\n");
        return CLI_FAILED;
    }
    const int before = holds;
    while (holds > 0)
        cli_release_output();
    /* Nine digits tell every float32 from its neighbours. */
    int failed = json_dumpf(object, stdout, JSON_REAL_PRECISION(9));
    putchar('\n');
    fflush(stdout);
    while (holds < before) /* libraries that are unloaded at the end have their say, too */
        cli_hold_output();
    json_decref(object);
    return failed ? CLI_FAILED : CLI_DONE;
}

int cli_print_text(char *json) {
    json_t *object = json_loads(json, 0, NULL);
    ht_free(json);
    return cli_print_json(object);
}

json_t *cli_json_real(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

/* Bytes of the character at text[0..bytes), bytes > 0; 0: none (overlong, surrogate, past U+10FFFF, cut off). */
static size_t character_length(const char *text, size_t bytes) {
    const unsigned char *byte = (const unsigned char *)text;
    size_t length = byte[0] < 0x80   ? 1
                    : byte[0] < 0xC2 ? 0
                    : byte[0] < 0xE0 ? 2
                    : byte[0] < 0xF0 ? 3
                    : byte[0] < 0xF5 ? 4
                                     : 0;
    if (length > bytes)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((byte[i] & 0xC0) != 0x80)
            return 0;
    if ((byte[0] == 0xE0 && byte[1] < 0xA0) || (byte[0] == 0xED && byte[1] > 0x9F) ||
        (byte[0] == 0xF0 && byte[1] < 0x90) || (byte[0] == 0xF4 && byte[1] > 0x8F))
        return 0;
    return length;
}

size_t cli_utf8_valid_up_to(const char *text, size_t bytes) {
    size_t at = 0;
    for (size_t length; at < bytes && (length = character_length(text + at, bytes - at)); at += length) {}
    return at;
}

json_t *cli_json_text(const char *text, size_t bytes) {
    size_t valid = cli_utf8_valid_up_to(text, bytes);
    if (valid == bytes)
        return json_stringn(text, bytes);
    char *clean = malloc(3 * bytes);
    if (!clean)
        return NULL;
    size_t n = 0;
    for (size_t i = 0; i < bytes;) {
        size_t length = character_length(text + i, bytes - i);
        memcpy(clean + n, length ? text + i : "\xEF\xBF\xBD", length ? length : 3);
        n += length ? length : 3;
        i += length ? length : 1;
    }
    json_t *string = json_stringn(clean, n);
    free(clean);
    return string;
}

json_t *cli_json_ids(const int32_t *ids, size_t n) {
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_integer(ids[i]));
    return list;
}

json_t *cli_json_top(const ht_token_logprob *top, size_t rows, size_t n_top) {
    json_t *list = json_array();
    for (size_t i = 0; i < rows; i++) {
        json_t *row = json_array();
        for (size_t k = 0; k < n_top; k++, top++)
            json_array_append_new(row,
                                  json_pack("{s:i, s:o}", "id", (int)top->id, "logprob", cli_json_real(top->logprob)));
        json_array_append_new(list, row);
    }
    return list;
}

json_t *cli_json_devices(const ht_engine_info *info) {
    json_t *list = json_array();
    for (size_t i = 0; i < info->n_devices; i++)
        json_array_append_new(list, cli_json_text(info->devices[i], strlen(info->devices[i])));
    return list;
}

void cli_print_piece(const ht_model *model, int32_t id) {
    size_t bytes = 0;
    const char *text = ht_token_text(model, id, true, &bytes);
    if (!text) /* no tokenizer, or a row of the embedding that it has no token for */
        return;
    putchar('"');
    for (size_t i = 0; i < bytes;) {
        size_t length = character_length(text + i, bytes - i);
        unsigned char byte = (unsigned char)text[i];
        if (byte == '\n')
            fputs("\\n", stdout);
        else if (byte == '\t')
            fputs("\\t", stdout);
        else if (byte == '"' || byte == '\\')
            printf("\\%c", byte);
        else if (!length || byte < 0x20 || byte == 0x7F)
            printf("\\x%02x", byte);
        else
            fwrite(text + i, 1, length, stdout);
        i += length ? length : 1;
    }
    putchar('"');
}
