/* Structs that grow from version to version: what the header says of struct_size, in two functions. */
#include "base/base.h"

#include <string.h>

/* More than any struct of the headers will ever have: a size beyond it was never set, and its bytes may not be there. */
#define MOST_BYTES ((size_t)64 << 10)

static size_t size_of(const void *given) {
    size_t size;
    memcpy(&size, given, sizeof size);
    return size;
}

ht_status ht_struct_read(void *full, size_t size, const void *given, const char *type, ht_error *error) {
    memset(full, 0, size);
    if (!given)
        return HT_OK;
    const size_t theirs = size_of(given);
    if (theirs < sizeof(size_t))
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: struct_size is %zu (make the struct with HT_INIT(%s, ...))", type,
                       theirs, type);
    if (theirs > MOST_BYTES)
        return ht_fail(error, HT_ERROR_ARGUMENT,
                       "%s: struct_size is %zu, expected at most %zu (make the struct with HT_INIT(%s, ...))", type,
                       theirs, MOST_BYTES, type);
    for (size_t i = size; i < theirs; i++)
        if (((const char *)given)[i])
            return ht_fail(error, HT_ERROR_UNSUPPORTED,
                           "%s: a field is set that this library, version %s, does not know", type, ht_version());
    memcpy(full, given, ht_min_size(size, theirs));
    return HT_OK;
}

ht_status ht_struct_check(const void *given, const char *type, ht_error *error) {
    if (!given)
        return ht_fail(error, HT_ERROR_ARGUMENT, "%s: none was given (make it with HT_INIT(%s))", type, type);
    const size_t theirs = size_of(given);
    if (theirs >= sizeof(size_t) && theirs <= MOST_BYTES)
        return HT_OK;
    return ht_fail(error, HT_ERROR_ARGUMENT, "%s: struct_size is %zu (make it with HT_INIT(%s))", type, theirs, type);
}

void ht_struct_write(void *given, const void *full, size_t size) {
    const size_t head = sizeof(size_t), theirs = size_of(given);
    if (theirs < head || theirs > MOST_BYTES)
        return; /* it has never held anything */
    memset((char *)given + head, 0, theirs - head);
    memcpy((char *)given + head, (const char *)full + head, ht_min_size(size, theirs) - head);
}
