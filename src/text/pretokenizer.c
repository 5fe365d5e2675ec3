/* The cut into words before byte-level BPE: one table of names and regular expressions.
 *
 * The expressions are those of the models' own tokenizer.json files; which GGUF name stands for which is llama.cpp's
 * convention. Two changes that alter no match: \s is written out (PCRE2's counts U+180E as a space, Unicode no longer
 * does), and letters after an apostrophe are listed in both cases.
 */
#include "text/vocab.h"

#include <string.h>

#define SPACES "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define S "[" SPACES "]"
#define NOT_S "[^" SPACES "]"
#define ENDING "'(?:[sStTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
#define WORD "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
#define SIGNS " ?[^" SPACES "\\p{L}\\p{N}]+"
#define BLANKS S "*[\\r\\n]+|" S "+(?!" NOT_S ")|" S "+"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+|" SIGNS "|" S "+(?!" NOT_S ")|" S "+"
#define LLAMA3 ENDING "|" WORD "|\\p{N}{1,3}|" SIGNS "[\\r\\n]*|" BLANKS
#define QWEN2 ENDING "|" WORD "|\\p{N}|" SIGNS "[\\r\\n]*|" BLANKS
/* As QWEN2, where marks belong to the letters before them. */
#define QWEN35 \
    ENDING "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" SPACES "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" BLANKS
#define TEKKEN                                                                                            \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*|\\p{N}|" SIGNS \
    "[\\r\\n/]*|" BLANKS

static const ht_pretokenizer table[] = {
    {{"default", "gpt-2", "olmo", "mpt"}, {GPT2}, false, false},
    {{"smollm", "starcoder", "refact", "command-r", "codeshell"}, {"\\p{N}", GPT2}, false, false},
    {{"llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"}, {LLAMA3}, true, true},
    {{"qwen2", "deepseek-r1-qwen", "megrez"}, {QWEN2}, false, false},
    {{"qwen35"}, {QWEN35}, false, false},
    {{"tekken"}, {TEKKEN}, true, true},
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
    pcre2_code *const *passes;
    pcre2_match_data *const *matches;
    ht_word_function word;
    void *user;
    ht_error *error;
} splitter;

static ht_status split(const splitter *s, int pass, const char *text, size_t bytes) {
    if (bytes == 0)
        return HT_OK;
    if (pass == HT_MAX_PASSES || !s->passes[pass])
        return s->word(s->user, text, bytes, s->error);
    size_t at = 0;
    while (at < bytes) {
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
        size_t begin = n < 0 ? bytes : range[0], end = n < 0 ? bytes : range[1];
        if (n > 0 && end <= begin)
            begin = end = bytes; /* no expression of the table matches nothing; one that did would loop for ever */
        ht_status status = split(s, pass + 1, text + at, begin - at);
        if (status == HT_OK)
            status = split(s, pass + 1, text + begin, end - begin);
        if (status)
            return status;
        at = end;
    }
    return HT_OK;
}

ht_status ht_pretokenize(pcre2_code *const passes[HT_MAX_PASSES], pcre2_match_data *const matches[HT_MAX_PASSES],
                         const char *text, size_t bytes, ht_word_function word, void *user, ht_error *error) {
    splitter s = {passes, matches, word, user, error};
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
