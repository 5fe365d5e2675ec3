/* Allocation: checked, counted, zeroed. Arenas, page blocks, growing text. */
#include "base/os.h"

#include <errno.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define ARENA_BLOCK ((size_t)64 << 10)

static atomic_uint_fast64_t allocations;

static void count_allocation(void) {
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
}

uint64_t ht_alloc_count(void) {
    return atomic_load_explicit(&allocations, memory_order_relaxed);
}

void ht_free(void *memory) {
    free(memory);
}

ht_status ht_alloc(void **out, size_t count, size_t size, const char *what, ht_error *error) {
    count_allocation();
    size_t bytes;
    bool fits = !__builtin_mul_overflow(count, size, &bytes);
    /* At least one byte, so that NULL always means failure. */
    void *memory = fits ? calloc(bytes ? bytes : 1, 1) : NULL;
    if (!memory) {
        return ht_fail(error, HT_ERROR_MEMORY, "out of memory: %s (%zu x %zu bytes)", what, count, size);
    }
    *out = memory;
    return HT_OK;
}

ht_status ht_grow(void **array, size_t *capacity, size_t need, size_t size, const char *what, ht_error *error) {
    if (need <= *capacity)
        return HT_OK;
    size_t wanted = *capacity > SIZE_MAX / 2 ? need : ht_max_size(need, ht_max_size(*capacity * 2, 8)), bytes;
    if (__builtin_mul_overflow(wanted, size, &bytes)) {
        return ht_fail(error, HT_ERROR_MEMORY, "out of memory: %s (%zu x %zu bytes)", what, wanted, size);
    }
    count_allocation();
    void *memory = realloc(*array, bytes);
    if (!memory)
        return ht_fail(error, HT_ERROR_MEMORY, "out of memory: %s (%zu bytes)", what, bytes);
    memset((char *)memory + *capacity * size, 0, bytes - *capacity * size);
    *array = memory;
    *capacity = wanted;
    return HT_OK;
}

static size_t whole_pages(size_t bytes) {
    return ht_round_up(bytes ? bytes : 1, ht_os_page_bytes());
}

void *ht_pages_alloc(size_t bytes) {
    if (bytes > SIZE_MAX / 2)
        return NULL;
    count_allocation();
    return ht_os_pages(whole_pages(bytes));
}

void ht_pages_free(void *pages, size_t bytes) {
    if (pages)
        ht_os_pages_free(pages, whole_pages(bytes));
}

char *ht_copy_text(const char *text, size_t bytes) {
    count_allocation();
    char *copy = malloc(bytes + 1);
    if (copy) {
        memcpy(copy, text, bytes);
        copy[bytes] = '\0';
    }
    return copy;
}

/* ---- arena ---- */

struct ht_arena_block {
    struct ht_arena_block *next;
    size_t used, capacity; /* of the bytes that follow this header */
};

#define ARENA_ALIGN 16
#define ARENA_HEADER ((sizeof(struct ht_arena_block) + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN)

void *ht_arena_alloc(ht_arena *arena, size_t bytes) {
    if (bytes > SIZE_MAX / 2)
        return NULL;
    bytes = ht_round_up(bytes ? bytes : 1, ARENA_ALIGN);
    struct ht_arena_block *block = arena->head;
    if (!block || block->capacity - block->used < bytes) {
        size_t capacity = ht_max_size(bytes, ARENA_BLOCK - ARENA_HEADER);
        struct ht_arena_block *fresh = calloc(1, ARENA_HEADER + capacity);
        if (!fresh)
            return NULL;
        count_allocation();
        fresh->capacity = capacity;
        /* A large piece gets a block of its own behind the head, so that the head's free end stays in use. */
        if (block && capacity - bytes < block->capacity - block->used) {
            fresh->next = block->next;
            block->next = fresh;
        } else {
            fresh->next = block;
            arena->head = fresh;
        }
        block = fresh;
    }
    char *memory = (char *)block + ARENA_HEADER + block->used;
    block->used += bytes;
    return memory;
}

char *ht_arena_strndup(ht_arena *arena, const char *text, size_t bytes) {
    if (bytes == SIZE_MAX)
        return NULL;
    char *copy = ht_arena_alloc(arena, bytes + 1);
    if (copy && bytes)
        memcpy(copy, text, bytes); /* the NUL is there: arenas are zeroed */
    return copy;
}

void ht_arena_free(ht_arena *arena) {
    for (struct ht_arena_block *block = arena->head, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    arena->head = NULL;
}

/* ---- text ---- */

static ht_status text_reserve(ht_text *text, size_t more, ht_error *error) {
    if (more >= SIZE_MAX - text->bytes)
        return ht_fail(error, HT_ERROR_MEMORY, "out of memory: text");
    return ht_grow((void **)&text->data, &text->capacity, text->bytes + more + 1, 1, "text", error);
}

ht_status ht_text_append(ht_text *text, const char *data, size_t bytes, ht_error *error) {
    ht_status status = text_reserve(text, bytes, error);
    if (status)
        return status;
    if (bytes)
        memcpy(text->data + text->bytes, data, bytes);
    text->bytes += bytes;
    text->data[text->bytes] = 0;
    return HT_OK;
}

ht_status ht_text_printf(ht_text *text, ht_error *error, const char *format, ...) {
    va_list list;
    va_start(list, format);
    int need = vsnprintf(NULL, 0, format, list);
    va_end(list);
    if (need < 0)
        return ht_fail(error, HT_ERROR_ARGUMENT, "text cannot be formatted");
    ht_status status = text_reserve(text, (size_t)need, error);
    if (status)
        return status;
    va_start(list, format);
    vsnprintf(text->data + text->bytes, (size_t)need + 1, format, list);
    va_end(list);
    text->bytes += (size_t)need;
    return HT_OK;
}

void ht_text_free(ht_text *text) {
    free(text->data);
    *text = (ht_text){0};
}

void ht_memory_trim(void) {
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

bool ht_parse_size(const char *text, uint64_t *bytes) {
    static const char units[] = "KMGT";
    char *end;
    errno = 0;
    const long long number = strtoll(text, &end, 10);
    if (end == text || errno || number < 0)
        return false;
    /* a letter in either case; of a blank nothing would be left, which is found at the end of units */
    const char *unit = *end & ~0x20 ? strchr(units, *end & ~0x20) : NULL;
    const int shift = unit ? 10 * (int)(unit - units + 1) : 0;
    if (number > INT64_MAX >> shift)
        return false;
    *bytes = (uint64_t)number << shift;
    if (!unit)
        return !*end;
    end++;
    return !*end || !strcasecmp(end, "b") || !strcasecmp(end, "ib");
}
