/* A plan's JSON as a table for people, whether it was made just now or kept in a file, which is checked first. */
#include "cli.h"

#include "base/base.h"

#include <stdio.h>
#include <string.h>

/* ---- checking ----------------------------------------------------------------------------------------------------------- */

typedef enum kind { TEXT, WHOLE, REAL, LIST, OBJECT } kind;
typedef struct field {
    const char *key;
    kind kind;
    bool null; /* allowed */
} field;

static bool is_line(const char *text) {
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

static bool is_kind(const json_t *value, kind k) {
    switch (k) {
    case TEXT:
        return json_is_string(value) && is_line(json_string_value(value));
    case WHOLE:
        return json_is_integer(value) && json_integer_value(value) >= 0;
    case REAL:
        return json_is_number(value);
    case LIST:
        return json_is_array(value);
    default:
        return json_is_object(value);
    }
}

/* place: "operators[3]." */
static int check_fields(const cli_options *options, const char *path, const char *place, const json_t *object,
                        const field *fields, size_t n) {
    static const char *const names[] = {"one line of text", "a whole number", "a number", "a list", "an object"};
    if (!json_is_object(object))
        return cli_wrong(options->command, "%s: %.*s must be an object", path, (int)strlen(place) - 1, place);
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_object_get(object, fields[i].key);
        if (!value)
            return cli_wrong(options->command, "%s: %s%s is missing", path, place, fields[i].key);
        if (!is_kind(value, fields[i].kind) && !(fields[i].null && json_is_null(value)))
            return cli_wrong(options->command, "%s: %s%s must be %s", path, place, fields[i].key,
                             names[fields[i].kind]);
    }
    return CLI_DONE;
}

static int check_slice(const cli_options *options, const char *path, const char *place, const json_t *slice,
                       const json_t *memory) {
    static const field fields[] = {
        {"device", TEXT, false},           {"row_begin", WHOLE, false},     {"row_end", WHOLE, false},
        {"reduction_begin", WHOLE, false}, {"reduction_end", WHOLE, false}, {"head_begin", WHOLE, false},
        {"head_end", WHOLE, false},        {"token_begin", WHOLE, false},   {"token_end", WHOLE, false},
        {"predicted_us", REAL, true},      {"bytes", WHOLE, false}};
    static const char *const ranges[] = {"row", "reduction", "head", "token"};
    int status = check_fields(options, path, place, slice, fields, sizeof fields / sizeof *fields);
    for (size_t i = 0; i < 4 && status == CLI_DONE; i++) {
        char begin[32], end[32];
        snprintf(begin, sizeof begin, "%s_begin", ranges[i]);
        snprintf(end, sizeof end, "%s_end", ranges[i]);
        if (json_integer_value(json_object_get(slice, begin)) > json_integer_value(json_object_get(slice, end)))
            status = cli_wrong(options->command, "%s: %s%s must not be less than %s", path, place, end, begin);
    }
    const char *device = json_string_value(json_object_get(slice, "device"));
    if (status == CLI_DONE && !json_object_get(memory, device))
        status = cli_wrong(options->command, "%s: %sdevice: '%s' is not listed in memory", path, place, device);
    return status;
}

static int check_operator(const cli_options *options, const char *path, size_t number, const json_t *operator,
                          const json_t * memory) {
    static const field fields[] = {{"name", TEXT, false},
                                   {"rows", WHOLE, false},
                                   {"cols", WHOLE, false},
                                   {"strategy", TEXT, false},
                                   {"slices", LIST, false}};
    char place[64];
    size_t i;
    json_t *slice;
    snprintf(place, sizeof place, "operators[%zu].", number);
    int status = check_fields(options, path, place, operator, fields, sizeof fields / sizeof *fields);
    if (status != CLI_DONE)
        return status;
    json_array_foreach(json_object_get(operator, "slices"), i, slice) {
        snprintf(place, sizeof place, "operators[%zu].slices[%zu].", number, i);
        status = check_slice(options, path, place, slice, memory);
        if (status != CLI_DONE)
            return status;
    }
    return CLI_DONE;
}

/* What devices leave to others; plans of earlier versions do not say it. */
static int check_left(const cli_options *options, const char *path, const json_t *left) {
    static const field fields[] = {{"device", TEXT, false}, {"why", TEXT, false}, {"operators", LIST, false}};
    size_t i, k;
    json_t *row, *name;
    int status = CLI_DONE;
    json_array_foreach(left, i, row) {
        char place[64];
        snprintf(place, sizeof place, "left[%zu].", i);
        status = check_fields(options, path, place, row, fields, sizeof fields / sizeof *fields);
        if (status != CLI_DONE)
            return status;
        json_array_foreach(json_object_get(row, "operators"), k, name) if (!is_kind(name, TEXT)) return cli_wrong(
            options->command, "%s: %soperators must be lines of text", path, place);
    }
    return status;
}

int cli_plan_check(const cli_options *options, const char *path, json_t *plan) {
    static const field fields[] = {{"operators", LIST, false},         {"memory", OBJECT, false},
                                   {"tokens", WHOLE, false},           {"regime", TEXT, false},
                                   {"joins_per_layer", WHOLE, false},  {"predicted_ms", REAL, true},
                                   {"single_device_ms", OBJECT, false}};
    static const field device_fields[] = {{"bytes", WHOLE, false}, {"graph_limit", WHOLE, true}};
    json_t *memory = json_object_get(plan, "memory"), *value;
    const char *key;
    size_t i;
    if (!json_is_object(plan))
        return cli_wrong(options->command, "%s: not a plan", path);
    json_t *old = json_object_get(plan, "strategy"); /* what the regime was called once */
    if (old && !json_object_get(plan, "regime"))
        json_object_set(plan, "regime", old);
    json_object_del(plan, "strategy");
    int status = check_fields(options, path, "", plan, fields, sizeof fields / sizeof *fields);
    if (status != CLI_DONE)
        return status;
    json_object_foreach(memory, key, value) {
        char place[160];
        snprintf(place, sizeof place, "memory.%.140s.", is_line(key) ? key : "?");
        status = is_line(key)
                     ? check_fields(options, path, place, value, device_fields, 2)
                     : cli_wrong(options->command, "%s: memory: a device's name must be one line of text", path);
        if (status == CLI_DONE && !json_is_boolean(json_object_get(value, "emulated")))
            status = cli_wrong(options->command, "%s: %semulated must be true or false", path, place);
        if (status != CLI_DONE)
            return status;
    }
    json_object_foreach(
        json_object_get(plan, "single_device_ms"), key,
        value) if (!is_line(key) ||
                   !(json_is_number(value) ||
                     json_is_null(value))) return cli_wrong(options->command,
                                                            "%s: single_device_ms.%.140s must be a number or null",
                                                            path, is_line(key) ? key : "?");
    json_array_foreach(json_object_get(plan, "dropped"), i, value) {
        if (!json_is_string(value) || !is_line(json_string_value(value)))
            return cli_wrong(options->command, "%s: dropped must be lines of text", path);
    }
    status = check_left(options, path, json_object_get(plan, "left"));
    if (status != CLI_DONE)
        return status;
    json_array_foreach(json_object_get(plan, "operators"), i, value) {
        status = check_operator(options, path, i, value, memory);
        if (status != CLI_DONE)
            return status;
    }
    return CLI_DONE;
}

/* ---- one operator ------------------------------------------------------------------------------------------------------- */

static json_int_t whole(const json_t *object, const char *key) {
    return json_integer_value(json_object_get(object, key));
}

static const char *text(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

/* Tokens of the operator, all slices together. */
static void tokens_of(const json_t *slices, json_int_t *begin, json_int_t *end) {
    size_t i;
    json_t *slice;
    *begin = *end = 0;
    json_array_foreach(slices, i, slice) {
        const json_int_t from = whole(slice, "token_begin"), to = whole(slice, "token_end");
        *begin = i == 0 || from < *begin ? from : *begin;
        *end = to > *end ? to : *end;
    }
}

static void add_range(char *out, size_t size, const char *what, json_int_t begin, json_int_t end) {
    const size_t used = strlen(out);
    snprintf(out + used, size - used, "%s%s %lld-%lld", used ? ", " : "", what, (long long)begin, (long long)end - 1);
}

/* "rows 0-1023", "heads 2-4, tokens 0-127", "all" */
static void describe_share(const json_t *operator, const json_t * slice, char *out, size_t size) {
    const json_int_t rows = whole(operator, "rows"), cols = whole(operator, "cols");
    const json_int_t row = whole(slice, "row_begin"), row_end = whole(slice, "row_end");
    const json_int_t column = whole(slice, "reduction_begin"), column_end = whole(slice, "reduction_end");
    const json_int_t token = whole(slice, "token_begin"), token_end = whole(slice, "token_end");
    json_int_t first, last;
    tokens_of(json_object_get(operator, "slices"), &first, &last);
    *out = 0;
    if (json_is_true(json_object_get(slice, "rest"))) {
        snprintf(out, size, "what is past capacity");
        return;
    }
    if (whole(slice, "head_end") > 0)
        add_range(out, size, "heads", whole(slice, "head_begin"), whole(slice, "head_end"));
    else if (row_end > 0 && row_end - row != rows)
        add_range(out, size,
                  rows                                            ? "rows"
                  : !strcmp(text(operator, "strategy"), "expert") ? "experts"
                                                                  : "features",
                  row, row_end);
    if (cols && column_end - column != cols)
        add_range(out, size, rows ? "columns" : "features", column, column_end);
    if (token != first || token_end != last)
        add_range(out, size, "tokens", token, token_end);
    if (!*out)
        snprintf(out, size, "all");
}

/* The device's slice number `number` of the operator; NULL: it has no such. */
static const json_t *slice_of(const json_t *operator, const char * device, size_t number) {
    size_t i;
    json_t *slice;
    json_array_foreach(json_object_get(operator, "slices"), i,
                       slice) if (!strcmp(text(slice, "device"), device) && number-- == 0) return slice;
    return NULL;
}

static void print_cell(const json_t *operator, const json_t * slice) {
    char share[160] = "", us[32] = "", memory[32] = "";
    if (slice) {
        const json_t *predicted = json_object_get(slice, "predicted_us");
        describe_share(operator, slice, share, sizeof share);
        snprintf(us, sizeof us, json_is_null(predicted) ? "-" : "%.1f", json_number_value(predicted));
        if (whole(slice, "bytes"))
            ht_size_text((uint64_t)whole(slice, "bytes"), memory);
    }
    printf("  %-22s %8s %10s", share, us, memory);
}

static void print_operator(const json_t *operator, const char * name, const json_t *memory) {
    json_int_t first, last;
    bool more = true;
    tokens_of(json_object_get(operator, "slices"), &first, &last);
    for (size_t line = 0; more; line++) {
        const char *device;
        json_t *unused;
        more = false;
        if (line == 0 && whole(operator, "rows"))
            printf("%-24s %7lld %7lld %6lld  %-8s", name, (long long)whole(operator, "rows"),
                   (long long)whole(operator, "cols"), (long long)(last - first), text(operator, "strategy"));
        else if (line == 0)
            printf("%-24s %7s %7s %6lld  %-8s", name, "", "", (long long)(last - first), text(operator, "strategy"));
        else
            printf("%-56s", "");
        json_object_foreach((json_t *)memory, device, unused) {
            print_cell(operator, slice_of(operator, device, line));
            more |= slice_of(operator, device, line + 1) != NULL;
        }
        putchar('\n');
    }
}

/* ---- layers that are alike ---------------------------------------------------------------------------------------------- */

/* The layer of "blk.3.ffn_down", and "ffn_down"; -1: of none. */
static int layer_of(const char *name, const char **rest) {
    int layer = -1, used = 0;
    if (sscanf(name, "blk.%9d.%n", &layer, &used) != 1 || used == 0)
        layer = -1;
    *rest = name + used;
    return layer;
}

/* Operators from `first` on that are of its layer; one that is of none stands alone. */
static size_t layer_size(const json_t *operators, size_t first) {
    const char *rest;
    const int layer = layer_of(text(json_array_get(operators, first), "name"), &rest);
    size_t n = 1;
    while (layer >= 0 && first + n < json_array_size(operators) &&
           layer_of(text(json_array_get(operators, first + n), "name"), &rest) == layer)
        n++;
    return n;
}

/* Are n operators from b on the same as those from a on, but for the number of the layer? */
static bool are_alike(const json_t *operators, size_t a, size_t b, size_t n) {
    if (b >= json_array_size(operators) || layer_size(operators, b) != n)
        return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(operators, a + i), *other = json_array_get(operators, b + i);
        const char *keys[] = {"rows", "cols", "strategy", "slices"}, *rest[2];
        if (layer_of(text(one, "name"), &rest[0]) < 0 || layer_of(text(other, "name"), &rest[1]) < 0 ||
            strcmp(rest[0], rest[1]) != 0)
            return false;
        for (size_t k = 0; k < 4; k++)
            if (!json_equal(json_object_get(one, keys[k]), json_object_get(other, keys[k])))
                return false;
    }
    return true;
}

static void print_operators(const json_t *operators, const json_t *memory) {
    for (size_t i = 0, end; i < json_array_size(operators); i = end) {
        const size_t n = layer_size(operators, i);
        end = i + n;
        while (are_alike(operators, i, end, n))
            end += n;
        for (size_t k = i; k < i + n; k++) {
            const json_t *operator= json_array_get(operators, k);
            const char *rest;
            char name[256];
            const int layer = layer_of(text(operator, "name"), &rest), last = layer + (int)((end - i) / n) - 1;
            if (last > layer)
                snprintf(name, sizeof name, "blk.%d-%d.%s", layer, last, rest);
            else
                snprintf(name, sizeof name, "%s", text(operator, "name"));
            print_operator(operator, name, memory);
        }
    }
}

/* ---- totals ------------------------------------------------------------------------------------------------------------- */

/* How much of the work with weights each device has, and what it leaves to others. */
static void print_left(const json_t *plan) {
    const json_t *memory = json_object_get(plan, "memory"), *left = json_object_get(plan, "left");
    const char *device;
    json_t *value, *row, *name;
    double all = 0;
    size_t i, k;
    json_object_foreach((json_t *)memory, device, value) all += json_number_value(json_object_get(value, "products"));
    if (all <= 0 || json_array_size(left) == 0)
        return;
    json_object_foreach((json_t *)memory, device, value) {
        printf("%s computes %.1f%% of the multiplications with weights", device,
               100 * json_number_value(json_object_get(value, "products")) / all);
        const char *between = "; leaves ";
        json_array_foreach(left, i, row) {
            if (strcmp(text(row, "device"), device) != 0)
                continue;
            json_array_foreach(json_object_get(row, "operators"), k, name) {
                printf("%s%s", between, json_string_value(name));
                between = ", ";
            }
            printf(" (%s)", text(row, "why"));
            between = "; ";
        }
        putchar('\n');
    }
}

static void print_totals(const json_t *plan) {
    const json_t *predicted = json_object_get(plan, "predicted_ms");
    const json_int_t joins = whole(plan, "joins_per_layer");
    const char *device, *between = "; alone: ";
    json_t *value;
    char held[32], limit[32], all[32];
    bool emulated = false;
    size_t i;
    json_object_foreach(json_object_get(plan, "memory"), device, value) {
        printf("%s holds %s", device, ht_size_text((uint64_t)whole(value, "bytes"), held));
        if (whole(value, "limit"))
            printf(", %s with caches and buffers of %s that it may hold",
                   ht_size_text((uint64_t)whole(value, "held"), all),
                   ht_size_text((uint64_t)whole(value, "limit"), limit));
        if (whole(value, "graph_limit"))
            printf(" (graphs: at most %s, see --npu-memory)",
                   ht_size_text((uint64_t)whole(value, "graph_limit"), limit));
        emulated |= json_is_true(json_object_get(value, "emulated"));
        puts(json_is_true(json_object_get(value, "emulated")) ? "; emulated: timings are not meaningful" : "");
    }
    print_left(plan);
    json_array_foreach(json_object_get(plan, "dropped"), i, value) printf("not used: %s\n", json_string_value(value));
    if (emulated)
        puts("emulated: shares follow a rule, no times are predicted");
    printf("%lld token%s; regime %s, %lld join%s per layer\n", (long long)whole(plan, "tokens"),
           whole(plan, "tokens") == 1 ? "" : "s", text(plan, "regime"), (long long)joins, joins == 1 ? "" : "s");
    if (json_is_null(predicted))
        return;
    printf("predicted: %.2f ms", json_number_value(predicted));
    json_object_foreach(json_object_get(plan, "single_device_ms"), device, value) {
        if (json_is_null(value))
            printf("%s%s: not the whole model", between, device);
        else
            printf("%s%s %.2f ms", between, device, json_number_value(value));
        between = ", ";
    }
    putchar('\n');
}

void cli_plan_print(const json_t *plan) {
    const json_t *memory = json_object_get(plan, "memory");
    const char *device;
    json_t *unused;
    printf("%-56s", "");
    json_object_foreach((json_t *)memory, device, unused) printf("  %-42s", device);
    printf("\n%-24s %7s %7s %6s  %-8s", "OPERATOR", "ROWS", "COLUMNS", "TOKENS", "CUT");
    json_object_foreach((json_t *)memory, device, unused) printf("  %-22s %8s %10s", "SHARE", "US", "MEMORY");
    putchar('\n');
    print_operators(json_object_get(plan, "operators"), memory);
    print_totals(plan);
}
