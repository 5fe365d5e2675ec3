"""Does every file include and call only what tests/tools/layers.txt allows, and do no files or folders go in circles?

A file depends on what it includes with quotes, and a .c file besides on every other .c file that defines a function or
an object which it names. So a circle shows although headers guard themselves: a.c calls b.c, and b.c calls a.c.

usage: check_includes.py ROOT [TABLE]    TABLE: another than ROOT/tests/tools/layers.txt
Prints one line a breach, FILE:LINE: what is wrong. Exit status 0: none; 1: breaches; 2: the table itself is wrong.
"""
import collections
import pathlib
import re
import sys

Edge = collections.namedtuple("Edge", "path line what target includes")


class TableError(Exception):
    pass


class Table:
    """layers: folder or file -> its row, counted from the bottom; public: folders that include public headers and what
    `only` names; only: folder -> folders it may use; circles: (line, files)."""

    def __init__(self, path):
        self.name, self.layers, self.only, self.public, self.circles = str(path), {}, {}, [], []
        section, row = None, 0
        for number, line in enumerate(path.read_text().splitlines(), 1):
            line = line.split("#")[0].rstrip()
            if not line:
                continue
            if not line[0].isspace():
                section = line.rstrip(":")
                if section not in ("layers", "public", "only", "circles"):
                    raise TableError(f"{path}:{number}: unknown section '{section}'")
            elif section == "public":
                self.public += line.split()
            elif section == "layers":
                self.layers.update((folder, row) for folder in line.split())
                row += 1
            else:
                left, _, right = (part.strip() for part in line.partition(":"))
                if not left or not right:
                    raise TableError(f"{path}:{number}: expected 'FOLDER: FOLDERS' or 'FILES: REASON'")
                if section == "only":
                    self.only[left] = right.split()
                else:
                    self.circles.append((number, frozenset(left.split())))

    def place_of(self, path):
        """The file itself if the table has it, else the longest of the table's folders that holds it."""
        whole = pathlib.PurePosixPath(path)
        return next((str(p) for p in (whole, *whole.parents) if str(p) in self.layers), None)

    def refusal(self, user, used, includes):
        if user == used or (user in self.public and not includes):
            return None  # calls of what no included header declares do not compile
        if user in self.public:
            allowed = self.layers[used] == 0 or used in self.only.get(user, [])
            return None if allowed else f"{user} may include public headers only"
        if used in self.only.get(user, [used]) and self.layers[used] < self.layers[user]:
            return None
        if user in self.only:
            return f"{user} may use {' and '.join(self.only[user])} only"
        return f"{user} may use folders below it only, and {used} is not below it"


# ---- reading C ------------------------------------------------------------------------------------------------------


def blank(match):
    return re.sub(r"[^\n]", " ", match.group(0))


def without_comments(text):
    """Comments and characters become blanks; strings stay, for includes; lines stay where they are."""
    return re.sub(r"/\*.*?\*/|//[^\n]*|'(?:\\.|[^'\\\n])+'|(\"(?:\\.|[^\"\\\n])*\")",
                  lambda m: m.group(0) if m.group(1) else blank(m), text, flags=re.S)


def without_strings(text):
    return re.sub(r"\"(?:\\.|[^\"\\\n])*\"", blank, text)


def outside_braces(text):
    """What stands inside of braces becomes blanks."""
    out, depth = [], 0
    for c in text:
        depth -= c == "}"
        out.append(c if depth <= 0 or c == "\n" else " ")
        depth += c == "{"
    return "".join(out)


DEFINITION = re.compile(r"^(?!static\b|typedef\b|extern\b|struct\s+\w+\s*\{|enum\b|return\b)[A-Za-z_][^;{}()=]*?\b(\w+)"
                        r"(?:\s*\((?:[^(){};]|\([^()]*\))*\)\s*\{|(?:\[[^\]]*\])*\s*(?:=|;))", re.M)


def definitions(text):
    """External functions and objects that a .c file defines: they begin in the first column and are not static."""
    bare = re.sub(r"^[ \t]*#(?:\\\n|[^\n])*", blank, text, flags=re.M)
    return {m.group(1) for m in DEFINITION.finditer(outside_braces(bare))}


def line_of(text, at):
    return text.count("\n", 0, at) + 1


# ---- the graph ------------------------------------------------------------------------------------------------------


class Tree:
    def __init__(self, root, table):
        self.root, self.table, self.edges, self.breaches = root, table, [], []
        tops = sorted({folder.split("/")[0] for folder in table.layers})
        found = sorted(p for top in tops for p in (root / top).rglob("*.[ch]"))
        self.text = {p.relative_to(root).as_posix(): without_comments(p.read_text(errors="replace")) for p in found}
        for path in self.text:
            if table.place_of(path) is None:
                self.breaches.append((path, 1, "its folder is in no row of the table"))
        self.add_includes()
        self.add_uses()

    def resolve(self, user, name):
        beside = (pathlib.PurePosixPath(user).parent / name).as_posix()
        return next((p for p in (f"src/{name}", f"include/{name}", beside, name) if p in self.text), None)

    def add_includes(self):
        for path, text in self.text.items():
            for m in re.finditer(r"^[ \t]*#[ \t]*include[ \t]+[\"<]([^\">]+)[\">]", text, re.M):
                target = self.resolve(path, m.group(1))
                if target:
                    self.edges.append(Edge(path, line_of(text, m.start()), f"includes {target}", target, True))

    def add_uses(self):
        owners = {}
        for path, text in self.text.items():
            if path.endswith(".c"):
                for name in definitions(without_strings(text)):
                    owners.setdefault(name, set()).add(path)
        for path, text in self.text.items():
            if not path.endswith(".c"):
                continue
            seen, bare = set(), without_strings(text)
            for m in re.finditer(r"(?<![\w.>])[A-Za-z_]\w*_\w+", bare):
                name = m.group(0)
                if name in seen or len(owners.get(name, ())) != 1 or path in owners[name]:
                    continue
                seen.add(name)
                (target,) = owners[name]
                self.edges.append(Edge(path, line_of(bare, m.start()), f"uses {name} of {target}", target, False))

    def check_layers(self):
        for e in self.edges:
            user, used = self.table.place_of(e.path), self.table.place_of(e.target)
            why = user and used and self.table.refusal(user, used, e.includes)
            if why:
                self.breaches.append((e.path, e.line, f"{e.what}: {why}"))

    def check_circles(self):
        placed = [(e, self.table.place_of(e.path), self.table.place_of(e.target)) for e in self.edges]
        self.report_circles([(e, a, b) for e, a, b in placed if a and b and a not in self.table.public], "folders", set())
        allowed = {files for _, files in self.table.circles}
        found = self.report_circles([(e, e.path, e.target) for e in self.edges], "files", allowed)
        for number, files in self.table.circles:
            if files not in found:
                self.breaches.append((self.table.name, number, f"there is no such circle: {names(files)}"))

    def report_circles(self, edges, kind, allowed):
        found = components((a, b) for _, a, b in edges)
        for circle in found - allowed:
            told = set()
            for e, a, b in edges:
                if a != b and {a, b} <= circle and (a, b) not in told:
                    told.add((a, b))
                    self.breaches.append((e.path, e.line, f"{e.what}: {kind} in a circle: {names(circle)}"))
        return found


def names(circle):
    shown = sorted(circle)
    return ", ".join(shown[:6]) + (f" and {len(shown) - 6} more" if len(shown) > 6 else "")


def components(pairs):
    """Sets of nodes that reach each other, of two and more (Tarjan, without recursion)."""
    graph = {}
    for a, b in pairs:
        graph.setdefault(a, set()).add(b)
        graph.setdefault(b, set())
    index, low, stack, on, found = {}, {}, [], set(), set()
    for start in graph:
        if start in index:
            continue
        work = [(start, iter(sorted(graph[start])))]
        index[start] = low[start] = len(index)
        stack.append(start)
        on.add(start)
        while work:
            node, rest = work[-1]
            following = next(rest, None)
            if following is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    members = set()
                    while node not in members:
                        members.add(stack.pop())
                    on -= members
                    if len(members) > 1:
                        found.add(frozenset(members))
            elif following not in index:
                index[following] = low[following] = len(index)
                stack.append(following)
                on.add(following)
                work.append((following, iter(sorted(graph[following]))))
            elif following in on:
                low[node] = min(low[node], index[following])
    return found


def main(arguments):
    root = pathlib.Path(arguments[0])
    try:
        table = Table(pathlib.Path(arguments[1]) if len(arguments) > 1 else root / "tests/tools/layers.txt")
    except (OSError, TableError) as error:
        print(error)
        return 2
    tree = Tree(root, table)
    tree.check_layers()
    tree.check_circles()
    for path, line, what in sorted(set(tree.breaches)):
        print(f"{path}:{line}: {what}")
    print(f"{len(tree.text)} files, {len(set(tree.breaches))} breaches, {len(table.circles)} circles allowed")
    return 1 if tree.breaches else 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1:]))
