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
#define HT_MAX_PASSES 2

typedef struct ht_pretokenizer {
    const char *names[6];                /* values of tokenizer.ggml.pre */
    const char *patterns[HT_MAX_PASSES]; /* each splits what the one before left, matches and gaps alike */
    bool whole_words;                    /* a word that is a piece is that piece, whatever the merges say */
    bool adds_bos;                       /* where the file does not say */
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

struct ht_tokenizer {
    ht_arena arena;
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

    ht_trie_node *trie;
    int32_t trie_roots[256];

    bool sentencepiece;
    bool adds_space;            /* SentencePiece: before the text and after each special token */
    uint32_t *order;            /* SentencePiece: [size] merge priority from the score, smaller first */
    const ht_pretokenizer *pre; /* byte-level BPE */
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

const ht_pretokenizer *ht_pretokenizer_find(const char *name, size_t bytes); /* NULL: unknown */
ht_status ht_pretokenizer_compile(const ht_pretokenizer *pre, pcre2_code *passes[HT_MAX_PASSES], ht_error *error);

typedef ht_status (*ht_word_function)(void *user, const char *word, size_t bytes, ht_error *error);
/* Cuts text into words, in order. Each byte that is not valid UTF-8 is a word of its own. */
ht_status ht_pretokenize(pcre2_code *const passes[HT_MAX_PASSES], pcre2_match_data *const matches[HT_MAX_PASSES],
                         const char *text, size_t bytes, ht_word_function word, void *user, ht_error *error);

#endif
