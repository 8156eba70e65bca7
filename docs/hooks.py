"""Pages of the documentation that are made from other files when it is built.

``CHANGELOG.md`` becomes a page, and so does the notebook in ``examples/``: as code alone, or,
with ``RUN_EXAMPLES=1`` in the environment as `make docs` sets it, with what running it prints and draws.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import jupytext
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "first_steps.py"
PAGE = "first-steps.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages; mkdocs calls this once it knows the files of the folder."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "changelog.md", content=changelog))
    notebook = jupytext.read(NOTEBOOK)
    if os.environ.get("RUN_EXAMPLES") == "1":
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}}).execute()
    parts: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.get("outputs", []):
            parts += _shown(output, files, config)
    files.append(File.generated(config, PAGE, content="\n\n".join(parts) + "\n"))
    return files


def _shown(output: Any, files: Files, config: MkDocsConfig) -> list[str]:
    """Return an output as Markdown; progress, on the standard error stream, is left out."""
    if output.output_type == "stream":
        return [f"```text\n{output.text.rstrip()}\n```"] if output.name == "stdout" else []
    data = output.get("data", {})
    if "image/png" in data:
        name = f"first-steps-{sum('first-steps-' in file.src_uri for file in files) + 1}.png"
        files.append(File.generated(config, name, content=base64.b64decode(data["image/png"])))
        return [f"![]({name})"]
    return [f"```text\n{data['text/plain']}\n```"] if "text/plain" in data else []
