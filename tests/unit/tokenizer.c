/* Tokenizers: exact against recorded tokenisations of real models, and by rule on vocabularies made here. */
#include "text/vocab.h"
#include "expect_ids.h"
#include "vocab_file.h"

#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <time.h>

#define GOLDEN "tests/golden/golden.json"
#define BOTH (HT_TOKENIZE_ADD_SPECIAL | HT_TOKENIZE_PARSE_SPECIAL)
#define SPACE "\xe2\x96\x81" /* U+2581, SentencePiece's space */

static const struct {
    const char *name, *path;
} models[] = {
    {"smollm2-135m-instruct-q4_1", "models/SmolLM2-135M-Instruct.Q4_1.gguf"},
    {"gemma-3-270m-q4_k_m", "models/gemma-3-270m-q4_k_m.gguf"},
};

static ht_tokenizer *create(const ht_gguf *file) {
    ht_error error;
    ht_tokenizer *t = NULL;
    if (!file || ht_tokenizer_create(file, &t, &error) != HT_OK)
        fail_msg("%s", file ? error.text : "no file");
    return t;
}

#define EXPECT(t, text, special, ...)                                                        \
    do {                                                                                     \
        const int32_t want_[] = {__VA_ARGS__};                                               \
        expect_ids(t, text, sizeof(text) - 1, (special) ? BOTH : 0, want_, HT_COUNT(want_)); \
    } while (0)

static void expect_text(const ht_tokenizer *t, const int32_t *ids, size_t n, bool special, const char *want,
                        size_t bytes) {
    ht_text text = {0};
    ht_error error;
    if (ht_tokenizer_decode(t, ids, n, special, &text, &error) != HT_OK)
        fail_msg("%s", error.text);
    if (text.bytes != bytes || memcmp(text.data, want, bytes) != 0)
        fail_msg("decoded \"%s\" and not \"%s\"", text.data, want);
    ht_text_free(&text);
}

/* ---- recorded tokenisations ---------------------------------------------------------------------------------- */

static size_t read_ids(const json_t *list, int32_t **ids) {
    size_t n = json_array_size(list);
    *ids = calloc(n + 1, sizeof **ids);
    for (size_t i = 0; i < n; i++)
        (*ids)[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return n;
}

static void check_recorded(const ht_tokenizer *t, const json_t *model) {
    size_t i, checked = 0;
    json_t *row;
    json_array_foreach(json_object_get(model, "tokenize"), i, row) {
        const json_t *text = json_object_get(row, "text"), *detok = json_object_get(row, "detok_plain");
        for (int special = 0; special < 2; special++) {
            int32_t *ids;
            size_t n = read_ids(json_object_get(row, special ? "special" : "plain"), &ids);
            expect_ids(t, json_string_value(text), json_string_length(text), special ? BOTH : 0, ids, n);
            if (!special)
                expect_text(t, ids, n, false, json_string_value(detok), json_string_length(detok));
            free(ids);
            checked++;
        }
    }
    assert_true(checked >= 8);
}

static void recorded(void **state) {
    json_error_t why;
    json_t *golden = json_load_file(GOLDEN, 0, &why);
    if (!golden)
        fail_msg(GOLDEN ": %s", why.text);
    size_t seen = 0;
    for (size_t i = 0; i < HT_COUNT(models); i++) {
        if (access(models[i].path, R_OK) != 0) {
            if (must_have("models", models[i].path))
                fail();
            continue;
        }
        ht_gguf *file = NULL;
        ht_error error;
        if (ht_gguf_open(models[i].path, &file, &error) != HT_OK)
            fail_msg("%s", error.text);
        ht_tokenizer *t = create(file);
        check_recorded(t, json_object_get(json_object_get(golden, "models"), models[i].name));
        ht_tokenizer_destroy(t);
        ht_gguf_close(file);
        seen++;
    }
    json_decref(golden);
    if (seen == 0)
        skip();
}

/* Cut into stretches of ours and theirs anywhere, a text in which no special token stands in theirs gives the same
 * tokens. */
static void expect_same_in_parts(const ht_tokenizer *t, const char *text) {
    const size_t bytes = strlen(text);
    int32_t *whole, *ids;
    size_t n_whole, n;
    assert_int_equal(ht_tokenizer_encode(t, text, bytes, 0, &whole, &n_whole, NULL), HT_OK);
    for (size_t a = 0; a <= bytes; a++) {
        for (size_t b = a; b <= bytes; b++) {
            ht_script script = {0};
            const size_t ends[] = {a, b, bytes};
            for (size_t i = 0, at = 0; i < HT_COUNT(ends); at = ends[i++])
                assert_int_equal(ht_script_append(&script, text + at, ends[i] - at, i == 1, NULL), HT_OK);
            assert_int_equal(ht_tokenizer_encode_script(t, &script, 0, &ids, &n, NULL), HT_OK);
            ht_script_free(&script);
            assert_int_equal(n, n_whole);
            assert_true(n == 0 || memcmp(ids, whole, n * sizeof *ids) == 0);
            free(ids);
        }
    }
    free(whole);
}

/* ---- the cut into words -------------------------------------------------------------------------------------- */

typedef struct words {
    char text[512];
    size_t bytes;
} words;

static ht_status add_word(void *user, const char *word, size_t bytes, ht_error *error) {
    words *w = user;
    assert_true(w->bytes + bytes + 1 < sizeof w->text);
    if (w->bytes)
        w->text[w->bytes++] = '|';
    memcpy(w->text + w->bytes, word, bytes);
    w->bytes += bytes;
    return HT_OK;
}

static const struct {
    const char *pre, *text, *words;
} cuts[] = {
    {"gpt-2", "Hello world  it's 12345 ok!!", "Hello| world| | it|'s| 12345| ok|!!"},
    {"gpt-2", "I'LL\t\ta\n\n b ", "I|'|LL|\t|\t|a|\n\n| b| "},
    {"gpt-2", "caf\u00e9\u00a0\u0968x \u4f60\u597d", "caf\u00e9|\u00a0|\u0968|x| \u4f60\u597d"},
    {"gpt-2", "a\u180eb", "a|\u180e|b"}, /* no white space since Unicode 6.3 */
    {"smollm", "x12 345  6 it's", "x|1|2| |3|4|5|  |6| it|'s"},
    {"llama-bpe", "we'Ve 12345 (foo)\r\n\n  bar", "we|'Ve| |123|45| (|foo|)\r\n\n| | bar"},
    {"llama-bpe", "a\n\n  \n  b.c\n", "a|\n\n  \n| | b|.c|\n"},
    {"llama-bpe", "end   ", "end|   "},
    {"qwen2", "we'RE 123 .x", "we|'RE| |1|2|3| .|x"},
    {"tekken", "HelloWorld HTTPServer a/b\n 12", "Hello|World| HTTPServer| a|/b|\n| |1|2"},
    {"qwen2", "ne\u0301e 12", "ne|\u0301e| |1|2"}, /* a mark begins a word */
    {"qwen35", "ne\u0301e 12", "ne\u0301e| |1|2"},
    {"qwen35", "it's //\n a\u0301 !", "it|'s| //\n| a\u0301| !"},
    {"lfm2", "HTTP 1234 it'S\n", "HTTP| |123|4| it|'S|\n"},
    {"tekken", "camelCase it's //\n", "camel|Case| it|'s| //\n"},
    {"llama-bpe",
     "a\xff\xfe\xe4\xbd"
     "b c",
     "a|\xff|\xfe|\xe4|\xbd|b| c"},                                   /* bytes that are no UTF-8 stand alone */
    {"gpt-2", "\xed\xa0\x80 \xc0\xaf", "\xed|\xa0|\x80| |\xc0|\xaf"}, /* a surrogate, an overlong form */
};

static void cut_into_words(void **state) {
    for (size_t i = 0; i < HT_COUNT(cuts); i++) {
        const ht_pretokenizer *pre = ht_pretokenizer_find(cuts[i].pre, strlen(cuts[i].pre));
        assert_non_null(pre);
        pcre2_code *passes[HT_MAX_PASSES] = {0};
        pcre2_match_data *matches[HT_MAX_PASSES] = {0};
        ht_error error;
        if (ht_pretokenizer_compile(pre, passes, &error) != HT_OK)
            fail_msg("%s", error.text);
        for (int p = 0; p < HT_MAX_PASSES && passes[p]; p++)
            matches[p] = pcre2_match_data_create_from_pattern(passes[p], NULL);
        words got = {0};
        assert_int_equal(
            ht_pretokenize(pre, passes, matches, cuts[i].text, strlen(cuts[i].text), add_word, &got, &error), HT_OK);
        got.text[got.bytes] = 0;
        for (int p = 0; p < HT_MAX_PASSES; p++) {
            pcre2_match_data_free(matches[p]);
            pcre2_code_free(passes[p]);
        }
        assert_string_equal(got.text, cuts[i].words);
    }
    assert_null(ht_pretokenizer_find("gpt-", 4));
}

/* ---- byte-level BPE on a vocabulary made here ---------------------------------------------------------------- */

enum { BYTES = 256, BYTE_LEVEL_MORE = 16 };

typedef struct byte_level { /* ids 0..255 are the bytes, 256.. what `more` lists */
    char characters[BYTES][3];
    const char *tokens[BYTES + BYTE_LEVEL_MORE];
    int32_t types[BYTES + BYTE_LEVEL_MORE];
    vocab_file file;
} byte_level;

static const char *byte_level_more[] = {"ab",
                                        "bc",
                                        "abc",
                                        "\xc4\xa0"
                                        "a",
                                        "aa",
                                        "aaaa",
                                        "aaaaaaaa",
                                        "hello",
                                        "<s>",
                                        "<|eot_id|>",
                                        "<tag>",
                                        "<tag>>",
                                        "12",
                                        "\xc3\xa4\xc2\xbd",
                                        "unused",
                                        "xy"};
static const char *byte_level_merges[] = {
    "b c", "a b", "ab c", "\xc4\xa0 a", "a a", "aa aa", "aaaa aaaa", "1 2", "\xc3\xa4 \xc2\xbd", "x z", "x y"};
enum { AB = 256, BC, ABC, SPACE_A, AA, AAAA, AAAAAAAA, HELLO, BOS, EOT, TAG, TAG2, TWELVE, HALF, UNUSED, XY };

static void byte_level_init(byte_level *v, const char *pre) {
    for (int b = 0; b < BYTES; b++) {
        v->characters[b][ht_byte_to_char((uint8_t)b, v->characters[b])] = 0;
        v->tokens[b] = v->characters[b];
        v->types[b] = HT_TOKEN_NORMAL;
    }
    for (int i = 0; i < BYTE_LEVEL_MORE; i++) {
        v->tokens[BYTES + i] = byte_level_more[i];
        v->types[BYTES + i] = HT_TOKEN_NORMAL;
    }
    v->types[BOS] = HT_TOKEN_CONTROL; /* <|eot_id|> is a normal piece here: its text makes it a control token */
    v->types[TAG] = v->types[TAG2] = HT_TOKEN_USER_DEFINED;
    v->types[UNUSED] = HT_TOKEN_UNUSED;
    v->file = (vocab_file){.model = "gpt2",
                           .pre = pre,
                           .tokens = v->tokens,
                           .n_tokens = HT_COUNT(v->tokens),
                           .types = v->types,
                           .n_types = HT_COUNT(v->types),
                           .merges = byte_level_merges,
                           .n_merges = HT_COUNT(byte_level_merges),
                           .ids = {{"tokenizer.ggml.bos_token_id", BOS}}};
}

static void byte_level_bpe(void **state) {
    byte_level v = {0};
    byte_level_init(&v, "gpt-2");
    ht_gguf *file = vocab_open(&v.file, NULL);
    ht_tokenizer *t = create(file);
    assert_string_equal(ht_tokenizer_name(t), "gpt2/gpt-2");
    assert_false(ht_tokenizer_adds_bos(t));
    assert_int_equal(ht_tokenizer_bos(t), BOS);
    assert_int_equal(ht_tokenizer_eos(t), -1);
    assert_true(ht_tokenizer_ends(t, EOT));
    assert_false(ht_tokenizer_ends(t, BOS));
    assert_false(ht_tokenizer_ends(t, -1));
    assert_false(ht_tokenizer_ends(t, 100000));
    EXPECT(t, "abc", false, 'a', BC); /* "b c" is merged first, and nothing joins a and bc */
    EXPECT(t, "abab", false, AB, AB); /* equal ranks: leftmost first */
    EXPECT(t, "aaa a", false, AA, 'a', SPACE_A);
    EXPECT(t, "aaaaaaa", false, AAAA, AA, 'a');
    EXPECT(t, "hello", false, 'h', 'e', 'l', 'l', 'o'); /* a piece, but no merges lead to it */
    EXPECT(t, "xyxz", false, XY, 'x', 'z');             /* the merge x z has no product: ignored */
    EXPECT(t, "\xe4\xbd", false, 0xe4, 0xbd);           /* invalid UTF-8: each byte its own token, merge or not */
    EXPECT(t, "<s>ab<|eot_id|>", true, BOS, AB, EOT);
    EXPECT(t, "<s>", false, '<', 's', '>');
    expect_same_in_parts(t, "ab's  ab\xe4\xbd\xa0\n 12<tag>\xff");
    EXPECT(t, "a<tag>>b<tag>", false, 'a', TAG2, 'b', TAG); /* user-defined ones always, the longest that fits */
    EXPECT(t, "<ta<tag", true, '<', 't', 'a', '<', 't', 'a', 'g');
    expect_ids(t, "", 0, BOTH, &(const int32_t){0}, 0);
    EXPECT(t, "a\0b", false, 'a', 0, 'b');
    const int32_t ids[] = {BOS, SPACE_A, TAG, HALF, UNUSED};
    expect_text(t, ids, HT_COUNT(ids), false, " a<tag>\xe4\xbd", 9);
    expect_text(t, ids, HT_COUNT(ids), true, "<s> a<tag>\xe4\xbdunused", 18);
    size_t bytes = 1;
    assert_null(ht_tokenizer_text(t, -1, true, &bytes));
    assert_int_equal(bytes, 0);
    assert_null(ht_tokenizer_text(t, (int32_t)HT_COUNT(v.tokens), true, &bytes));
    ht_text text = {0};
    ht_error error;
    assert_int_equal(ht_tokenizer_decode(t, &(int32_t){-5}, 1, true, &text, &error), HT_ERROR_ARGUMENT);
    ht_text_free(&text);
    ht_tokenizer_destroy(t);
    ht_gguf_close(file);
}

static void whole_words_and_bos(void **state) {
    byte_level v = {0};
    byte_level_init(&v, "llama-bpe");
    ht_gguf *file = vocab_open(&v.file, NULL);
    ht_tokenizer *t = create(file);
    assert_true(ht_tokenizer_adds_bos(t));
    EXPECT(t, "hello", true, BOS, HELLO);
    EXPECT(t, "abc", false, ABC);
    EXPECT(t, " a", false, SPACE_A);
    EXPECT(t, "unused", false, UNUSED);
    ht_tokenizer_destroy(t);
    ht_gguf_close(file);
    byte_level_init(&v, "llama-bpe");
    v.file.flags[0].key = "tokenizer.ggml.add_bos_token"; /* false: the file has the last word */
    file = vocab_open(&v.file, NULL);
    t = create(file);
    assert_false(ht_tokenizer_adds_bos(t));
    EXPECT(t, "hello", true, HELLO);
    ht_tokenizer_destroy(t);
    ht_gguf_close(file);
}

/* A byte that the vocabulary lacks gives no token, and the rest of the text is unharmed. */
static void byte_without_token(void **state) {
    byte_level v = {0};
    byte_level_init(&v, "gpt-2");
    v.tokens['Z'] = "notz";
    ht_gguf *file = vocab_open(&v.file, NULL);
    ht_tokenizer *t = create(file);
    EXPECT(t, "aZb Z", false, 'a', 'b', ' ');
    ht_tokenizer_destroy(t);
    ht_gguf_close(file);
}

/* ---- SentencePiece on a vocabulary made here ----------------------------------------------------------------- */

enum {
    SP_UNK,
    SP_BOS,
    SP_EOS,
    SP_BYTES,
    SP_A = SP_BYTES + 256,
    SP_B,
    SP_SPACE,
    SP_AB,
    SP_SPACE_A,
    SP_BA,
    SP_EACUTE,
    SP_SPACES,
    SP_S,
    SP_LT,
    SP_GT,
    SP_LTS,
    SP_NEWLINES,
    SP_COUNT
};
static const char *sp_more[] = {"a",         "b", SPACE, "ab", SPACE "a", "ba",  "\xc3\xa9",
                                SPACE SPACE, "s", "<",   ">",  "<s",      "\n\n"};
static const float sp_scores[] = {-10, -11, -9, -2, -1, -2, -12, -0.5f, -13, -13, -13, -3, -5};

typedef struct pieces {
    char bytes[256][8];
    const char *tokens[SP_COUNT];
    int32_t types[SP_COUNT];
    float scores[SP_COUNT];
    vocab_file file;
} pieces;

static void pieces_init(pieces *v) {
    static const char *const first[] = {"<unk>", "<s>", "</s>"};
    for (int i = 0; i < SP_COUNT; i++) {
        v->types[i] = HT_TOKEN_NORMAL;
        if (i < SP_BYTES)
            v->tokens[i] = first[i];
        if (i >= SP_A)
            v->tokens[i] = sp_more[i - SP_A];
        v->scores[i] = i >= SP_A ? sp_scores[i - SP_A] : 0;
    }
    v->types[SP_UNK] = HT_TOKEN_UNKNOWN;
    v->types[SP_BOS] = v->types[SP_EOS] = HT_TOKEN_CONTROL;
    v->types[SP_NEWLINES] = HT_TOKEN_USER_DEFINED;
    for (int b = 0; b < 256; b++) {
        snprintf(v->bytes[b], sizeof v->bytes[b], "<0x%02X>", b);
        v->tokens[SP_BYTES + b] = v->bytes[b];
        v->types[SP_BYTES + b] = HT_TOKEN_BYTE;
    }
    v->file = (vocab_file){.model = "llama",
                           .tokens = v->tokens,
                           .n_tokens = SP_COUNT,
                           .types = v->types,
                           .n_types = SP_COUNT,
                           .scores = v->scores,
                           .n_scores = SP_COUNT};
}

static void sentencepiece(void **state) {
    pieces v = {0};
    pieces_init(&v);
    ht_gguf *file = vocab_open(&v.file, NULL);
    ht_tokenizer *t = create(file);
    assert_string_equal(ht_tokenizer_name(t), "llama/default");
    assert_true(ht_tokenizer_adds_bos(t));
    assert_int_equal(ht_tokenizer_bos(t), SP_BOS);
    assert_true(ht_tokenizer_ends(t, SP_EOS));
    EXPECT(t, "ab", true, SP_BOS, SP_SPACE_A, SP_B); /* the best score wins: U+2581 a before a b */
    EXPECT(t, "bab", false, SP_SPACE, SP_BA, SP_B);  /* equal scores: leftmost */
    EXPECT(t, "  a", false, SP_SPACES, SP_SPACE_A);
    EXPECT(t, "\xc3\xa9\xc3", false, SP_SPACE, SP_EACUTE, SP_BYTES + 0xc3); /* a cut character is bytes */
    EXPECT(t, "\xf0\x9f\x98\x80", false, SP_SPACE, SP_BYTES + 0xf0, SP_BYTES + 0x9f, SP_BYTES + 0x98, SP_BYTES + 0x80);
    /* A space goes before the text and after each special token. */
    EXPECT(t, "<s>a</s>b", true, SP_BOS, SP_SPACE_A, SP_EOS, SP_SPACE, SP_B); /* one BOS */
    EXPECT(t, "a<s>", true, SP_BOS, SP_SPACE_A, SP_BOS);
    expect_same_in_parts(t, "ab  a\xe4\xbd\xa0 b<tag>a");
    EXPECT(t, "<s>", false, SP_SPACE, SP_LTS, SP_GT); /* plain text never becomes a control token by merging */
    EXPECT(t, "\n\n\n", false, SP_NEWLINES, SP_SPACE, SP_BYTES + '\n');
    EXPECT(t, "", true, SP_BOS);
    const int32_t ids[] = {SP_BOS, SP_SPACE_A, SP_SPACE, SP_B, SP_BYTES + 0xf0, SP_UNK};
    expect_text(t, ids, HT_COUNT(ids), false, "a b\xf0", 4); /* without the space that encoding put in front */
    expect_text(t, ids, HT_COUNT(ids), true, "<s>a b\xf0<unk>", 12);
    size_t bytes;
    const char *text = ht_tokenizer_text(t, SP_SPACE_A, false, &bytes);
    assert_int_equal(bytes, 2);
    assert_memory_equal(text, " a", 2);
    ht_tokenizer_destroy(t);
    ht_gguf_close(file);

    pieces_init(&v);
    v.file.flags[0].key = "tokenizer.ggml.add_space_prefix"; /* false, as in Gemma */
    v.tokens[SP_BYTES + 'x'] = "was x";
    file = vocab_open(&v.file, NULL);
    t = create(file);
    EXPECT(t, "ab", false, SP_AB);
    EXPECT(t, "x", false, SP_UNK); /* no byte token: unknown */
    expect_text(t, (int32_t[]){SP_SPACE_A}, 1, false, " a", 2);
    ht_tokenizer_destroy(t);
    ht_gguf_close(file);
}

static void no_byte_no_unknown(void **state) {
    pieces v = {0};
    pieces_init(&v);
    v.tokens[SP_BYTES + '\n'] = "gone";
    v.file.ids[0].key = "tokenizer.ggml.unknown_token_id";
    v.file.ids[0].value = UINT32_MAX;
    ht_gguf *file = vocab_open(&v.file, NULL);
    ht_tokenizer *t = create(file);
    int32_t *ids;
    size_t n;
    ht_error error;
    assert_int_equal(ht_tokenizer_encode(t, "a\n", 2, 0, &ids, &n, &error), HT_ERROR_FORMAT);
    assert_non_null(strstr(error.text, "<0x0A>"));
    ht_tokenizer_destroy(t);
    ht_gguf_close(file);
}

/* ---- any bytes, and much of them ----------------------------------------------------------------------------- */

static uint32_t next_random(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

static void round_trip(void **state) {
    byte_level b = {0};
    pieces p = {0};
    byte_level_init(&b, "llama-bpe");
    pieces_init(&p);
    ht_gguf *files[] = {vocab_open(&b.file, NULL), vocab_open(&p.file, NULL)};
    static const char *const scraps[] = {"a",   "b",     " ",        "  ",       "\n\n", "1",
                                         "<s>", "<tag>", "\xc3\xa9", "\xe4\xbd", "\xff"};
    uint64_t seed = seed_of(7);
    for (size_t f = 0; f < HT_COUNT(files); f++) {
        ht_tokenizer *t = create(files[f]);
        for (int run = 0; run < 2000; run++) {
            char text[64];
            size_t n = 0;
            for (uint32_t parts = next_random(&seed) % 12; parts > 0; parts--) {
                uint32_t pick = next_random(&seed) % (HT_COUNT(scraps) + 4);
                if (pick < HT_COUNT(scraps))
                    n += (size_t)snprintf(text + n, 8, "%s", scraps[pick]);
                else
                    text[n++] = (char)next_random(&seed);
            }
            int32_t *ids;
            size_t n_ids;
            assert_int_equal(ht_tokenizer_encode(t, text, n, 0, &ids, &n_ids, NULL), HT_OK);
            expect_text(t, ids, n_ids, false, text, n);
            free(ids);
        }
        ht_tokenizer_destroy(t);
        ht_gguf_close(files[f]);
    }
}

/* Generous: near-linear takes a fraction of a second, anything quadratic hours. */
static void expect_soon(const ht_tokenizer *t, const char *unit) {
    size_t bytes = 1 << 20, n;
    char *text = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        text[i] = unit[i % strlen(unit)];
    int32_t *ids;
    const clock_t start = clock(); /* of the processor: a busy machine is no fault */
    assert_int_equal(ht_tokenizer_encode(t, text, bytes, BOTH, &ids, &n, NULL), HT_OK);
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (seconds > 10)
        fail_msg("%s: 1 MiB of \"%s\" took %.1f s", ht_tokenizer_name(t), unit, seconds);
    free(ids);
    free(text);
}

static const char *const units[] = {"a", "ab", " ", " a", "\n", "1", "\xe4\xbd\xa0", "\xff", "<tag", "<s><s"};

static void a_megabyte(void **state) {
    static const char *const pres[] = {"gpt-2", "smollm", "llama-bpe", "qwen2", "tekken"};
    for (size_t i = 0; i <= HT_COUNT(pres); i++) {
        byte_level b = {0};
        pieces p = {0};
        byte_level_init(&b, i < HT_COUNT(pres) ? pres[i] : NULL);
        pieces_init(&p);
        ht_gguf *file = vocab_open(i < HT_COUNT(pres) ? &b.file : &p.file, NULL);
        ht_tokenizer *t = create(file);
        for (size_t u = 0; u < HT_COUNT(units); u++)
            expect_soon(t, units[u]);
        ht_tokenizer_destroy(t);
        ht_gguf_close(file);
    }
}

static void thousands_of_special_tokens(void **state) {
    enum { N = 6000 };
    static char names[N][16];
    static const char *tokens[SP_COUNT + N];
    static int32_t types[SP_COUNT + N];
    static float scores[SP_COUNT + N];
    pieces v = {0};
    pieces_init(&v);
    memcpy(tokens, v.tokens, sizeof v.tokens);
    memcpy(types, v.types, sizeof v.types);
    memcpy(scores, v.scores, sizeof v.scores);
    for (int i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "<unused%d>", i);
        tokens[SP_COUNT + i] = names[i];
        types[SP_COUNT + i] = HT_TOKEN_CONTROL;
    }
    v.file.tokens = tokens, v.file.types = types, v.file.scores = scores;
    v.file.n_tokens = v.file.n_types = v.file.n_scores = SP_COUNT + N;
    ht_gguf *file = vocab_open(&v.file, NULL);
    ht_tokenizer *t = create(file);
    EXPECT(t, "<unused1><unused12>", true, SP_BOS, SP_COUNT + 1, SP_COUNT + 12);
    expect_soon(t, "<unused123");
    expect_soon(t, "<");
    expect_soon(t, "<unused5999>");
    ht_tokenizer_destroy(t);
    ht_gguf_close(file);
}

/* ---- hostile vocabularies ------------------------------------------------------------------------------------ */

/* Each changes one thing of a right file; the error has to name it. */
static void expect_refused(const vocab_file *file, ht_status status, const char *named) {
    ht_error error = {0};
    ht_gguf *gguf = vocab_open(file, &error);
    if (!gguf)
        fail_msg("the reader refused the file: %s", error.text);
    ht_tokenizer *t = NULL;
    ht_status got = ht_tokenizer_create(gguf, &t, &error);
    if (got != status || !strstr(error.text, named) || strchr(error.text, '\n'))
        fail_msg("wanted an error that names \"%s\", got %s: %s", named, ht_status_name(got), error.text);
    assert_null(t);
    ht_gguf_close(gguf);
}

#define REFUSED(init, vocabulary, status, named, ...)    \
    do {                                                 \
        init;                                            \
        __VA_ARGS__;                                     \
        expect_refused(&vocabulary.file, status, named); \
    } while (0)
#define BAD_BPE(named, ...) REFUSED(byte_level_init(&b, "gpt-2"), b, HT_ERROR_FORMAT, named, __VA_ARGS__)
#define BAD_SP(named, ...) REFUSED(pieces_init(&p), p, HT_ERROR_FORMAT, named, __VA_ARGS__)

static void hostile_vocabularies(void **state) {
    static byte_level b;
    static pieces p;
    static char huge[HT_MAX_PIECE_BYTES + 2];
    memset(huge, 'q', sizeof huge - 1);
    static const char *no_space[] = {"a b", "ab"};
    static const char *only_space[] = {" "};
    /* such a file opens without a tokenizer */
    REFUSED(byte_level_init(&b, "gpt-2"), b, HT_ERROR_UNSUPPORTED, "tokenizer.ggml.model", b.file.model = NULL);
    BAD_BPE("tokenizer.ggml.tokens", b.file.tokens = NULL);
    BAD_BPE("tokenizer.ggml.tokens", b.file.n_tokens = 0);
    BAD_BPE("tokenizer.ggml.tokens", b.file.bad_kind = "tokenizer.ggml.tokens");
    BAD_BPE("tokenizer.ggml.merges", b.file.merges = NULL);
    BAD_BPE("tokenizer.ggml.merges", b.file.bad_kind = "tokenizer.ggml.merges");
    BAD_BPE("tokenizer.ggml.merges[1]", b.file.merges = no_space, b.file.n_merges = 2);
    BAD_BPE("tokenizer.ggml.merges[0]", b.file.merges = only_space, b.file.n_merges = 1);
    BAD_BPE("tokenizer.ggml.token_type", b.file.n_types = 3);
    BAD_BPE("tokenizer.ggml.token_type", b.file.bad_kind = "tokenizer.ggml.token_type");
    BAD_BPE("eos_token_ids", b.file.ends = (int32_t[]){5, 9999}, b.file.n_ends = 2);
    BAD_BPE("eos_token_ids", b.file.ends = (int32_t[]){-1}, b.file.n_ends = 1);
    BAD_BPE("eos_token_ids", b.file.ends = (int32_t[]){5}, b.file.n_ends = 1,
            b.file.bad_kind = "tokenizer.ggml.eos_token_ids");
    BAD_BPE("tokenizer.ggml.tokens[256]", b.tokens[AB] = huge);
    BAD_BPE("tokenizer.ggml.bos_token_id", b.file.ids[0].value = (uint32_t)HT_COUNT(b.tokens));
    BAD_BPE("tokenizer.ggml.eos_token_id", b.file.ids[1].key = "tokenizer.ggml.eos_token_id",
            b.file.ids[1].value = 99999);
    BAD_BPE("tokenizer.ggml.eot_token_id", b.file.ids[1].key = "tokenizer.ggml.eot_token_id",
            b.file.ids[1].value = 1u << 31);
    BAD_BPE("tokenizer.ggml.add_bos_token", b.file.ids[0].key = NULL,
            b.file.flags[0].key = "tokenizer.ggml.add_bos_token", b.file.flags[0].value = true);
    REFUSED(byte_level_init(&b, "no-such\npre"), b, HT_ERROR_UNSUPPORTED, "no-such?pre", (void)0);
    REFUSED(byte_level_init(&b, "gpt-2"), b, HT_ERROR_UNSUPPORTED, "no-such", b.file.model = "no-such");
    BAD_SP("tokenizer.ggml.scores", p.file.scores = NULL);
    BAD_SP("tokenizer.ggml.scores", p.file.n_scores = SP_COUNT - 1);
    BAD_SP("tokenizer.ggml.scores", p.file.bad_kind = "tokenizer.ggml.scores");
    BAD_SP("tokenizer.ggml.scores[5]", p.scores[5] = NAN);
    BAD_SP("tokenizer.ggml.add_space_prefix", p.file.flags[0].key = "tokenizer.ggml.add_space_prefix",
           p.file.bad_kind = "tokenizer.ggml.add_space_prefix");
}

/* Odd, but no reason to refuse: empty pieces, pieces of nonsense, one token, infinite scores, types out of range. */
static void odd_vocabularies(void **state) {
    byte_level b = {0};
    byte_level_init(&b, "default");
    b.tokens[UNUSED] = b.tokens[XY] = "";
    b.tokens[HALF] = "\xff\xfe \xf0\x9f";
    b.types[AB] = 77, b.types[BC] = -3;
    ht_gguf *file = vocab_open(&b.file, NULL);
    ht_tokenizer *t = create(file);
    EXPECT(t, "ab", false, AB);
    expect_text(t, (int32_t[]){XY, HALF}, 2, true, "\xff\xfe \xf0\x9f", 5);
    ht_tokenizer_destroy(t);
    ht_gguf_close(file);

    pieces p = {0};
    pieces_init(&p);
    p.scores[SP_AB] = -INFINITY, p.scores[SP_BA] = INFINITY;
    p.tokens[SP_BYTES] = "<0xG1>"; /* a byte token that names no byte */
    file = vocab_open(&p.file, NULL);
    t = create(file);
    EXPECT(t, "bab", false, SP_SPACE, SP_BA, SP_B);
    expect_text(t, (int32_t[]){SP_B, SP_BYTES}, 2, false, "b<0xG1>", 7);
    ht_tokenizer_destroy(t);
    ht_gguf_close(file);

    pieces_init(&p);
    p.file.n_tokens = 1; /* the default ids 1 and 2 are not there */
    file = vocab_open(&p.file, NULL);
    t = create(file);
    assert_false(ht_tokenizer_adds_bos(t));
    assert_int_equal(ht_tokenizer_bos(t), -1);
    EXPECT(t, "a", true, 0); /* a row of unknown characters is one token */
    ht_tokenizer_destroy(t);
    ht_gguf_close(file);
}

/* Every token that can end an answer, whatever the file says of it. */
static void ends_of_answers(void **state) {
    byte_level b = {0};
    byte_level_init(&b, "gpt-2");
    b.file.ends = (int32_t[]){AB, BC};
    b.file.n_ends = 2;
    b.tokens[HELLO] = "</s>", b.types[HELLO] = HT_TOKEN_USER_DEFINED;
    b.tokens[TAG] = "<|end|>";
    b.tokens[TAG2] = "<|im_start|>";
    b.tokens[XY] = "<eos>"; /* an ordinary piece: text like any other */
    ht_gguf *file = vocab_open(&b.file, NULL);
    ht_tokenizer *t = create(file);
    const int32_t ends[] = {AB, BC, EOT, HELLO, TAG}, others[] = {ABC, BOS, TAG2, XY};
    for (size_t i = 0; i < HT_COUNT(ends); i++)
        assert_true(ht_tokenizer_ends(t, ends[i]));
    for (size_t i = 0; i < HT_COUNT(others); i++)
        assert_false(ht_tokenizer_ends(t, others[i]));
    EXPECT(t, "<|end|>", true, TAG);
    assert_int_equal(ht_tokenizer_special(t, "</s>"), HELLO);
    assert_int_equal(ht_tokenizer_special(t, "ab"), -1);
    EXPECT(t, "<|im_start|>", false, '<', '|', 'i', 'm', '_', 's', 't', 'a', 'r', 't', '|',
           '>'); /* user-defined or not */
    ht_tokenizer_destroy(t);
    ht_gguf_close(file);

    b.tokens[XY] = "<b>", b.types[XY] = HT_TOKEN_USER_DEFINED; /* HTML's tags: </s> is one of them, as in Gemma */
    b.tokens[UNUSED] = "<|return|>", b.types[UNUSED] = HT_TOKEN_CONTROL;
    file = vocab_open(&b.file, NULL);
    t = create(file);
    assert_false(ht_tokenizer_ends(t, HELLO));
    assert_false(ht_tokenizer_ends(t, TAG)); /* <|end|>, where <|return|> ends */
    assert_true(ht_tokenizer_ends(t, UNUSED));
    ht_tokenizer_destroy(t);
    ht_gguf_close(file);
}

/* Of equal pieces the first counts, an ordinary one before a special one. */
static void pieces_twice(void **state) {
    byte_level b = {0};
    byte_level_init(&b, "gpt-2");
    b.tokens[BC] = "ab";
    b.tokens[BOS] = "xy";
    b.types[TWELVE] = HT_TOKEN_CONTROL; /* by a merge, too */
    ht_gguf *file = vocab_open(&b.file, NULL);
    ht_tokenizer *t = create(file);
    EXPECT(t, "ab", false, AB);
    EXPECT(t, "xy", false, XY);
    EXPECT(t, "xy", true, BOS);
    EXPECT(t, "12", false, '1', '2');
    EXPECT(t, "12", true, TWELVE);
    ht_tokenizer_destroy(t);
    ht_gguf_close(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded),
        cmocka_unit_test(cut_into_words),
        cmocka_unit_test(byte_level_bpe),
        cmocka_unit_test(whole_words_and_bos),
        cmocka_unit_test(byte_without_token),
        cmocka_unit_test(sentencepiece),
        cmocka_unit_test(no_byte_no_unknown),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(a_megabyte),
        cmocka_unit_test(thousands_of_special_tokens),
        cmocka_unit_test(hostile_vocabularies),
        cmocka_unit_test(odd_vocabularies),
        cmocka_unit_test(ends_of_answers),
        cmocka_unit_test(pieces_twice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
