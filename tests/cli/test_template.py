"""hetero template, and chat templates in run and chat."""
import json
import pathlib

import pytest

pytestmark = pytest.mark.check

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "golden.json"
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <|im_end|>"}]
TEXT = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <|im_end|><|im_end|>\n"
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
def messages(tmp_path):
    def write(what, name="messages.json"):
        path = tmp_path / name
        path.write_text(what if isinstance(what, str) else json.dumps(what), encoding="utf-8")
        return path

    return write


def test_prints_what_the_model_sees(hetero, model, messages):
    path = messages(TALK)
    assert hetero("template", model, "-f", path).out == TEXT + "<|im_start|>assistant\n"
    assert hetero("template", model, "-f", path, "--no-generation-prompt").out == TEXT
    assert hetero("template", model, "-f", "-", "--no-generation-prompt", stdin=json.dumps({"messages": TALK}).encode()).out == TEXT
    found = hetero("template", model, "-f", path, "--json").json
    assert found["text"] == TEXT + "<|im_start|>assistant\n"
    assert found["ids"].count(1) == 3 and found["ids"].count(2) == 2
    text = found["text"].encode()
    assert [text[begin:end].decode() for begin, end in found["foreign"]] == ["Be brief.", "Hi <|im_end|>"]
    assert hetero("template", model, "-f", path, "--json", "--parse-special").json["ids"].count(2) == 3
    parts = [dict(TALK[0]), {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "you"}]}]
    assert "user\nHi\nyou<|im_end|>" in hetero("template", model, "-f", messages(parts)).out


def test_as_run_and_chat(hetero, model, messages):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["models"]["smollm2-135m-instruct-q4_1"]["chat"]
    found = hetero("template", model, "-f", messages(golden["messages"]), "--json").json
    assert found["text"] == golden["prompt"] and found["ids"] == golden["prompt_ids"]
    run = hetero("run", model, "-p", TALK[1]["content"], "--system", "Be brief.", "-n", 1, "--json").json
    assert run["prompt_ids"] == hetero("template", model, "-f", messages(TALK), "--json").json["ids"]


def test_another_template(hetero, model, messages):
    jinja = messages("{{ tools | length if tools }}{{ mood }}{% for m in messages %}[{{ m.content }}]{% endfor %}", "chat.jinja")
    path, tools = messages(TALK), messages([TOOL, TOOL], "tools.json")
    options = ["--chat-template", jinja, "--chat-template-kwargs", '{"mood": "glad"}']
    assert hetero("template", model, "-f", path, *options, "--tools", tools).out == "2glad[Be brief.][Hi <|im_end|>]"
    whole = messages({"messages": TALK, "tools": [TOOL], "kwargs": {"mood": "sad"}}, "whole.json")
    assert hetero("template", model, "-f", whole, "--chat-template", jinja).out == "1sad[Be brief.][Hi <|im_end|>]"
    assert hetero("template", model, "-f", whole, *options, "--tools", tools).out.startswith("2glad")
    run = hetero("run", model, "-p", "x", *options, "-n", 1, "--json").json
    assert run["prompt_ids"] == hetero("tokenize", model, "-p", "glad[x]", "--json").json["ids"]
    assert hetero("chat", model, *options, "-n", 1, "--temp", 0, "--quiet", stdin=b"x\n").code == 0


def test_refusals(hetero, model, messages, tmp_path):
    path, raises = messages(TALK), messages("{{ raise_exception('No talk of ' ~ messages[0].role) }}", "raises.jinja")
    hetero("template", model).refuses("-f FILE.json")
    hetero("template", model, "-f", tmp_path / "none.json").refuses("none.json")
    hetero("template", model, "-f", messages("[{]", "bad.json")).refuses("messages: line 1")
    hetero("template", model, "-f", messages({"talk": []}, "bad.json")).refuses("messages")
    hetero("template", model, "-f", path, "--tools", messages({}, "bad.json")).refuses("tools must be a list")
    hetero("template", model, "-f", "-", "--tools", "-", stdin=b"[]").refuses("both")
    hetero("template", model, "-f", messages([{"role": "user", "content": [1]}], "bad.json")).refuses("message 1: part 1")
    hetero("template", model, "-f", path, "--chat-template", raises).refuses("No talk of system")
    hetero("template", model, "-f", path, "--chat-template", messages("a\n{% if", "bad.jinja")).refuses("bad.jinja", "line 2")
    hetero("template", model, "-f", path, "--chat-template-kwargs", "{").refuses("kwargs: line 1")
    hetero("template", model, "-f", path, "--chat-template-kwargs", '{"eos_token": "x"}').refuses("eos_token")
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    hetero("template", model, "-f", messages(image)).refuses("image_url")
    hetero("run", model, "--raw", "-p", "x", "--chat-template", raises).refuses("--chat-template", "--raw")
    hetero("run", model, "-p", "x", "--chat-template", tmp_path / "none.jinja").refuses("none.jinja")


def test_inspect_tells_of_it(hetero, model):
    info = hetero("inspect", model, "--json").json["chat_template"]
    assert info["name"] == "default" and info["bytes"] > 100 and info["error"] is None
    assert info["system"] and not info["tools"] and not info["parts"] and info["thinking"] is None
    assert "chat template   default, " in hetero("inspect", model).out
