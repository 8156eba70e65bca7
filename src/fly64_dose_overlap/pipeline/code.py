"""What a method's results depend on besides data and settings: its code."""

from __future__ import annotations

import ast
import hashlib
import inspect
from importlib.metadata import packages_distributions, version
from pathlib import Path

import fly64_dose_overlap
from fly64_dose_overlap.methods.registry import method_class

PACKAGE = "fly64_dose_overlap"
ROOT = Path(fly64_dose_overlap.__file__).parent
LEFT_OUT = frozenset({f"{PACKAGE}.errors", f"{PACKAGE}.progress"})
"""Modules that decide what a user reads, and no result."""
LIBRARIES = ("numpy", "scipy", "torch")


def code_of_method(name: str) -> dict[str, str]:
    """Return the SHA-256 of every module that a method may import, and versions of libraries.

    Modules of this package are followed through their import statements, in whichever
    function. Of a method that another package brings its own module counts, and the version of its
    distribution.
    """
    found = method_class(name)
    module = found.__module__
    code = {library: version(library) for library in LIBRARIES}
    if module.split(".")[0] != PACKAGE:
        top = module.split(".")[0]
        for distribution in packages_distributions().get(top, []):
            code[distribution] = version(distribution)
    else:
        if any(base.__module__.endswith(".ptychi") for base in found.__mro__):
            code["ptychi"] = version("ptychi")
    files = imported_files(module, Path(inspect.getfile(found)))
    return code | {
        name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in sorted(files.items())
    }


def imported_files(module: str, file: Path) -> dict[str, Path]:
    """Return a module and all modules of this package that it may import, with their files."""
    found: dict[str, Path] = {}
    pending = [(module, file)]
    while pending:
        name, path = pending.pop()
        if name in found or name in LEFT_OUT:
            continue
        found[name] = path
        pending.extend(_imports(path))
    return found


def _imports(file: Path) -> list[tuple[str, Path]]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return [(name, path) for name in sorted(names) if (path := _file_of(name))]


def _file_of(module: str) -> Path | None:
    """Return the file of a module of this package that holds code, or None."""
    parts = module.split(".")
    if parts[0] != PACKAGE:
        return None
    path = ROOT.joinpath(*parts[1:]).with_suffix(".py") if len(parts) > 1 else ROOT / "__init__.py"
    return path if path.is_file() else None
