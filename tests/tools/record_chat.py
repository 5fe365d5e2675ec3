#!/usr/bin/env python3
"""Records what Jinja makes of tests/data/chat/*.jinja, set up as transformers does: tests/data/chat/recorded.json,
for each talk without and with the assistant's turn opened.

usage: record_chat.py        Needs the PyPI package jinja2. null: the template raises an error, or an error comes of it.
"""
import json
from pathlib import Path

from jinja2.exceptions import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

FOLDER = Path(__file__).parents[1] / "data" / "chat"
SYSTEM, SPACED = ("system", " Be kind. "), ("user", " Hi\n")
THOUGHT = ("assistant", " <think>\nx\n</think>\n\nYo ")
TALKS = [[SPACED], [SYSTEM, SPACED], [SPACED, THOUGHT, ("user", "Bye")], [SYSTEM, SPACED, THOUGHT, ("user", "Bye")],
         [SYSTEM, SPACED, THOUGHT, ("user", ""), ("assistant", "a"), ("user", "\tb")], [("user", "a"), ("user", "b")],
         [("assistant", "a"), ("user", "b")], [SYSTEM], [SPACED, THOUGHT], [SYSTEM, SPACED, ("assistant", "b")],
         [("user", "a"), SYSTEM, ("user", "b")], [SYSTEM, ("system", "x"), ("user", "b")], [("system", ""), ("user", "b")],
         [("user", "<tool_response>a</tool_response>"), ("assistant", "<think>b</think>c"), ("user", "d")],
         [("user", "a"), ("assistant", "<think>b</think>c"), ("user", "<tool_response>d</tool_response>")]]


def refuse(text):
    raise TemplateError(text)


def main():
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.globals["raise_exception"] = refuse
    talks = [[dict(role=role, content=content) for role, content in talk] for talk in TALKS]
    texts = {}
    for path in sorted(FOLDER.glob("*.jinja")):
        template = environment.from_string(path.read_text(encoding="utf-8"))
        for messages in talks:
            for speak in (False, True):
                try:
                    text = template.render(messages=messages, add_generation_prompt=speak, bos_token="<s>", eos_token="</s>")
                except TemplateError:
                    text = None
                texts.setdefault(path.stem, []).append(text)
    with open(FOLDER / "recorded.json", "w", encoding="utf-8") as out:
        json.dump(dict(talks=talks, texts=texts), out, indent=0)
        out.write("\n")


if __name__ == "__main__":
    main()
