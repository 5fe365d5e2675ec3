/* hetero devices: what was found, and what was looked for and not found. */
#include "cli.h"

#include "base/base.h"

#include <stdio.h>
#include <string.h>

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
               ht_size_text(device->memory_bytes, memory), device->description);
        printf("%-*s  weights: %s; lengths: %s; memory: %s%s\n", name, "", device->dtypes,
               *device->static_lengths ? device->static_lengths : "any",
               device->unified_memory ? "unified" : "dedicated",
               device->emulated ? "; emulated: results are real, timings are not meaningful" : "");
        if (*device->driver)
            printf("%-*s  driver: %s\n", name, "", device->driver);
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
    if (heading)
        printf("(--openvino PATH and --onnxruntime PATH say where those are)\n");
}

/* What is left of the list without simulated devices. */
static size_t drop_simulated(ht_device_info *list, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (!list[i].simulated)
            list[kept++] = list[i];
    return kept;
}

int cli_devices(const cli_options *options) {
    ht_error error;
    ht_device_info *list;
    size_t n;
    cli_hold_output();
    const ht_status listed = ht_devices_list(&list, &n, &error);
    cli_release_output();
    if (listed)
        return cli_fail(options, &error);
    const size_t shown = options->all ? n : drop_simulated(list, n), hidden = n - shown;
    int status = CLI_DONE;
    char *json;
    n = shown;
    if (!options->json) {
        print_table(list, n);
        if (hidden)
            printf("\n%zu simulated devices: see them with --all\n", hidden);
    } else if (ht_devices_json(list, n, &json, &error))
        status = cli_fail(options, &error);
    else
        status = cli_print_text(json);
    ht_free(list);
    return status;
}
