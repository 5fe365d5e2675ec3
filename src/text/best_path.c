/* Text to tokens for the vocabularies that do not merge: the best path over pieces (unigram: Kudo 2018, Viterbi 1967;
 * PLaMo 2), the longest piece at each place (RWKV), the longest pieces of each word (WordPiece: Schuster and Nakajima
 * 2012). Each place of a text costs at most HT_MAX_WALK steps down the trie of pieces. */
#include "text/encoder.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define BERT_WORD_CHARACTERS 100 /* a longer word is unknown, as BERT's own tokenizer has it */

static size_t character(const char *text, size_t bytes) {
    size_t used;
    ht_utf8_next(text, bytes, &used);
    return used;
}

/* ---- unigram ------------------------------------------------------------------------------------------------- */

static void offer(ht_step *step, double score, size_t bytes, int32_t id) {
    if (score > step->score)
        *step = (ht_step){score, (uint32_t)bytes, id};
}

static double score_of(const ht_tokenizer *t, int32_t id) {
    return t->types[id] == HT_TOKEN_USER_DEFINED ? 0 : (double)t->scores[id];
}

/* Ids of the path, from its end to its begin; what has no piece is unknown, and a row of it is one token. */
static ht_status collect(ht_encoder *e, const char *text, size_t bytes, ht_error *error) {
    const ht_tokenizer *t = e->tokenizer;
    const size_t begin = e->n_ids;
    ht_status status = HT_OK;
    bool unknown = false;
    for (size_t at = bytes; status == HT_OK && at > 0; at -= e->steps[at].bytes) {
        const ht_step *step = &e->steps[at];
        const bool again = unknown && step->id < 0;
        unknown = step->id < 0;
        if (unknown && t->byte_fallback)
            for (size_t i = 1; status == HT_OK && i <= step->bytes; i++)
                status = ht_encoder_push(e, t->byte_ids[(uint8_t)text[at - i]], error);
        else if (unknown && !again && t->unknown < 0)
            status = ht_fail(error, HT_ERROR_FORMAT, "the vocabulary has no unknown token for a character of the text");
        else if (!again)
            status = ht_encoder_push(e, unknown ? t->unknown : step->id, error);
    }
    for (size_t i = begin, k = e->n_ids; i + 1 < k; i++) {
        const int32_t id = e->ids[i];
        e->ids[i] = e->ids[--k];
        e->ids[k] = id;
    }
    return status;
}

ht_status ht_encode_unigram(ht_encoder *e, const char *text, size_t bytes, ht_error *error) {
    const ht_tokenizer *t = e->tokenizer;
    const ht_piece_trie *trie = &t->pieces_trie;
    ht_status status = ht_grow((void **)&e->steps, &e->cap_steps, bytes + 1, sizeof *e->steps, "tokenizer", error);
    if (status)
        return status;
    for (size_t i = 0; i <= bytes; i++)
        e->steps[i] = (ht_step){i == 0 ? 0 : -INFINITY, 0, -1};
    for (size_t at = 0, whole; at < bytes; at += whole) {
        const double before = e->steps[at].score;
        bool covered = false;
        whole = character(text + at, bytes - at);
        int32_t node = 0;
        for (size_t n = 0; at + n < bytes;) {
            node = ht_piece_trie_step(trie, node, (uint8_t)text[at + n++]);
            if (node < 0)
                break;
            const int32_t id = trie->ids[node];
            if (id < 0)
                continue;
            covered = covered || n == whole;
            offer(&e->steps[at + n], before + score_of(t, id), n, id);
        }
        if (!covered)
            offer(&e->steps[at + whole], before + (double)t->unknown_score, whole, -1);
        if (e->steps[at + whole].bytes == 0) /* scores of -infinity: any path is as good */
            e->steps[at + whole] = (ht_step){-DBL_MAX, (uint32_t)whole, -1};
    }
    return collect(e, text, bytes, error);
}

/* ---- PLaMo 2 ------------------------------------------------------------------------------------------------- */

#define PLAMO_INVALID (-20000000.0)
#define PLAMO_UNKNOWN (-10000000.0)

/* Scores are whole numbers of 1/10000; a longer piece wins where two paths are equal. */
ht_status ht_encode_plamo2(ht_encoder *e, const char *text, size_t bytes, ht_error *error) {
    const ht_tokenizer *t = e->tokenizer;
    const ht_piece_trie *trie = &t->pieces_trie;
    if (bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) /* a byte order mark */
        text += 3, bytes -= 3;
    ht_status status = ht_grow((void **)&e->steps, &e->cap_steps, bytes + 1, sizeof *e->steps, "tokenizer", error);
    if (status)
        return status;
    for (size_t at = 0; at <= bytes; at++)
        e->steps[at] = (ht_step){0};
    for (size_t at = 0, whole; at < bytes; at += whole) { /* where characters begin */
        whole = character(text + at, bytes - at);
        e->steps[at].bytes = (uint32_t)whole;
    }
    for (size_t at = bytes; at-- > 0;) {
        ht_step *best = &e->steps[at];
        if (best->bytes == 0)
            continue;
        *best = (ht_step){e->steps[at + best->bytes].score + PLAMO_UNKNOWN, best->bytes, -1};
        int32_t node = 0;
        for (size_t n = 0; at + n < bytes;) {
            node = ht_piece_trie_step(trie, node, (uint8_t)text[at + n++]);
            if (node < 0)
                break;
            const int32_t id = trie->ids[node];
            if (id < 0 || (at + n < bytes && e->steps[at + n].bytes == 0))
                continue;
            const double score = isfinite(t->scores[id]) ? round((double)t->scores[id] * 1e4) : PLAMO_INVALID;
            if (score > PLAMO_INVALID && e->steps[at + n].score + score >= best->score)
                *best = (ht_step){e->steps[at + n].score + score, (uint32_t)n, id};
        }
    }
    for (size_t at = 0; status == HT_OK && at < bytes; at += e->steps[at].bytes) {
        const ht_step *step = &e->steps[at];
        status = step->id >= 0 ? ht_encoder_push(e, step->id, error)
                               : ht_encoder_push_bytes(e, text + at, step->bytes, error);
    }
    return status;
}

/* ---- the longest piece --------------------------------------------------------------------------------------- */

/* Id of the longest piece at text[0..bytes) that goes on from `node`; -1: none. */
static int32_t longest(const ht_piece_trie *trie, int32_t node, const char *text, size_t bytes, size_t *used) {
    int32_t found = -1;
    for (size_t n = 0; n < bytes;) {
        node = ht_piece_trie_step(trie, node, (uint8_t)text[n++]);
        if (node < 0)
            break;
        if (trie->ids[node] >= 0)
            found = trie->ids[node], *used = n;
    }
    return found;
}

ht_status ht_encode_greedy(ht_encoder *e, const char *text, size_t bytes, ht_error *error) {
    ht_status status = HT_OK;
    for (size_t at = 0, used = 1; status == HT_OK && at < bytes; at += used) {
        const int32_t id = longest(&e->tokenizer->pieces_trie, 0, text + at, bytes - at, &used);
        used = id < 0 ? 1 : used;
        status = id < 0 ? ht_encoder_push_bytes(e, text + at, 1, error) : ht_encoder_push(e, id, error);
    }
    return status;
}

/* GGUF writes a piece that begins a word with U+2581 in front, and one that goes on without BERT's "##". */
ht_status ht_encode_wordpiece(void *user, const char *word, size_t bytes, ht_error *error) {
    ht_encoder *e = user;
    const ht_piece_trie *trie = &e->tokenizer->pieces_trie;
    const size_t begin = e->n_ids;
    size_t characters = 0, used = 0;
    for (size_t at = 0; at < bytes; at += used, characters++)
        if (ht_utf8_next(word + at, bytes - at, &used) == 0x2581) /* the file's mark in a text is no mark */
            characters = BERT_WORD_CHARACTERS;
    int32_t node = 0;
    for (const char *mark = "\xe2\x96\x81"; *mark && node >= 0; mark++)
        node = ht_piece_trie_step(trie, node, (uint8_t)*mark);
    ht_status status = HT_OK;
    size_t at = 0;
    for (; status == HT_OK && at < bytes && characters <= BERT_WORD_CHARACTERS; at += used) {
        const int32_t id = at > 0 || node >= 0 ? longest(trie, at > 0 ? 0 : node, word + at, bytes - at, &used) : -1;
        if (id < 0)
            break;
        status = ht_encoder_push(e, id, error);
    }
    if (status != HT_OK || at == bytes)
        return status;
    e->n_ids = begin; /* a word of which any part is unknown is unknown */
    if (e->tokenizer->unknown < 0)
        return ht_fail(error, HT_ERROR_FORMAT, "the vocabulary has no unknown token for a word of the text");
    return ht_encoder_push(e, e->tokenizer->unknown, error);
}
