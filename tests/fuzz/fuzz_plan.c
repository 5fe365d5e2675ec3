/* libFuzzer: the input is a saved plan (hetero plan --load). What is checked as good is printed. */
#include "../../cli/plan_table.c"

#include "fuzz/fuzz.h"

/* In place of the commands' own. */
int cli_wrong(const cli_command *command, const char *format, ...) {
    (void)command, (void)format;
    return CLI_WRONG;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static FILE *nowhere;
    const cli_options options = {.command = NULL};
    if (!nowhere)
        nowhere = freopen("/dev/null", "w", stdout);
    json_t *plan = json_loadb((const char *)data, bytes, 0, NULL);
    if (plan && cli_plan_check(&options, "plan.json", plan) == CLI_DONE)
        cli_plan_print(plan);
    json_decref(plan);
    return 0;
}
