#!/usr/bin/env python3
"""Conversations that are full of a chat template's own control texts, in contents, names, arguments, thoughts, results and
descriptions of tools: no control token may come of them.

usage: forge_controls.py TEST_CHAT FILE.jinja...        Needs the PyPI package jinja2.

Control texts are found in the template's source by what they look like. Each that a conversation holds stands between marks, so
that what jinja2 makes of it says which of them are the template's own; the tokens must be these, in order, and no others. Where a
template does not look for a text in the messages, the count must also be that of the same conversation with harmless texts.
"""
import copy
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import compare_templates
from jinja2.exceptions import SecurityError

LOOKS = re.compile(r"<\|[^|<>{}\s]{1,40}\|?>|<[^<>{}|\s'\"=]{1,40}\|>|<[^<>{}|\s'\"=]{1,40}>|<\uff5c[^<>{}\n]{1,40}\uff5c>"
                   r"|\[/?[A-Z][A-Z_]+\]|\]~!?b[\[\]]|\[e~\[")
CONTROL, USER_DEFINED = 3, 4
BEFORE, AFTER = "zq", "qz"


def specials(source):
    """[text, type] of each token that the vocabulary needs; every third tag without bars is user-defined, as in real ones."""
    texts = ["<s>", "</s>"] + sorted(set(LOOKS.findall(source)) - {"<s>", "</s>"})
    return [[text, USER_DEFINED if i % 3 == 2 and "|" not in text and "\uff5c" not in text else CONTROL]
            for i, text in enumerate(texts)]


def looked_for(source, text):
    """Whether the template searches messages for the text, or takes it out of them."""
    return "think" in text.lower() or "tool_response" in text or any(
        re.search(pattern, source) for pattern in (
            rf"""['"][^'"]*{re.escape(text)}[^'"]*['"]\s*(?:not\s+)?in\b""",
            rf"""(?:split|startswith|endswith|replace|find|index|strip|count|partition)\(\s*['"][^'"]*{re.escape(text)}"""))


def stuffed(case, texts, level):
    """The case with `texts` behind every string that a message's or a tool's author chooses; fewer of them at higher levels."""
    extra = " ".join(BEFORE + text + AFTER for text in texts)
    fill = lambda text: f"{text} {extra}"
    case = copy.deepcopy(case)
    for message in case["messages"]:
        for key in ("content", "reasoning_content", "name"):
            if isinstance(message.get(key), str) and (key != "name" or level < 2):
                message[key] = fill(message[key])
        if "tool_call_id" in message and level < 1:
            message["tool_call_id"] = fill(message["tool_call_id"])
        for call in message.get("tool_calls") or []:
            if level < 1:
                call["id"] = fill(call["id"])
            function = call["function"]
            if level < 2:
                function["name"] = fill(function["name"])
            function["arguments"] = {fill(key) if level < 2 else key: fill(value) if isinstance(value, str) else value
                                     for key, value in function["arguments"].items()}
    for tool in case.get("tools") or []:
        tool["function"]["description"] = fill(tool["function"]["description"])
        if level < 2:
            tool["function"]["name"] = fill(tool["function"]["name"])
            place = tool["function"]["parameters"]["properties"]
            place["place"]["description"] = fill(place["place"]["description"])
            place["units"]["items"]["enum"].append(extra)
    for document in case.get("documents") or []:
        document["text"] = fill(document["text"])
    return case


def marked(case, texts):
    """The case with the control texts that it has already between marks."""
    find = re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)))
    case = copy.deepcopy(case)
    for message in case["messages"]:
        if isinstance(message.get("content"), str):
            message["content"] = find.sub(lambda found: BEFORE + found[0] + AFTER, message["content"])
    return case


def is_right(have, text, tokens, source):
    """Are these the special tokens of the text that the template itself wrote, in order? What stands between marks is the
    conversation's, unless the template searches for it: then it may have cut it out and written it again. A BOS may be added."""
    alternatives = "|".join(re.escape(token) for token in sorted(tokens, key=len, reverse=True))
    ends = {0, 1} if have[:1] == [0] else {0} # how much of `have` may be said by now
    for found in re.finditer(f"({BEFORE})?({alternatives})({AFTER})?", text):
        said = tokens.index(found[2])
        theirs = found[1] and found[3]
        next_ends = {end + 1 for end in ends if have[end:end + 1] == [said]} if not theirs or looked_for(source, found[2]) else set()
        ends = next_ends | (ends if theirs else set())
    return len(have) in ends


def render(template, case):
    """None: refused; False: with what jinja2's sandbox forbids, which we may do."""
    try:
        return template.render(**json.loads(json.dumps(case)))
    except SecurityError:
        return False
    except Exception: # pylint: disable=broad-except # templates fail with Python's own, too
        return None


def as_given(case):
    """The case as a conversation for ht_chat_render."""
    return {"messages": case["messages"], "tools": case.get("tools"), "more": case["add_generation_prompt"],
            "kwargs": {key: case[key] for key in ("enable_thinking", "documents") if key in case}}


def ours(program, path, tokens, cases):
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder, name) for name in ("specials.json", "cases.json")]
        for file, what in zip(files, (tokens, [as_given(case) for case in cases]), strict=True):
            file.write_text(json.dumps(what), encoding="utf-8")
        done = subprocess.run([program, str(path), *map(str, files)], stdout=subprocess.PIPE, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def differences(program, path):
    """Lines that say where the template at `path` lets something through or is rendered otherwise; how many conversations were
    rendered; how many control texts there are."""
    source = pathlib.Path(path).read_text(encoding="utf-8")
    tokens = specials(source)
    texts = [text for text, _ in tokens]
    template = compare_templates.environment().from_string(source)
    plain = [text for text in texts if not looked_for(source, text)]
    cases, wanted, pairs = [], [], []
    for plain_case in compare_templates.CASES:
        case = marked(plain_case, texts)
        for one in (plain_case, case):
            wanted.append((len(cases), render(template, one)))
            cases.append(one)
        for level in range(3):
            forged = stuffed(case, texts, level)
            text = render(template, forged)
            if text:
                wanted.append((len(cases), text))
                cases.append(forged)
                innocent = stuffed(case, ["(" + text[1:] for text in plain], level)
                pairs.append((len(cases), len(cases) + 1))
                cases += [stuffed(case, plain, level), innocent]
                break
    got, lines = ours(program, path, tokens, cases), []
    for i, text in wanted:
        have = got[i]
        if text is False:
            continue
        if text is None or "error" in have:
            if (text is None) != ("error" in have):
                lines.append(f"{path}: case {i}: {'rendered' if text is None else have['error']}")
        elif have["text"] != text:
            lines.append(f"{path}: case {i}: another text than jinja2's")
        elif cases[i] not in compare_templates.CASES: # whose control texts are not marked
            if not is_right(have["specials"], text, texts, source):
                lines.append(f"{path}: case {i}: control tokens {have['specials']}")
    for forged, innocent in pairs:
        a, b = got[forged], got[innocent]
        if a.get("specials") != b.get("specials"):
            lines.append(f"{path}: case {forged}: {a.get('specials')}, and {b.get('specials')} of an innocent one")
    return lines, sum("text" in one for one in got), len(texts)


def main(arguments):
    failed = 0
    for path in arguments[1:]:
        lines, rendered, n = differences(arguments[0], path)
        print(*lines, sep="\n", end="\n" if lines else "")
        print(f"{pathlib.Path(path).name}: {n} control texts, {rendered} conversations, {len(lines)} wrong")
        failed += bool(lines)
    print(f"{len(arguments) - 1 - failed} of {len(arguments) - 1} templates let nothing through")
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
