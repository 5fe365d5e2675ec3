/* The kinds of vocabulary that are neither byte-level BPE nor plain SentencePiece: by rule on vocabularies made here. */
#include "vocab_kinds.h"
#include "expect_ids.h"

#include <math.h>
#include <stdint.h>
#include <time.h>

#define BOTH (HT_TOKENIZE_ADD_SPECIAL | HT_TOKENIZE_PARSE_SPECIAL)

static ht_tokenizer *create(const ht_gguf *file) {
    ht_error error;
    ht_tokenizer *t = NULL;
    if (!file || ht_tokenizer_create(file, &t, &error) != HT_OK)
        fail_msg("%s", file ? error.text : "no file");
    return t;
}

typedef struct opened {
    vocab_kind v;
    ht_gguf *file;
    ht_tokenizer *t;
} opened;

static void open_it(opened *o) {
    o->file = vocab_open(&o->v.file, NULL);
    o->t = create(o->file);
}

static void open_kind(opened *o, const char *model) {
    vocab_kind_init(&o->v, model);
    open_it(o);
}

static void close_it(opened *o) {
    ht_tokenizer_destroy(o->t);
    ht_gguf_close(o->file);
}

#define EXPECT(t, text, flags, ...)                                           \
    do {                                                                      \
        const int32_t want_[] = {__VA_ARGS__};                                \
        expect_ids(t, text, sizeof(text) - 1, flags, want_, HT_COUNT(want_)); \
    } while (0)

static void expect_back(const ht_tokenizer *t, const char *text, size_t bytes, const char *want) {
    int32_t *ids;
    size_t n;
    ht_text out = {0};
    assert_int_equal(ht_tokenizer_encode(t, text, bytes, 0, &ids, &n, NULL), HT_OK);
    assert_int_equal(ht_tokenizer_decode(t, ids, n, false, &out, NULL), HT_OK);
    assert_string_equal(out.data, want);
    ht_text_free(&out);
    free(ids);
}

/* ---- unigram ------------------------------------------------------------------------------------------------- */

static void unigram(void **state) {
    opened o;
    vocab_kind_init(&o.v, "t5");
    for (int i = 0; i < 256; i++) /* without bytes a character that no piece covers is unknown */
        o.v.types[i] = HT_TOKEN_UNUSED, snprintf(o.v.bytes[i], sizeof o.v.bytes[i], "[%d]", i);
    open_it(&o);
    assert_string_equal(ht_tokenizer_name(o.t), "t5/default");
    EXPECT(o.t, "ab", BOTH, K_SPACE_AB, K_END); /* -7 beats -4.5 - 5 and -3 - 4 - its tie: the first found stays */
    EXPECT(o.t, "bab", 0, K_SPACE, K_B, K_AB);  /* -3 - 5 - 4, where the piece is -3 - 12 */
    EXPECT(o.t, "a b", 0, K_SPACE_A, K_SPACE, K_B);
    EXPECT(o.t, "aXYb", 0, K_SPACE_A, K_UNKNOWN, K_B); /* a row of unknown characters is one token */
    EXPECT(o.t, "X<tag>Y", 0, K_SPACE, K_UNKNOWN, K_TAG, K_SPACE, K_UNKNOWN);
    EXPECT(o.t, "<s>a", 0, K_SPACE, K_UNKNOWN, K_A); /* written by a user it is text */
    EXPECT(o.t, "<s>a", HT_TOKENIZE_PARSE_SPECIAL, K_BEGIN, K_SPACE_A);
    EXPECT(o.t,
           "\xff"
           "a",
           0, K_SPACE, K_UNKNOWN, K_A);
    EXPECT(o.t, "", BOTH, K_END);
    expect_back(o.t, "ab a, b", 7, "ab a, b");
    close_it(&o);
    open_kind(&o, "t5"); /* with them it is its bytes */
    EXPECT(o.t, "aX\xc3\xa9\xc3", 0, K_SPACE_A, 'X', K_E_ACUTE, 0xc3);
    expect_back(o.t, "a\xf0\x9f\xa6\x99 X\t", 8, "a\xf0\x9f\xa6\x99 X\t");
    close_it(&o);
}

/* What the file replaces, and spaces that are one. */
static void replacements(void **state) {
    static const char *const models[] = {"t5", "llama"};
    for (size_t i = 0; i < HT_COUNT(models); i++) {
        opened o;
        vocab_kind_init(&o.v, models[i]);
        vocab_charsmap(&o.v);
        o.v.file.flags[0].key = "tokenizer.ggml.remove_extra_whitespaces";
        o.v.file.flags[0].value = true;
        open_it(&o);
        EXPECT(o.t, "  a \t b  ", 0, K_SPACE_A, K_SPACE, K_B);
        EXPECT(o.t, ",\xef\xac\x81", 0, K_SPACE, K_COMMA, K_FI);
        EXPECT(o.t,
               "a\xe2\x80\x8b"
               "b",
               0, K_SPACE_AB);
        close_it(&o);
    }
}

/* ---- WordPiece ----------------------------------------------------------------------------------------------- */

static void wordpiece(void **state) {
    opened o;
    char word[128];
    open_kind(&o, "bert");
    EXPECT(o.t, "AB a", BOTH, K_BEGIN, K_SPACE_AB, K_SPACE_A, K_END);
    EXPECT(o.t, "aab", 0, K_SPACE_A, K_AB); /* the longest piece at each place */
    EXPECT(o.t, "ab,,\xc3\xa1 b", 0, K_SPACE_AB, K_COMMA, K_COMMA, K_SPACE_A, K_UNKNOWN); /* b begins no word */
    EXPECT(o.t,
           "a\xcc\x81\xe2\x80\x8b"
           "a\x7f",
           0, K_SPACE_A, K_A); /* marks, format and control characters go */
    EXPECT(o.t,
           "a\xe4\xbd\xa0"
           "a",
           0, K_SPACE_A, K_UNKNOWN, K_SPACE_A);   /* Chinese stands apart */
    EXPECT(o.t, "a" MARK "a", 0, K_UNKNOWN);      /* the file's mark in a text is no mark */
    EXPECT(o.t, "ax a", 0, K_UNKNOWN, K_SPACE_A); /* a word with an unknown part is unknown */
    EXPECT(o.t, "[CLS] <s>", 0, K_UNKNOWN, K_UNKNOWN, K_UNKNOWN, K_UNKNOWN, K_UNKNOWN, K_UNKNOWN);
    EXPECT(o.t, "a<s>a", HT_TOKENIZE_PARSE_SPECIAL, K_SPACE_A, K_BEGIN, K_SPACE_A);
    memset(word, 'a', sizeof word);
    expect_ids(o.t, word, 101, 0, (int32_t[]){K_UNKNOWN}, 1);
    int32_t want[100] = {K_SPACE_A};
    for (int i = 1; i < 100; i++)
        want[i] = K_A;
    expect_ids(o.t, word, 100, 0, want, 100);
    expect_back(o.t, " Ab,A", 5, "ab , a"); /* in lower case, signs apart: what BERT keeps of a text */
    close_it(&o);
    vocab_kind_init(&o.v, "bert");
    o.v.file.flags[0].key = "tokenizer.ggml.normalizer.lowercase"; /* false: accents stay, too */
    open_it(&o);
    EXPECT(o.t, "A a\xc3\xa9", 0, K_UNKNOWN, K_SPACE_A, K_E_ACUTE);
    close_it(&o);
}

/* ---- the rest ------------------------------------------------------------------------------------------------ */

static void plamo2(void **state) {
    opened o;
    vocab_kind_init(&o.v, "plamo2");
    o.v.scores[K_COMMA] = NAN; /* never taken */
    open_it(&o);
    EXPECT(o.t, "ab", BOTH, K_AB);
    EXPECT(o.t, "bab", 0, K_B, K_AB);
    EXPECT(o.t, "a,\xf0\x9f\xa6\x99", 0, K_A, ',', 0xf0, 0x9f, 0xa6, 0x99);
    EXPECT(o.t,
           "\xef\xbb\xbf"
           "a",
           0, K_A);
    EXPECT(o.t,
           "\xff"
           "a<s>",
           0, 0xff, K_A, '<', 's', '>');
    EXPECT(o.t, "a<s>", HT_TOKENIZE_PARSE_SPECIAL, K_A, K_BEGIN);
    expect_back(o.t, " ab" MARK "\xff", 7, " ab" MARK "\xff");
    close_it(&o);
}

static void greedy(void **state) {
    opened o;
    open_kind(&o, "rwkv");
    EXPECT(o.t, "abab", BOTH, K_AB, K_AB);
    EXPECT(o.t, "bab abX", 0, K_BAB, K_SPACE_AB, 'X');
    EXPECT(o.t, "\n\n\n<s>\xff", 0, K_NEWLINES, '\n', '<', 's', '>', 0xff);
    EXPECT(o.t, "a<s>", HT_TOKENIZE_PARSE_SPECIAL, 'a', K_BEGIN);
    expect_back(o.t, " ab\n\n" MARK "\xff", 9, " ab\n\n" MARK "\xff");
    close_it(&o);
}

static void characters(void **state) {
    opened o;
    open_kind(&o, "gemma4");
    EXPECT(o.t, " ab", BOTH, K_BEGIN, K_SPACE, K_AB); /* by rank: a b first */
    EXPECT(o.t, "a a", 0, K_A, K_SPACE_A);
    EXPECT(o.t, "a\n\n\n\nX", 0, K_A, '\n', '\n', '\n', '\n', 'X'); /* no piece is four of them */
    EXPECT(o.t, "a\n\nX\xff<s>", 0, K_A, K_NEWLINES, 'X', 0xff, '<', 's', '>');
    EXPECT(o.t, "a<s>", HT_TOKENIZE_PARSE_SPECIAL, K_A, K_BEGIN);
    expect_back(o.t, " ab\n\n\xff b", 8, " ab\n\n\xff b");
    close_it(&o);
}

/* Composed where the model's own tokenizer does it, with marks in whatever order, and however many. */
static void composed(void **state) {
    static const struct {
        const char *text, *want;
    } rows[] = {{"e\xcc\x81", "\xc3\xa9"},
                {"\xff"
                 "e\xcc\x81\xff\xcc\x81",
                 "\xff\xc3\xa9\xff\xcc\x81"},
                {"a\xcc\x81\xcc\xa3", "\xe1\xba\xa1\xcc\x81"}, /* the mark below first */
                {"\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "\xed\x95\x9c"},
                {"\xe2\x84\xab", "\xc3\x85"},
                {"\xc5\x93 plain", "\xc5\x93 plain"}};
    ht_text out = {0};
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        out.bytes = 0;
        assert_int_equal(ht_normalise_nfc(rows[i].text, strlen(rows[i].text), &out, NULL), HT_OK);
        assert_string_equal(out.data, rows[i].want);
    }
    ht_text_free(&out);
}

static void stripped(void **state) {
    opened o;
    vocab_kind_init(&o.v, "llama");
    o.v.file.name = "My Phi-3 mini";
    open_it(&o);
    EXPECT(o.t, "</s> \n a<s> a", BOTH, K_BEGIN, K_END, K_SPACE_A, K_BEGIN, K_SPACE, K_SPACE_A);
    close_it(&o);
    vocab_kind_init(&o.v, "t5");
    o.v.file.arch = "nomic-bert-moe";
    o.v.tokens[K_TAG] = "<mask>";
    open_it(&o);
    EXPECT(o.t, "a \n<mask> a", 0, K_SPACE_A, K_TAG, K_SPACE, K_SPACE_A);
    close_it(&o);
}

static const char *const models[] = {"t5", "bert", "plamo2", "rwkv", "gemma4", "whitespace", "llama"};

/* What a user writes never becomes a control token, wherever the stretches begin and end. */
static void foreign_stays_text(void **state) {
    static const char text[] = "a<s>b</s><unk> <s><s>ab";
    const size_t bytes = sizeof text - 1;
    for (size_t m = 0; m < HT_COUNT(models); m++) {
        opened o;
        open_kind(&o, models[m]);
        for (size_t a = 0; a <= bytes; a++) {
            for (size_t b = a; b <= bytes; b++) {
                ht_script script = {0};
                const size_t ends[] = {a, b, bytes};
                for (size_t i = 0, at = 0; i < HT_COUNT(ends); at = ends[i++])
                    assert_int_equal(ht_script_append(&script, text + at, ends[i] - at, i == 1, NULL), HT_OK);
                int32_t *ids;
                size_t n, controls = 0, ours = 0;
                assert_int_equal(ht_tokenizer_encode_script(o.t, &script, 0, &ids, &n, NULL), HT_OK);
                for (size_t i = 0; i < n; i++)
                    controls += ids[i] == K_BEGIN || ids[i] == K_END;
                for (size_t at = 0; at < bytes; at++) {
                    const size_t length = strncmp(text + at, "<s>", 3) == 0 ? 3 : strncmp(text + at, "</s>", 4) ? 0 : 4;
                    ours += length && (at + length <= a || at >= b || a == b);
                }
                assert_int_equal(controls, ours);
                free(ids);
                ht_script_free(&script);
            }
        }
        close_it(&o);
    }
}

static void expect_soon(const ht_tokenizer *t, const char *unit) {
    size_t bytes = 1 << 20, n;
    char *text = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        text[i] = unit[i % strlen(unit)];
    int32_t *ids;
    const clock_t start = clock();
    assert_int_equal(ht_tokenizer_encode(t, text, bytes, BOTH, &ids, &n, NULL), HT_OK);
    const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (TIMED && seconds > 10)
        fail_msg("%s: 1 MiB of \"%s\" took %.1f s", ht_tokenizer_name(t), unit, seconds);
    free(ids);
    free(text);
}

static void a_megabyte(void **state) {
    static const char *const units[] = {
        "a", " ", "ab", "\xe4\xbd\xa0", "\xff", "a\xcc\x81\xcc\xa3", "\xcc\x81\xcc\xa3"};
    static char nested[HT_MAX_WALK + 2][HT_MAX_WALK + 2];
    for (size_t m = 0; m < HT_COUNT(models); m++) {
        opened o;
        vocab_kind_init(&o.v, models[m]);
        for (int i = 0; i < 256 && m < 2; i++) { /* pieces of one letter, up to the longest that counts */
            const int n = i % HT_MAX_WALK + 1;
            memset(nested[n], 'a', (size_t)n);
            o.v.tokens[i] = nested[n], o.v.types[i] = HT_TOKEN_NORMAL;
        }
        open_it(&o);
        for (size_t u = 0; u < HT_COUNT(units); u++)
            expect_soon(o.t, units[u]);
        close_it(&o);
    }
}

/* Every name's expressions compile, cut all kinds of text without losing any of it, and in good time. */
static ht_status count_bytes(void *user, const char *word, size_t bytes, ht_error *error) {
    *(size_t *)user += bytes;
    return HT_OK;
}

static void every_name(void **state) {
    static const char *const names[] = {"default",        "gpt-2",       "mpt",
                                        "smollm",         "command-r",   "llama-bpe",
                                        "dbrx",           "glm4",        "minicpm5",
                                        "jais-2",         "qwen2",       "stablelm2",
                                        "qwen35",         "ufakzeka",    "laguna",
                                        "bailingmoe",     "seed-coder",  "exaone-moe",
                                        "tekken",         "gpt-4o",      "granite-embed-multi-97m",
                                        "tiny_aya",       "kimi-k2",     "deepseek-llm",
                                        "deepseek-coder", "deepseek-v3", "spark2_5",
                                        "youtu",          "afmoe",       "falcon",
                                        "bloom",          "viking",      "chameleon",
                                        "superbpe",       "gemma4",      "sarvam-moe"};
    static const char *const units[] = {"a", "A", " ", "1", "\n", ".", "\xe4\xbd\xa0", "a\xcc\x81 ", "aB'S 12.\r\n"};
    const size_t bytes = getenv("HETERO_QUICK") ? 1 << 17 : 1 << 20;
    char *text = malloc(bytes);
    for (size_t i = 0; i < HT_COUNT(names); i++) {
        const ht_pretokenizer *pre = ht_pretokenizer_find(names[i], strlen(names[i]));
        assert_non_null(pre);
        pcre2_code *passes[HT_MAX_PASSES] = {0};
        pcre2_match_data *matches[HT_MAX_PASSES] = {0};
        ht_error error;
        if (ht_pretokenizer_compile(pre, passes, &error) != HT_OK)
            fail_msg("%s", error.text);
        for (int p = 0; p < HT_MAX_PASSES && passes[p]; p++)
            matches[p] = pcre2_match_data_create_from_pattern(passes[p], NULL);
        for (size_t u = 0; u < HT_COUNT(units); u++) {
            size_t seen = 0;
            const size_t whole = bytes / strlen(units[u]) * strlen(units[u]);
            for (size_t k = 0; k < whole; k++)
                text[k] = units[u][k % strlen(units[u])];
            const clock_t start = clock();
            if (ht_pretokenize(pre, passes, matches, text, whole, count_bytes, &seen, &error) != HT_OK)
                fail_msg("%s: \"%s\": %s", names[i], units[u], error.text);
            const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
            assert_int_equal(seen, whole);
            if (TIMED && seconds > 5)
                fail_msg("%s: %zu bytes of \"%s\" took %.1f s", names[i], whole, units[u], seconds);
            if (getenv("HETERO_TIMES") && seconds > 0.2)
                print_message("%s: \"%s\" %.2f s\n", names[i], units[u], seconds);
        }
        for (int p = 0; p < HT_MAX_PASSES; p++) {
            pcre2_match_data_free(matches[p]);
            pcre2_code_free(passes[p]);
        }
    }
    free(text);
}

/* ---- hostile files ------------------------------------------------------------------------------------------- */

static void expect_refused(const vocab_file *file, const char *named) {
    ht_error error = {0};
    ht_gguf *gguf = vocab_open(file, &error);
    ht_tokenizer *t = NULL;
    assert_non_null(gguf);
    const ht_status got = ht_tokenizer_create(gguf, &t, &error);
    if (got != HT_ERROR_FORMAT || !strstr(error.text, named))
        fail_msg("wanted an error that names \"%s\", got %s: %s", named, ht_status_name(got), error.text);
    ht_gguf_close(gguf);
}

static void hostile(void **state) {
    static vocab_kind v;
    vocab_kind_init(&v, "t5");
    v.scores[K_A] = NAN;
    expect_refused(&v.file, "tokenizer.ggml.scores[260]");
    vocab_kind_init(&v, "t5");
    v.file.scores = NULL;
    expect_refused(&v.file, "tokenizer.ggml.scores");
    vocab_kind_init(&v, "t5");
    vocab_charsmap(&v);
    v.charsmap[2] = 0xff; /* the trie is longer than the key */
    expect_refused(&v.file, "precompiled_charsmap");
    vocab_charsmap(&v);
    v.file.bad_kind = "tokenizer.ggml.precompiled_charsmap";
    expect_refused(&v.file, "precompiled_charsmap");
    vocab_kind_init(&v, "t5");
    vocab_charsmap(&v);
    v.file.n_charsmap = 3;
    expect_refused(&v.file, "precompiled_charsmap");
    vocab_kind_init(&v, "gemma4");
    v.file.merges = NULL;
    expect_refused(&v.file, "tokenizer.ggml.merges");

    opened o; /* units that lead anywhere: the text stays as it is, or is replaced, and nothing is read outside */
    uint64_t seed = seed_of(11);
    for (int run = 0; run < 200; run++) {
        vocab_kind_init(&o.v, run % 2 ? "t5" : "llama");
        vocab_charsmap(&o.v);
        for (size_t i = 4; i < o.v.file.n_charsmap; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            if (seed >> 60 == 0)
                o.v.charsmap[i] = (uint8_t)(seed >> 40);
        }
        for (int i = 0; i < K_COUNT; i++)
            o.v.scores[i] = i % 3 ? INFINITY : -INFINITY;
        open_it(&o);
        int32_t *ids;
        size_t n;
        assert_int_equal(ht_tokenizer_encode(o.t, "\xef\xac\x81\t ab\xe2\x80\x8b", 10, BOTH, &ids, &n, NULL), HT_OK);
        free(ids);
        close_it(&o);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unigram),    cmocka_unit_test(replacements),
        cmocka_unit_test(wordpiece),  cmocka_unit_test(plamo2),
        cmocka_unit_test(greedy),     cmocka_unit_test(characters),
        cmocka_unit_test(composed),   cmocka_unit_test(stripped),
        cmocka_unit_test(every_name), cmocka_unit_test(foreign_stays_text),
        cmocka_unit_test(a_megabyte), cmocka_unit_test(hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
