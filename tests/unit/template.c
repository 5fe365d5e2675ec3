/* Chat templates in Jinja: what small ones print, which bytes came from the variables, what is refused, and where it ends.
 *
 * `test_template TEMPLATE VARIABLES` prints what tests/golden/test_templates.py compares with jinja2: for each member of the
 * array in the file VARIABLES a line of JSON, {"text": ..., "foreign": [[begin, end], ...]} or {"error": ...}. */
#include "text/template/template.h"
#include "unit/test.h"

static const struct tm noon = {.tm_year = 124, .tm_mon = 6, .tm_mday = 26, .tm_hour = 12, .tm_wday = 5, .tm_yday = 207};

static ht_status render(const char *source, const char *variables, ht_script *out, ht_error *error) {
    ht_template *t;
    *out = (ht_script){.n_foreign = 0};
    ht_status status = ht_template_parse(source, strlen(source), &t, error);
    if (status != HT_OK)
        return status;
    json_t *tree = json_loads(variables, 0, NULL);
    assert_non_null(tree);
    status = ht_template_render(t, tree, &noon, out, error);
    json_decref(tree);
    ht_template_destroy(t);
    return status;
}

static const char *const given =
    "{\"s\": \"a<b\", \"n\": 3, \"l\": [1, \"x\", null], \"d\": {\"k\": \"v\", \"items\": 1}, \"bos_token\": \"<s>\","
    " \"messages\": [{\"role\": \"user\", \"content\": \" Hi \"}, {\"role\": \"odd\", \"content\": \"\"}]}";

static void expect(const char *source, const char *want) {
    ht_script out;
    ht_error error;
    if (render(source, given, &out, &error) != HT_OK)
        fail_msg("%s: %s", source, error.text);
    if (strcmp(out.text.data ? out.text.data : "", want) != 0)
        fail_msg("%s: |%s|, not |%s|", source, out.text.data, want);
    ht_script_free(&out);
}

static void expressions(void **state) {
    static const char *const cases[][2] = {
        {"{{ 1 + 2 * 3 ** 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 4 / 2 }}", "19 3 -4 2 3.5 2.0"},
        {"{{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1e-5 }} {{ 100.0 }} {{ 1234.5 }} {{ 0.001 }}",
         "0.30000000000000004 1e+16 1e-05 100.0 1234.5 0.001"},
        {"{{ 'a\\x85' | indent(1) }}|{{ '\\x7f\\u00e9' | tojson(ensure_ascii=true) }}", "a\n|\"\\u007f\\u00e9\""},
        {"{{ -0.0 }} {{ 1.0 // 0.1 }} {{ -1 // 2.0 }} {{ -4.0 % 2 }} {{ 15 | round(-1) }} {{ -1.5 is odd }} {{ '%d' % "
         "true }}",
         "-0.0 9.0 -1.0 0.0 20 False 1"},
        {"{{ 'a' ~ 1 ~ none ~ true }}{{ 'x' * 3 }}{{ 'a' + 'b' }}", "a1NoneTruexxxab"},
        {"{{ [1, 'a', \"it's\", none, 1.5, (1,), {'k': true}] }}", "[1, 'a', \"it's\", None, 1.5, (1,), {'k': True}]"},
        {"{{ 1 < 2 <= 2 }} {{ 2 in [1, 2] }} {{ 'b' not in 'abc' }} {{ not 0 }}", "True True False True"},
        {"{{ 'abcdef'[1:4] }} {{ 'abc'[::-1] }} {{ [1, 2, 3][-1] }} {{ l[1:] }} {{ 'a\\u00e9b'[1] }}",
         "bcd cba 3 ['x', None] é"},
        {"{{ missing }}|{{ missing is defined }}|{{ missing | default('x') }}|{{ d.nothing }}", "|False|x|"},
        {"{{ d.k }} {{ d['items'] }} {% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "v 1 k=v;items=1;"},
        {"{{ 'yes' if n == 3 else 'no' }} {{ 'yes' if n == 4 }}", "yes "},
        {"{{ {'a': {'b': 1}} }}", "{'a': {'b': 1}}"},
        {"{{ 5 is odd }} {{ n is divisibleby 3 }} {{ l is iterable }} {{ d is mapping }} {{ s is string and n is not "
         "none }}",
         "True True True True True"},
        {"{{ ' x '.strip() }}{{ 'a,b'.split(',') }}{{ 'aXb'.lower().title() }}{{ 'ab'.startswith(('x', 'a')) }}",
         "x['a', 'b']AxbTrue"},
        {"{{ 'a b  c'.rsplit(None, 1) }}{{ 'a-b-c'.rsplit('-', 1) }}{{ 'x\\ny'.splitlines() }}",
         "['a b', 'c']['a-b', 'c']['x', 'y']"},
        {"{{ ' a b c '.split(None, 1) }}{{ ' a b c '.rsplit(None, 1) }}", "['a', 'b c '][' a b', 'c']"},
        {"{{ '%s is %d' % ('a', 2) }} {{ '{} {x}'.format(1, x=2) }}", "a is 2 1 2"},
    };
    for (size_t i = 0; i < HT_COUNT(cases); i++)
        expect(cases[i][0], cases[i][1]);
}

static void filters(void **state) {
    static const char *const cases[][2] = {
        {"{{ ' x ' | trim | upper }}{{ 'a b' | title }}{{ [3, 1, 2] | sort | join('-') }}", "XA B1-2-3"},
        {"{{ d | tojson }} {{ [1, 'é\\n'] | tojson }} {{ d | tojson(indent=2) }}",
         "{\"k\": \"v\", \"items\": 1} [1, \"é\\n\"] {\n  \"k\": \"v\",\n  \"items\": 1\n}"},
        {"{{ messages | map(attribute='role') | list }} {{ messages | selectattr('role', 'equalto', 'user') | list | "
         "length }}",
         "['user', 'odd'] 1"},
        {"{{ [1, 2, 3, 4] | select('odd') | list }}{{ [0, 1] | reject | list }}{{ ['b', 'A', 'a'] | unique | list }}",
         "[1, 3][0]['b', 'A']"},
        {"{{ 'a\\nb\\n\\nc' | indent(2) }}|{{ '<' | e }}|{{ '12' | int + 1 }}|{{ 2.567 | round(1) }}|{{ '3.9' | int }}",
         "a\n  b\n\n  c|&lt;|13|2.6|3"},
        {"{% filter upper %}a{{ s }}{% endfilter %}{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}{% endfor %}",
         "AA<Bab"},
        {"{{ [1, 2] | sum }}{{ [1, 5, 2] | max }}{{ 'abc' | reverse }}{{ 'abc' | first }}{{ [] | first }}{{ -3 | abs "
         "}}",
         "35cbaa3"},
        {"{{ strftime_now('%d %b %Y') }} {{ range(3) | list }} {{ dict(a=1) }}", "26 Jul 2024 [0, 1, 2] {'a': 1}"},
    };
    for (size_t i = 0; i < HT_COUNT(cases); i++)
        expect(cases[i][0], cases[i][1]);
}

static void statements(void **state) {
    static const char *const cases[][2] = {
        {"{% for x in [1, 2, 3] if x != 2 %}{{ loop.index }}/{{ loop.length }}:{{ x }}{{ ',' if not loop.last }}{% "
         "else %}none{% endfor %}",
         "1/2:1,2/2:3"},
        {"{% for x in [] %}{% else %}none{% endfor %}{% for x in range(9) %}{% if x == 1 %}{% continue %}{% elif x == "
         "3 %}{% break %}{% endif %}{{ x }}{% endfor %}",
         "none02"},
        {"{% for x in [1] %}{% break %}{% else %}none{% endfor %}{% for x in [1] %}{% for y in [1] %}{{ loop.depth "
         "}}{% "
         "endfor %}{% endfor %}",
         "none1"},
        {"{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}{% set ns = namespace(x=1) %}{% for i in "
         "[1] %}{% set ns.x = 2 %}{% endfor %}{{ ns.x }}",
         "12"},
        {"{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set t | upper %}x{{ a }}{% endset %}{{ t }}", "12X1"},
        {"{% macro m(a, b='-', c=b) %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m(b=2, a=1) }}",
         "[1--][1-3][122]"},
        {"{% macro m() %}<{{ caller('x') }}>{% endmacro %}{% call(y) m() %}{{ y }}!{% endcall %}", "<x!>"},
        {"  {% if true %}\n  a\n  {% endif %}\nb {#- c -#} \n d\n", "  a\nbd"},
        {"{% raw %}{{ x }}{% endraw %}{%- generation %} x {% endgeneration -%} \n y", "{{ x }} x y"},
        {"a\n  {%+ if true +%}\nb{% endif %}", "a\n  \nb"},
        {"{% with x = 1, y = 2 %}{{ x + y }}{% endwith %}{{ x is defined }}", "3False"},
        {"{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined }}{{ m.role }}{{ loop.revindex0 "
         "}}{% endfor %}",
         "user1userodd0"},
    };
    for (size_t i = 0; i < HT_COUNT(cases); i++)
        expect(cases[i][0], cases[i][1]);
}

/* The output with [foreign] text in brackets. */
static void expect_marks(const char *source, const char *want) {
    ht_script out;
    ht_error error;
    char shown[512];
    size_t n = 0, at = 0;
    if (render(source, given, &out, &error) != HT_OK)
        fail_msg("%s: %s", source, error.text);
    for (size_t i = 0; i <= out.n_foreign; i++) {
        const size_t begin = i < out.n_foreign ? out.foreign[i].begin : out.text.bytes,
                     end = i < out.n_foreign ? out.foreign[i].end : begin;
        n += (size_t)snprintf(shown + n, sizeof shown - n, "%.*s", (int)(begin - at), out.text.data + at);
        if (i < out.n_foreign)
            n += (size_t)snprintf(shown + n, sizeof shown - n, "[%.*s]", (int)(end - begin), out.text.data + begin);
        at = end;
    }
    assert_string_equal(shown, want);
    ht_script_free(&out);
}

static void marks(void **state) {
    expect_marks("<|{{ messages[0].role }}|>{{ messages[0].content | trim }}<|end|>", "<|user|>[Hi]<|end|>");
    expect_marks("{{ messages[1].role }}{{ bos_token }}{{ n }}", "[odd]<s>3");
    expect_marks("{{ '<' + s + '>' }}{{ ('x' ~ s)[0:2] }}{{ s | upper }}{{ s.split('<')[1] }}", "<[a<b]>x[aA<Bb]");
    expect_marks("{{ s | replace('<', '=') }}|{{ 'x.y' | replace('.', s) }}|{{ [s, 'c'] | join('-') }}",
                 "[a]=[b]|x[a<b]y|[a<b]-c");
    expect_marks("{{ d | tojson }} {{ s | e }}", "{\"[k]\": \"[v]\", \"[items]\": 1} [a&lt;b]");
    expect_marks("{% macro m(x) %}({{ x }}){% endmacro %}{% set y %}{{ m(s) }}!{% endset %}{{ y }}{% for c in s %}{{ c "
                 "}}.{% endfor %}",
                 "([a<b])![a].[<].[b].");
    expect_marks("{{ strftime_now(s) }}{{ [1] | tojson(indent=s) }}{{ [1, 2] | tojson(separators=(s, '')) }}",
                 "[a<b][\n[a<b]1\n][1[a<b]2]");
    expect_marks("{{ [s] }}{{ '%s' % s }}{{ '{}'.format(s) }}{{ s | indent(2, true) }}", "['[a<b]'][a<ba<b]  [a<b]");
}

static void expect_refused(const char *source, ht_status want, const char *text) {
    ht_script out;
    ht_error error;
    const ht_status status = render(source, given, &out, &error);
    if (status == HT_OK)
        fail_msg("%s is not refused", source);
    if (status != want || !strstr(error.text, text))
        fail_msg("%.60s: %s: %s", source, ht_status_name(status), error.text);
    assert_null(out.text.data);
}

static void refusals(void **state) {
    expect_refused("a\n{% if x %}", HT_ERROR_FORMAT, "line 2: the template ends where endif is missing");
    expect_refused("{{ 'a }}", HT_ERROR_FORMAT, "line 1: a string has no end");
    expect_refused("\n\n{{ a b }}", HT_ERROR_FORMAT, "line 3: expected }}, found b");
    expect_refused("{% include 'x' %}", HT_ERROR_UNSUPPORTED, "include");
    expect_refused("{% break %}", HT_ERROR_FORMAT, "outside of a loop");
    expect_refused("\n{{ missing.part }}", HT_ERROR_FORMAT, "line 2: 'missing' is undefined");
    expect_refused("{{ raise_exception('No ' ~ n) }}", HT_ERROR_ARGUMENT, "No 3");
    expect_refused("{{ raise_exception('x' ~ '\\u00e9' * 200) }}", HT_ERROR_ARGUMENT, "xé");
    expect_refused("{{ d[:1] }}", HT_ERROR_FORMAT, "a slice of dictionary");
    expect_refused("{{ 'a' + 1 }}", HT_ERROR_FORMAT, "string + int");
    expect_refused("{{ 1 | nothing }}", HT_ERROR_UNSUPPORTED, "no filter nothing");
    expect_refused("{{ 1 // 0 }}", HT_ERROR_FORMAT, "division by zero");
    expect_refused("{{ missing | tojson }}", HT_ERROR_FORMAT, "JSON");
}

static void bounds(void **state) {
    expect_refused("{{ 'a' * 10**9 }}", HT_ERROR_UNSUPPORTED, "");
    expect_refused("{{ ('a' * 10**6) * 10**6 }}", HT_ERROR_UNSUPPORTED, "MiB");
    expect_refused("{{ range(10**12) }}", HT_ERROR_UNSUPPORTED, "range");
    expect_refused("{{ 10 ** 100 }}", HT_ERROR_UNSUPPORTED, "64 bits");
    expect_refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", HT_ERROR_UNSUPPORTED, "levels");
    expect_refused("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
                   HT_ERROR_UNSUPPORTED, "");
    expect_refused("{% set l = [] %}{% set x = l.append(l) %}{{ l }}", HT_ERROR_UNSUPPORTED, "levels");
    char deep[8192];
    memset(deep, '(', sizeof deep / 2 - 1); /* as many open as close */
    memset(deep + sizeof deep / 2 - 1, ')', sizeof deep / 2 + 1);
    memcpy(deep, "{{", 2);
    memcpy(deep + sizeof deep - 4, " }}", 4);
    expect_refused(deep, HT_ERROR_UNSUPPORTED, "levels");
    for (size_t i = 2; i < sizeof deep - 4; i++)
        deep[i] = '-';
    expect_refused(deep, HT_ERROR_UNSUPPORTED, "levels");
    char *json = calloc(1, 4096);
    assert_non_null(json);
    size_t n = (size_t)sprintf(json, "{\"x\": ");
    memset(json + n, '[', 1000);
    memset(json + n + 1000, ']', 1000);
    json[n + 2000] = '}';
    ht_script out;
    ht_error error;
    assert_int_equal(render("{{ x }}", json, &out, &error), HT_ERROR_UNSUPPORTED);
    free(json);
}

/* ---- for the comparison with jinja2 ---- */

static char *read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    char *text = calloc(1, 4 << 20);
    if (!file || !text || fread(text, 1, (4 << 20) - 1, file) == 0)
        exit(2);
    fclose(file);
    return text;
}

static void print_line(json_t *line) {
    char *text = json_dumps(line, 0);
    puts(text ? text : "null");
    free(text);
    json_decref(line);
}

static int compare(char **paths) {
    char *source = read_file(paths[0]), *text = read_file(paths[1]);
    json_t *all = json_loads(text, 0, NULL), *variables;
    ht_template *t = NULL;
    ht_error error;
    const ht_status parsed = ht_template_parse(source, strlen(source), &t, &error);
    size_t i;
    json_array_foreach(all, i, variables) {
        ht_script out = {.n_foreign = 0};
        if (parsed != HT_OK || ht_template_render(t, variables, &noon, &out, &error) != HT_OK) {
            print_line(json_pack("{s:s}", "error", error.text));
            continue;
        }
        json_t *foreign = json_array();
        for (size_t j = 0; j < out.n_foreign; j++)
            json_array_append_new(
                foreign, json_pack("[I, I]", (json_int_t)out.foreign[j].begin, (json_int_t)out.foreign[j].end));
        print_line(
            json_pack("{s:s%, s:o}", "text", out.text.data ? out.text.data : "", out.text.bytes, "foreign", foreign));
        ht_script_free(&out);
    }
    ht_template_destroy(t);
    json_decref(all);
    free(source);
    free(text);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3)
        return compare(argv + 1);
    const struct CMUnitTest tests[] = {cmocka_unit_test(expressions), cmocka_unit_test(filters),
                                       cmocka_unit_test(statements),  cmocka_unit_test(marks),
                                       cmocka_unit_test(refusals),    cmocka_unit_test(bounds)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
