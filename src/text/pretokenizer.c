/* The cut into words before BPE: one table of names and regular expressions.
 *
 * The expressions are those of the models' own tokenizer.json files where known, else llama.cpp's; which GGUF name
 * stands for which is llama.cpp's convention. Two changes that alter no match: \s is written out (PCRE2's counts U+180E
 * as a space, Unicode no longer does), and look-aheads over all that follows are HT_PRE_THREES, which is linear.
 */
#include "text/vocab.h"

#include <string.h>

#define SPACES "\\x09-\\x0d" WIDE
#define WIDE "\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define S "[" SPACES "]"
#define NOT_S "[^" SPACES "]"
#define ENDING "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define WORD "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define SIGNS " ?[^" SPACES "\\p{L}\\p{N}]+"
#define BLANKS S "*[\\r\\n]+|" S "+(?!" NOT_S ")|" S "+"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define NO_HAN "(?!\\p{sc:Han})"
#define ASCII_SIGN "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]"
#define CHINESE "[\\x{4e00}-\\x{9fa5}\\x{0800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
#define KANJI "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|" SIGNS "|" S "+(?!" NOT_S ")|" S "+"
#define LLAMA3 ENDING "|" WORD "|\\p{N}{1,3}|" SIGNS "[\\r\\n]*|" BLANKS
#define QWEN2 ENDING "|" WORD "|\\p{N}|" SIGNS "[\\r\\n]*|" BLANKS
/* As QWEN2, where marks belong to the letters before them. */
#define QWEN35 \
    ENDING "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" SPACES "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" BLANKS
#define NO_ENDINGS WORD "|\\p{N}|" SIGNS "[\\r\\n]*|" BLANKS
#define TEKKEN                                                                                            \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*|\\p{N}|" SIGNS \
    "[\\r\\n/]*|" BLANKS
#define CAPITALS(number)                                                                                      \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" ENDING "?|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" ENDING \
    "?|" number "|" SIGNS "[\\r\\n/]*|" BLANKS
#define GPT4O CAPITALS("\\p{N}{1,3}")
#define KIMI_UPPER "(?:" NO_HAN UPPER ")"
#define KIMI_LOWER "(?:" NO_HAN LOWER ")"
#define KIMI                                                                                                         \
    "\\p{sc:Han}+|[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER "*" KIMI_LOWER "+" ENDING "?|[^\\r\\n\\p{L}\\p{N}]?" KIMI_UPPER \
    "+" KIMI_LOWER "*" ENDING "?|\\p{N}{1,3}|" SIGNS "[\\r\\n]*|" BLANKS
#define DEEPSEEK3 ASCII_SIGN "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" BLANKS
#define SPARK  \
    ASCII_SIGN \
    "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+|[\\r\\n]|" S "+(?!" NOT_S ")|" S "+"
#define BLOOM " ?[^(" SPACES "|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{0964}\\x{06d4}\\x{060c})]+"
/* The letters that DeepSeek's first tokenizer lists: those with cases. */
#define DEEPSEEK_LETTERS                                                                                        \
    "[A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-\\x{293}"            \
    "\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}\\x{386}\\x{388}-\\x{38a}"      \
    "\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}"             \
    "\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}"           \
    "\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}"           \
    "\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}"   \
    "\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}"  \
    "\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}"            \
    "\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}"             \
    "\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}"             \
    "\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}"            \
    "\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}"           \
    "\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}"         \
    "\\x{104b0}-\\x{104d3}\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}" \
    "\\x{1e900}-\\x{1e943}]+"
#define DEEPSEEK_SIGNS "[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+"
#define ASIAN                                                                                                        \
    "[\\x{4e00}-\\x{9fff}\\x{3400}-\\x{4dbf}\\x{f900}-\\x{faff}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}\\x{ff65}-\\x{" \
    "ff9f}\\x{2f00}-\\x{2fdf}\\x{e40}-\\x{e7f}\\x{e80}-\\x{eff}\\x{1780}-\\x{17ff}\\x{1000}-\\x{109f}\\x{aa60}-\\x{" \
    "aa7f}\\x{a9e0}-\\x{a9ff}\\x{ac00}-\\x{d7af}\\x{1100}-\\x{11ff}]+"
#define YOUTU                                                                                                        \
    "[\\x{ac00}-\\x{d7a3}\\x{3131}-\\x{318e}]+|[\\x{ff01}\\x{2026}\\x{201c}\\x{201d}\\x{2018}\\x{2019}\\x{2014}\\x{" \
    "ff1a}\\x{ff1b}\\x{ff0c}\\x{3001}-\\x{303f}\\x{fe30}-\\x{fe4f}]+|[\\x{3105}-\\x{312f}]+|" KANJI
#define PUNCTUATION "[\\p{P}!-/:-@\\[-`{-~]"
#define LINES "[^\\n]+|\\n+"

#define WHOLE HT_PRE_WHOLE_WORDS
#define BOS HT_PRE_BOS
#define NFC HT_PRE_NFC
#define PIECES (HT_PRE_CHARACTERS | HT_PRE_SPACES)

static const ht_pretokenizer table[] = {
    /* llama.cpp's own, for what it does not know; no model's tokenizer stands behind it */
    {{"default"}, {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}, 0},
    {{"gpt-2", "jais", "trillion", "granite-docling", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es",
      "jina-v2-de", "a.x-4.0", "mellum", "exaone4", "jina-v1-en", "jina-v2-code", "roberta-bpe"},
     {GPT2},
     0},
    {{"mpt", "olmo", "modern-bert"}, {GPT2}, NFC},
    {{"smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"}, {"\\p{N}", GPT2}, 0},
    {{"command-r"}, {"\\p{N}", GPT2}, NFC},
    {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"},
     {LLAMA3},
     WHOLE | BOS},
    {{"dbrx", "smaug-bpe", "chatglm-bpe"}, {LLAMA3}, 0},
    {{"glm4", "glm5"}, {LLAMA3}, WHOLE},
    {{"minicpm5"}, {"\\p{N}{1,3}", ENDING "|" WORD "|\\p{N}+|" SIGNS "[\\r\\n]*|" BLANKS}, WHOLE},
    {{"jais-2"},
     {ENDING "|" WORD "|\\p{N}{1,3}|" SIGNS "[\\r\\n]*|"
             "(?:[\\x09\\x0b\\x0c" WIDE "]*+[\\r\\n]++)++|" S "{512}(?!" NOT_S ")|" S "{256}(?!" NOT_S ")|" S
             "{128}(?!" NOT_S ")|" S "{64}(?!" NOT_S ")|" S "{32}(?!" NOT_S ")|" S "{16}(?!" NOT_S ")|" S "{8}(?!" NOT_S
             ")|" S "{4}(?!" NOT_S ")|" S "{1,2}(?!" NOT_S ")|" S},
     0},
    {{"qwen2", "deepseek-r1-qwen", "f2llmv2"}, {QWEN2}, NFC},
    {{"stablelm2", "kormo", "megrez", "hunyuan", "solar-open", "grok-2"}, {QWEN2}, 0},
    {{"qwen35"}, {QWEN35}, NFC},
    {{"ufakzeka"}, {NO_ENDINGS}, 0},
    {{"laguna"}, {LINES, QWEN2}, 0},
    {{"bailingmoe", "bailingmoe2", "llada-moe"},
     {"'(?i:[sdmt]|ll|ve|re)|" WORD "|\\p{N}|" SIGNS "[\\r\\n]*|" S "*[\\r\\n]|" S "+(?!" NOT_S ")|" S "+"},
     0},
    {{"seed-coder"}, {ENDING "|" WORD "|\\p{N}|" SIGNS "|" BLANKS}, 0},
    {{"exaone-moe"},
     {ENDING "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}(?:[\\p{L}\\p{M}]++| \\p{L})*+|\\p{N}|" SIGNS "[\\r\\n/]?|" S "*[\\r\\n]|" S
             "+(?!" NOT_S ")|" S "+"},
     0},
    {{"tekken"}, {TEKKEN}, WHOLE | BOS},
    {{"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"}, {GPT4O}, 0},
    {{"granite-embed-multi-97m"}, {GPT4O}, WHOLE},
    {{"tiny_aya", "cohere2moe"}, {"\\d++\\b", GPT4O}, NFC | HT_PRE_THREES},
    {{"kimi-k2"}, {KIMI}, HT_PRE_NO_MERGES},
    {{"deepseek-llm"}, {"[\\r\\n]", S "?" DEEPSEEK_LETTERS, S "?" DEEPSEEK_SIGNS, S "+\\z", CHINESE, "\\p{N}+"}, 0},
    {{"deepseek-coder"}, {"[\\r\\n]", S "?\\p{L}+", S "?\\p{P}+", CHINESE, "\\p{N}"}, 0},
    {{"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"}, {"\\p{N}{1,3}", KANJI, DEEPSEEK3}, 0},
    {{"spark2_5"}, {"\\p{N}{1,3}", KANJI, SPARK, "\\p{N}"}, 0},
    {{"youtu"}, {YOUTU, CAPITALS("\\p{N}")}, WHOLE},
    {{"afmoe"}, {"\\p{N}++", ASIAN, DEEPSEEK3}, HT_PRE_THREES},
    {{"falcon"}, {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"}, 0},
    {{"bloom", "poro-chat", "gpt3-finnish"}, {BLOOM}, 0},
    {{"viking"}, {BLOOM, "\\p{N}"}, 0},
    {{"chameleon"}, {"<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}", PUNCTUATION, GPT2}, BOS},
    {{"superbpe"}, {"\\d++", "\\p{N}+"}, HT_PRE_THREES},
    {{"gemma4", "granite-embed-multi-311m"}, {LINES}, PIECES | BOS},
    {{"sarvam-moe"}, {LINES}, PIECES},
    {{"whitespace"}, {NOT_S "+"}, HT_PRE_CHARACTERS | HT_PRE_NO_GAPS},
};

const ht_pretokenizer *ht_pretokenizer_find(const char *name, size_t bytes) {
    for (size_t row = 0; row < HT_COUNT(table); row++)
        for (size_t i = 0; i < HT_COUNT(table[row].names) && table[row].names[i]; i++)
            if (strlen(table[row].names[i]) == bytes && memcmp(table[row].names[i], name, bytes) == 0)
                return &table[row];
    return NULL;
}

ht_status ht_pretokenizer_compile(const ht_pretokenizer *pre, pcre2_code *passes[HT_MAX_PASSES], ht_error *error) {
    for (int i = 0; i < HT_MAX_PASSES && pre->patterns[i]; i++) {
        int code;
        PCRE2_SIZE offset;
        passes[i] = pcre2_compile((PCRE2_SPTR)pre->patterns[i], PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code,
                                  &offset, NULL);
        if (!passes[i]) {
            char why[128];
            pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
            if (code == PCRE2_ERROR_HEAP_FAILED || code == PCRE2_ERROR_NOMEMORY)
                return ht_fail(error, HT_ERROR_MEMORY, "pre-tokenizer %s: no memory for its expression", pre->names[0]);
            return ht_fail(error, HT_ERROR_UNSUPPORTED, "pre-tokenizer %s: this PCRE2 rejects its expression: %s",
                           pre->names[0], why);
        }
        pcre2_jit_compile(passes[i], PCRE2_JIT_COMPLETE); /* without JIT the interpreter runs it: slower, not wrong */
    }
    return HT_OK;
}

typedef struct splitter {
    const ht_pretokenizer *pre;
    pcre2_code *const *passes;
    pcre2_match_data *const *matches;
    ht_word_function word;
    void *user;
    ht_error *error;
} splitter;

static ht_status split(const splitter *s, int pass, const char *text, size_t bytes);

/* Three characters at a time, the first one to three fewer, so that the rest comes out even. */
static ht_status split_threes(const splitter *s, int pass, const char *text, size_t bytes) {
    size_t characters = 0;
    for (size_t i = 0; i < bytes; i++)
        characters += ((unsigned char)text[i] & 0xc0) != 0x80;
    ht_status status = HT_OK;
    for (size_t at = 0; status == HT_OK && at < bytes;) {
        size_t end = at;
        for (size_t n = (characters + 2) % 3 + 1; n > 0; n--, characters--)
            do
                end++;
            while (end < bytes && ((unsigned char)text[end] & 0xc0) == 0x80);
        status = split(s, pass, text + at, end - at);
        at = end;
    }
    return status;
}

static ht_status find(const splitter *s, int pass, const char *text, size_t bytes, size_t at, size_t *begin,
                      size_t *end) {
    /* The caller has checked the UTF-8: PCRE2 would do so again at every call, which is quadratic. */
    int n = pcre2_match(s->passes[pass], (PCRE2_SPTR)text, bytes, at, PCRE2_NO_UTF_CHECK, s->matches[pass], NULL);
    if (n == PCRE2_ERROR_JIT_STACKLIMIT)
        n = pcre2_match(s->passes[pass], (PCRE2_SPTR)text, bytes, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                        s->matches[pass], NULL);
    if (n == PCRE2_ERROR_NOMEMORY)
        return ht_fail(s->error, HT_ERROR_MEMORY, "no memory to cut a text into words");
    if (n < 0 && n != PCRE2_ERROR_NOMATCH)
        return ht_fail(s->error, HT_ERROR_UNSUPPORTED, "text cannot be cut into words: PCRE2 error %d", n);
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(s->matches[pass]);
    *begin = n < 0 ? bytes : range[0], *end = n < 0 ? bytes : range[1];
    if (n > 0 && *end <= *begin)
        *begin = *end = bytes; /* no expression of the table matches nothing; one that did would loop for ever */
    return HT_OK;
}

static ht_status split(const splitter *s, int pass, const char *text, size_t bytes) {
    if (bytes == 0)
        return HT_OK;
    if (pass == HT_MAX_PASSES || !s->passes[pass])
        return s->word(s->user, text, bytes, s->error);
    const unsigned special = pass == 0 ? s->pre->flags : 0;
    for (size_t at = 0, begin, end; at < bytes; at = end) {
        ht_status status = find(s, pass, text, bytes, at, &begin, &end);
        if (status == HT_OK && !(special & HT_PRE_NO_GAPS))
            status = split(s, pass + 1, text + at, begin - at);
        if (status == HT_OK)
            status = special & HT_PRE_THREES ? split_threes(s, pass + 1, text + begin, end - begin)
                                             : split(s, pass + 1, text + begin, end - begin);
        if (status)
            return status;
    }
    return HT_OK;
}

ht_status ht_pretokenize(const ht_pretokenizer *pre, pcre2_code *const passes[HT_MAX_PASSES],
                         pcre2_match_data *const matches[HT_MAX_PASSES], const char *text, size_t bytes,
                         ht_word_function word, void *user, ht_error *error) {
    splitter s = {pre, passes, matches, word, user, error};
    size_t begin = 0, at = 0;
    while (at < bytes) {
        size_t used = 1;
        if ((unsigned char)text[at] < 0x80 || ht_utf8_next(text + at, bytes - at, &used) >= 0) {
            at += used;
            continue;
        }
        ht_status status = split(&s, 0, text + begin, at - begin);
        if (status == HT_OK)
            status = word(user, text + at, 1, error);
        if (status)
            return status;
        begin = ++at;
    }
    return split(&s, 0, text + begin, at - begin);
}
