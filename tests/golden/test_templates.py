"""Chat templates against jinja2, and against those who write control tokens into messages: tests/data/templates, and all *.jinja of the folder that $HETERO_TEMPLATES names."""
import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("HETERO", ROOT / "build" / "hetero"))
PROGRAM = BINARY.parent / "tests" / "test_template"
CHAT = BINARY.parent / "tests" / "test_chat"
sys.path.insert(0, str(ROOT / "tests" / "tools"))
compare_templates = pytest.importorskip("compare_templates", reason="needs the PyPI package jinja2")
forge_controls = pytest.importorskip("forge_controls", reason="needs the PyPI package jinja2")

FILES = sorted((ROOT / "tests" / "data" / "templates").glob("*.jinja"))
if os.environ.get("HETERO_TEMPLATES"):
    FILES += sorted(pathlib.Path(os.environ["HETERO_TEMPLATES"]).glob("*.jinja"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_template(path):
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not built")
    lines, refused = compare_templates.differences(str(PROGRAM), path)
    assert not lines, "\n".join(lines)
    assert path.parent.parent.name != "data" or refused < len(compare_templates.CASES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_forged_controls(path):
    """As a model's own template, with a vocabulary of its control tokens: no such token comes from a conversation."""
    if not CHAT.exists():
        pytest.skip(f"{CHAT} is not built")
    lines, rendered, _ = forge_controls.differences(str(CHAT), path)
    assert not lines, "\n".join(lines)
    assert path.parent.parent.name != "data" or rendered >= 40


def test_marks():
    """Of our templates no byte that a user wrote counts as the template's, and no control token's as the user's."""
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} is not built")
    found = compare_templates.ours(str(PROGRAM), ROOT / "tests" / "data" / "templates" / "chatml.jinja")
    for case, result in zip(compare_templates.CASES, found, strict=True):
        text = result["text"].encode()
        own = bytearray(text)
        for begin, end in reversed(result["foreign"]):
            own[begin:end] = b""
        turns = [f"<|im_start|>{message['role']}\n<|im_end|>\n" for message in case["messages"]]
        assert own.decode() == "".join(turns) + ("<|im_start|>assistant\n" if case["add_generation_prompt"] else "")
