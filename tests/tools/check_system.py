#!/usr/bin/env python3
"""usage: check_system.py ROOT

Whatever differs by operating system goes through src/base/os.h: no file of src and cli but src/base/os_* includes a header
that only some systems have, or calls what such a header declares by a prototype of its own. Names file and line of each
breach. It first plants one in a folder of its own, and fails if that is not found."""
import pathlib
import re
import sys
import tempfile

FOLDERS = ("src", "cli")
OURS = re.compile(r"^src/base/os_\w+\.c$")
# C's own headers, and those that every compiler for every system brings along.
ALLOWED = {"assert.h", "complex.h", "ctype.h", "errno.h", "fenv.h", "float.h", "inttypes.h", "iso646.h", "limits.h", "locale.h",
           "math.h", "setjmp.h", "stdalign.h", "stdarg.h", "stdatomic.h", "stdbool.h", "stddef.h", "stdint.h", "stdio.h", "stdlib.h",
           "stdnoreturn.h", "string.h", "strings.h", "tgmath.h", "threads.h", "time.h", "uchar.h", "wchar.h", "wctype.h",
           "pthread.h", "getopt.h",
           # of processors, not of systems
           "immintrin.h", "arm_neon.h", "cpuid.h",
           # of the C library, behind its own #ifdef
           "malloc.h",
           # libraries that we need
           "jansson.h", "pcre2.h", "utf8proc.h", "histedit.h", "CL/cl.h", "curl/curl.h", "openssl/evp.h"}
INCLUDE = re.compile(r'^\s*#\s*include\s*<([^>]+)>')
DECLARED = re.compile(r"^\s*(?:extern\b.*\b(?:environ)\b|#\s*define\s+_(?:GNU|POSIX_C|XOPEN)_SOURCE\b)")


def breaches(root):
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.[ch]")):
            name = path.relative_to(root).as_posix()
            if OURS.match(name):
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                found = INCLUDE.match(line)
                if found and found[1] not in ALLOWED:
                    yield f"{name}:{number}: <{found[1]}> is not on every system: use base/os.h"
                elif DECLARED.match(line):
                    yield f"{name}:{number}: '{line.strip()}' asks for what not every system has: use base/os.h"


def finds_a_planted_one():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        (root / "src" / "base").mkdir(parents=True)
        (root / "cli").mkdir()
        (root / "src" / "base" / "os_posix.c").write_text("#include <unistd.h>\n", encoding="utf-8")
        (root / "cli" / "main.c").write_text("#include <stdio.h>\n# include <sys/stat.h>\n", encoding="utf-8")
        return [line.split(": ")[0] for line in breaches(root)] == ["cli/main.c:2"]


def main():
    if not finds_a_planted_one():
        print("a planted breach was not found: the check itself is broken")
        return 1
    found = list(breaches(pathlib.Path(sys.argv[1])))
    print("\n".join(found) if found else "nothing outside src/base/os_* asks for a system of its own")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
