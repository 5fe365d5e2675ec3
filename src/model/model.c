/* Opens a model: file, hyperparameters, tokenizer, operators, and what there is to tell about it. */
#include "model/build.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Besides those like Llama and those of families/mixtures.c. */
static const ht_family *const families[] = {
    &ht_families_latent[0],     &ht_families_latent[1],  &ht_families_latent[2],  &ht_families_latent[3],
    &ht_family_gpt_oss,         &ht_families_granite[0], &ht_families_granite[1], &ht_families_lfm2[0],
    &ht_families_lfm2[1],       &ht_families_qwen35[0],  &ht_families_qwen35[1],  &ht_family_llama4,
    &ht_families_qwen35[2],     &ht_family_gemma4,       &ht_family_gemma3n,      &ht_families_nemotron_h[0],
    &ht_families_nemotron_h[1], &ht_family_muse_glimmer, &ht_family_mamba2};

/* NULL: there are fewer. */
static const ht_family *family_at(size_t i) {
    if (i < ht_n_families_like_llama)
        return &ht_families_like_llama[i];
    i -= ht_n_families_like_llama;
    return i < HT_COUNT(families) ? families[i] : ht_family_with_experts(i - HT_COUNT(families));
}

/* A string of the file as a C string in the arena; bytes below space become '?', so that it can be printed. */
static ht_status keep_string(ht_model *model, ht_string string, const char **out, ht_error *error) {
    char *copy = ht_arena_strndup(&model->arena, string.data ? string.data : "", string.data ? string.bytes : 0);
    if (!copy)
        return ht_fail(error, HT_ERROR_MEMORY, "%s: out of memory for its metadata", model->info.path);
    for (char *c = copy; *c; c++)
        if ((unsigned char)*c < 32 || *c == 127)
            *c = '?';
    *out = copy;
    return HT_OK;
}

static ht_status find_family(ht_model *model, const ht_family **family, ht_error *error) {
    for (size_t i = 0; family_at(i); i++)
        if (strcmp(family_at(i)->arch, model->info.architecture) == 0) {
            *family = family_at(i);
            return HT_OK;
        }
    return ht_fail(error, HT_ERROR_UNSUPPORTED,
                   "%s: general.architecture \"%.40s\" is not supported (docs/models.md lists what is)",
                   model->info.path, model->info.architecture);
}

/* ---- hyperparameters ---- */

static ht_status read_sizes(const ht_family *family, ht_model *model, ht_error *error) {
    ht_hparams *h = &model->hparams;
    const struct {
        const char *key;
        int64_t max;
        int *out;
    } sizes[] = {
        {"block_count", HT_MAX_LAYERS, &h->layers},      {"embedding_length", 1 << 18, &h->embedding},
        {"context_length", 1 << 30, &h->context_length}, {"feed_forward_length", 1 << 20, &h->feed_forward},
        {"attention.head_count", 1 << 12, &h->heads},
    };
    const size_t n = family->heads_differ ? HT_COUNT(sizes) - 2 : HT_COUNT(sizes); /* these are then the layers' */
    for (size_t i = 0; i < n; i++) {
        char key[128];
        int64_t value = 0;
        snprintf(key, sizeof key, "%s.%s", model->info.architecture, sizes[i].key);
        ht_status status = ht_gguf_int(model->file, key, true, 1, sizes[i].max, &value, error);
        if (status != HT_OK)
            return status;
        *sizes[i].out = (int)value;
    }
    return HT_OK;
}

static ht_status read_hparams(const ht_family *family, ht_model *model, ht_error *error) {
    ht_hparams *h = &model->hparams;
    ht_status status = read_sizes(family, model, error);
    if (status != HT_OK)
        return status;
    ht_builder b = ht_build_begin(model, error);
    const char *arch = model->info.architecture;
    if (family->heads_differ) {
        h->heads = (int)ht_build_most(&b, "attention.head_count", 0, 1 << 12, 0);
        h->kv_heads = (int)ht_build_most(&b, "attention.head_count_kv", 0, h->heads, h->heads);
        h->feed_forward = (int)ht_build_most(&b, "feed_forward_length", 0, 1 << 20, 0);
    } else {
        h->kv_heads = (int)ht_build_int(&b, "attention.head_count_kv", 1, h->heads, h->heads);
    }
    if (family->attention_free)
        h->heads = h->kv_heads = h->feed_forward = 1;
    if (b.status == HT_OK && (h->heads < 1 || h->kv_heads < 1 || h->feed_forward < 1))
        ht_build_fail(&b, HT_ERROR_FORMAT, "%s: no layer has heads, or none has features", arch);
    if (b.status != HT_OK)
        return b.status;
    h->head_dim =
        (int)ht_build_int(&b, "attention.key_length", family->attention_free ? 0 : 2, 1024, h->embedding / h->heads);
    if (family->attention_free)
        h->head_dim = 2;
    const int64_t value_length = ht_build_int(&b, "attention.value_length", 0, 1 << 20, h->head_dim);
    const char *const eps = family->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
    h->eps = ht_build_float(
        &b, eps,
        ht_build_float(&b, family->layer_norm ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon",
                       NAN)); /* Nemotron-H's files have the other's name */
    if (!family->experts && ht_build_int(&b, "expert_count", 0, INT32_MAX, 0) > 0)
        ht_build_fail(&b, HT_ERROR_UNSUPPORTED, "%s.expert_count: mixtures of experts are not supported", arch);
    if (h->heads % h->kv_heads != 0)
        ht_build_fail(&b, HT_ERROR_FORMAT, "%s.attention.head_count %d is not a multiple of head_count_kv %d", arch,
                      h->heads, h->kv_heads);
    if (h->head_dim < 2 || h->head_dim > 1024 || h->head_dim % 2 != 0)
        ht_build_fail(&b, HT_ERROR_FORMAT, "%s: heads of %d dimensions: it must be an even number up to 1024", arch,
                      h->head_dim);
    if (value_length != h->head_dim && !family->latent && !family->attention_free)
        ht_build_fail(&b, HT_ERROR_UNSUPPORTED,
                      "%s.attention.value_length %d differs from key_length %d: not supported", arch, (int)value_length,
                      h->head_dim);
    if (!(h->eps >= 0.0f && h->eps < 1.0f)) /* also when it is missing: NaN */
        ht_build_fail(&b, HT_ERROR_FORMAT, "%s.%s is missing or not in 0..1", arch, eps);
    return b.status;
}

/* How a file says that a text's vectors become one, by llama.cpp's numbers. One that only ranks is no reason not to
 * open it. */
static ht_status read_pooling(ht_model *model, ht_error *error) {
    static const ht_pooling known[] = {HT_POOLING_NONE, HT_POOLING_MEAN, HT_POOLING_FIRST, HT_POOLING_LAST};
    ht_builder b = ht_build_begin(model, error);
    const int64_t type =
        ht_build_int(&b, "pooling_type", 0, UINT32_MAX, model->both_ways ? 1 : 3); /* -1 as uint32: not said */
    model->pooling = (size_t)type < HT_COUNT(known) ? known[type] : HT_POOLING_DEFAULT;
    return b.status;
}

/* A tokenizer that is not there, or of a kind that is not known, is missed only by those who have text. */
static ht_status read_tokenizer(ht_model *model, ht_error *error) {
    ht_error why = {0};
    ht_status status = ht_tokenizer_create(model->file, &model->tokenizer, &why);
    if (status != HT_ERROR_UNSUPPORTED)
        return status ? ht_fail(error, status, "%s", why.text) : HT_OK;
    model->no_tokenizer = ht_arena_strndup(&model->arena, why.text, strlen(why.text));
    if (!model->no_tokenizer)
        return ht_fail(error, HT_ERROR_MEMORY, "%s: out of memory for its metadata", model->info.path);
    ht_log(HT_LOG_WARN, "%s: continuing with token ids only", why.text);
    return HT_OK;
}

/* The vocabulary is as many rows as the embedding has: files pad it past the tokenizer's, never the other way. */
static ht_status read_vocabulary(ht_model *model, ht_error *error) {
    const ht_tensor *embedding = ht_gguf_tensor(model->file, "token_embd.weight");
    const int tokens = model->tokenizer ? ht_tokenizer_size(model->tokenizer) : 1;
    if (!embedding)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: tensor token_embd.weight is missing", model->info.path);
    if (embedding->dims[1] < (uint64_t)tokens || embedding->dims[1] > 1 << 24)
        return ht_fail(error, HT_ERROR_FORMAT, "%s: tensor token_embd.weight has %llu rows, the tokenizer %d tokens",
                       model->info.path, (unsigned long long)embedding->dims[1], tokens);
    model->hparams.vocabulary = (int)embedding->dims[1];
    return HT_OK;
}

/* ---- what there is to tell ---- */

static int more_bytes(const void *a, const void *b) {
    const ht_type_count *x = a, *y = b;
    return (x->bytes < y->bytes) - (x->bytes > y->bytes);
}

static void count_tensor(ht_model_info *info, ht_type_count *types, const char *type, uint64_t parameters,
                         uint64_t bytes) {
    size_t i = 0;
    while (i < info->n_types && strcmp(types[i].type, type) != 0)
        i++;
    info->n_types = i == info->n_types ? i + 1 : info->n_types;
    types[i].type = type;
    types[i].tensors++;
    types[i].parameters += parameters;
    types[i].bytes += bytes;
    info->parameters += parameters;
}

enum { MAX_TYPES = 64 }; /* more than the type table has rows */

static ht_status count_tensors(ht_model *model, ht_error *error) {
    ht_model_info *info = &model->info;
    ht_type_count *types = ht_arena_alloc(&model->arena, MAX_TYPES * sizeof *types);
    if (!types)
        return ht_fail(error, HT_ERROR_MEMORY, "%s: out of memory for its metadata", info->path);
    for (size_t i = 0; model->file && i < ht_gguf_tensor_count(model->file); i++) {
        const ht_tensor *tensor = ht_gguf_tensor_at(model->file, i);
        const uint64_t n = tensor->dims[0] * tensor->dims[1] * tensor->dims[2] * tensor->dims[3];
        count_tensor(info, types, ht_type_get(tensor->type)->name, n, tensor->bytes);
    }
    for (size_t i = 0; !model->file && i < model->n_ops; i++) { /* shape: models: matrices, a tied head not twice */
        const ht_op *op = &model->ops[i];
        const bool again = op->kind == HT_OP_MATMUL && strcmp(op->parts[0].name, "token_embd.weight") == 0;
        for (int k = 0; k < op->n_parts && !again; k++) {
            const ht_matrix *m = &op->parts[k];
            count_tensor(info, types, m->type->name, (uint64_t)m->rows * m->cols, (uint64_t)m->rows * m->row_bytes);
            info->file_bytes += (uint64_t)m->rows * m->row_bytes;
        }
    }
    qsort(types, info->n_types, sizeof *types, more_bytes);
    info->types = types;
    info->quantisation = info->n_types > 0 ? types[0].type : "";
    return HT_OK;
}

static ht_status fill_info(ht_model *model, ht_error *error) {
    ht_model_info *info = &model->info;
    const ht_hparams *h = &model->hparams;
    info->layers = h->layers;
    info->embedding = h->embedding;
    info->heads = h->heads;
    info->kv_heads = h->kv_heads;
    info->head_dim = h->head_dim;
    info->feed_forward = h->feed_forward;
    info->vocabulary = h->vocabulary;
    info->context_length = h->context_length;
    info->sliding_window = h->sliding_window;
    info->tokenizer = model->tokenizer ? ht_tokenizer_name(model->tokenizer) : "";
    info->chat_template = model->chat.n ? model->chat.at[0].name : NULL;
    info->bos = model->tokenizer ? ht_tokenizer_bos(model->tokenizer) : -1;
    info->eos = model->tokenizer ? ht_tokenizer_eos(model->tokenizer) : -1;
    info->adds_bos = model->tokenizer && ht_tokenizer_adds_bos(model->tokenizer);
    info->file_bytes = model->file ? ht_gguf_file_bytes(model->file) : 0;
    info->name = model->shape ? model->shape->name : "";
    ht_string name = {NULL, 0};
    ht_status status = HT_OK;
    if (model->file) {
        status = ht_gguf_string(model->file, "general.name", false, &name, error);
        if (status == HT_OK)
            status = keep_string(model, name, &info->name, error);
    }
    return status == HT_OK ? count_tensors(model, error) : status;
}

/* Names of tensors; of some rows of one ("NAME[0+64/128]"), its name. */
static int by_name(const void *a, const void *b) {
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;
    const size_t n = strcspn(x, "["), m = strcspn(y, "[");
    const int order = strncmp(x, y, ht_min_size(n, m));
    return order ? order : (n > m) - (n < m);
}

/* Matrices of the file that no operator reads: a family's feature that we do not know of may hide there. */
static ht_status log_unused(const ht_model *model, ht_error *error) {
    const char **used = NULL;
    size_t n = 0;
    ht_status status = ht_alloc((void **)&used, model->n_ops * HT_MAX_PARTS + 1, sizeof *used, "tensor names", error);
    if (status != HT_OK)
        return status;
    for (size_t i = 0; i < model->n_ops; i++)
        for (int k = 0; k < model->ops[i].n_parts; k++)
            used[n++] = model->ops[i].parts[k].name;
    qsort(used, n, sizeof *used, by_name);
    for (size_t i = 0; i < ht_gguf_tensor_count(model->file); i++) {
        const ht_tensor *tensor = ht_gguf_tensor_at(model->file, i);
        if (tensor->dims[1] > 1 && !bsearch(&tensor->name, used, n, sizeof *used, by_name))
            ht_log(HT_LOG_DEBUG, "%s: tensor %s is not used", model->info.path, tensor->name);
    }
    free(used);
    return HT_OK;
}

/* ---- open and close ---- */

#define BY_PATH (-1)  /* no descriptor */
#define FOR_TEXT (-2) /* none either, and no weights are wanted */

static ht_status load_file(ht_model *model, const char *path, int descriptor, ht_error *error) {
    ht_status status = descriptor == BY_PATH ? ht_gguf_open(path, &model->file, error)
                                             : ht_gguf_open_descriptor(descriptor, path, &model->file, error);
    ht_string arch = {NULL, 0};
    const ht_family *family = NULL;
    if (status == HT_OK && ht_gguf_tensor_count(model->file) == 0)
        status = ht_fail(error, HT_ERROR_UNSUPPORTED,
                         "%s holds no weights: a vocabulary alone is for inspect and tokenize", path);
    if (status == HT_OK)
        status = ht_gguf_string(model->file, "general.architecture", true, &arch, error);
    if (status == HT_OK)
        status = keep_string(model, arch, &model->info.architecture, error);
    if (status == HT_OK)
        status = find_family(model, &family, error);
    if (status == HT_OK)
        status = read_hparams(family, model, error);
    if (status == HT_OK)
        status = read_tokenizer(model, error);
    if (status == HT_OK)
        status = read_vocabulary(model, error);
    if (status == HT_OK)
        status = family->build(family, model, error);
    if (status == HT_OK)
        status = read_pooling(model, error);
    if (status == HT_OK)
        status = log_unused(model, error);
    if (status == HT_OK)
        status = ht_chat_open(model->file, model->tokenizer, &model->chat, error);
    return status;
}

static ht_status load_vocabulary(ht_model *model, const char *path, ht_error *error) {
    ht_string arch = {"", 0};
    ht_error why = {0};
    ht_status status = ht_gguf_open(path, &model->file, error);
    if (status == HT_OK)
        status = ht_gguf_string(model->file, "general.architecture", false, &arch, error);
    if (status == HT_OK)
        status = keep_string(model, arch, &model->info.architecture, error);
    if (status != HT_OK)
        return status;
    status = ht_tokenizer_create(model->file, &model->tokenizer, &why);
    if (status != HT_OK)
        return ht_fail(error, status, "%s%s", why.text,
                       status == HT_ERROR_UNSUPPORTED ? "; it takes token ids only" : "");
    model->hparams.vocabulary = ht_tokenizer_size(model->tokenizer);
    model->info.vocabulary_alone = true;
    return ht_chat_open(model->file, model->tokenizer, &model->chat, error);
}

static ht_status load_shape(ht_model *model, const char *spec, ht_error *error) {
    const ht_family *family = NULL;
    ht_status status = ht_shape_find(spec, &model->shape, &model->shape_type, error);
    if (status == HT_OK) {
        model->hparams = model->shape->hparams;
        model->info.architecture = model->shape->arch;
        model->pooling = HT_POOLING_LAST;
        status = find_family(model, &family, error);
    }
    return status == HT_OK ? family->build(family, model, error) : status;
}

static ht_status open_model(const char *path, int descriptor, ht_model **out, ht_error *error) {
    ht_model *model = NULL;
    ht_status status = ht_alloc((void **)&model, 1, sizeof *model, "a model", error);
    if (status != HT_OK)
        return status;
    model->info.architecture = model->info.name = model->info.quantisation = model->info.tokenizer = "";
    model->info.path = ht_arena_strndup(&model->arena, path, strlen(path));
    if (!model->info.path)
        status = ht_fail(error, HT_ERROR_MEMORY, "%s: out of memory", path);
    else if (descriptor < 0 && strncmp(path, "shape:", 6) == 0)
        status = load_shape(model, path, error);
    else
        status =
            descriptor == FOR_TEXT ? load_vocabulary(model, path, error) : load_file(model, path, descriptor, error);
    if (status == HT_OK)
        status = fill_info(model, error);
    if (status == HT_OK && !model->info.vocabulary_alone)
        status = ht_rope_fill(model, ht_min_size((size_t)model->hparams.context_length, HT_ROPE_POSITIONS), error);
    if (status != HT_OK) {
        ht_model_close(model);
        return status;
    }
    *out = model;
    return HT_OK;
}

ht_status ht_model_open(const char *path, ht_model **out, ht_error *error) {
    if (!path || !*path)
        return ht_fail(error, HT_ERROR_ARGUMENT, "no model was named");
    return open_model(path, BY_PATH, out, error);
}

ht_status ht_model_open_vocabulary(const char *path, ht_model **out, ht_error *error) {
    if (!path || !*path)
        return ht_fail(error, HT_ERROR_ARGUMENT, "no model was named");
    return open_model(path, FOR_TEXT, out, error);
}

ht_status ht_model_open_descriptor(int descriptor, const char *name, ht_model **out, ht_error *error) {
    if (!name || !*name)
        name = "the model";
    if (descriptor < 0)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: descriptor %d is none", name, descriptor);
    return open_model(name, descriptor, out, error);
}

void ht_model_close(ht_model *model) {
    if (!model)
        return;
    free(model->ops);
    free(model->blocks);
    free(model->axes);
    free(model->groups);
    free(model->signatures);
    free(model->fused);
    ht_rope_destroy(model->rope);
    ht_chat_close(&model->chat);
    ht_tokenizer_destroy(model->tokenizer);
    ht_gguf_close(model->file);
    ht_arena_free(&model->arena);
    free(model);
}

ht_pooling ht_model_pooling(const ht_model *model) {
    return model->pooling;
}

const char *ht_pooling_name(ht_pooling pooling) {
    static const char *const names[] = {"default", "none", "mean", "first", "last"};
    return (size_t)pooling < HT_COUNT(names) ? names[pooling] : "unknown";
}

const ht_model_info *ht_model_get_info(const ht_model *model) {
    return &model->info;
}
