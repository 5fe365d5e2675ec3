#!/usr/bin/env python3
"""Renders chat templates over conversations with our interpreter and with jinja2, set up as transformers does, and says
where they differ.

usage: compare_templates.py TEST_TEMPLATE FILE.jinja...        Needs the PyPI package jinja2.

Equal means: the same text, or both refuse. What jinja2's sandbox forbids (a list's append) ours may do.
"""
import datetime
import json
import pathlib
import subprocess
import sys
import tempfile

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOON = datetime.datetime(2024, 7, 26, 12)
TOOL = {"type": "function", "function": {
    "name": "weather", "description": "The weather\nof a \"place\"", "parameters": {
        "type": "object", "required": ["place"], "properties": {
            "place": {"type": "string", "description": "Where <it> is"}, "days": {"type": "integer"},
            "units": {"type": "array", "items": {"type": "string", "enum": ["C", "F"]}}}}}}
CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": {"place": "Köln", "days": 2, "wind": 1.5}}}


def say(*texts, **more):
    roles = ["user", "assistant"]
    return [dict(role=roles[i % 2], content=text, **more) for i, text in enumerate(texts)]


SYSTEM = {"role": "system", "content": " Be kind. "}
USED = say("Rain?") + [{"role": "assistant", "content": None, "tool_calls": [CALL]},
                       {"role": "tool", "name": "weather", "tool_call_id": "abcdefghi", "content": '{"rain": true}'}]
CONVERSATIONS = [
    {"messages": say("Hi")},
    {"messages": [SYSTEM] + say(" Hi\n")},
    {"messages": [SYSTEM] + say("a", "b", "c", "d", "e")},
    {"messages": say("Hi", "<think>\nhm\n</think>\n\nYo ", "Bye"), "enable_thinking": False},
    {"messages": [SYSTEM] + say("Rain?"), "tools": [TOOL, TOOL]},
    {"messages": USED, "tools": [TOOL]},
    {"messages": [SYSTEM] + USED + [{"role": "assistant", "content": "Yes."}] + say("Thanks"), "tools": [TOOL]},
    {"messages": [SYSTEM] + say("", "", "")},
    {"messages": say("<|im_end|>\n<|im_start|>system\n{{ x }}<|eot_id|>[/INST]<end_of_turn>", "</s><think>", "'\"\\ \t<&>")},
    {"messages": [{"role": "system", "content": "Σοφία"}] + say("你好,世界", "مرحبا 👩‍👧", "　Straße\u00a0İı ")},
    {"messages": say("a") + say("b")},
    {"messages": say("1 + 1?", "2", reasoning_content="Sum.") + say("Sure?"), "documents": [{"title": "T", "text": "D"}]},
]
CASES = [dict(talk, add_generation_prompt=more, bos_token="<s>", eos_token="</s>", **({} if "tools" in talk else {"tools": None}))
         for talk in CONVERSATIONS for more in (False, True)]


class Generation(Extension):
    """{% generation %}: a scope, whose text is printed."""
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("enclose"), [], [], body).set_lineno(line)

    def enclose(self, caller):
        return caller()


def refuse(text):
    raise TemplateError(text)


def to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = NOON.strftime
    return made


def expected(source):
    """For each case a text, or an exception."""
    try:
        template = environment().from_string(source)
    except TemplateError as error:
        return [error] * len(CASES)
    results = []
    for case in CASES:
        try:
            results.append(template.render(**json.loads(json.dumps(case))))
        except Exception as error: # pylint: disable=broad-except # templates fail with Python's own, too
            results.append(error)
    return results


def ours(program, path):
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(CASES, file)
        file.flush()
        done = subprocess.run([program, str(path), file.name], stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def differences(program, path):
    """Lines that say where the template at `path` is rendered otherwise, and how many cases were refused by both."""
    wanted, got = expected(pathlib.Path(path).read_text(encoding="utf-8")), ours(program, path)
    lines, refused = [], 0
    for i, (want, have) in enumerate(zip(wanted, got, strict=True)):
        if isinstance(want, Exception):
            refused += "error" in have
            if "error" not in have and not isinstance(want, SecurityError):
                lines.append(f"{path}: case {i}: rendered; jinja2: {type(want).__name__}: {want}")
        elif "error" in have:
            lines.append(f"{path}: case {i}: {have['error']}")
        elif have["text"] != want:
            at = next((k for k, (a, b) in enumerate(zip(want, have["text"])) if a != b), min(len(want), len(have["text"])))
            lines.append(f"{path}: case {i}: at {at}: {have['text'][max(at - 20, 0):at + 40]!r}, not {want[max(at - 20, 0):at + 40]!r}")
    return lines, refused


def main(arguments):
    differ = total = 0
    for path in arguments[1:]:
        lines, refused = differences(arguments[0], path)
        print(*lines, sep="\n", end="\n" if lines else "")
        print(f"{pathlib.Path(path).name}: {len(CASES) - len(lines)} of {len(CASES)} equal, {refused} of them refused by both")
        differ, total = differ + bool(lines), total + 1
    print(f"{total - differ} of {total} templates equal")
    return 1 if differ else 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
