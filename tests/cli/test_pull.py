"""Models of a hub: fetched, kept, found again, against a hub on loopback that does everything wrong in its turn."""
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import pty
import random
import resource
import shutil
import signal
import ssl
import subprocess
import time

import pytest

import hub_server

COMMIT = "c0" * 20
DATA = random.Random(1).randbytes(3 << 20)
SUM = hashlib.sha256(DATA).hexdigest()
SMALL = b"GGUF, but small"
MEGABYTE = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def curl(binary, lacks):
    """A build, or a machine, without libcurl says so."""
    done = subprocess.run([binary, "pull", "hf:test/m"], env={"HF_HOME": "/nonexistent", "HF_ENDPOINT": "no-address"},
                          capture_output=True, check=False)
    if b"HF_ENDPOINT" not in done.stderr:
        lacks("curl", done.stderr.decode().strip())


@pytest.fixture
def hub():
    made = hub_server.Hub()
    made.add("test/m", {"README.md": b"read me", "m-Q4_K_M.gguf": DATA})
    yield made
    made.close()


class Cache:
    def __init__(self, folder):
        self.home = folder
        self.repository = folder / "hub" / "models--test--m"
        self.blobs = self.repository / "blobs"

    def part(self, sum_of=SUM):
        return self.blobs / f"{sum_of}.incomplete"

    def file(self, name="m-Q4_K_M.gguf", commit=COMMIT):
        return self.repository / "snapshots" / commit / name

    def is_right(self, name="m-Q4_K_M.gguf", data=DATA):
        link, path = os.readlink(self.file(name)), self.file(name)
        blob = "../" * (2 + name.count("/")) + "blobs/" + hashlib.sha256(data).hexdigest()
        return link == blob and path.read_bytes() == data and not list(self.blobs.glob("*.incomplete"))


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "home")


@pytest.fixture
def settings(environment, hub, cache):
    """The environment of a user who has nothing of Hugging Face's but this cache and this hub."""
    theirs = ("HF_", "HUGGING", "CURL_", "SSL_")
    left = {k: v for k, v in environment.items() if not k.startswith(theirs) and not k.lower().endswith("_proxy")}
    return {**left, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(cache.home), "HF_HUB_DOWNLOAD_TIMEOUT": "1"}


@pytest.fixture
def run(binary, settings):
    """hetero ARGUMENTS; env: changes of the environment, None takes a variable out."""
    def start(*arguments, env=None, **more):
        changed = {**settings, **(env or {})}
        done = subprocess.run([binary, *map(str, arguments)], capture_output=True, check=False, timeout=60,
                              env={k: v for k, v in changed.items() if v is not None}, **more)
        assert done.returncode >= 0, done
        assert b"SECRET" not in done.stdout + done.stderr
        done.err, done.out = done.stderr.decode(), done.stdout.decode()
        return done

    return start


def refuses(done, *texts, code=2):
    assert done.returncode == code, (done.returncode, done.err)
    assert done.out == ""
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    for text in texts:
        assert text in lines[0], (text, lines[0])


def good(done):
    assert done.returncode == 0, done.err
    return done


# ---- a pull that goes well


@pytest.mark.check
def test_pull_and_what_it_leaves(hub, run, cache):
    done = good(run("pull", "hf:test/m"))
    assert done.out == f"{cache.file()}\n" and done.err == ""
    assert cache.is_right()
    assert (cache.repository / "refs" / "main").read_text() == COMMIT
    assert (cache.home / "hub" / ".locks" / "models--test--m" / f"{SUM}.lock").exists()
    assert [p for p in hub.asked("hub") if "/resolve/" in p] == [f"/test/m/resolve/{COMMIT}/m-Q4_K_M.gguf"]
    again = json.loads(good(run("pull", "hf:test/m", "--json")).out)
    assert again["path"] == str(cache.file()) and again["bytes"] == len(DATA) and again["sha256"] == SUM
    assert again["fetched_bytes"] == 0 and again["commit"] == COMMIT
    assert again["files"] == [{"name": "m-Q4_K_M.gguf", "path": str(cache.file()), "bytes": len(DATA), "sha256": SUM}]
    assert len(hub.asked("store")) == 1


@pytest.mark.check
def test_list(hub, run, cache):
    hub.add("test/m", {"README.md": b"x", "a/m-Q8_0.gguf": DATA, "m-Q4_K_M.gguf": SMALL}, small=["m-Q4_K_M.gguf"])
    listed = json.loads(good(run("pull", "--list", "hf:test/m", "--json")).out)
    assert [(f["name"], f["bytes"], f["sha256"], f["path"]) for f in listed["files"]] == [
        ("a/m-Q8_0.gguf", len(DATA), SUM, None), ("m-Q4_K_M.gguf", len(SMALL), None, None)]
    good(run("pull", "hf:test/m"))
    text = good(run("pull", "--list", "hf:test/m")).out.splitlines()
    assert text[0].split() == ["3.0", "MiB", "a/m-Q8_0.gguf"] and text[1].split()[:3] == ["15", "B", "m-Q4_K_M.gguf"]
    assert not hub.asked("store")[1:] and not cache.file("a/m-Q8_0.gguf").exists()


def test_a_file_that_git_keeps_itself(hub, run, cache):
    hub.add("test/m", {"m.gguf": SMALL}, small=["m.gguf"])
    got = json.loads(good(run("pull", "hf:test/m", "--json")).out)
    assert got["sha256"] == hashlib.sha256(SMALL).hexdigest()
    assert os.readlink(cache.file("m.gguf")).endswith("/" + hub.repositories["test/m"].oid("m.gguf"))
    hub.add("test/m", {"m.gguf": SMALL}, commit="d0" * 20, small=["m.gguf"]).oid = lambda path: "0" * 40
    refuses(run("pull", "hf:test/m"), "sum")


@pytest.mark.check
def test_cached_model_needs_no_network(hub, run):
    good(run("pull", "hf:test/m"))
    asked = len(hub.requests)
    for name in ("hf:test/m", "hf:test/m:q4_k_m", "hf:test/m/m-Q4_K_M.gguf", f"hf:test/m@{COMMIT}:Q4_K_M", "hf:test/m@main"):
        refuses(run("inspect", name), "m-Q4_K_M.gguf")  # it is no model, but it was found
    hub.close()
    for more in ([], ["--offline"]):
        refuses(run("inspect", "hf:test/m", *more), "m-Q4_K_M.gguf")
    good(run("pull", "hf:test/m", "--offline"))
    assert len(hub.requests) == asked
    refuses(run("pull", "hf:test/m:Q8_0", "--offline"), "hf:test/m:Q8_0", "offline")
    refuses(run("inspect", "hf:test/other", env={"HF_HUB_OFFLINE": "1"}), "hf:test/other", "offline")
    refuses(run("pull", "hf:test/m", "--retries", "0"), "connect", code=1)


def test_pull_takes_the_newer_commit_and_run_the_one_it_has(hub, run, cache):
    good(run("pull", "hf:test/m"))
    hub.add("test/m", {"m-Q4_K_M.gguf": SMALL * 9}, commit="d0" * 20)
    refuses(run("inspect", "hf:test/m"), COMMIT)
    assert json.loads(good(run("pull", "hf:test/m", "--json")).out)["commit"] == "d0" * 20
    refuses(run("inspect", "hf:test/m"), "d0" * 20)
    refuses(run("inspect", f"hf:test/m@{COMMIT}"), COMMIT)
    assert cache.file().exists()


def test_from_a_clean_cache_to_an_answer(hub, run, cache, model):
    hub.add("test/smollm2", {"SmolLM2-135M-Instruct.Q4_1.gguf": pathlib.Path(model).read_bytes(), "mmproj-F16.gguf": SMALL})
    prompt = ["-p", "Name three colours.", "-n", "8", "--temp", "0", "--json", "--devices", "cpu"]
    answer = json.loads(good(run("run", "hf:test/smollm2:Q4_1", *prompt)).out)
    assert answer["text"] and answer["text"] == json.loads(good(run("run", model, *prompt)).out)["text"]
    assert len(hub.asked("store")) == 1
    hub.close()
    assert json.loads(good(run("run", "hf:test/smollm2", *prompt)).out)["text"] == answer["text"]
    assert json.loads(good(run("inspect", "hf:test/smollm2", "--json")).out)["arch"] == "llama"
    assert json.loads(good(run("tokenize", "hf:test/smollm2", "-p", "Hi", "--json")).out)["ids"]
    good(run("quantize", "hf:test/smollm2", cache.home / "out.gguf", "q8_0"))


def test_progress_on_a_terminal(hub, settings, binary):
    hub.file_faults = [lambda handler, data, start: (time.sleep(0.3), hub.send_file(handler, data, start))[1]]
    master, slave = pty.openpty()
    done = subprocess.run([binary, "pull", "hf:test/m"], env=settings, stdout=subprocess.PIPE, stderr=slave, timeout=60, check=True)
    os.close(slave)
    drawn = os.read(master, 1 << 16).decode()
    os.close(master)
    assert "m-Q4_K_M.gguf" in drawn and "[" in drawn and b"[" not in done.stdout


# ---- names


@pytest.mark.parametrize("name", [
    "hf:", "hf:m", "hf:test/", "hf:/m", "hf:../m", "hf:test/..", "hf:te--st/m", "hf:-test/m", "hf:test/m.", "hf:test/m:",
    "hf:test/m:Q4 0", "hf:test/m:../x", "hf:test/m/../../x.gguf", "hf:test/m//x.gguf", "hf:test/m/x.bin", "hf:test/m/a\\b.gguf",
    "hf:test/m/a\nb.gguf", "hf:test/m@", "hf:test/m@../x", "hf:test/m@-x", "hf:test/m@a:Q4@b", "hf:t/" + "m" * 97,
    "hf:test/m/" + "x" * 300 + ".gguf", "hf:test/m/./x.gguf", "hf:test/m/.gguf/", "model.gguf"])
def test_wrong_names(run, hub, name):
    refuses(run("pull", name), "hf:OWNER/REPO")
    assert not hub.requests


FILES = ["README.md", "m-BF16.gguf", "m-IQ4_NL.gguf", "m-Q4_K_M.gguf", "m-UD-Q4_K_M.gguf", "m-UD-Q4_K_XL.gguf", "m-Q8_0.gguf",
         "mmproj-Q6_K.gguf", "imatrix.gguf", "Q2_K/m-Q2_K-00001-of-00002.gguf", "Q2_K/m-Q2_K-00002-of-00002.gguf", "old/m-Q8_0.gguf"]


@pytest.mark.check
@pytest.mark.parametrize("name, file", [
    ("hf:test/m", "m-Q4_K_M.gguf"), ("hf:test/m:q4_k_m", "m-Q4_K_M.gguf"), ("hf:test/m:UD-Q4_K_M", "m-UD-Q4_K_M.gguf"),
    ("hf:test/m:Q4_K_XL", "m-UD-Q4_K_XL.gguf"), ("hf:test/m:bf16", "m-BF16.gguf"), ("hf:test/m:iq4_nl", "m-IQ4_NL.gguf"),
    ("hf:test/m:Q8_0", "m-Q8_0.gguf"), ("hf:test/m/old/m-Q8_0.gguf", "old/m-Q8_0.gguf"), ("hf://test/m:Q8_0", "m-Q8_0.gguf"),
    ("hf:test/m:Q2_K", "Q2_K/m-Q2_K-00001-of-00002.gguf"), ("hf:test/m/Q2_K/m-Q2_K-00002-of-00002.gguf", "Q2_K/m-Q2_K-00001-of-00002.gguf"),
    ("hf:test/m@main:Q8_0", "m-Q8_0.gguf"), ("hf:test/m:Q8_0@refs/pr/1", "m-Q8_0.gguf"), ("hf:test/m@refs/pr/1/m-BF16.gguf", "m-BF16.gguf"),
    ("hf:test/m/m-BF16.gguf@main", "m-BF16.gguf"), ("hf:test/m/mmproj-Q6_K.gguf", None), ("hf:test/m:F16", None), ("hf:test/m:NL", None),
    ("hf:test/m:Q6_K", None), ("hf:test/m/m-Q3_K.gguf", None)])
def test_which_file_a_name_means(hub, run, cache, name, file):
    hub.add("test/m", {path: path.encode() for path in FILES})
    done = run("pull", name)
    if file is None:
        return refuses(done, "m-Q4_K_M.gguf", "Q2_K/m-Q2_K-00001-of-00002.gguf", "a projector" if "mmproj" in name else " file")
    assert good(done).out.splitlines()[0] == str(cache.file(file))
    return None


@pytest.mark.parametrize("files, file", [
    (["a-Q8_0.gguf", "a-F16.gguf"], "a-Q8_0.gguf"), (["a-F16.gguf", "mmproj.gguf"], "a-F16.gguf"), (["a.gguf"], "a.gguf"),
    (["a-F16.gguf", "a-Q5_0.gguf"], None), (["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"], None), (["a.safetensors"], None),
    (["a-00001-of-00002.gguf"], None)])
def test_without_a_type(hub, run, cache, files, file):
    hub.add("test/m", {path: path.encode() for path in files})
    done = run("pull", "hf:test/m")
    if file is None:
        return refuses(done, "is missing" if "of-" in files[0] else "GGUF" if "safe" in files[0] else files[1])
    assert good(done).out == f"{cache.file(file)}\n"
    return None


@pytest.mark.check
def test_split_files(hub, run, cache):
    parts = {f"Q4_K_M/m-Q4_K_M-0000{i}-of-00003.gguf": DATA[:i * MEGABYTE] for i in (3, 1, 2)}
    hub.add("test/m", parts)
    got = json.loads(good(run("pull", "hf:test/m", "--json")).out)
    assert [f["name"] for f in got["files"]] == sorted(parts) and got["bytes"] == 6 * MEGABYTE
    assert got["path"] == str(cache.file("Q4_K_M/m-Q4_K_M-00001-of-00003.gguf"))
    assert all(cache.is_right(name, data) for name, data in parts.items())
    cache.file("Q4_K_M/m-Q4_K_M-00002-of-00003.gguf").unlink()
    refuses(run("inspect", "hf:test/m", "--offline"), "offline")
    good(run("pull", "hf:test/m"))
    assert len(hub.asked("store")) == 3  # the blob was there


def test_a_model_that_huggingface_hub_fetched(hub, run, cache):
    """As it lays out its cache; what it keeps in trees/ it wrote, too."""
    cache.blobs.mkdir(parents=True)
    cache.file("sub/m-Q8_0.gguf").parent.mkdir(parents=True)
    (cache.blobs / SUM).write_bytes(DATA)
    cache.file("sub/m-Q8_0.gguf").symlink_to(f"../../../blobs/{SUM}")
    (cache.repository / "refs").mkdir()
    (cache.repository / "refs" / "main").write_text(COMMIT)
    hub.close()
    for name in ("hf:test/m", "hf:test/m:Q8_0", "hf:test/m/sub/m-Q8_0.gguf"):
        refuses(run("inspect", name), "sub/m-Q8_0.gguf")
    assert json.loads(good(run("pull", "hf:test/m", "--offline", "--json")).out)["sha256"] == SUM
    listed = json.loads(good(run("pull", "hf:test/m", "--offline", "--list", "--json")).out)
    assert [f["name"] for f in listed["files"]] == ["sub/m-Q8_0.gguf"]
    (cache.repository / "trees").mkdir()
    (cache.repository / "trees" / f"{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": {
        "sub/m-Q8_0.gguf": {"size": len(DATA), "blob_id": "0" * 40, "lfs_sha256": SUM, "lfs_size": len(DATA)},
        "m-Q4_K_M.gguf": {"size": 7, "blob_id": "0" * 40, "lfs_sha256": "0" * 64, "lfs_size": 7}}}))
    refuses(run("inspect", "hf:test/m", "--offline"), "m-Q4_K_M.gguf is not there")
    (cache.blobs / SUM).write_bytes(DATA[:-1])  # half a file is none
    refuses(run("inspect", "hf:test/m:Q8_0", "--offline"), "is not there")


@pytest.mark.parametrize("env, folder", [
    ({"HF_HUB_CACHE": "{}/a"}, "a"), ({"HF_HUB_CACHE": "", "HF_HOME": "{}/b"}, "b/hub"),
    ({"HF_HOME": None, "XDG_CACHE_HOME": "{}/c"}, "c/huggingface/hub"),
    ({"HF_HOME": None, "XDG_CACHE_HOME": None, "HOME": "{}/d"}, "d/.cache/huggingface/hub"), ({"HF_HOME": "~/e", "HOME": "{}"}, "e/hub")])
def test_where_the_cache_is(run, tmp_path, env, folder):
    env = {name: value and value.format(tmp_path) for name, value in env.items()}
    assert good(run("pull", "hf:test/m", env=env)).out.startswith(f"{tmp_path}/{folder}/models--test--m/snapshots/")


# ---- downloads that break


def test_break_in_the_middle(hub, run, cache):
    hub.file_faults = [hub.breaks_at(MEGABYTE), hub.breaks_at(MEGABYTE + 1), hub.breaks_at(2 * MEGABYTE)]
    good(run("pull", "hf:test/m"))
    assert cache.is_right()
    assert hub.ranges() == [None] + [f"bytes={n}-" for n in (MEGABYTE, MEGABYTE + 1, 2 * MEGABYTE)]
    conditions = [headers.get("If-Range") for where, _, headers in hub.requests if where == "store"]
    assert conditions == [None] + ['"%s"' % hashlib.md5(DATA).hexdigest()] * 3


def test_given_up_and_taken_up(hub, run, cache):
    hub.file_faults = [hub.breaks_at(MEGABYTE), hub.breaks_at(MEGABYTE), hub.answers(503)]
    refuses(run("pull", "hf:test/m", "--retries", "2"), "test/m/m-Q4_K_M.gguf", "503", code=1)
    assert cache.part().read_bytes() == DATA[:MEGABYTE] and not cache.file().exists()
    assert not (cache.repository / "refs").exists()
    refuses(run("inspect", "hf:test/m", "--offline"), "not in the cache")
    good(run("pull", "hf:test/m"))
    assert cache.is_right() and hub.ranges()[-1] == f"bytes={MEGABYTE}-"


def leave_part(cache, data):
    cache.blobs.mkdir(parents=True)
    cache.part().write_bytes(data)


@pytest.mark.check
@pytest.mark.parametrize("left, ranges", [
    (DATA[:5], ["bytes=5-"]), (DATA, []), (DATA + b"more", [None]), (b"", [None]),
    (bytes(MEGABYTE), [f"bytes={MEGABYTE}-", None]), (bytes(len(DATA)), [None])])
def test_what_an_earlier_pull_left(hub, run, cache, left, ranges):
    """Half a file, all of it, too much, nothing, and other bytes, which only the sum at the end can tell."""
    leave_part(cache, left)
    good(run("pull", "hf:test/m", "--quiet"))
    assert cache.is_right() and hub.ranges() == ranges


def test_range_ignored(hub, run, cache):
    leave_part(cache, DATA[:MEGABYTE])
    hub.file_faults = [hub.ignores_range(2 * MEGABYTE), hub.ignores_range()]
    good(run("pull", "hf:test/m"))
    assert cache.is_right() and hub.ranges() == [f"bytes={MEGABYTE}-", f"bytes={2 * MEGABYTE}-"]


def test_range_refused(hub, run, cache):
    leave_part(cache, DATA[:MEGABYTE])
    hub.file_faults = [hub.answers(416, Content_Range="bytes */7")]
    good(run("pull", "hf:test/m"))
    assert cache.is_right() and hub.ranges() == [f"bytes={MEGABYTE}-", None]


def test_range_always_refused(hub, run):
    hub.file_faults = [hub.answers(416)] * 9
    refuses(run("pull", "hf:test/m", "--retries", "1"), "416")


def test_another_part_than_asked_for(hub, run, cache):
    def other(handler, data, start):
        handler.say(206, data[5:], Content_Range=f"bytes 5-{len(data) - 1}/{len(data)}")
    leave_part(cache, DATA[:MEGABYTE])
    hub.file_faults = [other]
    good(run("pull", "hf:test/m"))
    assert cache.is_right() and hub.ranges() == [f"bytes={MEGABYTE}-", None]


def test_file_of_the_store_changes_meanwhile(hub, run, cache):
    """With If-Range the store sends all of the new one; a store that does not know If-Range is found out by its ETag."""
    def change(handler, data, start):
        hub.store_etag = '"other"'
        return hub.send_file(handler, data, start)
    for knows in (True, False):
        hub.store_etag = None
        hub.file_faults = [hub.breaks_at(MEGABYTE), change if knows else hub.answers(
            206, ETag='"other"', Content_Range=f"bytes {MEGABYTE}-{len(DATA) - 1}/{len(DATA)}")]
        good(run("pull", "hf:test/m"))
        assert cache.is_right()
        shutil.rmtree(cache.home)


def test_file_of_the_hub_changes_meanwhile(hub, run, cache):
    repository = hub.repositories["test/m"]
    repository.etag = lambda path: "ab" * 32
    refuses(run("pull", "hf:test/m"), "m-Q4_K_M.gguf", "changed")
    assert not cache.file().exists()


@pytest.mark.check
def test_wrong_sum(hub, run, cache):
    hub.file_faults = [hub.sends(DATA[:-1] + b"?")]
    refuses(run("pull", "hf:test/m"), "m-Q4_K_M.gguf", SUM, "removed", str(cache.part()))
    assert not list(cache.blobs.iterdir()) and not cache.file().exists()


def test_wrong_sum_of_a_resumed_part(hub, run, cache):
    """Once more from the beginning, once."""
    leave_part(cache, bytes(MEGABYTE))
    hub.file_faults = [hub.sends(DATA), hub.sends(bytes(len(DATA)))]
    refuses(run("pull", "hf:test/m", "--quiet"), SUM)
    assert not list(cache.blobs.iterdir()) and len(hub.ranges()) == 2


def test_body_that_ends_too_soon_or_never(hub, run, cache):
    hub.file_faults = [hub.ends_early(MEGABYTE)]
    good(run("pull", "hf:test/m"))
    assert cache.is_right()
    shutil.rmtree(cache.home)
    hub.file_faults = [hub.never_ends(64 << 20)]
    refuses(run("pull", "hf:test/m"), "more than the")
    assert cache.part().stat().st_size <= len(DATA)


def test_length_that_is_not_the_listings(hub, run):
    hub.file_faults = [hub.sends(DATA + b"more")]
    refuses(run("pull", "hf:test/m"), "changed")


def test_stall(hub, run, cache):
    hub.file_faults = [hub.stalls_at(MEGABYTE, 9)]
    begin = time.monotonic()
    good(run("pull", "hf:test/m"))
    assert cache.is_right() and time.monotonic() - begin < 5
    hub.file_faults = [hub.stalls_at(MEGABYTE, 9)]
    shutil.rmtree(cache.home)
    refuses(run("pull", "hf:test/m", "--retries", "0"), "nothing came for 1 s", code=1)


def test_server_that_is_busy(hub, run, cache):
    begin = time.monotonic()
    hub.api_faults = [hub.answers(500), hub.answers(429, Retry_After="1")]
    hub.file_faults = [hub.answers(429, Retry_After="1"), hub.answers(502)]
    good(run("pull", "hf:test/m"))
    assert cache.is_right() and time.monotonic() - begin > 2.5
    hub.api_faults = [hub.answers(429, Retry_After="3600")]
    refuses(run("pull", "hf:test/m"), "429", "3600 s", code=1)
    hub.api_faults = [hub.answers(500)] * 3
    refuses(run("pull", "hf:test/m", "--retries", "1"), "500", code=1)
    assert len(hub.api_faults) == 1


# ---- who may have what


@pytest.mark.check
def test_token_goes_to_the_hub_alone(hub, run, cache, tmp_path):
    hub.repositories["test/m"].gate = (401, "GatedRepo")
    refuses(run("pull", "hf:test/m"), "gated", f"{hub.endpoint}/test/m", "HF_TOKEN")
    hub.repositories["test/m"].gate = (403, "GatedRepo")
    refuses(run("pull", "hf:test/m", env={"HF_TOKEN": "hf_SECRETother"}), "403", f"{hub.endpoint}/test/m", "account")
    good(run("pull", "hf:test/m", "--log-level", "debug", env={"HF_TOKEN": hub.token}))
    assert all(h.get("Authorization") == f"Bearer {hub.token}" for w, p, h in hub.requests[-3:-1] if w == "hub")
    assert [h for where, _, h in hub.requests if where == "store" and "Authorization" in h] == []
    shutil.rmtree(cache.home)
    (tmp_path / "token").write_text(f" {hub.token}\n")
    for path in (str(tmp_path / "token"), "~/token"):
        good(run("pull", "hf:test/m", env={"HF_TOKEN_PATH": path, "HOME": str(tmp_path)}))
        shutil.rmtree(cache.home)
    cache.home.mkdir()
    (cache.home / "token").write_text(hub.token)
    good(run("pull", "hf:test/m"))
    refuses(run("pull", "hf:test/m", env={"HF_TOKEN": "hf_SECRET\r\nX-Evil: 1"}), "HF_TOKEN holds no token")


def test_explained_refusals(hub, run):
    refuses(run("pull", "hf:test/none"), "401", "no such model", "HF_TOKEN")
    hub.api_faults = [hub.answers(404, X_Error_Code="RepoNotFound")]
    refuses(run("pull", "hf:test/none", env={"HF_TOKEN": hub.token}), "404")
    hub.api_faults = [hub.answers(401)]
    refuses(run("pull", "hf:test/m", env={"HF_TOKEN": hub.token}), "does not take the token")
    refuses(run("pull", "hf:test/m@none"), "no such revision", "404")
    hub.file_faults = [hub.answers(404)]
    refuses(run("pull", "hf:test/m"), "404")


@pytest.mark.parametrize("to, text", [
    ("file:///etc/passwd", "no address"), ("ftp://127.0.0.1/x", "no address"), ("http://192.0.2.1/x", "not followed"),
    ("http://127.0.0.1.example.invalid/x", "not followed"), ("http://user:hf_SECRET@127.0.0.1/x", "no address"), ("", "no address"),
    ("http://" + "u" * 70 + ":hf_SECRET@127.0.0.1/x", "no address"), ("http://:hf_SECRET@127.0.0.1/x", "no address"),
    ("http://\xe2\x80\xae.invalid/x", "to http://???.invalid:80")])
def test_redirections_that_are_not_followed(hub, run, to, text):
    hub.redirect = to or " "
    refuses(run("pull", "hf:test/m"), text)


def test_redirections_without_end(hub, run):
    hub.redirect = f"/test/m/resolve/{COMMIT}/m-Q4_K_M.gguf"
    refuses(run("pull", "hf:test/m"), "without end")
    assert len(hub.requests) < 20


# ---- hubs that mean harm


def entry(path, size=7, oid="ab" * 32):
    return {"type": "file", "path": path, "size": size, "oid": "ab" * 20, "lfs": {"oid": oid, "size": size}}


@pytest.mark.parametrize("entries", [
    [entry("../../../evil.gguf")], [entry("/evil.gguf")], [entry("a/../b.gguf")], [entry("a\\..\\b.gguf")], [entry("a\nb.gguf")],
    [entry("a\x00b.gguf")], [entry("a\x9bb.gguf")], [entry("a\u202efugg.gguf")], [entry("a//b.gguf")], [entry("./b.gguf")], [entry("x" * 300 + ".gguf")], [entry("a/" * 600 + "b.gguf")],
    [entry("a.gguf", size=-1)], [entry("a.gguf", size=1 << 60)], [entry("a.gguf", size="7")], [entry("a.gguf", size=1.5)],
    [entry("a.gguf", oid="../../../../evil")], [entry("a.gguf", oid="ab" * 31)], [entry("a.gguf", oid=None)], [{"type": "file"}],
    [{"path": "a.gguf"}], ["a.gguf"], {"error": "no list"}, [entry("a.gguf")] * 2])
def test_hostile_listings(hub, run, cache, entries):
    repository = hub.add("test/m", {})
    hub.page = len(entries) + 1
    repository.listing = lambda: entries if isinstance(entries, list) else None
    if isinstance(entries, dict):
        hub.api_faults = [None, lambda handler: handler.say(200, json.dumps(entries).encode())]
    refuses(run("pull", "hf:test/m"), "test/m")
    assert not hub.asked("store") and not cache.repository.exists()


def test_hostile_commits(hub, run, cache):
    for commit in ("../../evil", "", "c0" * 19, None, 7, "C0" * 20):
        hub.api_faults = [lambda handler, sha=commit: handler.say(200, json.dumps({"sha": sha}).encode())]
        refuses(run("pull", "hf:test/m"), "commit")
    for body in (b"", b"{", b"[" * 100000, b"\xff\xfe", b"<html>"):
        hub.api_faults = [lambda handler, text=body: handler.say(200, text)]
        refuses(run("pull", "hf:test/m"), "test/m")
    assert not cache.repository.exists()


def test_pages(hub, run, cache):
    hub.add("test/m", {**{f"{i}.txt": b"" for i in range(25)}, "m-Q4_K_M.gguf": DATA})
    hub.page = 10
    good(run("pull", "hf:test/m"))
    assert cache.is_right() and len([p for p in hub.asked("hub") if "/tree/" in p]) == 3


def test_pages_without_end(hub, run):
    def page(next_page):
        def answer(handler):
            target = next_page(handler)
            handler.say(200, json.dumps([entry(f"{len(hub.requests)}.txt")]).encode(), Link=f'<{target}>; rel="next"')
        return answer
    hub.api_faults = [None] + [page(lambda handler: hub.endpoint + handler.path)] * 9
    refuses(run("pull", "hf:test/m"), "goes round")
    hub.api_faults = [None] + [page(lambda handler: f"{hub.endpoint}/api/models/test/m/tree/x?{len(hub.requests)}")] * 999
    refuses(run("pull", "hf:test/m"), "does not end")
    assert len(hub.requests) < 250


@pytest.mark.parametrize("target, text", [
    ("file:///etc/passwd", "no address"), ("http://192.0.2.1/x", "not followed"), ("https://u:hf_SECRET@127.0.0.1/x", "no address"),
    ("/x" * 1500, "no address")])
def test_pages_elsewhere(hub, run, target, text):
    """Where the next page is obeys the rules for redirections, and one that cannot be had is no end of the list."""
    hub.api_faults = [None, lambda handler: handler.say(200, json.dumps([entry("m-Q4_K_M.gguf")]).encode(), Link=f'<{target}>; rel="next"')]
    refuses(run("pull", "hf:test/m", "--retries", "0"), "test/m", text)
    assert len(hub.requests) == 2


def test_page_by_a_relative_address(hub, run, cache):
    hub.api_faults = [None, lambda handler: handler.say(200, b"[]", Link=f'</api/models/test/m/tree/{COMMIT}?page=2>; rel="next"')]
    good(run("pull", "hf:test/m"))
    assert cache.is_right()


def test_another_commit_than_asked_for(hub, run, cache):
    hub.api_faults = [lambda handler: handler.say(200, json.dumps({"sha": COMMIT}).encode())]
    refuses(run("pull", "hf:test/m@" + "d0" * 20), "another commit")
    assert not cache.repository.exists()


def test_list_of_too_many_models(hub, run):
    entries = [{"type": "file", "path": f"{i}.gguf", "size": 7, "oid": "ab" * 20} for i in range(10001)]
    hub.api_faults = [None, lambda handler: handler.say(200, json.dumps(entries).encode())]
    refuses(run("pull", "hf:test/m"), "more than 10000 GGUF files")


def test_headers_that_drip(hub, run):
    """Something comes within each second, but never the file."""
    def drip(handler, data, start):
        with contextlib.suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for _ in range(40):
                handler.wfile.write(b"X: y\r\n")
                time.sleep(0.5)
        handler.close_connection = True
    hub.file_faults = [drip]
    refuses(run("pull", "hf:test/m", "--retries", "0"), "took longer than 4 s", code=1)


def test_answers_without_end(hub, run):
    def endless(handler):
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        with contextlib.suppress(OSError):
            for _ in range(1000):
                handler.wfile.write(b" " * 65536)

    def headers(handler):
        handler.close_connection = True
        with contextlib.suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for i in range(10000):
                handler.wfile.write(b"X-%d: %s\r\n" % (i, b"x" * 1000))
    for fault in (endless, headers):
        hub.api_faults = [fault]
        refuses(run("pull", "hf:test/m", "--retries", "0"), "test/m", "end")


# ---- disks


@pytest.mark.check
def test_no_room_is_said_before(hub, run, cache):
    hub.repositories["test/m"].sizes["m-Q4_K_M.gguf"] = 1 << 48
    refuses(run("pull", "hf:test/m"), str(cache.blobs), "bytes are missing", "256.0 TiB", code=1)
    assert not hub.asked("store")


def test_no_room_for_a_later_part(hub, run):
    parts = {f"m-0000{i}-of-00002.gguf": DATA[:i] for i in (1, 2)}
    hub.add("test/m", parts).sizes["m-00002-of-00002.gguf"] = 1 << 48
    refuses(run("pull", "hf:test/m"), "m-00001-of-00002.gguf and the parts after it", "bytes are missing", code=1)
    assert not hub.asked("store")


def test_disk_that_is_full_in_the_middle(hub, run, cache):
    """Python ignores SIGXFSZ, and so does its child: a file that may not grow is a write that fails."""
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MEGABYTE, 2 * MEGABYTE))
    done = run("pull", "hf:test/m", preexec_fn=limit, restore_signals=False)
    refuses(done, str(cache.part()), os.strerror(errno.EFBIG), "bytes) are missing", code=1)
    assert DATA.startswith(cache.part().read_bytes()) and not cache.file().exists()
    good(run("pull", "hf:test/m"))
    assert cache.is_right()


def test_disk_that_is_full(hub, run, tmp_path):
    """A file system of two megabytes, where the user may have one."""
    small = tmp_path / "small"
    small.mkdir()
    script = f'mount -t tmpfs -o size=2m tmpfs "{small}" && exec "$0" "$@"'
    if subprocess.run(["unshare", "-rm", "sh", "-c", script, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces")
    env = {"HF_HOME": str(small)}
    binary = os.environ.get("HETERO", str(pathlib.Path(__file__).resolve().parents[2] / "build" / "hetero"))
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script, binary, "pull", "hf:test/m"], capture_output=True, check=False,
                          env={**os.environ, "HF_ENDPOINT": hub.endpoint, **env}, timeout=60)
    assert done.returncode == 1 and b"bytes are missing" in done.stderr and str(small).encode() in done.stderr
    assert not hub.asked("store")


def test_folder_that_cannot_be_written(run, cache):
    cache.home.mkdir()
    (cache.home / "hub").write_text("a file")
    refuses(run("pull", "hf:test/m"), str(cache.home / "hub"), "it is no folder", code=1)
    (cache.home / "hub").unlink()
    (cache.home / "hub").symlink_to(cache.home / "unplugged")
    refuses(run("pull", "hf:test/m"), str(cache.home / "hub"), "a link to what is not there", code=1)


@pytest.mark.parametrize("there", [True, False])
def test_links_that_others_have_left(hub, run, cache, there):
    """Who shares the cache can make links in it, but not have other files of this user's written."""
    others = [cache.part(), cache.repository / "refs" / "main", cache.repository / ".hetero" / f"{COMMIT}.json"]
    mine = cache.home / "mine"
    for link in others:
        link.parent.mkdir(parents=True)
        link.symlink_to(mine)
    if there:
        mine.write_text("mine")
    good(run("pull", "hf:test/m"))
    assert cache.is_right() and not any(link.is_symlink() for link in others)
    assert mine.read_text() == "mine" if there else not mine.exists()


def test_pipe_in_place_of_a_revision(run, cache):
    (cache.repository / "refs").mkdir(parents=True)
    os.mkfifo(cache.repository / "refs" / "main")
    refuses(run("pull", "hf:test/m", "--offline"), "not in the cache")


# ---- processes


def start(binary, settings, *arguments):
    return subprocess.Popen([binary, "pull", "hf:test/m", *arguments], env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for(what):
    for _ in range(400):
        if what():
            return
        time.sleep(0.02)
    pytest.fail("waited for too long")


def slowly(hub, begun):
    """All but the last megabyte, and the rest when `begun` is cleared."""
    def send(handler, data, start_at):
        handler.send_response(206 if start_at else 200)
        handler.send_header("Content-Length", len(data) - start_at)
        if start_at:
            handler.send_header("Content-Range", f"bytes {start_at}-{len(data) - 1}/{len(data)}")
        handler.end_headers()
        handler.wfile.write(data[start_at:2 * MEGABYTE])
        handler.wfile.flush()
        begun.append(handler)
        while begun:
            time.sleep(0.02)
        handler.wfile.write(data[max(start_at, 2 * MEGABYTE):])
    return send


def test_two_processes_fetch_once(hub, binary, settings, cache):
    begun = []
    settings["HF_HUB_DOWNLOAD_TIMEOUT"] = "30"
    hub.file_faults = [slowly(hub, begun)]
    both = [start(binary, settings) for _ in range(2)]
    wait_for(lambda: begun)
    time.sleep(0.3)
    assert all(p.poll() is None for p in both)
    begun.clear()
    assert [p.wait(30) for p in both] == [0, 0], [p.communicate() for p in both]
    outputs = [p.communicate()[0] for p in both]
    assert outputs[0] == outputs[1] and cache.is_right() and len(hub.asked("store")) == 1


def test_waits_for_whoever_holds_the_lock(binary, settings, cache):
    """As huggingface_hub locks: flock on the same file."""
    lock = cache.home / "hub" / ".locks" / "models--test--m" / f"{SUM}.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = start(binary, settings)
        time.sleep(0.5)
        assert waiting.poll() is None and not cache.part().exists()
    assert waiting.wait(30) == 0 and cache.is_right()
    waiting.communicate()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_ended_in_the_middle(hub, binary, settings, run, cache, how):
    begun = []
    settings["HF_HUB_DOWNLOAD_TIMEOUT"] = "30"
    hub.file_faults = [slowly(hub, begun)]
    child = start(binary, settings)
    wait_for(lambda: begun and cache.part().exists() and cache.part().stat().st_size >= MEGABYTE)
    child.send_signal(how)
    out, err = child.communicate(timeout=10)
    begun.clear()
    assert out == b"" and child.returncode == (1 if how == signal.SIGINT else -how)
    if how == signal.SIGINT:
        assert b"cancelled" in err and err.count(b"\n") == 1
    left = cache.part().read_bytes()
    assert DATA.startswith(left) and not cache.file().exists()
    good(run("pull", "hf:test/m"))
    assert cache.is_right() and hub.ranges()[-1] == f"bytes={len(left)}-"


# ---- TLS


@pytest.fixture
def certificate(tmp_path):
    if not shutil.which("openssl"):
        pytest.skip("no openssl command")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
                    "-out", chain, "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
                   check=True, capture_output=True)
    return key, chain


def test_https(hub, run, cache, certificate):
    """Certificates are checked, and nobody is sent from https to http."""
    key, chain = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    hub.servers[0].socket = context.wrap_socket(hub.servers[0].socket, server_side=True)
    hub.endpoint = hub.endpoint.replace("http:", "https:")
    env = {"HF_ENDPOINT": hub.endpoint}
    refuses(run("pull", "hf:test/m", env=env), "certificate", code=1)
    refuses(run("pull", "hf:test/m", env={**env, "SSL_CERT_FILE": str(chain)}), "not followed")
    hub.redirect = f"{hub.endpoint}/again"
    hub.api_faults = [None, None, None, lambda handler: hub.send_file(handler, DATA, 0)]
    good(run("pull", "hf:test/m", env={**env, "SSL_CERT_FILE": str(chain)}))
    assert cache.is_right()
