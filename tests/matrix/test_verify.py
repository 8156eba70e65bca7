"""A rotten object of DVC's cache is found, which DVC itself hands on without a word."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline import cli
from fly64_dose_overlap.pipeline.lock import object_path
from fly64_dose_overlap.pipeline.verify import named_objects, verify_cache
from study_copy import StudyCopy

CACHE = Path(".dvc/cache/files/md5")
PIPELINE = """
stages:
  number:
    cmd: python make.py
    params: [number]
    outs: [number.txt]
  folder:
    cmd: mkdir folder && cp number.txt folder/copy.txt && echo other > folder/other.txt
    deps: [number.txt]
    outs: [folder]
"""
MAKE = "open('number.txt', 'w').write(open('params.yaml').read() * 100)\n"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> StudyCopy:
    """Return a repository with two stages and one experiment, all of it pushed."""
    study = StudyCopy(tmp_path_factory.mktemp("origin") / "study")
    study.root.mkdir()
    for name, text in {"dvc.yaml": PIPELINE, "make.py": MAKE, "params.yaml": "number: 1\n"}.items():
        (study.root / name).write_text(text)
    study.git("init", "--quiet", "--initial-branch", "main")
    study.dvc("init", "--quiet")
    study.commit("start")
    study.dvc("exp", "run", "--quiet", "--name", "two", "-S", "number=2")
    study.git("checkout", "--quiet", "--", ".")
    study.dvc("repro", "--quiet")
    study.commit("one")
    return study


@pytest.fixture
def study(origin: StudyCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyCopy:
    study = origin.copy_to(tmp_path)
    for name, value in study.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(study.root)
    return study


def object_of(content: str) -> Path:
    checksum = hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()
    return object_path(CACHE, checksum)


ONE, TWO, OTHER = (object_of(content) for content in ("number: 1\n" * 100, "number: 2\n" * 100, "other\n"))


def spoil(path: Path, content: bytes = b"rotten") -> None:
    """Change a file as a disk would: it stays one that only its owner may read."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(mode)


def verify(*arguments: str) -> tuple[int, str]:
    """Return exit status and standard error of ``dose-overlap verify``."""
    found = CliRunner().invoke(cli.app, ["verify", *arguments])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found.exit_code, found.stderr


@pytest.mark.usefixtures("study")
def test_a_whole_cache_is_whole() -> None:
    found = verify_cache(Path.cwd())
    assert found.rotten == ()
    # Two numbers, two lists of folders, and one more file in them. The tree's own files are
    # not among them: DVC does not know these copies and hashes them itself.
    assert found.files == 2 + 2 + 1
    assert verify()[0] == 0


@pytest.mark.usefixtures("study")
def test_objects_are_known_by_what_names_them() -> None:
    named = named_objects(Path.cwd())
    uses = {use.revision for uses in named.values() for use in uses}
    assert uses == {"the working tree", "experiment two"}
    assert {use.stage for uses in named.values() for use in uses} == {"number", "folder"}


@pytest.mark.parametrize("content", [b"", b"rotten", b"number: 1\n" * 99])
@pytest.mark.parametrize(
    ("path", "what"),
    [
        (ONE, "number.txt of stage number, the working tree"),
        (TWO, "number.txt of stage number, experiment two"),
        (OTHER, "folder/other.txt of stage folder, the working tree"),
    ],
)
@pytest.mark.usefixtures("study")
def test_a_rotten_object_is_named(path: Path, content: bytes, what: str) -> None:
    spoil(path, content)
    status, printed = verify()
    (line,) = [line for line in printed.splitlines() if line.startswith("rotten: ")]
    assert f"{path}: its {len(content)} bytes have the MD5" in line
    assert what in line
    assert status == 1
    assert printed.splitlines()[-1].startswith("error: verify: 1 of 5 files are rotten; repeat with --remove")
    assert path.exists()


@pytest.mark.usefixtures("study")
def test_a_rotten_list_of_a_folder_is_named() -> None:
    path, _ = (object_path(CACHE, name) for name in named_objects(Path.cwd()) if name.endswith(".dir"))
    spoil(path, b"[]")
    assert f"{path}: its 2 bytes" in verify()[1]
    assert "folder of stage folder, the working tree" in verify()[1]


@pytest.mark.slow
def test_dvc_hands_a_rotten_object_on_and_verify_mends_it(study: StudyCopy, tmp_path: Path) -> None:
    study.use_remote(tmp_path / "store")
    study.dvc("push")
    spoil(ONE)
    for path in (Path("number.txt"), Path("folder/copy.txt")):
        path.unlink()
    study.dvc("checkout")
    assert Path("number.txt").read_text() == "rotten"
    assert "up to date" in study.dvc("status").stdout

    status, printed = verify("--remove")
    assert status == 1
    rotten = {line.split(":")[1].strip() for line in printed.splitlines() if line.startswith("rotten: ")}
    assert rotten == {str(ONE.absolute()), "number.txt", "folder/copy.txt"}
    assert "3 of 8 files are rotten and were removed; bring them back: dvc fetch && dvc checkout" in printed
    study.dvc("fetch")
    study.dvc("checkout")
    assert Path("number.txt").read_text() == "number: 1\n" * 100
    assert Path("folder/copy.txt").read_text() == "number: 1\n" * 100
    assert verify()[0] == 0


@pytest.mark.slow
def test_what_no_remote_has_is_made_again(study: StudyCopy) -> None:
    spoil(ONE)
    shutil.rmtree("folder")
    Path("number.txt").unlink()
    study.dvc("checkout")
    assert verify("--remove")[0] == 1
    study.dvc("repro")
    assert Path("folder/copy.txt").read_text() == "number: 1\n" * 100
    assert verify()[0] == 0


def test_a_file_that_the_user_changed_is_no_rot(study: StudyCopy) -> None:
    Path("number.txt").write_text("mine")
    assert verify()[0] == 0
    assert study.dvc("status").stdout


def test_without_a_repository_there_is_nothing_to_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r"dvc\.lock: no such file; make the data first"):
        verify_cache(Path.cwd())
