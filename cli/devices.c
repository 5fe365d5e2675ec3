/* hetero devices: what was found, and what was looked for and not found. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *lengths_json(const char *text) {
    json_t *list = json_array();
    for (char *end; *text; text = *end ? end + 1 : end) {
        long length = strtol(text, &end, 10);
        if (end == text)
            break;
        json_array_append_new(list, json_integer(length));
    }
    return list;
}

static int print_json(const ht_device_info *list, size_t n) {
    json_t *devices = json_array(), *missing = json_array();
    for (size_t i = 0; i < n; i++) {
        const ht_device_info *device = &list[i];
        if (!device->usable) {
            json_array_append_new(missing, json_pack("{s:s, s:s}", "name", device->name, "why", device->why));
            continue;
        }
        json_t *row = json_pack("{s:s, s:s, s:s, s:o, s:I, s:o, s:o, s:b, s:b}", "name", device->name, "kind",
                                device->kind, "runtime", device->runtime, "description",
                                cli_json_text(device->description, strlen(device->description)), "memory_bytes",
                                (json_int_t)device->memory_bytes, "dtypes", cli_json_list(device->dtypes),
                                "static_lengths", lengths_json(device->static_lengths), "unified_memory",
                                (int)device->unified_memory, "emulated", (int)device->emulated);
        if (row && *device->limits)
            json_object_set_new(row, "limits", cli_json_text(device->limits, strlen(device->limits)));
        if (row && *device->why)
            json_object_set_new(row, "limited", cli_json_text(device->why, strlen(device->why)));
        json_array_append_new(devices, row);
    }
    return cli_print_json(json_pack("{s:o, s:o}", "devices", devices, "missing", missing));
}

static void print_table(const ht_device_info *list, size_t n) {
    char memory[32];
    int name = 4, runtime = 7; /* widths of the columns */
    for (size_t i = 0; i < n; i++) {
        if ((int)strlen(list[i].name) > name)
            name = (int)strlen(list[i].name);
        if (list[i].usable && (int)strlen(list[i].runtime) > runtime)
            runtime = (int)strlen(list[i].runtime);
    }
    printf("%-*s  KIND  %-*s  %10s  DESCRIPTION\n", name, "NAME", runtime, "RUNTIME", "MEMORY");
    for (size_t i = 0; i < n; i++) {
        const ht_device_info *device = &list[i];
        if (!device->usable)
            continue;
        printf("%-*s  %-4s  %-*s  %10s  %s\n", name, device->name, device->kind, runtime, device->runtime,
               cli_bytes(device->memory_bytes, memory), device->description);
        printf("%-*s  weights: %s; lengths: %s; memory: %s%s\n", name, "", device->dtypes,
               *device->static_lengths ? device->static_lengths : "any", device->unified_memory ? "unified" : "its own",
               device->emulated ? "; emulated: its numbers are real, its times say nothing" : "");
        if (*device->limits)
            printf("%-*s  %s\n", name, "", device->limits);
        if (*device->why)
            printf("%-*s  limited: %s\n", name, "", device->why);
    }
    bool heading = false;
    for (size_t i = 0; i < n; i++) {
        if (list[i].usable)
            continue;
        if (!heading)
            printf("\nNot found:\n");
        heading = true;
        printf("%-*s  %s\n", name, list[i].name, list[i].why);
    }
}

int cli_devices(const cli_options *options) {
    ht_error error;
    ht_device_info *list;
    size_t n;
    if (ht_devices_list(&list, &n, &error))
        return cli_fail(options, &error);
    int status = CLI_DONE;
    if (options->json)
        status = print_json(list, n);
    else
        print_table(list, n);
    ht_free(list);
    return status;
}
