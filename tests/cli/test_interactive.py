"""What needs signals or a terminal: Ctrl-C, the chat."""
import fcntl
import os
import pathlib
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import pytest

pytestmark = pytest.mark.check

# Nearly every token is equally probable, so that the end token will not come.
ENDLESS = ("-n", "0", "--temp", "50", "--top-k", "0", "--top-p", "0", "--min-p", "0", "--seed", "3", "--ctx", "8192")
LONG = ("-p", "Write a very long story about a dragon.", *ENDLESS)
PATIENCE = 60  # seconds


def start(binary, environment, *arguments):
    # A process group of its own with the default SIGINT, as under a shell.
    return subprocess.Popen([binary, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=environment, start_new_session=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def test_ctrl_c_ends_a_run_cleanly(binary, environment, model):
    process = start(binary, environment, "run", model, *LONG)
    first = process.stdout.read(1)  # it is streaming now
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert first + out and out.endswith(b"\n")
    assert err.startswith(b"prefill ") and b"decode " in err and b"stop: cancelled" in err


def test_ctrl_c_that_is_ignored_stays_ignored(binary, environment, model):
    # As under nohup, or in a shell's background: the answer is not cut, and the next command of a chat meets the same.
    process = subprocess.Popen([binary, "chat", model, "-n", "24", "--temp", "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=environment, start_new_session=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    for _ in range(2):
        process.stdin.write(b"Write a very long story about a dragon.\n")
        process.stdin.flush()
        process.stdout.read(1)  # it is streaming now
        process.send_signal(signal.SIGINT)
        time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        while process.stdout.read(1) != b"\n":
            pass
    out, err = process.communicate(b"/stats\n", timeout=PATIENCE)
    assert process.returncode == 0, err
    assert b"stop: limit" in err or b"stop: end" in err


def until_it_computes(process):
    """It has spent what opening a model takes, many times over."""
    end = time.monotonic() + PATIENCE
    while True:
        fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        if (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") > 2:
            return
        assert process.poll() is None and time.monotonic() < end, "it does not compute"
        time.sleep(0.01)


def test_ctrl_c_with_json(binary, environment, model):
    process = start(binary, environment, "run", model, *LONG, "--json")
    until_it_computes(process)  # nothing is printed before the end
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert b'"stop": "cancelled"' in out


def test_closed_output_ends_a_run(binary, environment, model):
    process = start(binary, environment, "run", model, *LONG)
    process.stdout.read(1)
    process.stdout.close()
    process.wait(timeout=PATIENCE)
    process.stderr.close()
    assert process.returncode in (1, -signal.SIGPIPE)


def chat(hetero, model, lines, *options):
    return hetero("chat", model, "-n", 12, "--temp", 0, "--quiet", *options, stdin="\n".join(lines).encode() + b"\n")


def test_chat_from_a_script(hetero, model):
    done = chat(hetero, model, ["Say hello.", "/stats", "And again?", "/stats"])
    assert done.code == 0 and len(done.out.strip()) > 0
    reused = [int(line.split(", ")[1].split()[0]) for line in done.err.splitlines() if "reused" in line]
    assert reused[0] == 0 and reused[1] > 20  # the second turn computes only what is new


def test_chat_remembers_and_clears(hetero, model):
    once = chat(hetero, model, ["Say hello."]).out
    again = chat(hetero, model, ["Say hello.", "/clear", "Say hello."]).out
    assert again == once * 2
    assert chat(hetero, model, ["Say hello.", "/regenerate"]).out == once * 2  # greedy: the same again
    system = chat(hetero, model, ["Say hello."], "--system", "You are a pirate.").out
    assert chat(hetero, model, ["/system You are a pirate.", "Say hello."]).out == system


def test_chat_commands(hetero, model):
    done = chat(hetero, model, ["/help", "/nonsense", "/regenerate", "", "   ", "/quit", "Never answered."])
    assert done.code == 0 and done.out == ""
    for text in ("/clear", "/system", "/regenerate", "/stats", "/quit", "/nonsense: no such command", "no answer"):
        assert text in done.err


def test_chat_full_context(hetero, model):
    done = chat(hetero, model, ["word " * 100, "/clear", "Hi"], "--ctx", 96)
    assert done.code == 2 and "context" in done.err and "/clear" in done.err
    assert done.out.strip()  # the conversation went on


def test_chat_invalid_utf8(hetero, model):
    done = hetero("chat", model, "-n", 4, "--temp", 0, "--quiet", stdin=b"\xff\nHello\n")
    assert done.code == 2 and "invalid UTF-8" in done.err and done.out.strip()


def prompt_tokens(hetero, model, text):
    """Of one message, in the tokens that /stats counts, without those of the template."""
    done = hetero("chat", model, "-n", 1, "--temp", 0, "--quiet", stdin=text + b"\n/stats\n")
    assert done.code == 0, done.err
    return int(done.err.split("last answer: ")[1].split()[0])


def test_chat_sends_whole_lines(hetero, model):
    whole = prompt_tokens(hetero, model, b"One two three. Four five six.")
    assert prompt_tokens(hetero, model, b"One two three.\rFour five six.") >= whole
    assert prompt_tokens(hetero, model, b"One two three. Four five six.\r") == whole  # the end of a line on other systems
    done = hetero("chat", model, "-n", 4, "--temp", 0, "--quiet", stdin=b"Say\0 hello.\nHello\n")
    assert done.code == 2 and "zero byte at byte 3" in done.err and done.out.strip()  # the second is answered


def test_chat_message_of_several_lines(hetero, model):
    system = ("--system", "x")
    one = hetero("run", model, "-p", "Write one\n\nword.", "-n", 8, "--temp", 0, "--quiet", *system).out
    other = hetero("run", model, "-p", "Write one", "-n", 8, "--temp", 0, "--quiet", *system).out
    assert one != other
    for text in (b'"""Write one\n\nword."""\n', b'"""\nWrite one\n\nword.\n"""\n', b"Write one\\\n\\\nword.\n"):
        done = hetero("chat", model, "-n", 8, "--temp", 0, "--quiet", *system, stdin=text)
        assert (done.code, done.out, done.err) == (0, one, "")
    for text in (b'"""Write one\n', b'"""', b'"""""\n'):
        hetero("chat", model, "--quiet", stdin=text).refuses('"""')
    assert '"""' in hetero("chat", model, "--quiet", stdin=b"/help\n").err
    done = hetero("chat", model, "-n", 4, "--temp", 0, "--quiet", stdin=b'"""\n"""\n/usr\\\nWhat is this?\n')
    assert done.code == 0 and done.err == "" and done.out.count("\n") == 1  # an empty message, and one that is no command


@pytest.fixture(scope="module")
def without_template(model, tmp_path_factory):
    """The model without a template, without one and the marks that ChatML needs, and with one that is wrong."""
    data, folder = pathlib.Path(model).read_bytes(), tmp_path_factory.mktemp("template")
    plain, none, wrong = (folder / name for name in ("plain.gguf", "none.gguf", "wrong.gguf"))
    plain.write_bytes(data.replace(b"tokenizer.chat_template", b"tokenizer.chat_templat_", 1))
    none.write_bytes(data.replace(b"tokenizer.chat_template", b"tokenizer.chat_templat_", 1).replace(b"im_start", b"im_begin"))
    begin = data.index(b"tokenizer.chat_template")
    wrong.write_bytes(data[:begin] + data[begin:begin + 1000].replace(b"{% for", b"{% fur") + data[begin + 1000:])
    return plain, none, wrong


def test_chat_without_template_says_so_at_once(hetero, without_template, tmp_path):
    plain, none, wrong = without_template
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}{% endfor %}", encoding="utf-8")
    for path in none, wrong:
        done = hetero("chat", path, stdin=b"Hello\nHello again\n")
        done.refuses(path.name, "template", "hetero run MODEL --raw")
        hetero("run", path, "-p", "Hello").refuses(path.name, "template", "--raw sends")
        given = hetero("run", path, "-p", "Hello", "-n", 1, "--chat-template", template, "--json").json
        assert given["prompt_ids"] == hetero("tokenize", path, "-p", "Hello", "--json").json["ids"]
        shown = hetero("inspect", path)
        assert shown.code == 0 and f"chat template   {'none' if path == none else 'default'}" in shown.out
    assert "line 1" in hetero("run", wrong, "-p", "Hello").err
    assert hetero("run", plain, "-p", "Hello", "-n", 1, "--json").json["prompt_ids"] == [1, 4093, 198, 19556, 2, 198, 1, 520, 9531, 198]
    hetero("chat", "shape:smollm2-135m", stdin=b"Hello\n").refuses("no tokenizer")


def test_chat_computes_only_what_is_new(hetero, model, tmp_path):
    """Where the template drops earlier thoughts, the next prompt is computed from where they stood, and from no place before."""
    template = tmp_path / "drops.jinja"
    template.write_text("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if m.role == 'user' else 'Well. ' "
                        "~ m.content[-1:] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
                        encoding="utf-8")
    for extra in [], ["--chat-template", template]:
        done = chat(hetero, model, ["Say hello to all of my friends.", "/stats", "And again?", "/stats"], *extra)
        first, second = [[int(word) for word in line.split() if word.isdigit()] for line in done.err.splitlines()
                         if line.startswith("last answer")]
        assert first[1] == 0 and first[0] - 1 <= second[1] < second[0]  # the last token of a prompt may be computed twice
        assert (second[1] <= first[0] + 1) == bool(extra)  # without the option the answer is kept, too


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, arguments, environment, interrupt=signal.SIG_DFL):
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, interrupt)
            os.execvpe(arguments[0], arguments, environment)
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self.text = ""

    def read_until(self, done):
        """Reads until done(text since the last call); returns that text."""
        text, end = "", time.monotonic() + PATIENCE
        while not done(text):
            ready = select.select([self.file], [], [], max(0, end - time.monotonic()))[0]
            assert ready, f"nothing more came after {text!r}"
            try:
                piece = os.read(self.file, 4096)
            except OSError:  # the program has ended
                piece = b""
            assert piece, f"the program ended after {text!r}"
            text += piece.decode("utf-8", "replace")
        self.text += text
        return text

    def type(self, text):
        os.write(self.file, text.encode())

    def until_it_reads_keys(self):
        """The prompt is there a moment before the editor takes the terminal over: until then Ctrl-D is the end of a file,
        which the editor does not see."""
        end = time.monotonic() + PATIENCE
        while termios.tcgetattr(self.file)[3] & termios.ICANON:
            assert time.monotonic() < end, "the editor did not take the terminal over"
            time.sleep(0.001)

    def exit_status(self):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.file)
                return os.waitstatus_to_exitcode(status)
            if select.select([self.file], [], [], 0.05)[0]:
                try:
                    os.read(self.file, 4096)
                except OSError:
                    pass
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError("the program did not end")


def at_prompt(text):
    return text.endswith("> ")


def test_chat_on_a_terminal(binary, environment, model, tmp_path):
    environment = {**environment, "XDG_STATE_HOME": str(tmp_path)}
    terminal = Terminal([binary, "chat", model, "-n", "8", "--temp", "0"], environment)
    assert "/help" in terminal.read_until(at_prompt)
    terminal.type("Say hello.\n")
    answer = terminal.read_until(lambda text: text.count("Say hello.") and text.rpartition("Say hello.")[2].count("\n") >= 2 and
                                 at_prompt(text))
    assert len(answer.rpartition("Say hello.")[2].strip("> \r\n")) > 0
    terminal.type("/stats\n")
    assert "tokens in use" in terminal.read_until(lambda text: "tokens/s" in text and at_prompt(text))
    terminal.until_it_reads_keys()
    terminal.type("\x04")
    assert terminal.exit_status() == 0
    history = tmp_path / "hetero" / "history"
    if history.exists():  # builds without libedit keep none
        assert "hello" in history.read_text() and history.stat().st_mode & 0o077 == 0


def test_ctrl_c_ends_one_answer_only(binary, environment, model):
    terminal = Terminal([binary, "chat", model, *ENDLESS], environment)
    terminal.read_until(at_prompt)
    terminal.type("Write a very long story about a dragon.\n")
    # It is streaming: more has come than the line's echoes (the terminal's own, and the line editor's).
    terminal.read_until(lambda text: len(text.rpartition("dragon.")[2]) > 80)
    terminal.type("\x03")
    terminal.read_until(at_prompt)
    terminal.type("/stats\n")
    assert "stop: cancelled" in terminal.read_until(lambda text: "stop: " in text and at_prompt(text))
    terminal.type("/quit\n")
    assert terminal.exit_status() == 0


@pytest.fixture(scope="module")
def xterm(environment):
    return {**environment, "TERM": "xterm"}


PASTE = "\x1b[200~{}\x1b[201~"


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_pasted_lines_are_one_message(binary, xterm, model, hetero, end):
    text = "Write one\n\nwörd."
    expected = hetero("run", model, "-p", text, "-n", 8, "--temp", 0, "--quiet").out.strip()
    terminal = Terminal([binary, "chat", model, "-n", "8", "--temp", "0", "--quiet"], xterm)
    assert terminal.read_until(lambda text: "> " in text).count("\x1b[?2004h") == 1
    terminal.until_it_reads_keys()
    terminal.type(PASTE.format(text.replace("\n", end) + end))
    terminal.read_until(lambda text: "rd." in text)
    terminal.type("\r")
    first = expected.split()[0]
    shown = terminal.read_until(lambda text: first in text and "\x1b[?2004h" in text)
    assert "\x1b[?2004l" in shown.split(first)[0]  # what runs meanwhile sees a plain terminal
    assert expected in shown.replace("\r", "")
    terminal.until_it_reads_keys()
    terminal.type("/stats\r")
    assert "last answer: " in terminal.read_until(lambda text: "tokens in use" in text and "last answer" in text)
    terminal.until_it_reads_keys()
    terminal.type("\x04")
    assert terminal.exit_status() == 0


def test_ctrl_c_at_the_prompt_leaves_the_terminal_as_it_was(binary, xterm, model):
    terminal = Terminal([binary, "chat", model], xterm)
    terminal.read_until(lambda text: "> " in text and "\x1b[?2004h" in text)
    terminal.until_it_reads_keys()
    terminal.type("abc\x03")
    terminal.read_until(lambda text: "\x1b[?2004l" in text)
    assert terminal.exit_status() == -signal.SIGINT


def test_ignored_ctrl_c_at_the_prompt(binary, environment, model):
    terminal = Terminal([binary, "chat", model, "-n", "4", "--temp", "0"], environment, interrupt=signal.SIG_IGN)
    terminal.read_until(at_prompt)
    terminal.until_it_reads_keys()
    terminal.type("\x03")
    time.sleep(0.1)
    terminal.type("/stats\r")
    terminal.read_until(lambda text: "tokens in use" in text)
    terminal.until_it_reads_keys()
    terminal.type("\x04")
    assert terminal.exit_status() == 0


@pytest.mark.parametrize("command", ["run", "tokenize"])
def test_one_ctrl_d_ends_a_text(binary, environment, model, command):
    terminal = Terminal([binary, command, model, "-f", "-", *(["-n", "1"] if command == "run" else [])], environment)
    terminal.type("Hello\n\x04")
    assert terminal.exit_status() == 0


def test_progress_is_for_terminals_only(hetero, model):
    done = hetero("run", model, "-p", "x", "-n", 1, "--temp", 0)
    assert "\r" not in done.err and "\x1b" not in done.err
