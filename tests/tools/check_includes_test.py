"""Does check_includes.py see what it is there for? Small trees with a breach planted in each, and the real one with three.

usage: check_includes_test.py ROOT
"""
import contextlib
import io
import pathlib
import shutil
import sys
import tempfile
import unittest

import check_includes

ROOT = pathlib.Path(sys.argv.pop(1) if len(sys.argv) > 1 else ".")
TABLE = """
layers:
    include
    src/low
    src/left src/right
    src/top
    src/top/list.c   # a file may have a row of its own
    cli
public:
    cli
only:
    src/right: include
circles:
"""
CLEAN = {
    "include/hetero.h": "int ht_public(void);\n",
    "src/low/low.h": "int ht_low_add(int a);\nextern const int ht_low_table[];\n",
    "src/low/low.c": '#include "low/low.h"\nstatic int ht_same_name(void) {\n    return 1;\n}\n'
                     "const int ht_low_table[] = {1, 2};\nint ht_low_add(int a) {\n    return a + ht_same_name();\n}\n",
    "src/left/left.c": '#include "low/low.h"\nint ht_left_get(int a,\n                int (*f)(int)) {\n'
                       "    return ht_low_add(a);\n}\n",
    "src/top/top.h": "int ht_public(void);\n",
    "src/top/top.c": '#include "top/top.h"\n#include "low/low.h"\nint ht_public(void) {\n    return ht_low_add(1);\n}\n',
    "src/top/list.c": '#include "top/top.h"\nint ht_list_all(void) {\n    return ht_public();\n}\n',
    "cli/main.c": '#include "hetero.h"\nint main(void) {\n    return ht_public();\n}\n',
}


def run(root, table=None):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = check_includes.main([str(root)] + ([str(table)] if table else []))
    return status, out.getvalue()


class Planted(unittest.TestCase):
    def tree(self, changes, table=TABLE):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        root = pathlib.Path(folder.name)
        for name, text in {**CLEAN, **changes, "tests/tools/layers.txt": table}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return run(root)

    def breach(self, changes, *wanted, table=TABLE):
        status, text = self.tree(changes, table)
        self.assertEqual(status, 1, text)
        for line in wanted:
            self.assertIn(line, text)

    def test_clean(self):
        status, text = self.tree({})
        self.assertEqual(status, 0, text)

    def test_includes_what_lies_above(self):
        self.breach({"src/low/low.h": '\n#include "top/top.h"\n'}, "src/low/low.h:2: includes src/top/top.h: src/low may")

    def test_calls_what_lies_above_without_its_header(self):
        self.breach({"src/low/low.c": "int ht_public(void);\nint ht_low_add(int a) {\n    return ht_public();\n}\n"},
                    "src/low/low.c:1: uses ht_public of src/top/top.c: src/low may", "folders in a circle: src/low, src/top")

    def test_beside(self):
        self.breach({"src/right/right.c": "int x;\nint y = sizeof ht_left_get;\n"},
                    "src/right/right.c:2: uses ht_left_get of src/left/left.c: src/right may use include only")

    def test_only_narrows(self):
        self.breach({"src/right/right.c": '#include "low/low.h"\n'}, "src/right/right.c:1: includes src/low/low.h")

    def test_public_headers_only(self):
        self.breach({"cli/main.c": '#include "low/low.h"\nint main(void) {\n    return 0;\n}\n'}, "cli/main.c:1: includes")

    def test_public_headers_and_a_folder(self):
        table = TABLE.replace("src/right: include\n", "src/right: include\n    cli: src/low include\n")
        changes = {"cli/main.c": '#include "low/low.h"\n#include "top/top.h"\nint main(void) {\n    return 0;\n}\n'}
        self.breach(changes, "cli/main.c:2: includes src/top/top.h", table=table)
        self.assertNotIn("cli/main.c:1", self.tree(changes, table)[1])

    def test_object(self):
        self.breach({"src/low/use.c": "int ht_use(void) {\n    return ht_low_table[0];\n}\n",
                     "src/low/low.c": "const int ht_low_table[] = {1};\nint ht_b(void) {\n    return ht_use();\n}\n"},
                    "src/low/use.c:2: uses ht_low_table of src/low/low.c: files in a circle: src/low/low.c, src/low/use.c",
                    "src/low/low.c:3: uses ht_use of src/low/use.c: files in a circle")

    def test_file_with_a_row_of_its_own(self):
        self.breach({"src/top/more.c": "int ht_more(void) {\n    return ht_list_all();\n}\n"},
                    "src/top/more.c:2: uses ht_list_all of src/top/list.c: src/top may")

    def test_headers_in_a_circle(self):
        self.breach({"src/low/a.h": '#include "low/b.h"\n', "src/low/b.h": '#include "low/a.h"\n'},
                    "src/low/a.h:1: includes src/low/b.h: files in a circle: src/low/a.h, src/low/b.h")

    def test_comments_strings_and_members_are_no_uses(self):
        status, text = self.tree({"src/low/low.c": "/* ht_public */ // ht_public\nint ht_low_add(int a) {\n"
                                                   '    return *"ht_public" + s.ht_public + p->ht_public;\n}\n'})
        self.assertEqual(status, 0, text)

    def test_circle_with_a_reason(self):
        changes = {"src/low/a.c": "int ht_a(void) {\n    return ht_b();\n}\n",
                   "src/low/b.c": "int ht_b(void) {\n    return ht_a();\n}\n"}
        self.breach(changes, "src/low/a.c:2: uses ht_b")
        allowed = TABLE + "    src/low/a.c src/low/b.c: they take turns\n"
        self.assertEqual(self.tree(changes, allowed)[0], 0)
        self.breach({}, "no such circle: src/low/a.c, src/low/b.c", table=allowed)
        self.assertEqual(self.tree(changes, TABLE + "    src/low/a.c src/low/b.c:\n")[0], 2)

    def test_folder_in_no_row(self):
        self.breach({"src/new/new.c": "int x;\n"}, "src/new/new.c:1: its folder is in no row")

    def test_the_real_tree(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            for top in ("include", "src", "cli"):
                shutil.copytree(ROOT / top, root / top)
            lines = {}
            for name, line in {"src/base/clock.h": '#include "engine/engine.h"\n', "cli/cli.h": '#include "model/model.h"\n',
                               "src/plan/cost.c": '#include "device/device.h"\n'}.items():
                text = (root / name).read_text() + line
                (root / name).write_text(text)
                lines[name] = text.count("\n")
            status, text = run(root, ROOT / "tests/tools/layers.txt")
            self.assertEqual(status, 1)
            for name, number in lines.items():
                self.assertIn(f"{name}:{number}: includes", text)


if __name__ == "__main__":
    unittest.main(verbosity=0)
