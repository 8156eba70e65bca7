"""No credential lies in a file that git keeps, nor can one easily land there."""

from __future__ import annotations

import configparser
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from dvc.config_schema import REMOTE_SCHEMAS

from study_copy import StudyCopy, make_study
from tiny_study import ROOT

DVC_SECRET = re.compile(r"key|secret|token|passw|passphrase|credential|auth|connection_string|cert|user")
NO_SECRET = {
    # Whether to ask, where no credential is, how to send one, and names of accounts without their keys.
    "allow_agent",
    "allow_anonymous_login",
    "ask_passphrase",
    "ask_password",
    "auth",
    "bearer_token_command",
    "exclude_environment_credential",
    "exclude_managed_identity_credential",
    "exclude_shared_token_cache_credential",
    "exclude_visual_studio_code_credential",
    "gdrive_use_service_account",
    "gdrive_service_account_user_email",
    "gss_auth",
    "kerb_ticket",
    "use_https",
    "user",
    "sse_kms_key_id",
}
SECRETS = sorted(
    {
        str(name)
        for schema in REMOTE_SCHEMAS.values()
        for name in schema
        if DVC_SECRET.search(str(name)) and str(name) not in NO_SECRET
    }
)
"""Options of DVC's remotes that hold a credential, or the path of one."""
PATTERNS = {
    "address with a password": re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@\"'<>${}]+:[^\s/@\"'<>${}]+@"),
    "private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "Amazon's access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "GitHub's token": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})\b"),
    "Google's key": re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"),
    "Azure's account key": re.compile(r"AccountKey=[A-Za-z0-9+/=]{40,}"),
    "assigned secret": re.compile(
        r"(?i)\b(?:password|passwd|secret_access_key|account_key|sas_token|session_token|api_?key)\b"
        r"\s*[=:]\s*[\"']?(?!PASSWORD|SECRET|KEY|None\b|str\b)[A-Za-z0-9+/_.~-]{8,}"
    ),
}
IGNORED = (".dvc/config.local", ".dvc/tmp/any", ".env")


def credentials(root: Path) -> list[str]:
    """Return what looks like a credential in the files that git keeps or would add."""
    found = list(_options(root / ".dvc/config"))
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listing.split("\0")):
        path = root / name
        if name == Path(__file__).relative_to(ROOT).as_posix() or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [f"{name}: {kind}" for kind in _kinds_in(text)]
    return found


@cache
def _kinds_in(text: str) -> list[str]:
    """Return the kinds of credentials in a text; most texts of one repository are those of its copies."""
    return [kind for kind, pattern in PATTERNS.items() if pattern.search(text)]


def _options(config: Path) -> Iterator[str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(config, encoding="utf-8")
    for section in parser.sections():
        for option in parser[section]:
            if option in SECRETS:
                yield f"{config.name}: option {option} of {section}"


def not_ignored(root: Path) -> list[str]:
    """Return the files for credentials that git would take up."""
    line = ["git", "check-ignore", "--quiet"]
    return [name for name in IGNORED if subprocess.run([*line, name], cwd=root, check=False).returncode != 0]


def test_the_repository_holds_no_credential() -> None:
    assert credentials(ROOT) == []


def test_files_for_credentials_are_ignored() -> None:
    assert not_ignored(ROOT) == []


def test_dvcs_own_schema_tells_which_options_are_secret() -> None:
    assert {"access_key_id", "secret_access_key", "password", "token", "keyfile", "connection_string"} <= set(
        SECRETS
    )
    assert not {"url", "jobs", "endpointurl", "region", "timeout", "user"} & set(SECRETS)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> StudyCopy:
    """Return a copy of the repository as a fresh clone has it."""
    return make_study(tmp_path_factory.mktemp("origin"))


@pytest.fixture
def study(origin: StudyCopy, tmp_path: Path) -> StudyCopy:
    return origin.clone_to(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        (
            ".dvc/config",
            "[core]\n    remote = s\n['remote \"s\"']\n    secret_access_key = x\n",
            "secret_access_key",
        ),
        (
            ".dvc/config",
            "['remote \"s\"']\n    url = webdavs://me:hunter2@host/study\n",
            "address with a password",
        ),
        (
            "docs/remotes.md",
            "dvc remote add s s3://b\nssh://user:pa55word@host/x\n",
            "address with a password",
        ),
        ("notes.txt", "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n", "private key"),
        ("src/new.py", 'KEY = "AKIAABCDEFGHIJKLMNOP"\n', "Amazon's access key"),
        ("src/new.py", 'PASSWORD = "correct-horse-battery"\n', "assigned secret"),
        ("params.yaml", "token: ghp_0123456789abcdefghijklmnopqrstuvwxyzAB\n", "GitHub's token"),
    ],
)
def test_a_planted_credential_is_found(study: StudyCopy, name: str, text: str, kind: str) -> None:
    path = study.root / name
    path.write_text(text, encoding="utf-8")
    found = credentials(study.root)
    assert len(found) == 1
    assert kind in found[0]


def test_what_docs_tell_to_type_stays_out_of_git(study: StudyCopy) -> None:
    study.dvc("remote", "add", "--local", "--default", "storage", "s3://bucket/study")
    study.dvc("remote", "modify", "--local", "storage", "secret_access_key", "hunter2hunter2")
    (study.root / ".env").write_text("AWS_SECRET_ACCESS_KEY=hunter2hunter2\n")
    assert "hunter2" in (study.root / ".dvc/config.local").read_text()
    assert study.changes() == []
    assert credentials(study.root) == []


def test_a_lost_rule_of_gitignore_is_noticed(study: StudyCopy) -> None:
    assert not_ignored(study.root) == []
    (study.root / ".dvc/.gitignore").write_text("")
    assert not_ignored(study.root) == [".dvc/config.local", ".dvc/tmp/any"]
