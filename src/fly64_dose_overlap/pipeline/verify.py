"""Whether the bytes in DVC's cache are still those that were put there.

DVC takes an object that only its owner may read for whole and never hashes it again:
``dvc checkout`` then puts rotten bytes into the working tree, ``dvc status`` calls them up
to date and ``dvc push`` sends them to the remote storage.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fly64_dose_overlap.commands import run_command
from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.lock import LOCK_NAME, object_path, parse_lock, read_lock
from fly64_dose_overlap.progress import track

FOLDER_SUFFIX = ".dir"
TREE = "the working tree"
_DVCS_OWN = ("refs/exps/exec/", "refs/exps/stash", "refs/exps/celery/")
"""References of DVC that are no experiments."""


class Use(NamedTuple):
    """Where an object of the cache is named: the output, its stage, and whose dvc.lock it is."""

    path: str
    stage: str
    revision: str


class Rot(NamedTuple):
    """A file that does not have the checksum it is known by: of the cache or of the working tree."""

    path: Path
    uses: list[Use]
    problem: str

    def describe(self) -> str:
        """Return the file, what is wrong with it, and what it belongs to."""
        use = self.uses[0]
        more = f" and {len(self.uses) - 1} more" if len(self.uses) > 1 else ""
        return f"{self.path}: {self.problem}; it is {use.path} of stage {use.stage}, {use.revision}{more}"


class Verified(NamedTuple):
    """What `verify_cache` found: files hashed, their bytes, and those that are rotten."""

    files: int
    size: int
    rotten: tuple[Rot, ...]


Uses = defaultdict[str, list[Use]]
"""Objects of the cache, by checksum."""


def verify_cache(root: Path) -> Verified:
    """Hash every object of the local cache that is named by a dvc.lock.

    Looked at are the dvc.lock of the working tree, of the last commit and of every
    experiment, and the files of the working tree that DVC would not hash again itself.
    Objects that are not in the cache are no rot: DVC says so and fetches them. ``root`` is the
    folder of dvc.yaml.

    Raises
    ------
    StudyError
        If there is no repository, or a dvc.lock is damaged.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    objects = named_objects(root)
    try:
        repo = Repo(str(root))
    except DvcException as error:
        raise StudyError(str(root), f"DVC cannot read the repository ({error})") from None
    with repo:
        cache = Path(repo.cache.local.path)
        for checksum, uses in list(objects.items()):
            path = object_path(cache, checksum)
            if checksum.endswith(FOLDER_SUFFIX) and path.is_file() and not _compare(path, checksum, uses):
                for member in json.loads(path.read_bytes()):
                    inside = [use._replace(path=f"{use.path}/{member['relpath']}") for use in uses]
                    objects[member["md5"]] += inside
        files = [(object_path(cache, checksum), checksum, uses) for checksum, uses in objects.items()]
        files = [entry for entry in files if entry[0].is_file()]
        files += _believed_unchanged(repo, root, objects)
        tracked = track(files, total=len(files), label="verify", unit="file")
        rotten = tuple(rot for entry in tracked if (rot := _compare(*entry)))
    return Verified(len(files), sum(path.stat().st_size for path, *_ in files), rotten)


def named_objects(root: Path) -> Uses:
    """Return what each dvc.lock names, by checksum: those of the tree, the commit and the experiments."""
    found: Uses = defaultdict(list)
    for text, revision in _locks(root).items():
        for stage, locked in parse_lock(text, where=f"{LOCK_NAME} of {revision}").items():
            for out in locked.outs:
                if out.md5:
                    found[out.md5].append(Use(out.path, stage, revision))
    return found


def _locks(root: Path) -> dict[str, str]:
    """Return every different dvc.lock with the name of the first revision that has it."""
    found = {read_lock(root / LOCK_NAME): TREE}
    listing = run_command("git", "for-each-ref", "--format=%(refname)", "refs/exps", root=root)
    experiments = [name for name in listing.split() if not name.startswith(_DVCS_OWN)]
    for reference in ("HEAD", *experiments):
        if run_command("git", "ls-tree", reference, "--", LOCK_NAME, root=root):
            text = run_command("git", "show", f"{reference}:./{LOCK_NAME}", root=root)
            name = f"experiment {reference.rpartition('/')[2]}"
            found.setdefault(text, "the last commit" if reference == "HEAD" else name)
    return found


def _believed_unchanged(repo: Any, root: Path, objects: Uses) -> Iterator[tuple[Path, str, list[Use]]]:
    """Yield files of the working tree that DVC takes for an object because of their time and size."""
    for checksum, uses in objects.items():
        for use in uses:
            path = root / use.path
            if use.revision == TREE and path.is_file():
                _, known = repo.state.get(str(path.absolute()), repo.fs)
                if known is not None and known.value == checksum:
                    yield path.relative_to(root), checksum, [use]


def _compare(path: Path, checksum: str, uses: list[Use]) -> Rot | None:
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "md5").hexdigest()
    except OSError as error:
        return Rot(path, uses, f"cannot be read ({error.strerror})")
    wanted = checksum.removesuffix(FOLDER_SUFFIX)
    if found == wanted:
        return None
    return Rot(path, uses, f"its {path.stat().st_size} bytes have the MD5 {found}, expected {wanted}")
