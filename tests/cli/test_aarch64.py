"""Which kernels a 64-bit ARM processor gets: for a binary that runs under qemu (make cross-test), which can be any of them."""
import os
import subprocess

import pytest

pytestmark = pytest.mark.check

# In qemu's words: armv8-a; with dot products; with everything.
PROCESSORS = {"cortex-a72": "neon", "neoverse-n1": "neon-dotprod", "max": "neon-i8mm"}
ORDER = ["scalar", "neon", "neon-dotprod", "neon-i8mm"]


def run(binary, processor, *arguments):
    return subprocess.run([binary, *arguments], env={**os.environ, "QEMU_CPU": processor}, capture_output=True, timeout=120,
                          text=True, check=False)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_best_is_picked(binary, processor):
    done = run(binary, processor, "devices")
    assert done.returncode == 0
    row = next(line for line in done.stdout.splitlines() if line.startswith("cpu "))
    assert f"hetero {PROCESSORS[processor]} " in row
    assert "ARM processor, implementer 0x41, part 0xd49" in row # of the /proc/cpuinfo that tools/cross.sh writes


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("isa", [*ORDER, "avx2"])
def test_forced(binary, model, processor, isa):
    """What the processor has computes, and without an illegal instruction; what it has not is refused."""
    done = run(binary, processor, "score", model, "--ids", "1,2,3,4,5",
               "--devices", f"cpu:isa={isa}")
    if isa in ORDER[:ORDER.index(PROCESSORS[processor]) + 1]:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1 and f"this processor has no {isa}" in done.stderr
