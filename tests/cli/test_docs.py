"""Every example of README and docs runs as written.

An example is an indented line that begins with `hetero`, `build/hetero`. What a reader would put in its place is put there:
files for `model.gguf` and the like, this machine's stand-ins for a GPU and an NPU on cores of their own.
"""
import pathlib
import re
import shlex

import pytest

import hub_server

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAIR = "cpu:cpus=0,opencl:0:cpus=1"
# (what is written, what this machine has), first match wins
PLACES = (
    (r"--devices cpu,gpu\b", f"--devices {PAIR}"),
    (r"--devices cpu:cpus=0-1,opencl:0:cpus=2-3", f"--devices {PAIR}"),
    (r"--devices gpu\b", "--devices opencl:0"),
    (r"--devices npu\b", "--devices openvino:CPU:lengths=64"),
    (r"--devices ort:qnn\b", "--devices ort:cpu:lengths=64"),
)
# pages about machines that are not here (a phone's shell)
ELSEWHERE = {"snapdragon.md"}
# minutes: every chip and model; tests/cli/test_reproduce.py has two chips
LONG = {"reproduce"}


def examples():
    """Each once: what differs in the folder that it writes to is the same example."""
    found = {}
    for page in PAGES:
        if page.name in ELSEWHERE:
            continue
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            match = re.match(r"    (?:build/)?hetero ([a-z].*)", line)
            if match:
                words = re.sub(r"\s+#.*", "", match[1]).replace("[MODEL]", "model.gguf")
                example = re.sub(r" --out \S+", "", words)
                marks = [pytest.mark.soak] if example in LONG else []
                found.setdefault(example, pytest.param(words, id=f"{page.name}:{number}", marks=marks))
    return list(found.values())


@pytest.fixture(scope="module")
def hub(tmp_path_factory, model):
    """What `hf:` names lead to here: a model of each type that the pages name."""
    made = hub_server.Hub()
    data = pathlib.Path(model).read_bytes()
    made.add("unsloth/SmolLM2-135M-Instruct-GGUF",
             {f"SmolLM2-135M-Instruct-{kind}.gguf": data for kind in ("Q4_K_M", "Q8_0")})
    yield {"HF_ENDPOINT": made.endpoint, "HF_HOME": str(tmp_path_factory.mktemp("hub"))}
    made.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model, hetero):
    made = tmp_path_factory.mktemp("docs")
    (made / "model.gguf").symlink_to(model)
    (made / "question.txt").write_text("Name three colours.")
    (made / "messages.json").write_text('[{"role": "user", "content": "Why?"}]')
    (made / "tools.json").write_text("[]")
    (made / "my.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    (made / "text.txt").write_text((ROOT / "tests" / "data" / "text.txt").read_text(encoding="utf-8")[:2000])
    done = hetero("quantize", model, made / "in.gguf", "q8_0")
    assert done.code == 0, done.err
    (made / "examples").symlink_to(ROOT / "examples")
    return made


def test_there_are_examples():
    assert len(examples()) > 25


@pytest.mark.parametrize("line", examples())
def test_example(line, folder, hetero, hub, monkeypatch):
    for written, here in PLACES:
        if re.search(written, line):
            line = re.sub(written, here, line)
            break
    words = shlex.split(line)
    if words[0] == "run" and "-n" not in words:
        words += ["-n", "8"]
    if words[0] == "bench" and "--gen" not in words:
        words += ["--gen", "4", "--prompt", "64"]
    monkeypatch.chdir(folder)
    done = hetero(*words, stdin=b"Hello\n/quit\n" if words[0] == "chat" else b"", timeout=600,
                  env=hub if "hf:" in line else None)
    assert done.code == 0, (line, done.err)
