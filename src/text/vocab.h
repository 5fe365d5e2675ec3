/* Inside the tokenizer: the vocabulary as loaded, and what its three files share. Only src/text includes this. */
#ifndef HT_VOCAB_H
#define HT_VOCAB_H

#include "text/text.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { /* tokenizer.ggml.token_type, as SentencePiece numbers its pieces */
       HT_TOKEN_NORMAL = 1,
       HT_TOKEN_UNKNOWN = 2,
       HT_TOKEN_CONTROL = 3,
       HT_TOKEN_USER_DEFINED = 4,
       HT_TOKEN_UNUSED = 5,
       HT_TOKEN_BYTE = 6
};

#define HT_MAX_PIECE_BYTES 4096 /* of one vocabulary entry: bounds every look-up that text can cause */
/* Of a piece that the kinds with a trie can match: each place of a text costs at most this. Trained ones end at 128. */
#define HT_MAX_WALK 192
#define HT_MAX_PASSES 7

typedef enum ht_vocab_kind {                      /* tokenizer.ggml.model */
                             HT_VOCAB_BYTE_LEVEL, /* gpt2: BPE over bytes written in GPT-2's alphabet */
                             HT_VOCAB_CHARACTERS, /* gemma4, whitespace, some names of gpt2: BPE by rank over characters, bytes as <0x0A> */
                             HT_VOCAB_SENTENCEPIECE, /* llama: BPE by score */
                             HT_VOCAB_UNIGRAM,       /* t5: the best path by the sum of scores */
                             HT_VOCAB_PLAMO2,        /* plamo2: the same from the end, in whole numbers */
                             HT_VOCAB_WORDPIECE,     /* bert */
                             HT_VOCAB_GREEDY         /* rwkv: the longest piece at each place */
} ht_vocab_kind;

enum {                         /* of ht_pretokenizer */
       HT_PRE_WHOLE_WORDS = 1, /* a word that is a piece is that piece, whatever the merges say */
       HT_PRE_BOS = 2,         /* BOS is added where the file does not say */
       HT_PRE_NFC = 4,         /* the text is composed first */
       HT_PRE_CHARACTERS = 8,  /* pieces are written in UTF-8, not in the byte-level alphabet */
       HT_PRE_SPACES = 16,     /* ... and a space as U+2581 */
       HT_PRE_NO_MERGES = 32,  /* the file may have none */
       HT_PRE_THREES = 64,     /* what the first pattern matches is cut into threes from its end */
       HT_PRE_NO_GAPS = 128    /* what it does not match is dropped */
};

typedef struct ht_pretokenizer {
    const char *names[20];               /* values of tokenizer.ggml.pre */
    const char *patterns[HT_MAX_PASSES]; /* each splits what the one before left, matches and gaps alike */
    unsigned flags;                      /* HT_PRE_* */
} ht_pretokenizer;

typedef struct ht_index_slot { /* open addressing; id -1: free */
    uint32_t hash;
    int32_t id;
} ht_index_slot;

typedef struct ht_merge_slot { /* open addressing; pair UINT64_MAX: free */
    uint64_t pair;             /* left id << 32 | right id */
    uint32_t rank;
    int32_t id;
} ht_merge_slot;

typedef struct ht_trie_node { /* of special tokens' text; children are a list */
    int32_t child, sibling;   /* -1: none */
    int32_t id;               /* -1: no token ends here */
    uint8_t byte;
} ht_trie_node;

typedef struct ht_piece_text { /* what a token stands for */
    const char *data;
    uint32_t bytes;
} ht_piece_text;

/* All pieces that text can become, for the kinds that look for the pieces at a place. Node 0 is the root. */
typedef struct ht_piece_trie {
    uint64_t *edges; /* open addressing: parent << 36 | byte << 28 | child; 0: free */
    uint64_t mask;
    int32_t *ids; /* [n] of the piece that ends at a node, -1: none */
    size_t n, cap_ids, cap_edges;
    uint64_t seed;
} ht_piece_trie;

typedef struct ht_normaliser { /* SentencePiece's and BERT's */
    bool merges_spaces;        /* several spaces are one, and none is at an end */
    bool lower, strips_accents;
    const uint32_t *units; /* [n_units] of a double-array trie; NULL: none */
    size_t n_units;
    const char *texts; /* [text_bytes] replacements, each ended by 0 */
    size_t text_bytes;
} ht_normaliser;

struct ht_tokenizer {
    ht_arena arena;
    ht_vocab_kind kind;
    char name[96];
    int32_t size;
    const ht_string *pieces; /* [size] as in the file */
    uint8_t *types;          /* [size] HT_TOKEN_* */
    ht_piece_text *texts;    /* [size] decoded */
    bool *ends;              /* [size] */
    size_t longest;          /* bytes of the longest piece */
    uint64_t seed;           /* of the hashes: a crafted file cannot choose collisions */
    ht_index_slot *index;    /* piece -> id */
    uint64_t index_mask;
    int32_t byte_ids[256]; /* -1: none */
    int32_t bos, eos, unknown;
    bool adds_bos;
    int32_t last; /* what ends a text of its own (EOS, BERT's [SEP]); -1: nothing */

    ht_trie_node *trie;
    int32_t trie_roots[256];

    bool *strips_left, *strips_right; /* [size] special tokens that swallow white space; NULL: none does */

    bool adds_space; /* before the text and after each special token, as U+2581 */
    ht_normaliser normaliser;
    uint32_t *order;     /* SentencePiece: [size] merge priority from the score, smaller first */
    const float *scores; /* unigram, PLaMo 2: [size] */
    float unknown_score; /* unigram: of a character that no piece covers */
    bool byte_fallback;  /* unigram: such a character is its bytes */
    ht_piece_trie pieces_trie;
    const ht_pretokenizer *pre; /* BPE by rank */
    pcre2_code *passes[HT_MAX_PASSES];
    ht_merge_slot *merges;
    uint64_t merge_mask;
};

/* Id of a piece of the vocabulary (in the file's own encoding), -1: none. */
int32_t ht_vocab_find(const ht_tokenizer *tokenizer, const char *text, size_t bytes);
/* Rank and product of merging two pieces; false: no such merge. */
bool ht_vocab_merge(const ht_tokenizer *tokenizer, int32_t left, int32_t right, uint32_t *rank, int32_t *id);
/* Writes the byte-level alphabet's character for a byte (1 or 2 bytes of UTF-8); returns its length. */
size_t ht_byte_to_char(uint8_t byte, char out[2]);

/* Whether a token is one that text becomes by being cut or merged, and not by its whole name (or never). */
static inline bool ht_vocab_is_text(const ht_tokenizer *tokenizer, int32_t id) {
    const uint8_t type = tokenizer->types[id];
    return type == HT_TOKEN_NORMAL || type == HT_TOKEN_USER_DEFINED || type == HT_TOKEN_UNUSED;
}

/* The trie of the pieces that ht_vocab_is_text allows, by their text as decoded (`decoded`) or as written. */
ht_status ht_piece_trie_build(ht_tokenizer *tokenizer, bool decoded, ht_error *error);
int32_t ht_piece_trie_step(const ht_piece_trie *trie, int32_t node, uint8_t byte); /* -1: no piece goes on like this */

const ht_pretokenizer *ht_pretokenizer_find(const char *name, size_t bytes); /* NULL: unknown */
ht_status ht_pretokenizer_compile(const ht_pretokenizer *pre, pcre2_code *passes[HT_MAX_PASSES], ht_error *error);

typedef ht_status (*ht_word_function)(void *user, const char *word, size_t bytes, ht_error *error);
/* Cuts text into words, in order. Each byte that is not valid UTF-8 is a word of its own. */
ht_status ht_pretokenize(const ht_pretokenizer *pre, pcre2_code *const passes[HT_MAX_PASSES],
                         pcre2_match_data *const matches[HT_MAX_PASSES], const char *text, size_t bytes,
                         ht_word_function word, void *user, ht_error *error);

/* Appends the text in Unicode's normal form C; bytes that are not valid UTF-8 stay. Linear, whatever the text. */
ht_status ht_normalise_nfc(const char *text, size_t bytes, ht_text *out, ht_error *error);
/* Appends the text in lower case, character by character. */
ht_status ht_normalise_lower(const char *text, size_t bytes, ht_text *out, ht_error *error);
/* Checks the trie of replacements that a file brings; it points into `data` afterwards. */
ht_status ht_normaliser_charsmap(ht_normaliser *normaliser, const uint8_t *data, size_t bytes, const char *path,
                                 ht_arena *arena, ht_error *error);
/* Appends the text as SentencePiece would have it: replaced, spaces merged, spaces as U+2581, one in front if `prefix`. */
ht_status ht_normalise_pieces(const ht_normaliser *normaliser, bool prefix, const char *text, size_t bytes,
                              ht_text *out, ht_error *error);
/* Calls `word` for each of BERT's words. */
ht_status ht_normalise_bert(const ht_normaliser *normaliser, const char *text, size_t bytes, ht_word_function word,
                            void *user, ht_error *error);

#endif
