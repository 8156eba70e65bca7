"""Scans of up to 200,000 frames: memory of each phase, and growth of its time on the processor.

Each phase runs in a process of its own, on the half of a scan that holds nearly all its
frames. The rasters have the study's pitch, so that the object grows with the frames. There
are fewer classical iterations than in the study: they take time, and no memory.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

from faults.load_phase import PHASES
from faults.outcome import Outcome
from fly64_dose_overlap.arrays import scratch_folder
from fly64_dose_overlap.progress import say
from tiny_study import ROOT, write_params

SIZES = (25_000, 50_000, 100_000, 200_000)
QUICK_SIZES = (2_000,)
LIMIT_MIB = 2048
"""Peak resident memory of a phase."""
GROWTH_FROM = 50_000
"""Frames whose processor time per frame that of more frames is compared with."""
DOSE = 10_000
STEP_PX = 5.0
SPARE_LINES = 2
"""Lines of the raster that the other half of the scan gets."""


def run(*, quick: bool) -> Generator[Outcome]:
    """Put scans of several sizes through all phases."""
    per_frame: dict[str, float] = {}
    for frames in QUICK_SIZES if quick else SIZES:
        with tempfile.TemporaryDirectory(dir=scratch_folder(), prefix="load-") as name:
            prepare(Path(name), frames)
            for phase in PHASES:
                outcome = measure(phase, Path(name), frames)
                yield outcome
                if frames == GROWTH_FROM:
                    per_frame[phase] = outcome.seconds / frames
                if frames > GROWTH_FROM:
                    growth = outcome.seconds / frames / per_frame[phase]
                    say(f"load: {phase}, {frames} frames: {growth:.2f} times the time per frame")
                if outcome.lost:
                    break


def prepare(folder: Path, frames: int) -> None:
    """Write the parameters of a scan whose test half has at least so many frames."""
    lines = math.ceil(SPARE_LINES / 2 + math.sqrt(frames + (SPARE_LINES / 2) ** 2))
    write_params(
        folder,
        dose=DOSE,
        doses=[DOSE],
        view="baseline",
        base={"frame_side_px": 64, "field_px": (lines - 1) * STEP_PX, "step_px": STEP_PX},
        expose={"split_fraction": (SPARE_LINES - 0.5) / (lines - 1), "guard_gap_px": 0.0},
        learned=["network", "refined"],
        iterative=[],
        methods={
            name: {"iterations": 2, "epochs": 1, "steps_per_epoch": 5, "device": "cpu"}
            for name in ("network", "refined")
        },
    )


def measure(phase: str, folder: Path, frames: int) -> Outcome:
    """Run a phase in a process of its own and see that it stays below the limit."""
    search = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": search, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "faults.load_phase", phase]
    kind = f"{phase}, {frames:,} frames"
    ended = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if ended.returncode:
        reason = f"{kind}: ended with status {ended.returncode}"
        return Outcome(kind, 1, 0, math.nan, math.nan, (reason,))
    found = json.loads(ended.stdout.splitlines()[-1])
    lost = () if found["mib"] < LIMIT_MIB else (f"{kind}: {found['mib']:.0f} MiB, limit {LIMIT_MIB}",)
    return Outcome(kind, 1, 1 - len(lost), found["cpu_seconds"], found["mib"], lost)
