"""The remotes under test, as their services announce them, and the queue in a fresh clone."""

from __future__ import annotations

import hashlib
import os
import re
import time
from dataclasses import dataclass, field

from study_copy import TIMEOUT_S, Completed, StudyCopy

WRITABLE = ("folder", "ssh", "s3", "webdav")
READABLE = (*WRITABLE, "http")
CELLS = ("baseline", "sparse")
"""Views of the cells that the queue runs, at 1000 photons per frame; neither is the recorded cell."""
QUEUE_FORM = ("exp", "run", "--queue", "--pull", "--allow-missing", "-n", "m")


@dataclass(frozen=True)
class Remote:
    """Address and options of a remote, all kept in ``.dvc/config.local``.

    Attributes
    ----------
    url : str
        Address, with an absolute path.
    options : dict of str to str
        Values for ``dvc remote modify``: credentials and the like.
    """

    url: str
    options: dict[str, str] = field(default_factory=dict[str, str])

    def use(self, study: StudyCopy) -> None:
        """Make this the default remote of a repository, by the commands of docs/remotes.md."""
        study.dvc("remote", "add", "--local", "--force", "--default", "storage", self.url)
        for option, value in self.options.items():
            study.dvc("remote", "modify", "--local", "storage", option, value)


def remote_named(name: str) -> Remote:
    """Return a remote that run.sh has started."""
    return {
        "folder": lambda: Remote(announced("FOLDER")),
        "ssh": lambda: Remote(announced("SSH_URL"), {"keyfile": announced("SSH_KEY")}),
        "s3": lambda: Remote(
            "s3://bucket/study",
            {
                "endpointurl": announced("S3_ADDRESS"),
                "access_key_id": announced("S3_KEY"),
                "secret_access_key": announced("S3_SECRET"),
            },
        ),
        "webdav": lambda: Remote(
            announced("WEBDAV_URL"),
            {"user": announced("WEBDAV_USER"), "password": announced("WEBDAV_PASSWORD")},
        ),
        "http": lambda: Remote(announced("HTTP_URL")),
    }[name]()


def announced(name: str) -> str:
    """Return what run.sh says about a service."""
    return os.environ[f"SERVICES_{name}"]


def checksums(study: StudyCopy, *folders: str) -> dict[str, str]:
    """Return the MD5 of the files that DVC keeps, by path; ``folders`` are all that count if given."""
    return {
        name: hashlib.md5((study.root / name).read_bytes()).hexdigest()
        for name in study.data_files()
        if not name.endswith(".log") and name.startswith(folders or "")
    }


def cached(study: StudyCopy) -> set[str]:
    """Return the MD5 of everything in the cache."""
    files = (study.root / ".dvc" / "cache" / "files" / "md5").rglob("*")
    return {f"{path.parent.name}{path.name}" for path in files if path.is_file()}


def queue_cells(study: StudyCopy) -> None:
    """Queue one experiment per cell, with the flags that make its job fetch from the remote."""
    study.dvc(*QUEUE_FORM, "-S", "dose=1000", "-S", f"view={','.join(CELLS)}", "evaluate")


def run_queue(study: StudyCopy) -> dict[str, str]:
    """Run all queued experiments and return the state that each ended in.

    A worker of DVC's queue can stop while experiments still wait, on a busy machine; it is
    then started again, as a user would do.
    """
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        status = study.dvc("queue", "status").stdout
        states = dict(re.findall(r"^\w{7} +(m-\d+) .* (\w+)$", status, flags=re.MULTILINE))
        assert len(states) == len(CELLS), status
        if not {"Queued", "Running"} & set(states.values()):
            return states
        assert time.monotonic() < deadline, status
        if "Queued" in states.values() and "Running" not in states.values():
            start_worker(study)
        time.sleep(2)


def start_worker(study: StudyCopy) -> None:
    # The worker keeps the output streams of the command that starts it.
    study.run("sh", "-c", "dvc queue start > worker.log 2>&1")
    (study.root / "worker.log").unlink()


def log_of(study: StudyCopy, experiment: str) -> Completed:
    """Return what DVC has recorded of a job."""
    return study.dvc("queue", "logs", experiment)
