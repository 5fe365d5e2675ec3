"""Options, help and exit statuses: nothing here computes."""
import pytest

pytestmark = pytest.mark.check

COMMANDS = ["devices", "inspect", "tokenize", "run", "score", "chat", "perplexity", "quantize", "imatrix", "bench", "profile", "plan", "report",
            "pull", "template"]
WITH_MODEL = [name for name in COMMANDS if name not in ("devices", "quantize", "imatrix", "profile", "report", "pull")]
OPTIONS = {
    "devices": ["--openvino", "--onnxruntime"],
    "inspect": [],
    "tokenize": ["-p, --prompt", "-f, --file", "--no-special"],
    "run": ["-p, --prompt", "-f, --file", "-n, ", "--raw", "--temp", "--top-k", "--top-p", "--min-p", "--repeat-penalty",
            "--seed", "--stop", "--ctx", "--logprobs", "--system"],
    "score": ["--ids", "-p, --prompt", "--top", "--chunk", "--ctx"],
    "chat": ["--temp", "--seed", "--ctx", "--system"],
    "perplexity": ["-f, --file", "--reference"],
    "quantize": ["--imatrix", "q4_k_m"],
    "imatrix": ["-f, --file"],
    "template": ["-f, --file", "--tools", "--no-generation-prompt", "--chat-template", "--chat-template-kwargs", "--parse-special"],
    "bench": ["--prompt", "--gen", "-r, ", "--rounds", "--cuts", "--measure"],
    "plan": ["--length", "--decode", "--trace", "--run", "--save", "--load", "--cuts", "--measure"],
    "profile": ["--quick", "--devices", "--precision", "--report", "--stored"],
    "report": ["--out", "--devices", "--openvino", "--onnxruntime"],
    "pull": ["--list", "--retries", "--offline"],
}
COMMON = ["--threads", "--quiet", "--log-level", "--help"]
DEVICE = ["--devices", "--strategy", "--precision", "--sync", "--npu-memory", "--place", "--openvino", "--onnxruntime"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(hetero, command):
    done = hetero(command, "--help")
    assert done.code == 0 and done.err == ""
    assert done.out.startswith(f"Usage: hetero {command}")
    expected = OPTIONS[command] + COMMON + (DEVICE if command in WITH_MODEL else [])
    expected += [] if command == "chat" else ["--json"]
    for option in expected:
        assert option in done.out
    assert max(map(len, done.out.splitlines())) <= 120


def test_no_command(hetero):
    done = hetero()
    assert done.code == 2 and done.out == "" and done.err.startswith("Usage: hetero COMMAND")


@pytest.mark.parametrize("argument", ["--help", "-h", "help"])
def test_overview_names_every_command(hetero, argument):
    done = hetero(argument)
    assert done.code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in done.out


def test_version(hetero):
    done = hetero("--version")
    assert done.code == 0 and done.out.startswith("hetero 0.2.0 (commit ")


def test_unknown_command_and_option(hetero):
    hetero("fly").refuses("unknown command 'fly'")
    hetero("--fly").refuses("unknown option '--fly'")


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_option_is_named(hetero, command):
    hetero(command, "x", "--bogus").refuses(f"hetero {command}: ", "'--bogus'")
    hetero(command, "x", "-z").refuses("'-z'")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("devices", "profile", "report")])
def test_missing_argument_is_named(hetero, command):
    hetero(command).refuses({"quantize": "IN", "pull": "NAME"}.get(command, "MODEL") + " is missing")


def test_arguments_too_many_or_few(hetero):
    hetero("run", "a", "b", "-p", "x").refuses("unexpected argument 'b'")
    hetero("quantize", "a", "b").refuses("TYPE is missing")
    hetero("devices", "a").refuses("unexpected argument 'a'")


BAD = [
    ("run", "--threads", "two"), ("run", "--threads", "-1"), ("run", "--threads", ""), ("run", "-n", "1.5"),
    ("run", "-n", "99999999999999999999"), ("run", "--temp", "nan"), ("run", "--temp", "-1"), ("run", "--top-p", "1.5"),
    ("run", "--top-k", "-3"), ("run", "--seed", "x"), ("run", "--ctx", "0"), ("run", "--log-level", "loud"),
    ("run", "--npu-memory", "5X"), ("run", "--npu-memory", "9999999999999T"), ("run", "--openvino", "/nowhere"),
    ("run", "--onnxruntime", "/nowhere"), ("score", "--ids", "1,2,"), ("score", "--ids", "1,-2"), ("score", "--ids", ""),
    ("score", "--chunk", "-1"), ("bench", "--prompt", "64,,1"), ("bench", "-r", "0"), ("bench", "--gen", "a"),
    ("bench", "--strategy", "single,both"), ("perplexity", "--reference", "fast"),
    ("bench", "--rounds", "0"), ("run", "--cuts", "diagonal"),
]


@pytest.mark.parametrize("command,option,value", BAD)
def test_bad_value_is_named(hetero, command, option, value):
    names = {"-n": "--max-tokens", "-r": "--repetitions"}
    hetero(command, "m.gguf", option, value).refuses(f"hetero {command}: ", names.get(option, option), f"'{value}'")


@pytest.mark.parametrize("command", WITH_MODEL)
@pytest.mark.parametrize("option", ["--strategy", "--precision", "--sync"])
def test_bad_choice_lists_the_choices(hetero, command, option):
    hetero(command, "m.gguf", option, "purple").refuses(option, "invalid value 'purple'", " or ")


def test_missing_and_needless_values(hetero):
    hetero("run", "m.gguf", "--threads").refuses("--threads", "needs a value")
    hetero("run", "m.gguf", "--raw=1").refuses("--raw takes no value")


@pytest.mark.parametrize("command", ["tokenize", "run", "score", "perplexity"])
def test_missing_file_as_model(hetero, command, tmp_path):
    text = tmp_path / "text"
    text.write_text("hello " * 100)
    hetero(command, "no/such.gguf", "-f", text).refuses("no/such.gguf")


@pytest.mark.parametrize("command", ["inspect", "chat", "bench"])
def test_missing_file_as_model_without_text(hetero, command):
    hetero(command, "no/such.gguf").refuses("no/such.gguf")


def test_directory_empty_and_other_file_as_model(hetero, tmp_path):
    hetero("inspect", tmp_path).refuses(str(tmp_path))
    empty, other = tmp_path / "empty.gguf", tmp_path / "other.gguf"
    empty.write_bytes(b"")
    other.write_bytes(b"PK\x03\x04" * 100)
    for path in (empty, other):
        hetero("inspect", path).refuses(str(path))
        hetero("quantize", path, tmp_path / "out.gguf", "q4_0").refuses(str(path))


def test_name_with_a_newline_stays_one_line(hetero):
    hetero("inspect", "no\nsuch").refuses("no?such")


@pytest.mark.parametrize("command", ["run", "score"])
def test_prompts_that_are_none(hetero, model, command, tmp_path):
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_bytes(b"")
    binary.write_bytes(b"caf\xe9")
    hetero(command, model).refuses("-p TEXT")
    hetero(command, model, "-p", "").refuses("-p", "empty")
    hetero(command, model, "-f", empty).refuses(str(empty), "empty")
    hetero(command, model, "-f", binary).refuses(str(binary), "invalid UTF-8 at byte 3")
    hetero(command, model, "-p", "a\udcff").refuses("-p", "invalid UTF-8 at byte 1")
    hetero(command, model, "-p", "x", "-f", empty).refuses("-p and -f")
    hetero(command, model, "-f", tmp_path).refuses(str(tmp_path), "directory")
    hetero(command, model, "-f", tmp_path / "absent").refuses("absent")


@pytest.mark.parametrize("surrogate", [b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"])
def test_every_kind_of_invalid_utf8(hetero, model, surrogate):
    hetero("tokenize", model, "-f", "-", stdin=b"ok" + surrogate).refuses("standard input", "byte 2")


def test_options_that_exclude_each_other(hetero, model):
    hetero("run", model, "--raw", "--system", "s", "-p", "x").refuses("--system", "--raw")
    hetero("run", model, "--logprobs", "3", "-p", "x").refuses("--logprobs", "--json")
    hetero("score", model, "--ids", "1,2", "-p", "x").refuses("--ids")
    hetero("run", model, "-f", "-", stdin=b"a\0b").refuses("zero byte", "--raw")


def test_options_behind_arguments_under_posix_rules(hetero, model, tmp_path):
    posix = {"POSIXLY_CORRECT": "1"}
    text = tmp_path / "text"
    text.write_text("Hello")
    assert hetero("tokenize", model, "-p", "Hello", "--json", env=posix).json["ids"]
    assert hetero("tokenize", "-f", text, model, "--json", env=posix).json["ids"]
    assert hetero("inspect", model, "--json", env=posix).json["arch"] == "llama"
    assert hetero("run", model, "-p", "x", "-n", 1, "--quiet", env=posix).code == 0
    hetero("run", "a", "b", "-p", "x", env=posix).refuses("unexpected argument 'b'")
    hetero("quantize", "a", "b", "--quiet", env=posix).refuses("TYPE is missing")


def test_arguments_behind_two_dashes(hetero):
    hetero("inspect", "--quiet", "--", "--no-such.gguf").refuses("--no-such.gguf")
    hetero("inspect", "a", "--", "b").refuses("unexpected argument 'b'")


def test_standard_input_is_the_prompt_of_run(hetero, model):
    options = (model, "-n", 4, "--temp", 0, "--quiet")
    assert hetero("run", *options, stdin=b"Hello").out == hetero("run", *options, "-p", "Hello").out
    assert hetero("run", *options, "-p", "Hello", stdin=b"Another").out == hetero("run", *options, "-p", "Hello").out
    hetero("run", *options).refuses("no text", "-p TEXT")
    hetero("run", *options, stdin=b"\xff").refuses("standard input", "invalid UTF-8")
    hetero("score", model, stdin=b"Hello").refuses("-p TEXT")


def test_devices_of_a_simulated_soc(hetero):
    soc = "snapdragon-8-gen-3"

    def used(*options):
        plan = hetero("plan", "shape:smollm2-135m", "--length", 64, "--json", *options).json
        return {slice["device"] for row in plan["operators"] for slice in row["slices"]}

    assert used("--soc", soc, "--devices", "gpu") == {f"sim:{soc}/gpu"}
    assert used("--devices", "cpu", "--soc", soc) == {f"sim:{soc}/cpu"}
    assert used("--soc", soc, "--devices", "npu,gpu") <= {f"sim:{soc}/npu", f"sim:{soc}/gpu"}
    assert used("--soc", soc, "--devices", f"sim:{soc}/gpu") == {f"sim:{soc}/gpu"}
    assert all(name.startswith(f"sim:{soc}/") for name in used("--soc", soc))
    hetero("plan", "shape:smollm2-135m", "--soc", soc, "--devices", "gpu,dsp").refuses(f"sim:{soc}/dsp", "gpu, npu, cpu")
    hetero("plan", "shape:smollm2-135m", "--soc", "a,b").refuses("--soc", "'a,b'")
    rows = hetero("bench", "shape:smollm2-135m", "--soc", soc, "--soc", "dimensity-9300", "--devices", "gpu", "--devices", "cpu",
                  "--prompt", 4, "--gen", 0, "-r", 1, "--json").json["rows"]
    assert [row["devices"].split(",")[0] for row in rows] == [
        f"sim:{name}/{kind}" for name in (soc, "dimensity-9300") for kind in ("gpu", "cpu")]


@pytest.mark.parametrize("wrong", [("--devices", "quantum:0"), ("--devices", "cpu", "--strategy", "tensor"),
                                   ("--ctx", "8", "--prompt", "64"), ("--prompt", "0", "--gen", "0")])
def test_bench_that_cannot_begin_prints_only_the_error(hetero, wrong):
    hetero("bench", "shape:smollm2-135m", *wrong).refuses("hetero bench: ")
