/* What tokenizers do to a text before they cut it: Unicode's composition (NFC), SentencePiece's replacements, BERT's words.
 * Bytes that are not valid UTF-8 stay as they are (BERT drops them, as it drops U+FFFD). */
#include "text/vocab.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define PIECE_SPACE "\xe2\x96\x81" /* U+2581 */

static ht_status append_character(ht_text *out, int32_t c, ht_error *error) {
    utf8proc_uint8_t buffer[4];
    const utf8proc_ssize_t n = utf8proc_encode_char(c, buffer);
    return ht_text_append(out, (const char *)buffer, (size_t)n, error);
}

/* ---- normal form C ------------------------------------------------------------------------------------------- */

typedef struct characters {
    int32_t *list, *sorted;
    size_t n, capacity, cap_sorted;
} characters;

static ht_status decompose(characters *all, int32_t c, ht_error *error) {
    enum { MOST = 8 }; /* no character has more parts without compatibility ones */
    ht_status status =
        ht_grow((void **)&all->list, &all->capacity, all->n + MOST, sizeof *all->list, "normal form", error);
    if (status)
        return status;
    int last = 0;
    const utf8proc_ssize_t n = utf8proc_decompose_char(c, all->list + all->n, MOST, UTF8PROC_DECOMPOSE, &last);
    if (n <= 0 || n > MOST)
        all->list[all->n++] = c;
    else
        all->n += (size_t)n;
    return HT_OK;
}

static int class_of(int32_t c) {
    return utf8proc_get_property(c)->combining_class;
}

/* Marks by their class, those of one class in their order. Counted, as utf8proc's own sorting is quadratic in a row of
 * marks. */
static ht_status sort_marks(characters *all, size_t begin, size_t end, ht_error *error) {
    size_t at[257] = {0};
    ht_status status =
        ht_grow((void **)&all->sorted, &all->cap_sorted, end - begin, sizeof *all->sorted, "normal form", error);
    if (status)
        return status;
    for (size_t i = begin; i < end; i++)
        at[class_of(all->list[i]) + 1]++;
    for (int i = 1; i < 257; i++)
        at[i] += at[i - 1];
    for (size_t i = begin; i < end; i++)
        all->sorted[at[class_of(all->list[i])]++] = all->list[i];
    memcpy(all->list + begin, all->sorted, (end - begin) * sizeof *all->list);
    return HT_OK;
}

/* In canonical order, what stays decomposed. */
static ht_status order(characters *all, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t i = 0, end; status == HT_OK && i < all->n; i = end + 1) {
        for (end = i; end < all->n && class_of(all->list[end]) != 0;)
            end++;
        if (end - i > 1)
            status = sort_marks(all, i, end, error);
    }
    return status;
}

static ht_status flush_composed(characters *all, ht_text *out, ht_error *error) {
    ht_status status = order(all, error);
    if (status || all->n == 0)
        return status;
    const utf8proc_ssize_t n = utf8proc_normalize_utf32(all->list, (utf8proc_ssize_t)all->n,
                                                        (utf8proc_option_t)(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    for (utf8proc_ssize_t i = 0; status == HT_OK && i < n; i++)
        status = append_character(out, all->list[i], error);
    all->n = 0;
    return status;
}

ht_status ht_normalise_nfc(const char *text, size_t bytes, ht_text *out, ht_error *error) {
    size_t plain = 0; /* characters below U+0300 are composed, whatever their neighbours below it are */
    while (plain < bytes && (unsigned char)text[plain] < 0xcc)
        plain++;
    if (plain == bytes)
        return ht_text_append(out, text, bytes, error);
    characters all = {0};
    ht_status status = HT_OK;
    for (size_t at = 0, used; status == HT_OK && at < bytes; at += used) {
        const int32_t c = ht_utf8_next(text + at, bytes - at, &used);
        if (c >= 0) {
            status = decompose(&all, c, error);
            continue;
        }
        status = flush_composed(&all, out, error);
        if (status == HT_OK)
            status = ht_text_append(out, text + at, used, error);
    }
    if (status == HT_OK)
        status = flush_composed(&all, out, error);
    free(all.list);
    free(all.sorted);
    return status;
}

ht_status ht_normalise_lower(const char *text, size_t bytes, ht_text *out, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t at = 0, used; status == HT_OK && at < bytes; at += used) {
        const int32_t c = ht_utf8_next(text + at, bytes - at, &used);
        status =
            c < 0 ? ht_text_append(out, text + at, used, error) : append_character(out, utf8proc_tolower(c), error);
    }
    return status;
}

/* ---- SentencePiece ------------------------------------------------------------------------------------------- */

/* Units of the double array (Aoe 1989, in the packing of Yata's darts-clone, which SentencePiece writes): the label in
 * bits 0 to 7 and bit 31, whether a value hangs below in bit 8, the offset to the children in bits 10 to 30, times 256
 * if bit 9 is set. */
static size_t offset_of(uint32_t unit) {
    return (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
}

ht_status ht_normaliser_charsmap(ht_normaliser *normaliser, const uint8_t *data, size_t bytes, const char *path,
                                 ht_arena *arena, ht_error *error) {
    uint32_t size = 0;
    if (bytes == 0)
        return HT_OK;
    if (bytes >= sizeof size)
        memcpy(&size, data, sizeof size);
    if (bytes < sizeof size || size > bytes - sizeof size || size % sizeof(uint32_t) != 0)
        return ht_fail(error, HT_ERROR_FORMAT,
                       "%s: key \"tokenizer.ggml.precompiled_charsmap\" holds %zu bytes, its trie %u", path, bytes,
                       size);
    uint32_t *units = ht_arena_alloc(arena, size + sizeof *units); /* aligned, which the file need not be */
    if (!units)
        return ht_fail(error, HT_ERROR_MEMORY, "out of memory for the vocabulary");
    memcpy(units, data + sizeof size, size);
    normaliser->units = units;
    normaliser->n_units = size / sizeof *units;
    normaliser->texts = (const char *)data + sizeof size + size;
    normaliser->text_bytes = bytes - sizeof size - size;
    return HT_OK;
}

/* The longest of the file's prefixes at text[0..bytes), and what replaces it; NULL: none, or one that leads out of the
 * file. */
static const char *replacement(const ht_normaliser *normaliser, const char *text, size_t bytes, size_t *used) {
    const char *found = NULL;
    size_t node = offset_of(normaliser->units[0]);
    for (size_t i = 0; i < ht_min_size(bytes, HT_MAX_WALK) && text[i]; i++) {
        const uint8_t byte = (uint8_t)text[i];
        node ^= byte;
        if (node >= normaliser->n_units || (normaliser->units[node] & (1u << 31 | 0xff)) != byte)
            break;
        const uint32_t unit = normaliser->units[node];
        node ^= offset_of(unit);
        if (!(unit >> 8 & 1))
            continue;
        const size_t at = node < normaliser->n_units ? normaliser->units[node] & 0x7fffffffu : SIZE_MAX;
        if (at >= normaliser->text_bytes || !memchr(normaliser->texts + at, 0, normaliser->text_bytes - at))
            continue;
        found = normaliser->texts + at;
        *used = i + 1;
    }
    return found;
}

typedef struct spacing {
    const ht_normaliser *normaliser;
    bool prefix;
    bool begun, pending; /* anything written; a space that waits for what follows it */
    ht_text *out;
} spacing;

static ht_status put(spacing *s, const char *text, size_t bytes, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t at = 0, end; status == HT_OK && at < bytes; at = end) {
        end = at + 1;
        if (text[at] == ' ') {
            s->pending = s->normaliser->merges_spaces;
            if (!s->pending)
                status = ht_text_append(s->out, PIECE_SPACE, 3, error);
            continue;
        }
        while (end < bytes && text[end] != ' ')
            end++;
        if (s->normaliser->merges_spaces && (s->begun ? s->pending : s->prefix))
            status = ht_text_append(s->out, PIECE_SPACE, 3, error);
        if (status == HT_OK)
            status = ht_text_append(s->out, text + at, end - at, error);
        s->begun = true, s->pending = false;
    }
    return status;
}

ht_status ht_normalise_pieces(const ht_normaliser *normaliser, bool prefix, const char *text, size_t bytes,
                              ht_text *out, ht_error *error) {
    spacing s = {normaliser, prefix, false, false, out};
    ht_status status = HT_OK;
    if (prefix && !normaliser->merges_spaces)
        status = ht_text_append(out, PIECE_SPACE, 3, error);
    size_t plain = 0; /* begin of what nothing replaces */
    for (size_t at = 0, used; status == HT_OK && at < bytes && normaliser->n_units > 0; at += used) {
        const char *other = replacement(normaliser, text + at, bytes - at, &used);
        if (!other) {
            ht_utf8_next(text + at, bytes - at, &used);
            continue;
        }
        status = put(&s, text + plain, at - plain, error);
        if (status == HT_OK)
            status = put(&s, other, strlen(other), error);
        plain = at + used;
    }
    return status == HT_OK ? put(&s, text + plain, bytes - plain, error) : status;
}

/* ---- BERT ---------------------------------------------------------------------------------------------------- */

static bool is_space(int32_t c) {
    return c == ' ' || (c >= 9 && c <= 13) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* Control characters are dropped before white space is looked for: of those only tab, newline and return are a space. */
static bool is_dropped(int32_t c) {
    if (c == '\t' || c == '\n' || c == '\r')
        return false;
    const utf8proc_category_t category = utf8proc_category(c);
    return c == 0xfffd || category == UTF8PROC_CATEGORY_CC || category == UTF8PROC_CATEGORY_CF ||
           category == UTF8PROC_CATEGORY_CO;
}

static bool is_sign(int32_t c) {
    if (c < 128)
        return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
    const utf8proc_category_t category = utf8proc_category(c);
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

/* What BERT calls Chinese; the gap before U+2B920 is in its tokenizers, too. */
static bool is_chinese(int32_t c) {
    static const int32_t ranges[][2] = {{0x4e00, 0x9fff},   {0x3400, 0x4dbf},   {0x20000, 0x2a6df}, {0x2a700, 0x2b73f},
                                        {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf}, {0xf900, 0xfaff},   {0x2f800, 0x2fa1f}};
    for (size_t i = 0; i < HT_COUNT(ranges); i++)
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return true;
    return false;
}

typedef struct bert {
    const ht_normaliser *normaliser;
    ht_text word;
    ht_word_function function;
    void *user;
    ht_error *error;
} bert;

static ht_status end_word(bert *b) {
    ht_status status = b->word.bytes > 0 ? b->function(b->user, b->word.data, b->word.bytes, b->error) : HT_OK;
    b->word.bytes = 0;
    return status;
}

/* One character after the text was cleaned; `alone`: it is Chinese. */
static ht_status bert_character(bert *b, int32_t c, bool alone) {
    if (b->normaliser->strips_accents && utf8proc_category(c) == UTF8PROC_CATEGORY_MN)
        return HT_OK;
    if (b->normaliser->lower)
        c = utf8proc_tolower(c);
    if (is_space(c))
        return end_word(b);
    alone = alone || is_sign(c);
    ht_status status = alone ? end_word(b) : HT_OK;
    if (status == HT_OK)
        status = append_character(&b->word, c, b->error);
    return status == HT_OK && alone ? end_word(b) : status;
}

ht_status ht_normalise_bert(const ht_normaliser *normaliser, const char *text, size_t bytes, ht_word_function word,
                            void *user, ht_error *error) {
    bert b = {normaliser, {0}, word, user, error};
    characters parts = {0};
    ht_status status = HT_OK;
    for (size_t at = 0, used; status == HT_OK && at < bytes; at += used) {
        const int32_t c = ht_utf8_next(text + at, bytes - at, &used);
        if (c <= 0 || is_dropped(c))
            continue;
        const bool alone = is_chinese(c);
        parts.n = 0;
        if (normaliser->strips_accents)
            status = decompose(&parts, c, error);
        if (!normaliser->strips_accents)
            status = bert_character(&b, c, alone);
        for (size_t i = 0; status == HT_OK && i < parts.n; i++)
            status = bert_character(&b, parts.list[i], alone);
    }
    if (status == HT_OK)
        status = end_word(&b);
    free(parts.list);
    ht_text_free(&b.word);
    return status;
}
