/* The machine as files in /proc and /sys, and Android's properties, tell: a list of files and fields that identify nobody. */
#include "report/report.h"

#include "base/os.h"
#include "device/common.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CORES HT_MAX_CORES

/* First line of a file, without its end; false: there is none. */
static bool read_line(const char *root, const char *path, char *out, size_t capacity) {
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    FILE *file = ht_os_open(full, "r");
    out[0] = '\0';
    if (!file)
        return false;
    if (!fgets(out, (int)capacity, file))
        out[0] = '\0';
    fclose(file);
    out[strcspn(out, "\r\n")] = '\0';
    ht_make_printable(out);
    return out[0] != '\0';
}

static long read_number(const char *root, const char *path) {
    char text[64];
    return read_line(root, path, text, sizeof text) ? strtol(text, NULL, 10) : 0;
}

/* Texts of files into an object, those that are there. */
typedef struct row {
    const char *key, *path;
} row;

static void add_files(const char *root, json_t **object, const row *rows, size_t n) {
    char text[256];
    for (size_t i = 0; i < n; i++)
        if (read_line(root, rows[i].path, text, sizeof text))
            ht_json_set(object, rows[i].key, json_string(text));
}

/* An empty object is nothing to report. */
static void add_object(json_t **parent, const char *key, json_t *object) {
    if (json_object_size(object) || !object)
        ht_json_set(parent, key, object);
    else
        json_decref(object);
}

/* ---- processor -------------------------------------------------------------------------------------------------------------- */

typedef struct core {
    bool there;
    long max_khz, capacity; /* 0: not told */
    char part[48];          /* ARM: "0x41:0xd80", implementer and part */
} core;

/* "key\t: value" -> the value, if the line has this key. */
static const char *value_of(const char *line, const char *key) {
    const size_t bytes = strlen(key);
    const char *colon = strchr(line, ':');
    if (!colon || strncmp(line, key, bytes) != 0 || !strchr(" \t:", line[bytes]))
        return NULL;
    return colon + 1 + strspn(colon + 1, " \t");
}

/* /proc/cpuinfo has serial numbers on some boards: only these fields are taken. */
static void read_cpuinfo(const char *root, json_t **machine, core *cores) {
    static const struct {
        const char *field, *key;
    } once[] = {{"model name", "processor"}, {"Hardware", "hardware"}, {"flags", "features"}, {"Features", "features"}};
    char path[512], line[8192], implementer[16] = "";
    int number = -1;
    snprintf(path, sizeof path, "%s/proc/cpuinfo", root);
    FILE *file = ht_os_open(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        const char *value;
        line[strcspn(line, "\n")] = '\0';
        ht_make_printable(line + strcspn(line, ":"));
        if ((value = value_of(line, "processor")) && isdigit((unsigned char)*value))
            number = atoi(value);
        if ((value = value_of(line, "CPU implementer")))
            snprintf(implementer, sizeof implementer, "%.15s", value);
        if ((value = value_of(line, "CPU part")) && number >= 0 && number < MAX_CORES)
            snprintf(cores[number].part, sizeof cores->part, "%s:%.15s", implementer, value);
        for (size_t i = 0; i < HT_COUNT(once); i++)
            if ((value = value_of(line, once[i].field)) && *value && !json_object_get(*machine, once[i].key))
                ht_json_set(machine, once[i].key, json_string(value));
    }
    if (file)
        fclose(file);
}

static void read_cores(const char *root, core *cores) {
    for (int i = 0; i < MAX_CORES; i++) {
        char path[128], full[512];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d", i);
        snprintf(full, sizeof full, "%s%s", root, path);
        cores[i].there = ht_os_exists(full);
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/cpuinfo_max_freq", i);
        cores[i].max_khz = cores[i].there ? read_number(root, path) : 0;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpu_capacity", i);
        cores[i].capacity = cores[i].there ? read_number(root, path) : 0;
    }
}

/* Cores that are alike and follow each other are a group: big.LITTLE shows. */
static json_t *groups_json(const core *cores) {
    json_t *groups = json_array();
    for (int i = 0, end; i < MAX_CORES; i = end) {
        const core *c = &cores[i];
        end = i + 1;
        if (!c->there)
            continue;
        while (end < MAX_CORES && cores[end].there && cores[end].max_khz == c->max_khz &&
               cores[end].capacity == c->capacity && strcmp(cores[end].part, c->part) == 0)
            end++;
        char range[32];
        snprintf(range, sizeof range, end > i + 1 ? "%d-%d" : "%d", i, end - 1);
        json_t *group = json_pack("{s:s, s:i}", "cores", range, "n", end - i);
        if (c->max_khz)
            ht_json_set(&group, "max_mhz", json_real((double)c->max_khz / 1000));
        if (c->capacity)
            ht_json_set(&group, "capacity", json_integer(c->capacity));
        if (*c->part)
            ht_json_set(&group, "part", json_string(c->part));
        ht_json_add(&groups, group);
    }
    return groups;
}

static void add_processor(const char *root, json_t **machine) {
    core *cores = calloc(MAX_CORES, sizeof *cores);
    if (!cores)
        return;
    read_cores(root, cores);
    read_cpuinfo(root, machine, cores);
    ht_json_set(machine, "core_groups", groups_json(cores));
    free(cores);
    const double quota = ht_os_cpu_quota(root);
    ht_json_set(machine, "cores", json_integer(ht_os_online_cores()));
    ht_json_set(machine, "cores_allowed", json_integer(ht_cores_count(ht_all_cores())));
    if (quota > 0)
        ht_json_set(machine, "cpu_quota", json_real(quota));
    static const row rows[] = {{"governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"}};
    add_files(root, machine, rows, HT_COUNT(rows));
}

/* ---- memory, system --------------------------------------------------------------------------------------------------------- */

static void add_memory(const char *root, json_t **machine) {
    static const row fields[] = {
        {"memory_bytes", "MemTotal"}, {"free_bytes", "MemAvailable"}, {"swap_bytes", "SwapTotal"}};
    char path[512], line[256];
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    FILE *file = ht_os_open(path, "r");
    while (file && fgets(line, sizeof line, file))
        for (size_t i = 0; i < HT_COUNT(fields); i++) {
            const char *value = value_of(line, fields[i].path);
            if (value)
                ht_json_set(machine, fields[i].key, json_integer(strtoll(value, NULL, 10) * 1024));
        }
    if (file)
        fclose(file);
    ht_json_set(machine, "page_bytes", json_integer((json_int_t)ht_os_page_bytes()));
}

static void add_system(const char *root, json_t **machine) {
    ht_os_names names; /* of which those of hosts and people are left out */
    char path[512], line[256];
    ht_os_get_names(&names);
    snprintf(line, sizeof line, "%s %s %s", names.system, names.release, names.machine);
    ht_json_set(machine, "kernel", json_string(line));
    snprintf(path, sizeof path, "%s/etc/os-release", root);
    FILE *file = ht_os_open(path, "r");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, "PRETTY_NAME=", 12) != 0)
            continue;
        char *name = line + 12 + (line[12] == '"');
        name[strcspn(name, "\"\n")] = '\0';
        ht_make_printable(name);
        ht_json_set(machine, "os", json_string(name));
    }
    if (file)
        fclose(file);
}

/* soc0's serial_number is left out. */
static void add_chip(const char *root, json_t **machine) {
    static const row soc[] = {{"family", "/sys/devices/soc0/family"},
                              {"machine", "/sys/devices/soc0/machine"},
                              {"soc_id", "/sys/devices/soc0/soc_id"},
                              {"revision", "/sys/devices/soc0/revision"},
                              {"chip_name", "/sys/devices/soc0/chip_name"},
                              {"chip_family", "/sys/devices/soc0/chip_family"}},
                     board[] = {{"vendor", "/sys/class/dmi/id/sys_vendor"},
                                {"product", "/sys/class/dmi/id/product_name"},
                                {"model", "/proc/device-tree/model"}};
    json_t *object = json_object();
    add_files(root, &object, soc, HT_COUNT(soc));
    add_object(machine, "soc", object);
    object = json_object();
    add_files(root, &object, board, HT_COUNT(board));
    add_object(machine, "board", object);
}

/* Kernel drivers of GPUs and NPUs: their version where they have one, else "in the kernel". */
static void add_drivers(const char *root, json_t **machine) {
    static const char *const names[] = {"nvidia",   "amdgpu",   "i915",    "xe",         "msm",
                                        "msm_kgsl", "panfrost", "panthor", "mali_kbase", "intel_vpu",
                                        "amdxdna",  "fastrpc",  "qaic"};
    static const row gpu[] = {{"kgsl_gpu", "/sys/class/kgsl/kgsl-3d0/gpu_model"}};
    json_t *drivers = json_object();
    for (size_t i = 0; i < HT_COUNT(names); i++) {
        char path[128], full[512], version[128];
        snprintf(path, sizeof path, "/sys/module/%s/version", names[i]);
        snprintf(full, sizeof full, "%s/sys/module/%s", root, names[i]);
        if (read_line(root, path, version, sizeof version))
            ht_json_set(&drivers, names[i], json_string(version));
        else if (ht_os_exists(full))
            ht_json_set(&drivers, names[i], json_string("in the kernel"));
    }
    add_files(root, &drivers, gpu, HT_COUNT(gpu));
    add_object(machine, "drivers", drivers);
}

static void add_android(json_t **machine) {
    static const row rows[] = {{"android", "ro.build.version.release"},
                               {"phone_maker", "ro.product.manufacturer"},
                               {"phone", "ro.product.model"},
                               {"soc_model", "ro.soc.model"},
                               {"platform", "ro.board.platform"}};
    for (size_t i = 0; i < HT_COUNT(rows); i++) {
        char value[256];
        if (ht_os_property(rows[i].path, value, sizeof value))
            ht_json_set(machine, rows[i].key, json_string(value));
    }
}

json_t *ht_host_json(const char *root) {
    json_t *whole = json_object(), **machine = &whole;
    add_processor(root, machine);
    add_memory(root, machine);
    add_system(root, machine);
    add_chip(root, machine);
    add_drivers(root, machine);
    add_android(machine);
    json_t *nodes = json_array();
    for (size_t i = 0; ht_device_node_at(i); i++)
        if (ht_device_node_exists(root, ht_device_node_at(i)))
            ht_json_add(&nodes, json_string(ht_device_node_at(i) + strlen("/dev/")));
    ht_json_set(machine, "device_nodes", nodes); /* that the default devices depend on */
    return whole;
}

void ht_host_describe(char *text, size_t capacity) {
    ht_os_names names;
    ht_device_info cpu;
    ht_os_get_names(&names);
    const bool known = !ht_device_host(&cpu, NULL);
    snprintf(text, capacity, "%s, %d cores, %s %s %s", known ? cpu.description : "unknown processor",
             ht_os_online_cores(), names.system, names.release, names.machine);
    ht_make_printable(text);
}
