/* A list of devices as JSON. */
#include "base/json.h"
#include "device/device.h"

#include <stdlib.h>
#include <string.h>

/* "64,256": [64, 256]; words: ["64", "256"] */
static json_t *list_json(const char *commas, bool words) {
    json_t *list = json_array();
    while (*commas) {
        const size_t bytes = strcspn(commas, ",");
        ht_json_add(&list, words ? json_stringn(commas, bytes) : json_integer(strtol(commas, NULL, 10)));
        commas += bytes + (commas[bytes] == ',');
    }
    return list;
}

static json_t *device_json(const ht_device_info *device) {
    json_t *row = json_pack("{s:s, s:s, s:s, s:s, s:I, s:o, s:o, s:b, s:b}", "name", device->name, "kind", device->kind,
                            "runtime", device->runtime, "description", device->description, "memory_bytes",
                            (json_int_t)device->memory_bytes, "dtypes", list_json(device->dtypes, true),
                            "static_lengths", list_json(device->static_lengths, false), "unified_memory",
                            (int)device->unified_memory, "emulated", (int)device->emulated);
    if (row && *device->driver)
        ht_json_set(&row, "driver", json_string(device->driver));
    if (row && *device->limits)
        ht_json_set(&row, "limits", json_string(device->limits));
    if (row && *device->why)
        ht_json_set(&row, "limited", json_string(device->why));
    return row;
}

ht_status ht_devices_json(const ht_device_info *list, size_t n, char **json, ht_error *error) {
    json_t *devices = json_array(), *missing = json_array();
    for (size_t i = 0; i < n; i++) {
        ht_device_info device = list[i];
        char *const texts[] = {device.name,        device.kind,   device.runtime, device.driver,
                               device.description, device.dtypes, device.limits,  device.why};
        for (size_t k = 0; k < HT_COUNT(texts); k++) /* drivers' own */
            ht_make_printable(texts[k]);
        if (device.usable)
            ht_json_add(&devices, device_json(&device));
        else
            ht_json_add(&missing, json_pack("{s:s, s:s}", "name", device.name, "why", device.why));
    }
    json_t *all = json_pack("{s:o, s:o}", "devices", devices, "missing", missing);
    return ht_json_text(all, JSON_COMPACT, "the list of devices", json, error);
}
