#include "device/opencl/cl_loader.h"
#include "base/os.h"

#if HT_HAVE_OPENCL
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* Process-wide and written once: a library is opened once and never closed (drivers leave threads behind). */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *library_name; /* by a test; NULL: as below */
static ht_cl functions;
static bool tried, loaded;
static char reason[256];

static void load(void) {
    static const char *const names[] = {
#ifdef _WIN32
        "OpenCL.dll",
#else
        "libOpenCL.so.1",
#endif
#ifdef __ANDROID__
        "libOpenCL.so", "/vendor/lib64/libOpenCL.so", "/system/vendor/lib64/libOpenCL.so",
#endif
        NULL};
    char text[200];
    const char *name = library_name ? library_name : names[0];
    void *library = ht_os_library_open(name, text, sizeof text);
    if (!library) /* the first one's says most */
        snprintf(reason, sizeof reason, "no OpenCL loader: %s", text);
    for (size_t i = 1; !library && !library_name && names[i]; i++)
        library = ht_os_library_open(name = names[i], text, sizeof text);
    if (!library)
        return;
    static const struct row {
        const char *name;
        size_t offset;
    } table[] = {
#define ROW(name) {"cl" #name, offsetof(ht_cl, name)},
        HT_CL_FUNCTIONS(ROW)
#undef ROW
    };
    for (size_t i = 0; i < HT_COUNT(table); i++) {
        void *symbol = ht_os_library_symbol(library, table[i].name);
        if (!symbol) {
            snprintf(reason, sizeof reason, "%s has no %s", name, table[i].name);
            return;
        }
        *(void **)((char *)&functions + table[i].offset) = symbol; /* POSIX: function and object pointers are alike */
    }
    loaded = true;
    ht_cl_find_workers(&functions);
}

const ht_cl *ht_cl_load(const char **why) {
    pthread_mutex_lock(&lock);
    if (!tried)
        load();
    tried = true;
    const ht_cl *result = loaded ? &functions : NULL;
    pthread_mutex_unlock(&lock);
    if (!result)
        *why = reason;
    return result;
}

void ht_cl_set_library(const char *name) {
    library_name = name;
    tried = loaded = false;
}

ht_cl *ht_cl_functions_for_tests(void) {
    return loaded ? &functions : NULL;
}

const char *ht_cl_error_name(cl_int code) {
    static const struct row {
        cl_int code;
        const char *name;
    } table[] = {
    /* clang-format off */
#define ROW(name) {name, #name},
        ROW(CL_DEVICE_NOT_FOUND) ROW(CL_DEVICE_NOT_AVAILABLE) ROW(CL_COMPILER_NOT_AVAILABLE)
        ROW(CL_MEM_OBJECT_ALLOCATION_FAILURE) ROW(CL_OUT_OF_RESOURCES) ROW(CL_OUT_OF_HOST_MEMORY)
        ROW(CL_PROFILING_INFO_NOT_AVAILABLE) ROW(CL_MEM_COPY_OVERLAP) ROW(CL_BUILD_PROGRAM_FAILURE)
        ROW(CL_MAP_FAILURE) ROW(CL_MISALIGNED_SUB_BUFFER_OFFSET) ROW(CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST)
        ROW(CL_COMPILE_PROGRAM_FAILURE) ROW(CL_LINKER_NOT_AVAILABLE) ROW(CL_LINK_PROGRAM_FAILURE)
        ROW(CL_DEVICE_PARTITION_FAILED) ROW(CL_KERNEL_ARG_INFO_NOT_AVAILABLE) ROW(CL_INVALID_VALUE)
        ROW(CL_INVALID_DEVICE_TYPE) ROW(CL_INVALID_PLATFORM) ROW(CL_INVALID_DEVICE) ROW(CL_INVALID_CONTEXT)
        ROW(CL_INVALID_QUEUE_PROPERTIES) ROW(CL_INVALID_COMMAND_QUEUE) ROW(CL_INVALID_HOST_PTR)
        ROW(CL_INVALID_MEM_OBJECT) ROW(CL_INVALID_BINARY) ROW(CL_INVALID_BUILD_OPTIONS) ROW(CL_INVALID_PROGRAM)
        ROW(CL_INVALID_PROGRAM_EXECUTABLE) ROW(CL_INVALID_KERNEL_NAME) ROW(CL_INVALID_KERNEL_DEFINITION)
        ROW(CL_INVALID_KERNEL) ROW(CL_INVALID_ARG_INDEX) ROW(CL_INVALID_ARG_VALUE) ROW(CL_INVALID_ARG_SIZE)
        ROW(CL_INVALID_KERNEL_ARGS) ROW(CL_INVALID_WORK_DIMENSION) ROW(CL_INVALID_WORK_GROUP_SIZE)
        ROW(CL_INVALID_WORK_ITEM_SIZE) ROW(CL_INVALID_GLOBAL_OFFSET) ROW(CL_INVALID_EVENT_WAIT_LIST)
        ROW(CL_INVALID_EVENT) ROW(CL_INVALID_OPERATION) ROW(CL_INVALID_BUFFER_SIZE) ROW(CL_INVALID_GLOBAL_WORK_SIZE)
        ROW(CL_INVALID_PROPERTY) ROW(CL_INVALID_COMPILER_OPTIONS) ROW(CL_INVALID_LINKER_OPTIONS)
        ROW(CL_INVALID_DEVICE_PARTITION_COUNT)
#undef ROW
        {-1001, "CL_PLATFORM_NOT_FOUND_KHR"},
        /* clang-format on */
    };
    for (size_t i = 0; i < HT_COUNT(table); i++)
        if (table[i].code == code)
            return table[i].name;
    return "unknown code";
}

ht_status ht_cl_check(cl_int code, const char *device, const char *call, ht_error *error) {
    if (code == CL_SUCCESS)
        return HT_OK;
    return ht_fail(error, HT_ERROR_DEVICE, "%s: %s failed: %s (%d)", device, call, ht_cl_error_name(code), (int)code);
}
#else
typedef int ht_cl_loader_is_empty; /* ISO C wants something in every file */
#endif
