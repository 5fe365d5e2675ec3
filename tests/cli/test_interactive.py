"""What needs signals or a terminal: Ctrl-C, the chat."""
import fcntl
import os
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


def test_ctrl_c_with_json(binary, environment, model):
    process = start(binary, environment, "run", model, *LONG, "--json")
    time.sleep(1.5)  # nothing is printed before the end; the model has long been loaded by then
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


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, arguments, environment):
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
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


def test_progress_is_for_terminals_only(hetero, model):
    done = hetero("run", model, "-p", "x", "-n", 1, "--temp", 0)
    assert "\r" not in done.err and "\x1b" not in done.err
