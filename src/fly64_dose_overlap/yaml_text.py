"""YAML text read as DVC reads it, and values shown in messages."""

from __future__ import annotations

import re
import reprlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml.resolver import implicit_resolvers

from fly64_dose_overlap.errors import MissingFileError, StudyError

MAX_YAML_BYTES = 64 * 1024
"""Of a file; params.yaml has 4 KiB."""
_TAG = "tag:yaml.org,2002:"

MAX_SHOWN = 120
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 3
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxset = _SHORT.maxtuple = 8
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def shown(value: Any) -> str:
    """Return a value for a message, shortened."""
    try:
        text = _SHORT.repr(value)
    except ValueError:
        # Python writes no whole number of more than 4300 digits.
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


class _PlainMappings(yaml.constructor.SafeConstructor):
    """Read mappings as they stand: a key that comes twice, or another mapping merged in, is refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.tag == f"{_TAG}merge":
                problem = "merge keys are not understood"
            elif not isinstance(key := self.construct_object(key_node, deep=True), str):
                problem = f"a key must be text, found {shown(key)}"
            elif key in seen:
                problem = f"the key {shown(key)} comes twice"
            else:
                seen.add(key)
                continue
            raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        return super().construct_mapping(node, deep)


class _PlainLoader(_PlainMappings, yaml.SafeLoader): ...


class _FastLoader(_PlainMappings, yaml.CSafeLoader):
    """By libyaml: ten times as fast, which a long dvc.lock needs, but it says less about what is wrong."""


# Scalars are those of YAML 1.2, from DVC's own parser. PyYAML's are of YAML 1.1, to which 042 is 34,
# 1:30 is 90, on is true, and 2e-05 is text.
def _whole_number(loader: Any, node: yaml.ScalarNode) -> int:
    digits = loader.construct_scalar(node).replace("_", "")
    return int(digits, 0 if digits.lstrip("-+")[:2] in ("0b", "0o", "0x") else 10)


_PlainMappings.add_constructor(f"{_TAG}int", _whole_number)
for _loader in (_PlainLoader, _FastLoader):
    _loader.yaml_implicit_resolvers = {}
    for _versions, _tag, _spelling, _first in implicit_resolvers:
        if (1, 2) in _versions:
            _loader.add_implicit_resolver(_tag, _spelling, _first)


def parse_yaml(text: str, *, where: str) -> Any:
    """Return the content of YAML text as DVC reads it; nothing is executed, and ``where`` names it in errors.

    Raises
    ------
    StudyError
        If it is not YAML, names a version of YAML, or a key comes twice in one mapping.
    """
    if re.search("^%YAML", text, re.MULTILINE):
        raise StudyError(where, "names a version of YAML, which changes what values mean", "delete %YAML")
    try:
        with suppress(Exception):
            return yaml.load(text, _FastLoader)
        return yaml.load(text, _PlainLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        raise StudyError(where, f"is not valid YAML ({error.problem}{line})") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # PyYAML meets values that do not fit their tag with whatever its parsing ends in.
        raise StudyError(where, f"is not valid YAML ({type(error).__name__}: {error})") from None


def read_yaml(path: Path, if_missing: str) -> Any:
    """Return the content of a YAML file; ``if_missing`` is what to do where it is not there.

    Raises
    ------
    MissingFileError
        If the file is not there.
    StudyError
        If it cannot be read, is too long, or is not YAML as `parse_yaml` reads it.
    """
    try:
        if path.exists() and not path.is_file():
            raise StudyError(str(path), "is not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_YAML_BYTES + 1)
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise MissingFileError(str(path), "no such file", if_missing) from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(str(path), f"cannot be read ({error})") from None
    if len(content) > MAX_YAML_BYTES:
        raise StudyError(str(path), f"is longer than {MAX_YAML_BYTES // 1024} KiB")
    return parse_yaml(text, where=str(path))


def at(content: Any, dotted: str) -> Any:
    """Return what stands at a dotted name, ``overlap.views``, in nested mappings; None if nothing does."""
    for key in dotted.split("."):
        content = content.get(key) if isinstance(content, dict) else None
    return content
