"""Print lines, files, packages and imports of the package at some revisions, as a table in Markdown.

    python docs/architecture.py 6640838 HEAD

Imports are those that grimp finds. A package is a folder at the top of the package; its arrows are
the ordered pairs of packages of which one imports the other; a circle is a set of modules each of
which reaches all others by imports.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp

PACKAGE = "fly64_dose_overlap"


def row(revision: str) -> str:
    """Return the row of a revision."""
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(["git", "archive", revision, "src"], capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        source = Path(folder) / "src"
        lengths = sorted(len(path.read_text().splitlines()) for path in source.rglob("*.py"))
        sys.path.insert(0, str(source))
        graph = grimp.build_graph(PACKAGE, cache_dir=None)
        sys.path.remove(str(source))
        packages = {path.parent.name for path in (source / PACKAGE).glob("*/__init__.py")}
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    arrows = {(package_of(name), package_of(other)) for name, others in imports.items() for other in others}
    arrows = {(a, b) for a, b in arrows if a != b and {a, b} <= packages}
    try:
        TopologicalSorter(imports).prepare()
        circle = "none"
    except CycleError as error:
        circle = ", ".join(name.removeprefix(f"{PACKAGE}.") for name in error.args[1][1:])
    figures = (
        sum(lengths),
        len(lengths),
        lengths[len(lengths) // 2],
        lengths[-1],
        len(packages),
        len(arrows),
        sum(map(len, imports.values())),
    )
    return f"| {revision} | {' | '.join(f'{figure:,}' for figure in figures)} | {circle} |"


def package_of(module: str) -> str:
    """Return the package at the top that a module lies in, or the module itself."""
    return [*module.split("."), ""][1]


if __name__ == "__main__":
    print("| revision | lines | files | median | longest | packages | arrows | imports | circle |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---|")
    for name in sys.argv[1:]:
        print(row(name))
