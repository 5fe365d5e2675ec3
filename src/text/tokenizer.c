/* The vocabulary of a file: checked, indexed, decoded. What encodes with it is in encode.c. */
#include "text/vocab.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY(name) "tokenizer.ggml." name
#define ALPHABET_END 324 /* of the byte-level alphabet's characters */

/* Marks that are known by their text, because files are known that say too little about them. One that its file makes a
 * control token or a user-defined one is a control token from then on; ALWAYS: an ordinary piece, too. */
enum { ENDS = 1, ALWAYS = 2 };
static const struct {
    const char *text;
    int flags;
} marks[] = {
    /* they end a turn or a text */
    {"<|im_end|>", ENDS | ALWAYS},
    {"<|eot_id|>", ENDS | ALWAYS},
    {"<|eom_id|>", ENDS | ALWAYS},
    {"<end_of_turn>", ENDS | ALWAYS},
    {"<|endoftext|>", ENDS | ALWAYS},
    {"<|end_of_text|>", ENDS | ALWAYS},
    {"</s>", ENDS},
    {"<eos>", ENDS},
    {"<EOT>", ENDS},
    {"_<EOT>", ENDS},
    {"[EOS]", ENDS},
    {"[EOT]", ENDS},
    {"<|eos|>", ENDS},
    {"<|end|>", ENDS},
    {"<|return|>", ENDS},
    {"<|call|>", ENDS},
    {"<turn|>", ENDS},
    {"<|end_of_turn|>", ENDS},
    {"<end_of_utterance>", ENDS},
    {"<|flush|>", ENDS},
    {"<|calls|>", ENDS},
    {"<|tool_response>", ENDS},
    {"[e~[", ENDS},
    /* they pad or part the files of a coding model, and no answer goes on after them */
    {"<|fim_pad|>", ENDS},
    {"<fim-pad>", ENDS},
    {"<fim_pad>", ENDS},
    {"<PAD>", ENDS},
    {"[PAD]", ENDS},
    {"<|fim_repo|>", ENDS},
    {"<|repo_name|>", ENDS},
    {"<fim-repo>", ENDS},
    {"<REPO>", ENDS},
    {"<reponame>", ENDS},
    {"<|file_sep|>", ENDS},
    {"<\xef\xbd\x9c"
     "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
     ENDS}, /* DeepSeek's, with U+FF5C and U+2581 */
    /* they begin one, or say whose it is: no text of a user may become them */
    {"<|im_start|>", 0},
    {"<start_of_turn>", 0},
    {"<|turn>", 0},
    {"<|start_header_id|>", 0},
    {"<|end_header_id|>", 0},
    {"<|begin_of_text|>", 0},
    {"<bos>", 0},
    {"[INST]", 0},
    {"[/INST]", 0},
    {"[SYSTEM_PROMPT]", 0},
    {"[/SYSTEM_PROMPT]", 0},
    {"[AVAILABLE_TOOLS]", 0},
    {"[/AVAILABLE_TOOLS]", 0},
    {"[TOOL_CALLS]", 0},
    {"[TOOL_RESULTS]", 0},
    {"[/TOOL_RESULTS]", 0},
    {"<\xef\xbd\x9cUser\xef\xbd\x9c>", 0},
    {"<\xef\xbd\x9c"
     "Assistant\xef\xbd\x9c>",
     0},
    {"<|system|>", 0},
    {"<|user|>", 0},
    {"<|assistant|>", 0},
    {"<|start|>", 0},
    {"<|message|>", 0},
    {"<|channel|>", 0},
    {"<|constrain|>", 0},
    /* what is to be filled in, and around what */
    {"<|fim_prefix|>", 0},
    {"<|fim_suffix|>", 0},
    {"<|fim_middle|>", 0},
    {"<fim-prefix>", 0},
    {"<fim-suffix>", 0},
    {"<fim-middle>", 0},
    {"<fim_prefix>", 0},
    {"<fim_suffix>", 0},
    {"<fim_middle>", 0},
    {"<PRE>", 0},
    {"<SUF>", 0},
    {"<MID>", 0},
    {"<|code_prefix|>", 0},
    {"<|code_suffix|>", 0},
    {"<|code_middle|>", 0},
    {"<\xef\xbd\x9c"
     "fim\xe2\x96\x81"
     "begin\xef\xbd\x9c>",
     0},
    {"<\xef\xbd\x9c"
     "fim\xe2\x96\x81hole\xef\xbd\x9c>",
     0},
    {"<\xef\xbd\x9c"
     "fim\xe2\x96\x81"
     "end\xef\xbd\x9c>",
     0},
};

/* ---- hashes -------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)(a ^ 0x9e3779b97f4a7c15u) * (b ^ 0xd6e8feb86659fd93u);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t table_size(uint64_t entries) {
    uint64_t size = 16;
    while (size < entries * 2)
        size *= 2;
    return size;
}

/* The slot of a piece, or the free one where it would go. */
static ht_index_slot *index_slot(const ht_tokenizer *t, const char *text, size_t bytes, uint32_t *hash) {
    uint64_t h = ht_hash_seeded(t->seed, text, bytes);
    *hash = (uint32_t)(h >> 32);
    for (uint64_t i = h & t->index_mask;; i = (i + 1) & t->index_mask) {
        ht_index_slot *slot = &t->index[i];
        if (slot->id < 0)
            return slot;
        const ht_string *piece = &t->pieces[slot->id];
        if (slot->hash == *hash && piece->bytes == bytes && memcmp(piece->data, text, bytes) == 0)
            return slot;
    }
}

int32_t ht_vocab_find(const ht_tokenizer *tokenizer, const char *text, size_t bytes) {
    uint32_t hash;
    return index_slot(tokenizer, text, bytes, &hash)->id;
}

static ht_merge_slot *merge_slot(const ht_tokenizer *t, uint64_t pair) {
    for (uint64_t i = mix(t->seed, pair) & t->merge_mask;; i = (i + 1) & t->merge_mask)
        if (t->merges[i].pair == pair || t->merges[i].pair == UINT64_MAX)
            return &t->merges[i];
}

static uint64_t pair_of(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

bool ht_vocab_merge(const ht_tokenizer *tokenizer, int32_t left, int32_t right, uint32_t *rank, int32_t *id) {
    if (left < 0 || right < 0)
        return false;
    const ht_merge_slot *slot = merge_slot(tokenizer, pair_of(left, right));
    if (slot->pair == UINT64_MAX)
        return false;
    *rank = slot->rank;
    *id = slot->id;
    return true;
}

/* ---- the byte-level alphabet (GPT-2) ------------------------------------------------------------------------- */

/* Printable Latin-1 stands for itself; the other 68 bytes are U+0100 and on, in order. */
size_t ht_byte_to_char(uint8_t byte, char out[2]) {
    int c = byte;
    if (byte <= 32)
        c = 256 + byte;
    else if (byte >= 127 && byte <= 160)
        c = 256 + 33 + byte - 127;
    else if (byte == 173)
        c = 256 + 33 + 34;
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 0x3f));
    return 2;
}

/* ---- loading ------------------------------------------------------------------------------------------------- */

static ht_status out_of_memory(ht_error *error) {
    return ht_fail(error, HT_ERROR_MEMORY, "out of memory for the vocabulary");
}

/* An array under `key` with at least `count` items of one of two kinds; *value NULL if absent and not required. */
static ht_status find_array(const ht_gguf *file, const char *key, bool required, uint64_t count, ht_gguf_kind kind,
                            ht_gguf_kind other, const ht_gguf_value **value, ht_error *error) {
    const ht_gguf_value *found = ht_gguf_find(file, key);
    *value = found;
    if (!found && required)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"%s\" is missing", ht_gguf_path(file), key);
    if (!found)
        return HT_OK;
    if (found->kind != HT_GGUF_ARRAY || (found->item_kind != kind && found->item_kind != other))
        return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"%s\" is not an array of %s", ht_gguf_path(file), key,
                       kind == HT_GGUF_STRING ? "strings"
                       : kind == HT_GGUF_F32  ? "floats"
                                              : "integers");
    if (found->count < count)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"%s\" has %" PRIu64 " items for a vocabulary of %" PRIu64,
                       ht_gguf_path(file), key, found->count, count);
    return HT_OK;
}

static ht_status load_pieces(ht_tokenizer *t, const ht_gguf *file, ht_error *error) {
    const ht_gguf_value *tokens, *types;
    ht_status status = find_array(file, KEY("tokens"), true, 1, HT_GGUF_STRING, HT_GGUF_STRING, &tokens, error);
    if (status)
        return status;
    if (tokens->count > INT32_MAX / 2)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"" KEY("tokens") "\" has %" PRIu64 " items",
                       ht_gguf_path(file), tokens->count);
    t->size = (int32_t)tokens->count;
    t->pieces = tokens->strings;
    status = find_array(file, KEY("token_type"), false, tokens->count, HT_GGUF_I32, HT_GGUF_U32, &types, error);
    if (status)
        return status;
    uint64_t slots = table_size(tokens->count);
    t->index_mask = slots - 1;
    t->types = ht_arena_alloc(&t->arena, tokens->count);
    t->ends = ht_arena_alloc(&t->arena, tokens->count * sizeof *t->ends);
    t->index = ht_arena_alloc(&t->arena, slots * sizeof *t->index);
    if (!t->types || !t->ends || !t->index)
        return out_of_memory(error);
    memset(t->index, 0xff, slots * sizeof *t->index);
    int twice = 0;
    for (int32_t id = 0; id < t->size; id++) {
        const ht_string *piece = &t->pieces[id];
        int64_t type = types ? ht_gguf_item_int(types, (uint64_t)id) : HT_TOKEN_NORMAL;
        t->types[id] = type >= HT_TOKEN_NORMAL && type <= HT_TOKEN_BYTE ? (uint8_t)type : HT_TOKEN_UNUSED;
        if (piece->bytes > HT_MAX_PIECE_BYTES)
            return ht_fail(error, HT_ERROR_FORMAT, "%s: " KEY("tokens") "[%d] is %zu bytes long (at most %d)",
                           ht_gguf_path(file), id, piece->bytes, HT_MAX_PIECE_BYTES);
        if (piece->bytes == 0)
            continue; /* padding of some files: no text can become it */
        t->longest = ht_max_size(t->longest, piece->bytes);
        uint32_t hash;
        ht_index_slot *slot = index_slot(t, piece->data, piece->bytes, &hash);
        if (slot->id >= 0)
            twice++;
        /* The first of equal pieces is the one that text becomes; official files have such. Special tokens are found by the
         * trie, so an ordinary one goes before them here. */
        if (slot->id < 0 || (t->types[slot->id] != HT_TOKEN_NORMAL && t->types[id] == HT_TOKEN_NORMAL))
            *slot = (ht_index_slot){hash, id};
    }
    if (twice)
        ht_log(HT_LOG_DEBUG, "%s: %d tokens have the same text as another", ht_gguf_path(file), twice);
    return HT_OK;
}

/* A token id under KEY; absent: fallback, if the vocabulary has it. 2^32 - 1 is how some files write "none". */
static ht_status load_id(const ht_tokenizer *t, const ht_gguf *file, const char *key, int32_t fallback, int32_t *id,
                         ht_error *error) {
    int64_t value = fallback < t->size ? fallback : -1;
    ht_status status = ht_gguf_int(file, key, false, -1, UINT32_MAX, &value, error);
    if (status)
        return status;
    if (value == UINT32_MAX)
        value = -1;
    if (value >= t->size)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"%s\" is %" PRId64 ", but the vocabulary has %d tokens",
                       ht_gguf_path(file), key, value, t->size);
    *id = (int32_t)value;
    return HT_OK;
}

/* More ids that end a text, as some converters write them. */
static ht_status load_end_ids(ht_tokenizer *t, const ht_gguf *file, ht_error *error) {
    const char *key = KEY("eos_token_ids");
    const ht_gguf_value *list = ht_gguf_find(file, key);
    if (!list)
        return HT_OK;
    const ht_gguf_kind kind = list->item_kind;
    if (list->kind != HT_GGUF_ARRAY || !(kind <= HT_GGUF_I32 || kind == HT_GGUF_U64 || kind == HT_GGUF_I64))
        return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"%s\" is not an array of integers", ht_gguf_path(file), key);
    for (uint64_t i = 0; i < list->count; i++) {
        const int64_t id = ht_gguf_item_int(list, i);
        if (id < 0 || id >= t->size)
            return ht_fail(error, HT_ERROR_FORMAT,
                           "%s: key \"%s\"[%" PRIu64 "] is %" PRId64 ", but the vocabulary has %d tokens",
                           ht_gguf_path(file), key, i, id, t->size);
        t->ends[id] = true;
    }
    return HT_OK;
}

/* Id of a piece that is or can be made a special token; -1: none. */
static int32_t find_mark(const ht_tokenizer *t, const char *text, bool always) {
    const int32_t id = ht_vocab_find(t, text, strlen(text));
    const bool special = id >= 0 && (t->types[id] == HT_TOKEN_CONTROL || t->types[id] == HT_TOKEN_USER_DEFINED);
    return special || always ? id : -1;
}

static void load_marks(ht_tokenizer *t) {
    for (size_t i = 0; i < HT_COUNT(marks); i++) {
        const char *text = marks[i].text;
        const int32_t id = find_mark(t, text, marks[i].flags & ALWAYS);
        if (id < 0)
            continue;
        /* Gemma's vocabulary has HTML's tags, <s> and </s> among them. */
        if (strcmp(text, "</s>") == 0 && t->types[id] == HT_TOKEN_USER_DEFINED && find_mark(t, "<b>", false) >= 0)
            continue;
        t->types[id] = HT_TOKEN_CONTROL;
        /* Where an answer ends with <|return|> or <|flush|>, <|end|> is between its parts. */
        const bool parts = find_mark(t, "<|return|>", false) >= 0 || find_mark(t, "<|flush|>", false) >= 0;
        const bool part = parts && strcmp(text, "<|end|>") == 0;
        if (marks[i].flags & ENDS && !part)
            t->ends[id] = true;
    }
}

/* What the kinds of tokenizer take for granted where a file is silent; -1: nothing. */
static const struct {
    int32_t bos, eos, unknown, separator;
    bool adds_bos, adds_space;
} usual[] = {
    [HT_VOCAB_BYTE_LEVEL] = {-1, -1, -1, -1, false, false}, [HT_VOCAB_CHARACTERS] = {-1, -1, -1, -1, false, false},
    [HT_VOCAB_SENTENCEPIECE] = {1, 2, 0, -1, true, true},   [HT_VOCAB_UNIGRAM] = {-1, 1, 2, -1, false, true},
    [HT_VOCAB_PLAMO2] = {1, 2, 0, -1, false, false},        [HT_VOCAB_WORDPIECE] = {101, -1, 100, 102, true, false},
    [HT_VOCAB_GREEDY] = {-1, -1, -1, -1, false, false},
};

/* Whether and what is added before and after a text. */
static ht_status load_additions(ht_tokenizer *t, const ht_gguf *file, int32_t separator, ht_error *error) {
    bool adds_eos = t->kind == HT_VOCAB_UNIGRAM;
    t->adds_bos = t->bos >= 0 && (usual[t->kind].adds_bos || (t->pre && t->pre->flags & HT_PRE_BOS));
    t->adds_space = usual[t->kind].adds_space;
    ht_status status = ht_gguf_bool(file, KEY("add_bos_token"), false, &t->adds_bos, error);
    if (status == HT_OK)
        status = ht_gguf_bool(file, KEY("add_eos_token"), false, &adds_eos, error);
    if (status == HT_OK && t->kind != HT_VOCAB_PLAMO2 && t->kind != HT_VOCAB_WORDPIECE && t->kind != HT_VOCAB_GREEDY)
        status = ht_gguf_bool(file, KEY("add_space_prefix"), false, &t->adds_space, error);
    if (status)
        return status;
    if (t->adds_bos && t->bos < 0)
        return ht_fail(error, HT_ERROR_FORMAT,
                       "%s: key \"" KEY("add_bos_token") "\" is true, but no \"" KEY("bos_token_id") "\" is given",
                       ht_gguf_path(file));
    if (t->kind == HT_VOCAB_BYTE_LEVEL || t->kind == HT_VOCAB_CHARACTERS)
        t->adds_space = false; /* files say it of them, too, and no one heeds it */
    t->last = t->kind == HT_VOCAB_WORDPIECE ? separator : adds_eos ? t->eos : -1;
    return HT_OK;
}

static ht_status load_special_ids(ht_tokenizer *t, const ht_gguf *file, ht_error *error) {
    int32_t separator = -1, first = usual[t->kind].bos;
    struct {
        const char *key;
        int32_t fallback, *id;
        bool ends;
    } rows[] = {
        {KEY("eos_token_id"), usual[t->kind].eos, &t->eos, true},
        {KEY("unknown_token_id"), usual[t->kind].unknown, &t->unknown, false},
        {KEY("seperator_token_id"), usual[t->kind].separator, &separator, false}, /* the key is spelled so */
        {KEY("eot_token_id"), -1, NULL, true},
        {KEY("eom_token_id"), -1, NULL, true},
        {KEY("fim_pad_token_id"), -1, NULL, true},
        {KEY("fim_rep_token_id"), -1, NULL, true},
        {KEY("fim_sep_token_id"), -1, NULL, true},
    };
    ht_status status = HT_OK;
    if (t->kind == HT_VOCAB_WORDPIECE)
        status = load_id(t, file, KEY("cls_token_id"), first, &first, error);
    if (status == HT_OK)
        status = load_id(t, file, KEY("bos_token_id"), first, &t->bos, error);
    for (size_t i = 0; status == HT_OK && i < HT_COUNT(rows); i++) {
        int32_t id = -1;
        status = load_id(t, file, rows[i].key, rows[i].fallback, &id, error);
        if (rows[i].id)
            *rows[i].id = id;
        if (rows[i].ends && id >= 0)
            t->ends[id] = true;
    }
    if (status == HT_OK)
        status = load_end_ids(t, file, error);
    if (status)
        return status;
    load_marks(t);
    return load_additions(t, file, separator, error);
}

/* ---- special tokens that swallow white space: files do not say it ---- */

static bool contains(ht_string text, const char *part) {
    const size_t n = strlen(part);
    for (size_t i = 0; i + n <= text.bytes; i++) {
        size_t k = 0;
        while (k < n && (text.data[i + k] | (text.data[i + k] >= 'A' && text.data[i + k] <= 'Z' ? 32 : 0)) == part[k])
            k++;
        if (k == n)
            return true;
    }
    return false;
}

static bool one_of(const ht_string *piece, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (piece->bytes == strlen(list[i]) && memcmp(piece->data, list[i], piece->bytes) == 0)
            return true;
    return false;
}

/* By the models' own tokenizer.json: Phi-3's special tokens take what is right of them, the mask of some encoders what
 * is left. */
static ht_status load_stripping(ht_tokenizer *t, const ht_gguf *file, ht_error *error) {
    static const char *const masked[] = {"jina-v2-de", "jina-v2-es", "jina-v2-code", "modern-bert"};
    static const char *const families[] = {"nomic-bert-moe", "jina-bert-v3", "modern-bert"};
    static const char *const keep[] = {"<unk>", "<s>", "<|endoftext|>"};
    ht_string name = {"", 0}, arch = {"", 0}, pre = {"", 0};
    ht_status status = ht_gguf_string(file, "general.name", false, &name, error);
    if (status == HT_OK)
        status = ht_gguf_string(file, "general.architecture", false, &arch, error);
    if (status == HT_OK)
        status = ht_gguf_string(file, KEY("pre"), false, &pre, error);
    if (status)
        return status;
    const bool phi = contains(name, "phi-3") || contains(name, "phi3");
    const bool mask = one_of(&pre, masked, HT_COUNT(masked)) || one_of(&arch, families, HT_COUNT(families));
    if (!phi && !mask)
        return HT_OK;
    bool *list = ht_arena_alloc(&t->arena, (size_t)t->size * sizeof *list);
    if (!list)
        return out_of_memory(error);
    for (int32_t id = 0; id < t->size; id++) {
        const bool special = t->types[id] >= HT_TOKEN_UNKNOWN && t->types[id] <= HT_TOKEN_USER_DEFINED;
        list[id] = special && (phi ? !one_of(&t->pieces[id], keep, HT_COUNT(keep))
                                   : one_of(&t->pieces[id], (const char *const[]){"<mask>", "[MASK]"}, 2));
    }
    *(phi ? &t->strips_right : &t->strips_left) = list;
    return HT_OK;
}

/* Merges whose parts or product are no pieces are left out: nothing could be made of them, and llama.cpp does not mind
 * them either. So are those that make a control token: text becomes one by its whole name or not at all. Of two merges
 * of one pair the first counts. */
static ht_status load_merges(ht_tokenizer *t, const ht_gguf *file, ht_error *error) {
    const ht_gguf_value *list;
    const bool needed = !(t->pre->flags & HT_PRE_NO_MERGES);
    ht_status status = find_array(file, KEY("merges"), needed, 0, HT_GGUF_STRING, HT_GGUF_STRING, &list, error);
    if (status)
        return status;
    if (list && list->count > INT32_MAX)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"" KEY("merges") "\" has %" PRIu64 " items",
                       ht_gguf_path(file), list->count);
    const uint64_t count = list ? list->count : 0, slots = table_size(count);
    t->merge_mask = slots - 1;
    t->merges = ht_arena_alloc(&t->arena, slots * sizeof *t->merges);
    if (!t->merges)
        return out_of_memory(error);
    memset(t->merges, 0xff, slots * sizeof *t->merges);
    char product[HT_MAX_PIECE_BYTES];
    for (uint64_t i = 0; i < count; i++) {
        const ht_string *text = &list->strings[i];
        /* A part is never empty, so the space that separates them is not the first character. */
        const char *space = text->bytes > 1 ? memchr(text->data + 1, ' ', text->bytes - 1) : NULL;
        if (!space)
            return ht_fail(error, HT_ERROR_FORMAT,
                           "%s: " KEY("merges") "[%" PRIu64 "] is not two pieces with a space between",
                           ht_gguf_path(file), i);
        size_t left_bytes = (size_t)(space - text->data), right_bytes = text->bytes - left_bytes - 1;
        if (left_bytes + right_bytes > t->longest)
            continue;
        memcpy(product, text->data, left_bytes);
        memcpy(product + left_bytes, space + 1, right_bytes);
        int32_t left = ht_vocab_find(t, text->data, left_bytes), right = ht_vocab_find(t, space + 1, right_bytes);
        int32_t id = ht_vocab_find(t, product, left_bytes + right_bytes);
        if (left < 0 || right < 0 || id < 0 || t->types[id] == HT_TOKEN_CONTROL || t->types[id] == HT_TOKEN_UNKNOWN)
            continue;
        ht_merge_slot *slot = merge_slot(t, pair_of(left, right));
        if (slot->pair == UINT64_MAX)
            *slot = (ht_merge_slot){pair_of(left, right), (uint32_t)i, id};
    }
    return HT_OK;
}

/* Floats as unsigned numbers of the same order, turned round: the best score comes first. */
static uint32_t order_of(float score) {
    uint32_t bits;
    score += 0.0f; /* -0 and 0 are one score */
    memcpy(&bits, &score, sizeof bits);
    return ~(bits & 0x80000000u ? ~bits : bits | 0x80000000u);
}

static ht_status load_scores(ht_tokenizer *t, const ht_gguf *file, ht_error *error) {
    const ht_gguf_value *scores;
    ht_status status =
        find_array(file, KEY("scores"), true, (uint64_t)t->size, HT_GGUF_F32, HT_GGUF_I32, &scores, error);
    if (status)
        return status;
    const bool merges = t->kind == HT_VOCAB_SENTENCEPIECE;
    float *list = merges ? NULL : ht_arena_alloc(&t->arena, (size_t)t->size * sizeof *list), least = FLT_MAX;
    t->order = merges ? ht_arena_alloc(&t->arena, (size_t)t->size * sizeof *t->order) : NULL;
    if (!list && !t->order)
        return out_of_memory(error);
    for (int32_t id = 0; id < t->size; id++) {
        const float score = (float)ht_gguf_item(scores, (uint64_t)id);
        if (isnan(score) && t->kind != HT_VOCAB_PLAMO2)
            return ht_fail(error, HT_ERROR_FORMAT, "%s: " KEY("scores") "[%d] is not a number", ht_gguf_path(file), id);
        if (merges)
            t->order[id] = order_of(score);
        else
            list[id] = score;
        if (t->types[id] == HT_TOKEN_NORMAL)
            least = fminf(least, score);
    }
    t->scores = list;
    t->unknown_score = least - 10; /* SentencePiece's penalty */
    return HT_OK;
}

static ht_status load_normaliser(ht_tokenizer *t, const ht_gguf *file, ht_error *error) {
    const char *key = KEY("precompiled_charsmap");
    ht_normaliser *n = &t->normaliser;
    n->lower = t->kind == HT_VOCAB_WORDPIECE;
    ht_status status = ht_gguf_bool(file, KEY("normalizer.lowercase"), false, &n->lower, error);
    n->strips_accents = n->lower;
    if (status == HT_OK)
        status = ht_gguf_bool(file, KEY("normalizer.strip_accents"), false, &n->strips_accents, error);
    if (status != HT_OK || (t->kind != HT_VOCAB_UNIGRAM && t->kind != HT_VOCAB_SENTENCEPIECE))
        return status;
    status = ht_gguf_bool(file, KEY("remove_extra_whitespaces"), false, &n->merges_spaces, error);
    const ht_gguf_value *map = ht_gguf_find(file, key);
    if (status != HT_OK || !map)
        return status;
    if (map->kind != HT_GGUF_ARRAY || (map->item_kind != HT_GGUF_U8 && map->item_kind != HT_GGUF_I8))
        return ht_fail(error, HT_ERROR_FORMAT, "%s: key \"%s\" is not an array of bytes", ht_gguf_path(file), key);
    return ht_normaliser_charsmap(n, map->data, map->count, ht_gguf_path(file), &t->arena, error);
}

/* A kind that merges by rank drops a byte that has no token, as the models' own tokenizers do; elsewhere it is unknown. */
static void load_byte_ids(ht_tokenizer *t) {
    int found = 0;
    for (int byte = 0; byte < 256; byte++) {
        char text[8];
        if (t->kind == HT_VOCAB_BYTE_LEVEL) {
            t->byte_ids[byte] = ht_vocab_find(t, text, ht_byte_to_char((uint8_t)byte, text));
            continue;
        }
        int n = snprintf(text, sizeof text, "<0x%02X>", byte);
        int32_t id = ht_vocab_find(t, text, (size_t)n);
        found += id >= 0;
        if (id < 0) {
            text[0] = (char)byte;
            id = ht_vocab_find(t, text, 1);
        }
        t->byte_ids[byte] = id < 0 ? t->unknown : id;
    }
    t->byte_fallback = t->kind == HT_VOCAB_UNIGRAM && found == 256;
}

/* ---- decoded pieces ------------------------------------------------------------------------------------------ */

/* Characters outside the alphabet, which only a strange file holds, stay as they are. */
static size_t decode_byte_level(const int16_t byte_of[ALPHABET_END], const ht_string *piece, char *out) {
    size_t n = 0;
    for (size_t at = 0, used; at < piece->bytes; at += used) {
        int32_t c = ht_utf8_next(piece->data + at, piece->bytes - at, &used);
        if (c >= 0 && c < ALPHABET_END && byte_of[c] >= 0) {
            out[n++] = (char)byte_of[c];
            continue;
        }
        memcpy(out + n, piece->data + at, used);
        n += used;
    }
    return n;
}

static size_t decode_sentencepiece(const ht_string *piece, bool is_byte, char *out) {
    char digits[3] = {0};
    if (is_byte && piece->bytes == 6 && memcmp(piece->data, "<0x", 3) == 0 && piece->data[5] == '>') {
        memcpy(digits, piece->data + 3, 2);
        char *end;
        long value = strtol(digits, &end, 16);
        if (end == digits + 2) {
            out[0] = (char)value;
            return 1;
        }
    }
    size_t n = 0;
    for (size_t at = 0; at < piece->bytes;) {
        bool space = piece->bytes - at >= 3 && memcmp(piece->data + at, "\xe2\x96\x81", 3) == 0;
        out[n++] = space ? ' ' : piece->data[at];
        at += space ? 3 : 1;
    }
    return n;
}

/* RWKV's file writes its pieces as Python's literals do. */
static size_t decode_escapes(const ht_string *piece, char *out) {
    size_t n = 0;
    for (size_t at = 0; at < piece->bytes; at++) {
        const char c = piece->data[at];
        if (c != '\\' || at + 1 == piece->bytes) {
            out[n++] = c;
            continue;
        }
        const char escaped = piece->data[++at];
        char digits[3] = {0};
        if (escaped == 'x' && piece->bytes - at > 2) {
            memcpy(digits, piece->data + at + 1, 2);
            out[n++] = (char)strtol(digits, NULL, 16);
            at += 2;
            continue;
        }
        out[n++] = escaped == 't' ? '\t' : escaped == 'n' ? '\n' : escaped == 'r' ? '\r' : escaped;
    }
    return n;
}

static size_t decode_piece(const ht_tokenizer *t, const int16_t byte_of[ALPHABET_END], int32_t id, char *out) {
    const ht_string *piece = &t->pieces[id];
    const uint8_t type = t->types[id];
    const bool literal = t->kind == HT_VOCAB_PLAMO2 && type != HT_TOKEN_BYTE;
    if (t->kind == HT_VOCAB_GREEDY)
        return decode_escapes(piece, out);
    if (literal || type == HT_TOKEN_CONTROL || type == HT_TOKEN_UNKNOWN || type == HT_TOKEN_USER_DEFINED) {
        memcpy(out, piece->data, piece->bytes);
        return piece->bytes;
    }
    return t->kind == HT_VOCAB_BYTE_LEVEL ? decode_byte_level(byte_of, piece, out)
                                          : decode_sentencepiece(piece, type == HT_TOKEN_BYTE, out);
}

static ht_status decode_pieces(ht_tokenizer *t, ht_error *error) {
    size_t total = 0, at = 0;
    for (int32_t id = 0; id < t->size; id++)
        total += t->pieces[id].bytes;
    t->texts = ht_arena_alloc(&t->arena, (size_t)t->size * sizeof *t->texts);
    char *all = ht_arena_alloc(&t->arena, total + 1); /* decoding never makes a piece longer */
    if (!t->texts || !all)
        return out_of_memory(error);
    int16_t byte_of[ALPHABET_END]; /* character of the byte-level alphabet -> byte */
    memset(byte_of, 0xff, sizeof byte_of);
    for (int byte = 0; byte < 256; byte++) {
        char c[2] = {0};
        size_t used, n = ht_byte_to_char((uint8_t)byte, c);
        byte_of[ht_utf8_next(c, n, &used)] = (int16_t)byte;
    }
    for (int32_t id = 0; id < t->size; id++) {
        const size_t n = decode_piece(t, byte_of, id, all + at);
        t->texts[id] = (ht_piece_text){all + at, (uint32_t)n};
        at += n;
    }
    return HT_OK;
}

/* ---- special tokens ------------------------------------------------------------------------------------------ */

static ht_status build_trie(ht_tokenizer *t, ht_error *error) {
    size_t most = 0, n = 0;
    for (int32_t id = 0; id < t->size; id++)
        if (t->types[id] >= HT_TOKEN_UNKNOWN && t->types[id] <= HT_TOKEN_USER_DEFINED)
            most += t->pieces[id].bytes;
    for (int i = 0; i < 256; i++)
        t->trie_roots[i] = -1;
    if (most > INT32_MAX)
        return ht_fail(error, HT_ERROR_FORMAT, "the special tokens hold %zu bytes of text", most);
    t->trie = ht_arena_alloc(&t->arena, (most + 1) * sizeof *t->trie);
    if (!t->trie)
        return out_of_memory(error);
    for (int32_t id = 0; id < t->size; id++) {
        const ht_string *piece = &t->pieces[id];
        if (t->types[id] < HT_TOKEN_UNKNOWN || t->types[id] > HT_TOKEN_USER_DEFINED || piece->bytes == 0)
            continue;
        int32_t *link = &t->trie_roots[(uint8_t)piece->data[0]], node = -1;
        for (size_t i = 0; i < piece->bytes; i++) {
            uint8_t byte = (uint8_t)piece->data[i];
            while (*link >= 0 && t->trie[*link].byte != byte)
                link = &t->trie[*link].sibling;
            if (*link < 0) {
                t->trie[n] = (ht_trie_node){-1, -1, -1, byte};
                *link = (int32_t)n++;
            }
            node = *link;
            link = &t->trie[node].child;
        }
        t->trie[node].id = id;
    }
    return HT_OK;
}

/* ---- the interface ------------------------------------------------------------------------------------------- */

static const struct {
    const char *name; /* tokenizer.ggml.model */
    ht_vocab_kind kind;
    const char *pre; /* the pre-tokenizer, "": the file's; NULL: there is none */
} models[] = {
    {"gpt2", HT_VOCAB_BYTE_LEVEL, ""},
    {"llama", HT_VOCAB_SENTENCEPIECE, NULL},
    {"t5", HT_VOCAB_UNIGRAM, NULL},
    {"bert", HT_VOCAB_WORDPIECE, NULL},
    {"gemma4", HT_VOCAB_BYTE_LEVEL, "gemma4"},
    {"plamo2", HT_VOCAB_PLAMO2, NULL},
    {"rwkv", HT_VOCAB_GREEDY, NULL},
    {"whitespace", HT_VOCAB_BYTE_LEVEL, "whitespace"},
};

static ht_status load_pre(ht_tokenizer *t, const ht_gguf *file, const char *fixed, ht_string pre, bool named,
                          ht_error *error) {
    if (*fixed)
        pre = (ht_string){fixed, strlen(fixed)}, named = true;
    else if (!named)
        pre = (ht_string){"gpt-2", 5};
    t->pre = ht_pretokenizer_find(pre.data, pre.bytes);
    if (!t->pre)
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s: key \"" KEY("pre") "\": pre-tokenizer \"%.*s\" is not known",
                       ht_gguf_path(file), (int)ht_min_size(pre.bytes, 40), pre.data);
    if (t->pre->flags & HT_PRE_CHARACTERS)
        t->kind = HT_VOCAB_CHARACTERS;
    if (!named)
        ht_log(HT_LOG_WARN,
               "%s: key \"" KEY(
                   "pre") "\" is missing: words are cut as GPT-2 does, which may not be how the model was trained",
               ht_gguf_path(file));
    return ht_pretokenizer_compile(t->pre, t->passes, error);
}

static ht_status load_kind(ht_tokenizer *t, const ht_gguf *file, ht_error *error) {
    ht_string model, pre = {"default", 7};
    bool named = ht_gguf_find(file, KEY("pre")) != NULL;
    if (!ht_gguf_find(file, KEY("model")))
        return ht_fail(error, HT_ERROR_UNSUPPORTED, "%s: it has no tokenizer (key \"" KEY("model") "\" is missing)",
                       ht_gguf_path(file));
    ht_status status = ht_gguf_string(file, KEY("model"), true, &model, error);
    if (status == HT_OK)
        status = ht_gguf_string(file, KEY("pre"), false, &pre, error);
    if (status)
        return status;
    snprintf(t->name, sizeof t->name, "%.*s/%.*s", (int)ht_min_size(model.bytes, 40), model.data,
             (int)ht_min_size(pre.bytes, 40), pre.data);
    for (char *c = t->name; *c; c++)
        if (*c < ' ' || *c > '~')
            *c = '?'; /* shown to people, and a hostile file chose it */
    size_t row = 0;
    while (row < HT_COUNT(models) &&
           !(strlen(models[row].name) == model.bytes && memcmp(models[row].name, model.data, model.bytes) == 0))
        row++;
    if (row == HT_COUNT(models))
        return ht_fail(error, HT_ERROR_UNSUPPORTED,
                       "%s: key \"" KEY("model") "\": tokenizer \"%.*s\" is not one of gpt2, llama, t5, bert, gemma4, "
                                                 "plamo2, rwkv, whitespace",
                       ht_gguf_path(file), (int)ht_min_size(model.bytes, 40), model.data);
    t->kind = models[row].kind;
    return models[row].pre ? load_pre(t, file, models[row].pre, pre, named, error) : HT_OK;
}

static ht_status load_tables(ht_tokenizer *t, const ht_gguf *file, ht_error *error) {
    if (t->kind == HT_VOCAB_BYTE_LEVEL || t->kind == HT_VOCAB_CHARACTERS)
        return load_merges(t, file, error);
    if (t->kind == HT_VOCAB_WORDPIECE || t->kind == HT_VOCAB_GREEDY)
        return HT_OK;
    return load_scores(t, file, error);
}

static ht_status load(ht_tokenizer *t, const ht_gguf *file, ht_error *error) {
    ht_status status = load_kind(t, file, error);
    if (status == HT_OK)
        status = load_pieces(t, file, error);
    if (status == HT_OK)
        status = load_special_ids(t, file, error);
    if (status == HT_OK)
        status = load_normaliser(t, file, error);
    if (status == HT_OK)
        status = load_tables(t, file, error);
    if (status)
        return status;
    load_byte_ids(t);
    status = decode_pieces(t, error);
    if (status == HT_OK)
        status = load_stripping(t, file, error);
    if (status == HT_OK)
        status = build_trie(t, error);
    const bool walks = t->kind >= HT_VOCAB_UNIGRAM;
    return status == HT_OK && walks ? ht_piece_trie_build(t, t->kind == HT_VOCAB_GREEDY, error) : status;
}

ht_status ht_tokenizer_create(const ht_gguf *file, ht_tokenizer **tokenizer, ht_error *error) {
    ht_tokenizer *t;
    ht_status status = ht_alloc((void **)&t, 1, sizeof *t, "tokenizer", error);
    if (status)
        return status;
    t->seed = mix((uint64_t)(uintptr_t)t, ht_nanoseconds());
    status = load(t, file, error);
    if (status) {
        ht_tokenizer_destroy(t);
        return status;
    }
    *tokenizer = t;
    return HT_OK;
}

void ht_tokenizer_destroy(ht_tokenizer *tokenizer) {
    if (!tokenizer)
        return;
    for (int i = 0; i < HT_MAX_PASSES; i++)
        pcre2_code_free(tokenizer->passes[i]);
    free(tokenizer->pieces_trie.edges);
    free(tokenizer->pieces_trie.ids);
    ht_arena_free(&tokenizer->arena);
    free(tokenizer);
}

const char *ht_tokenizer_name(const ht_tokenizer *tokenizer) {
    return tokenizer->name;
}
int ht_tokenizer_size(const ht_tokenizer *tokenizer) {
    return tokenizer->size;
}
int ht_tokenizer_bos(const ht_tokenizer *tokenizer) {
    return tokenizer->bos;
}
int ht_tokenizer_eos(const ht_tokenizer *tokenizer) {
    return tokenizer->eos;
}
bool ht_tokenizer_adds_bos(const ht_tokenizer *tokenizer) {
    return tokenizer->adds_bos;
}

int32_t ht_tokenizer_special(const ht_tokenizer *tokenizer, const char *text) {
    const size_t bytes = strlen(text);
    for (int32_t id = 0; id < tokenizer->size; id++)
        if (tokenizer->types[id] == HT_TOKEN_CONTROL && tokenizer->pieces[id].bytes == bytes &&
            memcmp(tokenizer->pieces[id].data, text, bytes) == 0)
            return id;
    return -1;
}

bool ht_tokenizer_ends(const ht_tokenizer *tokenizer, int32_t id) {
    return id >= 0 && id < tokenizer->size && tokenizer->ends[id];
}

const char *ht_tokenizer_text(const ht_tokenizer *tokenizer, int32_t id, bool special, size_t *bytes) {
    *bytes = 0;
    if (id < 0 || id >= tokenizer->size)
        return NULL;
    uint8_t type = tokenizer->types[id];
    if (!special && (type == HT_TOKEN_CONTROL || type == HT_TOKEN_UNKNOWN || type == HT_TOKEN_UNUSED))
        return "";
    *bytes = tokenizer->texts[id].bytes;
    return tokenizer->texts[id].data;
}

ht_status ht_tokenizer_decode(const ht_tokenizer *tokenizer, const int32_t *ids, size_t n, bool special, ht_text *out,
                              ht_error *error) {
    ht_status status = ht_text_append(out, "", 0, error); /* no tokens: an empty string, not none */
    const bool adds_space = tokenizer->adds_space || tokenizer->kind == HT_VOCAB_WORDPIECE;
    bool own_space = adds_space;
    for (size_t i = 0; i < n && status == HT_OK; i++) {
        size_t bytes;
        const char *text = ht_tokenizer_text(tokenizer, ids[i], special, &bytes);
        if (!text)
            return ht_fail(error, HT_ERROR_ARGUMENT, "token id %d is not in 0..%d", ids[i], tokenizer->size - 1);
        uint8_t type = tokenizer->types[ids[i]];
        if (type == HT_TOKEN_CONTROL || type == HT_TOKEN_USER_DEFINED || type == HT_TOKEN_UNKNOWN) {
            status = ht_text_append(out, text, bytes, error);
            own_space = adds_space; /* as encode did: each stretch of text got a space in front */
            continue;
        }
        bool drop = own_space && bytes > 0 && text[0] == ' ';
        own_space = false;
        status = ht_text_append(out, text + drop, bytes - drop, error);
    }
    return status;
}
