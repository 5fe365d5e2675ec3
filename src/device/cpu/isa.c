/* Which kernels this processor has, and what the device says of itself. */
#include "device/cpu/isa.h"

#include "base/os.h"
#include "device/common.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <stdio.h>
#include <string.h>

/* ---- choosing kernels ------------------------------------------------------------------------------------------------- */

typedef struct isa_row {
    const char *option; /* isa=... */
    const ht_cpu_kernels *kernels;
} isa_row;

#if defined(__x86_64__)
static bool has_f16c(void) { /* no name that both gcc and clang 14 know */
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

static bool isa_works(const ht_cpu_kernels *kernels) {
    if (!kernels)
        return false;
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    if (kernels == &ht_kernels_avx2)
        return avx2;
    if (kernels == &ht_kernels_avx512)
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512vnni");
#elif defined(__aarch64__)
    if (kernels == &ht_kernels_neon_dotprod)
        return ht_os_has_feature(HT_OS_ARM_DOTPROD);
    if (kernels == &ht_kernels_neon_i8mm)
        return ht_os_has_feature(HT_OS_ARM_I8MM);
#endif
    return true;
}

#if defined(__x86_64__)
#define X86(kernels) (&(kernels))
#else
#define X86(kernels) NULL
#endif
#if defined(__aarch64__)
#define ARM(kernels) (&(kernels))
#else
#define ARM(kernels) NULL
#endif

static const isa_row isas[] = {
    /* best first; NULL: for other processors */
    {"avx512", X86(ht_kernels_avx512)},       {"avx2", X86(ht_kernels_avx2)},
    {"neon-i8mm", ARM(ht_kernels_neon_i8mm)}, {"neon-dotprod", ARM(ht_kernels_neon_dotprod)},
    {"neon", ARM(ht_kernels_neon)},           {"scalar", &ht_kernels_generic},
};

ht_status ht_cpu_choose(const char *wanted, const ht_cpu_kernels **kernels, ht_error *error) {
    char known[64] = "";
    for (size_t i = 0; i < HT_COUNT(isas); i++) {
        const size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", isas[i].option);
        if (wanted && strcmp(wanted, isas[i].option) != 0)
            continue;
        if (isa_works(isas[i].kernels)) {
            *kernels = isas[i].kernels;
            return HT_OK;
        }
        if (wanted)
            return ht_fail(error, HT_ERROR_DEVICE, "cpu: this processor has no %s", wanted);
    }
    return ht_fail(error, HT_ERROR_ARGUMENT, "cpu: isa=%s is not one of %s", wanted ? wanted : "", known);
}

/* ---- description
 * --------------------------------------------------------------------------------------------------------- */

/* The name that Linux has for it; on ARM, where it has none, the numbers of its first core's maker and type. */
static void processor_name(char *out, size_t capacity) {
    snprintf(out, capacity, "unknown processor");
    FILE *file = ht_os_open("/proc/cpuinfo", "r");
    if (!file)
        return;
    char line[256], maker[16] = "";
    while (fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (!colon)
            continue;
        line[strcspn(line, "\n")] = 0;
        const char *value = colon[1] ? colon + 2 : "";
        if (strncmp(line, "model name", 10) == 0) {
            snprintf(out, capacity, "%s", value);
            break;
        }
        if (strncmp(line, "CPU implementer", 15) == 0)
            snprintf(maker, sizeof maker, "%s", value);
        if (strncmp(line, "CPU part", 8) == 0) {
            snprintf(out, capacity, "ARM processor, implementer %s, part %s", maker, value);
            break;
        }
    }
    fclose(file);
}

void ht_cpu_describe(ht_device_caps *caps, const ht_cpu_kernels *kernels) {
    *caps = (ht_device_caps){
        .kind = HT_DEVICE_CPU, .unified_memory = true, .runs_in_caller = true, .divisible = true, .adds = true};
    snprintf(caps->name, sizeof caps->name, "cpu");
    snprintf(caps->runtime, sizeof caps->runtime, "hetero %s", kernels->name);
    snprintf(caps->dtypes, sizeof caps->dtypes, "int4,int6,int8,f16,bf16,f32");
    processor_name(caps->description, sizeof caps->description);
    caps->memory_bytes = ht_os_memory_bytes();
    caps->cores = *ht_all_cores();
}

ht_status ht_cpu_list(ht_device_info **list, size_t *n, ht_error *error) {
    const ht_cpu_kernels *kernels;
    ht_status status = ht_cpu_choose(NULL, &kernels, error);
    if (status)
        return status;
    ht_device_caps caps;
    ht_cpu_describe(&caps, kernels);
    ht_device_info info = {.memory_bytes = caps.memory_bytes, .unified_memory = true, .usable = true};
    snprintf(info.name, sizeof info.name, "%s", caps.name);
    snprintf(info.kind, sizeof info.kind, "cpu");
    snprintf(info.runtime, sizeof info.runtime, "%s", caps.runtime);
    snprintf(info.description, sizeof info.description, "%s", caps.description);
    snprintf(info.dtypes, sizeof info.dtypes, "%s", caps.dtypes);
    return ht_device_list_add(list, n, &info, error);
}
