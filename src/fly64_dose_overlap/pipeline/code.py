"""What a method's results depend on besides data and settings: its code."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions, version
from importlib.util import resolve_name
from inspect import getfile
from pathlib import Path

import fly64_dose_overlap
from fly64_dose_overlap.methods.registry import method_class

PACKAGE = "fly64_dose_overlap"
ROOT = Path(fly64_dose_overlap.__file__).parent
LEFT_OUT = frozenset(
    f"{PACKAGE}.{name}" for name in ("errors", "progress", "timing", "config", "section", "yaml_text")
)
"""Modules that decide what a user reads, and no result.

Of ``config`` a method has the types that its settings are checked against. The values
themselves are parameters, all of them given by ``params.yaml``, on which stages depend.
"""
LIBRARIES = ("numpy", "scipy", "torch")


def code_of_method(name: str) -> dict[str, str]:
    """Return the SHA-256 of every module that a method may import, and versions of libraries.

    Modules of this package are followed through their import statements, in whichever
    function. Of a method that another package brings its own module counts, and the version of its
    distribution. What the stages do around every method, reading and writing, is among their
    dependencies in ``dvc.yaml``.
    """
    found = method_class(name)
    module = found.__module__
    code = {library: version(library) for library in LIBRARIES}
    top = module.split(".")[0]
    if top != PACKAGE:
        for distribution in packages_distributions().get(top, []):
            code[distribution] = version(distribution)
    elif any(base.__module__.endswith(".ptychi") for base in found.__mro__):
        code["ptychi"] = version("ptychi")
    files = imported_files(module, Path(getfile(found)))
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
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        pending.extend(_imports(path, package))
    return found


def _imports(file: Path, package: str) -> Iterator[tuple[str, Path]]:
    """Yield the modules of this package that a file of ``package`` may import, and what they lie in.

    The package itself is none: it only says its version, and hands out what a user asks for.
    """
    for name in _names_imported(file.read_text(encoding="utf-8"), package):
        parts = name.split(".")
        if parts[0] != PACKAGE:
            continue
        for end in range(2, len(parts) + 1):
            stem = ROOT.joinpath(*parts[1:end])
            for path in (stem.with_suffix(".py"), stem / "__init__.py"):
                if path.is_file():
                    yield ".".join(parts[:end]), path


@cache
def _names_imported(source: str, package: str) -> tuple[str, ...]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = resolve_name("." * node.level + (node.module or ""), package)
            names.update(f"{origin}.{alias.name}" for alias in node.names)
    return tuple(sorted(names))
