/* Text to tokens.
 *
 * Special tokens are found first (longest match at the leftmost place, one walk down a trie); what lies between them is
 * merged pair by pair. Both kinds of tokenizer share the merging: symbols are a linked list, the pairs that may merge
 * wait in a heap ordered by (priority, position), and a pair that has changed meanwhile is recognised by its size and
 * dropped. That is n log n whatever the text. Byte-level BPE (Sennrich et al. 2016; bytes: GPT-2) takes the priority
 * from the rank of the merge, SentencePiece (Kudo and Richardson 2018) from the score of the product.
 */
#include "text/encoder.h"

#include <stdlib.h>
#include <string.h>

static void heap_push(ht_encoder *e, ht_candidate c) {
    size_t i = e->n_heap++;
    while (i > 0) {
        size_t parent = (i - 1) / 2;
        if (e->heap[parent].key <= c.key)
            break;
        e->heap[i] = e->heap[parent];
        i = parent;
    }
    e->heap[i] = c;
}

static ht_candidate heap_pop(ht_encoder *e) {
    ht_candidate top = e->heap[0], last = e->heap[--e->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= e->n_heap)
            break;
        if (child + 1 < e->n_heap && e->heap[child + 1].key < e->heap[child].key)
            child++;
        if (last.key <= e->heap[child].key)
            break;
        e->heap[i] = e->heap[child];
        i = child;
    }
    e->heap[i] = last;
    return top;
}

/* Text must never become a control token by merging: that is what the scan for special tokens decides. */
static int32_t find_mergeable(const ht_tokenizer *t, const char *text, size_t bytes) {
    int32_t id = bytes <= t->longest ? ht_vocab_find(t, text, bytes) : -1;
    return id >= 0 && ht_vocab_is_text(t, id) ? id : -1;
}

static void offer_pair(ht_encoder *e, int32_t left, int32_t right) {
    if (left < 0 || right < 0)
        return;
    const ht_tokenizer *t = e->tokenizer;
    const ht_symbol *l = &e->symbols[left], *r = &e->symbols[right];
    ht_candidate c = {0, (uint32_t)right, l->bytes + r->bytes, -1};
    uint32_t priority;
    if (t->kind == HT_VOCAB_SENTENCEPIECE) {
        c.id = find_mergeable(t, e->text + l->start, c.bytes);
        if (c.id < 0)
            return;
        priority = t->order[c.id];
    } else if (!ht_vocab_merge(t, l->id, r->id, &priority, &c.id)) {
        return;
    }
    c.key = (uint64_t)priority << 32 | (uint32_t)left;
    heap_push(e, c);
}

/* Merges symbols[0..n) as far as they go. */
static ht_status merge(ht_encoder *e, size_t n, ht_error *error) {
    /* A merge takes one candidate and offers two, and there are at most n - 1: 2n is enough. */
    ht_status status = ht_grow((void **)&e->heap, &e->cap_heap, 2 * n, sizeof *e->heap, "tokenizer", error);
    if (status)
        return status;
    e->n_heap = 0;
    for (size_t i = 0; i < n; i++) {
        e->symbols[i].prev = (int32_t)i - 1;
        e->symbols[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 1; i < n; i++)
        offer_pair(e, (int32_t)i - 1, (int32_t)i);
    while (e->n_heap > 0) {
        ht_candidate c = heap_pop(e);
        int32_t left = (int32_t)(c.key & UINT32_MAX);
        ht_symbol *l = &e->symbols[left], *r = &e->symbols[c.right];
        if (l->bytes == 0 || r->bytes == 0 || l->bytes + r->bytes != c.bytes)
            continue;
        l->bytes = c.bytes;
        l->id = c.id;
        l->next = r->next;
        r->bytes = 0;
        if (l->next >= 0)
            e->symbols[l->next].prev = left;
        offer_pair(e, l->prev, left);
        offer_pair(e, left, l->next);
    }
    return HT_OK;
}

/* ---- byte-level BPE ------------------------------------------------------------------------------------------ */

/* The piece that is the whole word, written in the byte-level alphabet; -1: none. */
static int32_t whole_word(ht_encoder *e, const char *word, size_t bytes) {
    char written[HT_MAX_PIECE_BYTES];
    size_t n = 0;
    if (bytes > e->tokenizer->longest) /* a character of the alphabet is at least one byte */
        return -1;
    for (size_t i = 0; i < bytes; i++) {
        if (n + 2 > sizeof written)
            return -1;
        n += ht_byte_to_char((uint8_t)word[i], written + n);
    }
    return find_mergeable(e->tokenizer, written, n);
}

/* A byte that has no token (small vocabularies lack those that valid UTF-8 never or hardly holds) gives none: the
 * reference implementations drop it too, and the unknown token of such models is one that ends a text. */
static ht_status bpe_word(void *user, const char *word, size_t bytes, ht_error *error) {
    ht_encoder *e = user;
    const ht_tokenizer *t = e->tokenizer;
    if (bytes == 1)
        return t->byte_ids[(uint8_t)*word] < 0 ? HT_OK : ht_encoder_push(e, t->byte_ids[(uint8_t)*word], error);
    int32_t whole = t->pre->flags & HT_PRE_WHOLE_WORDS ? whole_word(e, word, bytes) : -1;
    if (whole >= 0)
        return ht_encoder_push(e, whole, error);
    ht_status status = ht_grow((void **)&e->symbols, &e->cap_symbols, bytes, sizeof *e->symbols, "tokenizer", error);
    if (status)
        return status;
    e->text = word;
    for (size_t i = 0; i < bytes; i++)
        e->symbols[i] = (ht_symbol){(uint32_t)i, 1, -1, -1, t->byte_ids[(uint8_t)word[i]]};
    status = merge(e, bytes, error);
    for (int32_t i = 0; status == HT_OK && i >= 0; i = e->symbols[i].next)
        if (e->symbols[i].id >= 0)
            status = ht_encoder_push(e, e->symbols[i].id, error);
    return status;
}

/* ---- BPE over characters: SentencePiece by score, Gemma 4 and its like by rank ------------------------------- */

static ht_status merge_characters(ht_encoder *e, const char *text, size_t bytes, ht_error *error) {
    ht_status status = ht_grow((void **)&e->symbols, &e->cap_symbols, bytes, sizeof *e->symbols, "tokenizer", error);
    if (status)
        return status;
    e->text = text;
    size_t n = 0;
    for (size_t at = 0, used; at < bytes; at += used) {
        bool valid = ht_utf8_next(text + at, bytes - at, &used) >= 0;
        int32_t id = valid ? find_mergeable(e->tokenizer, text + at, used) : -1;
        e->symbols[n++] = (ht_symbol){(uint32_t)at, (uint32_t)used, -1, -1, id};
    }
    if (n == 0)
        return HT_OK;
    status = merge(e, n, error);
    for (int32_t i = 0; status == HT_OK && i >= 0; i = e->symbols[i].next) {
        const ht_symbol *s = &e->symbols[i];
        status =
            s->id >= 0 ? ht_encoder_push(e, s->id, error) : ht_encoder_push_bytes(e, text + s->start, s->bytes, error);
    }
    return status;
}

/* A row of newlines that is a piece is that piece: Gemma 4 has them, and no merges that lead to them all. */
static ht_status character_word(void *user, const char *word, size_t bytes, ht_error *error) {
    ht_encoder *e = user;
    size_t newlines = 0;
    while (newlines < bytes && word[newlines] == '\n')
        newlines++;
    const bool whole = newlines == bytes || e->tokenizer->pre->flags & HT_PRE_WHOLE_WORDS;
    const int32_t id = whole ? find_mergeable(e->tokenizer, word, bytes) : -1;
    return id >= 0 ? ht_encoder_push(e, id, error) : merge_characters(e, word, bytes, error);
}

/* By rank; in front of it the normaliser of the model's own tokenizer. */
static ht_status pretokenized(ht_encoder *e, const char *text, size_t bytes, ht_error *error) {
    const ht_tokenizer *t = e->tokenizer;
    const unsigned flags = t->pre->flags;
    ht_status status = HT_OK;
    e->normal.bytes = 0;
    if (flags & HT_PRE_NFC)
        status = ht_normalise_nfc(text, bytes, &e->normal, error);
    else if (flags & HT_PRE_CHARACTERS && t->normaliser.lower)
        status = ht_normalise_lower(text, bytes, &e->normal, error);
    else if (flags & HT_PRE_SPACES || t->adds_space)
        status = ht_normalise_pieces(&t->normaliser, t->adds_space, text, bytes, &e->normal, error);
    const bool normal = e->normal.bytes > 0;
    if (status)
        return status;
    return ht_pretokenize(t->pre, t->passes, e->matches, normal ? e->normal.data : text,
                          normal ? e->normal.bytes : bytes, t->kind == HT_VOCAB_BYTE_LEVEL ? bpe_word : character_word,
                          e, error);
}

/* ---- texts with foreign parts -------------------------------------------------------------------------------- */

void ht_script_free(ht_script *script) {
    ht_text_free(&script->text);
    free(script->foreign);
    *script = (ht_script){0};
}

ht_status ht_script_append(ht_script *script, const char *text, size_t bytes, bool foreign, ht_error *error) {
    const size_t begin = script->text.bytes;
    ht_status status = ht_text_append(&script->text, text, bytes, error);
    if (status != HT_OK || !foreign || bytes == 0)
        return status;
    if (script->n_foreign > 0 && script->foreign[script->n_foreign - 1].end == begin) {
        script->foreign[script->n_foreign - 1].end = begin + bytes;
        return HT_OK;
    }
    status = ht_grow((void **)&script->foreign, &script->cap_foreign, script->n_foreign + 1, sizeof *script->foreign,
                     "chat template", error);
    if (status == HT_OK)
        script->foreign[script->n_foreign++] = (ht_stretch){begin, begin + bytes};
    return status;
}

/* ---- the whole text ------------------------------------------------------------------------------------------ */

/* Text between two special tokens (or an end): the space that SentencePiece adds goes before each. */
static ht_status fragment(ht_encoder *e, const char *text, size_t bytes, ht_error *error) {
    const ht_tokenizer *t = e->tokenizer;
    if (bytes == 0)
        return HT_OK;
    e->n_before = e->n_ids;
    switch (t->kind) {
    case HT_VOCAB_BYTE_LEVEL:
    case HT_VOCAB_CHARACTERS:
        return pretokenized(e, text, bytes, error);
    case HT_VOCAB_WORDPIECE:
        return ht_normalise_bert(&t->normaliser, text, bytes, ht_encode_wordpiece, e, error);
    case HT_VOCAB_PLAMO2:
        return ht_encode_plamo2(e, text, bytes, error);
    case HT_VOCAB_GREEDY:
        return ht_encode_greedy(e, text, bytes, error);
    case HT_VOCAB_SENTENCEPIECE:
    case HT_VOCAB_UNIGRAM:
        break;
    }
    e->normal.bytes = 0;
    ht_status status = ht_normalise_pieces(&t->normaliser, t->adds_space, text, bytes, &e->normal, error);
    if (status || e->normal.bytes == 0)
        return status;
    return t->kind == HT_VOCAB_UNIGRAM ? ht_encode_unigram(e, e->normal.data, e->normal.bytes, error)
                                       : merge_characters(e, e->normal.data, e->normal.bytes, error);
}

/* Longest special token at the start of text, -1: none. Control tokens lie in the first `ours` bytes. User-defined ones may
 * be anywhere, across the borders of what users write, too: they are text (runs of newlines, HTML's tags) and command
 * nothing, and the models' own tokenizers, which see the whole text, take them there as well. Those among `marks` are
 * what a chat template writes ("<tool_call>") and count as control tokens. */
static int32_t special_at(const ht_tokenizer *t, const char *text, size_t bytes, size_t ours, const bool *marks,
                          size_t *used) {
    int32_t found = -1;
    int32_t node = t->trie_roots[(uint8_t)text[0]];
    for (size_t depth = 1; node >= 0; depth++) {
        int32_t id = t->trie[node].id;
        if (id >= 0 && (depth <= ours || (t->types[id] == HT_TOKEN_USER_DEFINED && !(marks && marks[id])))) {
            found = id;
            *used = depth;
        }
        if (depth == bytes)
            break;
        node = t->trie[node].child;
        while (node >= 0 && t->trie[node].byte != (uint8_t)text[depth])
            node = t->trie[node].sibling;
    }
    return found;
}

void ht_tokenizer_find_specials(const ht_tokenizer *t, const char *text, size_t bytes, bool *found) {
    for (size_t at = 0; at < bytes; at++) {
        int32_t node = t->trie_roots[(uint8_t)text[at]];
        for (size_t next = at + 1; node >= 0; next++) {
            if (t->trie[node].id >= 0)
                found[t->trie[node].id] = true;
            node = next < bytes ? t->trie[node].child : -1;
            while (node >= 0 && t->trie[node].byte != (uint8_t)text[next])
                node = t->trie[node].sibling;
        }
    }
}

/* A special token that the text spells. The BOS at the very start is the one that was added already. */
static ht_status push_special(ht_encoder *e, int32_t id, bool first, bool known, ht_error *error) {
    if (!first || id != e->tokenizer->bos || e->n_ids == 0)
        return ht_encoder_push(e, id, error);
    if (!known)
        ht_log(HT_LOG_WARN, "the text already begins with BOS: no second BOS is added");
    return HT_OK;
}

static bool is_space(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static size_t spaces(const char *text, size_t bytes) {
    size_t n = 0;
    while (n < bytes && is_space(text[n]))
        n++;
    return n;
}

static size_t before_spaces(const char *text, size_t begin, size_t end) {
    while (end > begin && is_space(text[end - 1]))
        end--;
    return end;
}

static ht_status encode(ht_encoder *e, const ht_script *script, bool add_special, ht_error *error) {
    const ht_tokenizer *t = e->tokenizer;
    const char *text = script->text.data;
    const size_t bytes = script->text.bytes;
    ht_status status = HT_OK;
    if (add_special && t->adds_bos)
        status = ht_encoder_push(e, t->bos, error);
    size_t begin = 0, used = 0, next = 0; /* next: foreign stretch that ends after `at` */
    for (size_t at = 0; status == HT_OK && at < bytes;) {
        while (next < script->n_foreign && script->foreign[next].end <= at)
            next++;
        const size_t border = next < script->n_foreign ? script->foreign[next].begin : bytes;
        int32_t id = special_at(t, text + at, bytes - at, border > at ? border - at : 0, script->marks, &used);
        if (id < 0) {
            at++;
            continue;
        }
        const size_t end = t->strips_left && t->strips_left[id] ? before_spaces(text, begin, at) : at;
        status = fragment(e, text + begin, end - begin, error);
        if (status == HT_OK)
            status = push_special(e, id, at == 0, script->bos != HT_BOS_NONE, error);
        begin = at += used;
        if (t->strips_right && t->strips_right[id])
            begin = at += spaces(text + at, bytes - at);
    }
    if (status == HT_OK)
        status = fragment(e, text + begin, bytes - begin, error);
    return status == HT_OK && add_special && t->last >= 0 ? ht_encoder_push(e, t->last, error) : status;
}

ht_status ht_tokenizer_encode(const ht_tokenizer *tokenizer, const char *text, size_t bytes, unsigned flags,
                              int32_t **ids, size_t *n, ht_error *error) {
    if (bytes == HT_STRLEN)
        bytes = strlen(text);
    ht_stretch all = {0, bytes};
    const ht_script script = {.text = {.data = (char *)text, .bytes = bytes}, .foreign = &all, .n_foreign = bytes > 0};
    return ht_tokenizer_encode_script(tokenizer, &script, flags, ids, n, error);
}

ht_status ht_tokenizer_encode_script(const ht_tokenizer *tokenizer, const ht_script *script, unsigned flags,
                                     int32_t **ids, size_t *n, ht_error *error) {
    const size_t bytes = script->text.bytes;
    ht_script trusted = *script;
    if (flags & HT_TOKENIZE_PARSE_SPECIAL)
        trusted.n_foreign = 0;
    if (flags & ~(unsigned)(HT_TOKENIZE_ADD_SPECIAL | HT_TOKENIZE_PARSE_SPECIAL))
        return ht_fail(error, HT_ERROR_ARGUMENT, "invalid flags %#x for tokenizing", flags);
    if (bytes > INT32_MAX / 8) /* symbols and their offsets are 32 bits wide, and a space becomes three bytes */
        return ht_fail(error, HT_ERROR_ARGUMENT, "text of %zu bytes is longer than the %d that can be tokenized", bytes,
                       INT32_MAX / 8);
    ht_encoder e = {.tokenizer = tokenizer};
    ht_status status = HT_OK;
    for (int i = 0; i < HT_MAX_PASSES && status == HT_OK && tokenizer->passes[i]; i++) {
        e.matches[i] = pcre2_match_data_create_from_pattern(tokenizer->passes[i], NULL);
        if (!e.matches[i])
            status = ht_fail(error, HT_ERROR_MEMORY, "out of memory for the tokenizer");
    }
    if (status == HT_OK) /* even no tokens are a pointer that can be freed */
        status = ht_grow((void **)&e.ids, &e.cap_ids, bytes / 4 + 8, sizeof *e.ids, "token ids", error);
    if (status == HT_OK)
        status = encode(&e, &trusted, flags & HT_TOKENIZE_ADD_SPECIAL, error);
    for (int i = 0; i < HT_MAX_PASSES; i++)
        pcre2_match_data_free(e.matches[i]);
    free(e.symbols);
    free(e.heap);
    free(e.steps);
    ht_text_free(&e.normal);
    if (status) {
        free(e.ids);
        return status;
    }
    *ids = e.ids;
    *n = e.n_ids;
    return HT_OK;
}
