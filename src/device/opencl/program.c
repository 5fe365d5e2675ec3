/* Programs: source text, build options, binaries kept on disk.
 *
 * A program is common.clh, codec.clh, attention.clh and one .cl file, built with the device's options and its own. What a driver made of
 * it lies in the cache folder in a file named for a hash of everything that went into it: device, driver, options, text,
 * our version. A file is written whole and then renamed, so that processes which build the same program at the same time
 * never see a part of one; a file that is short, damaged or another's, and one that the driver refuses, is removed and
 * the source built. The cache is a convenience: whatever is wrong with it is a line in the log.
 */
#include "base/os.h"
#include "device/opencl/kernel.h"

#if HT_HAVE_OPENCL
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every .cl and .clh file of this folder, from cmake/embed.cmake; a row of NULLs ends it. */
struct ht_cl_source {
    const char *name, *text;
};
extern const struct ht_cl_source ht_cl_sources[];

#define HEADERS 3 /* files before the program's own */
#define OPTIONS 768

typedef struct hash {
    uint64_t a, b;
} hash;

typedef struct recipe { /* of a program: all that it depends on */
    const char *source; /* without ".cl" */
    char options[OPTIONS];
    const char *text[2 * (HEADERS + 1)]; /* each file behind a line that names it, for the compiler's messages */
    char lines[HEADERS + 1][64];
    hash key;
} recipe;

/* ---- keys -------------------------------------------------------------------------------------------------------------- */

/* Two 64-bit hashes of one byte string: FNV-1a (Fowler, Noll, Vo), and one that multiplies by the golden ratio. Against
 * accidents, not against an enemy: who can write to the cache folder can run programs anyway. */
static const hash hash_start = {UINT64_C(0xcbf29ce484222325), UINT64_C(0x6a09e667f3bcc908)};

static hash hash_bytes(hash h, const void *data, size_t bytes) {
    const uint8_t *at = data;
    for (size_t i = 0; i < bytes; i++) {
        h.a = (h.a ^ at[i]) * UINT64_C(0x100000001b3);
        h.b = ((h.b << 23 | h.b >> 41) ^ at[i]) * UINT64_C(0x9e3779b97f4a7c15);
    }
    return h;
}

static bool hash_equal(hash x, hash y) {
    return x.a == y.a && x.b == y.b;
}

static const char *find_text(const char *name) {
    for (const struct ht_cl_source *s = ht_cl_sources; s->name; s++)
        if (strcmp(s->name, name) == 0)
            return s->text;
    return NULL;
}

static ht_status make_recipe(const ht_cl_device *d, const char *source, const char *options, recipe *r,
                             ht_error *error) {
    char own[64];
    const char *const files[HEADERS + 1] = {"common.clh", "codec.clh", "attention.clh", own};
    snprintf(own, sizeof own, "%s.cl", source);
    r->source = source;
    int length = snprintf(r->options, sizeof r->options, "%s%s%s", d->build_options, *options ? " " : "", options);
    if (length >= OPTIONS)
        return ht_fail(error, HT_ERROR_DEVICE, "%s: %s: build options are too long", d->caps.name, own);
    r->key = hash_start;
    for (size_t i = 0; i < HT_COUNT(files); i++) {
        snprintf(r->lines[i], sizeof r->lines[i], "#line 1 \"%s\"\n", files[i]);
        r->text[2 * i] = r->lines[i];
        r->text[2 * i + 1] = find_text(files[i]);
        if (!r->text[2 * i + 1])
            return ht_fail(error, HT_ERROR_DEVICE, "%s: this build has no kernel source %s", d->caps.name, files[i]);
    }
    /* with their ends, so that nothing can move from one to the next */
    const char *const others[] = {ht_version(), d->fingerprint, r->options};
    for (size_t i = 0; i < HT_COUNT(others); i++)
        r->key = hash_bytes(r->key, others[i], strlen(others[i]) + 1);
    for (size_t i = 0; i < HT_COUNT(r->text); i++)
        r->key = hash_bytes(r->key, r->text[i], strlen(r->text[i]) + 1);
    return HT_OK;
}

/* ---- binaries on disk -------------------------------------------------------------------------------------------------- */

typedef struct file_header { /* as this machine's memory has it: a file never leaves the machine */
    char magic[8];
    hash key, check; /* check: of the binary */
    uint64_t bytes;  /* of the binary, which follows */
} file_header;
static const char magic[8] = "HTCLBIN";

static ht_status binary_path(const recipe *r, char *path, size_t capacity, ht_error *error) {
    char name[64];
    snprintf(name, sizeof name, "opencl/%016llx%016llx.bin", (unsigned long long)r->key.a,
             (unsigned long long)r->key.b);
    return ht_cache_path(name, path, capacity, error);
}

/* What is wrong with a file; NULL: nothing. */
static const char *file_fault(const recipe *r, const ht_mapping *file, const file_header *header) {
    if (file->bytes < sizeof *header || memcmp(header->magic, magic, sizeof magic) != 0)
        return "it is not a program";
    if (!hash_equal(header->key, r->key))
        return "it is another program";
    if (header->bytes != file->bytes - sizeof *header)
        return "it is not whole";
    return hash_equal(header->check, hash_bytes(hash_start, file->data + sizeof *header, header->bytes))
               ? NULL
               : "it is damaged";
}

/* The program from its file; NULL if it must be built. */
static cl_program load_program(ht_cl_device *d, const recipe *r) {
    char path[4096];
    ht_error error = {0};
    ht_mapping file = {0};
    if (binary_path(r, path, sizeof path, &error) != HT_OK || !ht_os_exists(path))
        return NULL; /* the first is told when it is to be written */
    cl_program program = NULL;
    const char *fault = NULL;
    if (ht_mapping_open(path, &file, &error) != HT_OK) {
        fault = error.text;
    } else {
        file_header header = {0};
        memcpy(&header, file.data, ht_min_size(file.bytes, sizeof header));
        fault = file_fault(r, &file, &header);
    }
    if (!fault) {
        const unsigned char *binary = file.data + sizeof(file_header);
        const size_t bytes = file.bytes - sizeof(file_header);
        cl_int accepted = CL_SUCCESS, code;
        program = d->cl->CreateProgramWithBinary(d->context, 1, &d->id, &bytes, &binary, &accepted, &code);
        if (code == CL_SUCCESS)
            code = accepted;
        else
            program = NULL;
        if (code == CL_SUCCESS)
            code = d->cl->BuildProgram(program, 1, &d->id, r->options, NULL, NULL);
        if (code != CL_SUCCESS) {
            if (program)
                d->cl->ReleaseProgram(program);
            program = NULL;
            fault = ht_cl_error_name(code);
        }
    }
    ht_mapping_close(&file);
    if (fault) {
        ht_log(HT_LOG_INFO, "%s: %s: rebuilt because the driver did not take %s: %s", d->caps.name, r->source, path,
               fault);
        ht_os_remove(path);
    }
    return program;
}

/* The driver's binary behind a header, from malloc; NULL with the reason in *why. */
static char *take_binary(ht_cl_device *d, cl_program program, const recipe *r, size_t *bytes, const char **why) {
    cl_uint devices = 0;
    size_t size = 0;
    cl_int code = d->cl->GetProgramInfo(program, CL_PROGRAM_NUM_DEVICES, sizeof devices, &devices, NULL);
    if (code == CL_SUCCESS && devices == 1)
        code = d->cl->GetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof size, &size, NULL);
    *why = code == CL_SUCCESS ? "the driver gives no binary" : ht_cl_error_name(code);
    if (code != CL_SUCCESS || size == 0)
        return NULL;
    file_header header = {.key = r->key, .bytes = size};
    memcpy(header.magic, magic, sizeof magic);
    char *data = malloc(sizeof header + size);
    unsigned char *binary = (unsigned char *)data + sizeof header;
    if (!data) {
        *why = "no memory";
        return NULL;
    }
    code = d->cl->GetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL);
    if (code != CL_SUCCESS) {
        *why = ht_cl_error_name(code);
        free(data);
        return NULL;
    }
    header.check = hash_bytes(hash_start, binary, size);
    memcpy(data, &header, sizeof header);
    *bytes = sizeof header + size;
    return data;
}

static void save_program(ht_cl_device *d, cl_program program, const recipe *r) {
    char path[4096];
    ht_error error = {0};
    const char *why = NULL;
    size_t bytes;
    char *data = NULL;
    if (binary_path(r, path, sizeof path, &error) != HT_OK)
        why = error.text;
    else if ((data = take_binary(d, program, r, &bytes, &why))) /* asked last: drivers may compile for it */
        why = ht_file_write(path, data, bytes, &error) == HT_OK ? NULL : error.text;
    free(data);
    if (why)
        ht_log(HT_LOG_INFO, "%s: %s: its binary was not saved: %s", d->caps.name, r->source, why);
}

/* ---- building ---------------------------------------------------------------------------------------------------------- */

/* The compiler's messages, from malloc; NULL if there are none. */
static char *build_log(ht_cl_device *d, cl_program program) {
    size_t bytes = 0;
    if (d->cl->GetProgramBuildInfo(program, d->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &bytes) != CL_SUCCESS || bytes <= 1)
        return NULL;
    char *text = calloc(1, bytes + 1);
    if (text && d->cl->GetProgramBuildInfo(program, d->id, CL_PROGRAM_BUILD_LOG, bytes, text, NULL) != CL_SUCCESS) {
        free(text);
        text = NULL;
    }
    return text;
}

/* Puts every line of `text` into the log, and into `first` the one that says what is wrong: the first with an error, else
 * the first. Takes the text apart. */
static void tell_log(ht_log_level level, char *text, char *first, size_t capacity) {
    bool found = false;
    first[0] = '\0';
    char *rest = text;
    for (char *line; (line = strtok_r(rest, "\r\n", &rest));) {
        ht_log(level, "    %s", line);
        const bool names = strstr(line, "error") != NULL;
        if (!first[0] || (names && !found))
            snprintf(first, capacity, "%s", line);
        found |= names;
    }
}

static ht_status build_failed(ht_cl_device *d, cl_program program, const recipe *r, const char *kernel, cl_int code,
                              ht_error *error) {
    char first[200] = "";
    char *text = build_log(d, program);
    ht_log(HT_LOG_ERROR, "%s (%s, %s): %s.cl does not build with %s", d->caps.name, d->caps.description,
           d->caps.runtime, r->source, r->options);
    if (text)
        tell_log(HT_LOG_ERROR, text, first, sizeof first);
    free(text);
    return ht_fail(error, HT_ERROR_DEVICE, "%s: kernel %s: %s.cl does not build: %s (%d)%s%s; options: %s",
                   d->caps.name, kernel, r->source, ht_cl_error_name(code), (int)code, *first ? ": " : "", first,
                   r->options);
}

/* How many programs a model takes is not known before; about one for each source file is a fair guess. Every build ends
 * its report (done == total), because nobody knows whether another follows and a display must not stay behind. */
static ht_status report(const ht_cl_device *d, bool ended, ht_error *error) {
    size_t total = 0;
    for (const struct ht_cl_source *s = ht_cl_sources; s->name; s++)
        total += strcmp(strrchr(s->name, '.'), ".cl") == 0;
    total = ht_max_size(total, d->n_programs + 1);
    const double done = (double)(ended ? total : d->n_programs);
    if (ht_progress_tell(d->progress, "compiling kernels", done, (double)total))
        return HT_OK;
    return ht_fail(error, HT_ERROR_CANCELLED, "%s: compiling kernels was cancelled", d->caps.name);
}

static ht_status build_program(ht_cl_device *d, recipe *r, const char *kernel, cl_program *out, ht_error *error) {
    ht_status status = report(d, false, error);
    if (status != HT_OK)
        return status;
    const double start = ht_seconds();
    cl_int code;
    cl_program program = d->cl->CreateProgramWithSource(d->context, HT_COUNT(r->text), r->text, NULL, &code);
    if (code != CL_SUCCESS)
        return ht_cl_check(code, d->caps.name, "clCreateProgramWithSource", error);
    /* Once more, for a driver's own cache may be busy with the same program from another process: PoCL's build fails then,
     * once in some hundred times. */
    for (int tries = 0; tries < 2; tries++)
        if ((code = d->cl->BuildProgram(program, 1, &d->id, r->options, NULL, NULL)) != CL_BUILD_PROGRAM_FAILURE)
            break;
    const ht_status ended = report(d, true, error);
    if (code != CL_SUCCESS) {
        status = build_failed(d, program, r, kernel, code, error);
        d->cl->ReleaseProgram(program);
        return status;
    }
    d->n_built++;
    char *text = build_log(d, program), first[8];
    if (text) /* warnings */
        tell_log(HT_LOG_DEBUG, text, first, sizeof first);
    free(text);
    save_program(d, program, r);
    ht_log(HT_LOG_DEBUG, "%s: %s.cl built in %.0f ms with %s", d->caps.name, r->source, 1e3 * (ht_seconds() - start),
           r->options);
    if (ended != HT_OK) { /* what was built is kept for the next time */
        d->cl->ReleaseProgram(program);
        return ended;
    }
    *out = program;
    return HT_OK;
}

/* ---- kernels ----------------------------------------------------------------------------------------------------------- */

static ht_status add_program(ht_cl_device *d, const char *key, const char *source, const char *kernel,
                             const char *options, ht_cl_program **out, ht_error *error) {
    recipe r;
    ht_status status = make_recipe(d, source, options, &r, error);
    if (status == HT_OK)
        status =
            ht_grow((void **)&d->programs, &d->cap_programs, d->n_programs + 1, sizeof *d->programs, "programs", error);
    if (status != HT_OK)
        return status;
    cl_program program = load_program(d, &r);
    if (!program && (status = build_program(d, &r, kernel, &program, error)) != HT_OK)
        return status;
    ht_cl_program *p = &d->programs[d->n_programs++];
    *p = (ht_cl_program){.program = program};
    snprintf(p->key, sizeof p->key, "%s", key);
    *out = p;
    return HT_OK;
}

ht_status ht_cl_kernel(ht_cl_device *d, const char *source, const char *name, const char *options, cl_kernel *kernel,
                       ht_error *error) {
    ht_cl_program *p = NULL;
    char key[sizeof p->key];
    if (snprintf(key, sizeof key, "%s %s", source, options) >= (int)sizeof key ||
        strlen(name) >= sizeof p->kernels->name)
        return ht_fail(error, HT_ERROR_DEVICE, "%s: kernel %s: its name or build options are too long", d->caps.name,
                       name);
    for (size_t i = 0; i < d->n_programs && !p; i++)
        if (strcmp(d->programs[i].key, key) == 0)
            p = &d->programs[i];
    ht_status status = p ? HT_OK : add_program(d, key, source, name, options, &p, error);
    if (status != HT_OK)
        return status;
    for (size_t i = 0; i < p->n_kernels; i++)
        if (strcmp(p->kernels[i].name, name) == 0) {
            *kernel = p->kernels[i].kernel;
            return HT_OK;
        }
    if (p->n_kernels == HT_COUNT(p->kernels))
        return ht_fail(error, HT_ERROR_DEVICE, "%s: kernel %s: %s.cl has too many", d->caps.name, name, source);
    cl_int code;
    cl_kernel made = d->cl->CreateKernel(p->program, name, &code);
    if (code != CL_SUCCESS)
        return ht_fail(error, HT_ERROR_DEVICE, "%s: kernel %s of %s.cl: %s (%d)", d->caps.name, name, source,
                       ht_cl_error_name(code), (int)code);
    snprintf(p->kernels[p->n_kernels].name, sizeof p->kernels->name, "%s", name);
    *kernel = p->kernels[p->n_kernels++].kernel = made;
    return HT_OK;
}

ht_status ht_cl_kernel_copy(ht_cl_device *d, cl_kernel kernel, cl_kernel *copy, ht_error *error) {
    for (size_t i = 0; i < d->n_programs; i++)
        for (size_t k = 0; k < d->programs[i].n_kernels; k++)
            if (d->programs[i].kernels[k].kernel == kernel) {
                cl_int code;
                *copy = d->cl->CreateKernel(d->programs[i].program, d->programs[i].kernels[k].name, &code);
                return ht_cl_check(code, d->caps.name, "clCreateKernel", error);
            }
    return ht_fail(error, HT_ERROR_ARGUMENT, "%s: no such kernel", d->caps.name);
}

void ht_cl_programs_release(ht_cl_device *d) {
    for (size_t i = 0; i < d->n_programs; i++) {
        for (size_t k = 0; k < d->programs[i].n_kernels; k++)
            d->cl->ReleaseKernel(d->programs[i].kernels[k].kernel);
        d->cl->ReleaseProgram(d->programs[i].program);
    }
    free(d->programs);
    d->programs = NULL;
    d->n_programs = d->cap_programs = 0;
}

#else
typedef int ht_cl_program_is_empty; /* ISO C wants something in every file */
#endif
