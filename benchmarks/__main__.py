"""Measure simulation, training and inference: ``python -m benchmarks``.

Every figure is frames per CPU second on one thread, and every line ends with a ratio
against a reference measured in the same run, since absolute figures drift with the
machine. The reference of simulation is the bare FFT of the same frames; that of
training and inference is a plain convolutional network with the operation count of
PtychoPINN's default network at N = 64, 0.8 G multiply-adds forward per frame, float32,
batch 16: what that engine's convolutions alone cost here. (That engine itself was
measured at 35 to 45 frames per CPU second of training.)
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fly64_dose_overlap.config import Params, ViewName, load_params
from fly64_dose_overlap.data.contract import BaseSet, Dataset
from fly64_dose_overlap.networks.corrector import build_corrector, correct_image, input_planes
from fly64_dose_overlap.networks.mosaic import GroupStart
from fly64_dose_overlap.networks.scan import Scan, load_scan
from fly64_dose_overlap.overlap.views import make_view
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.simulation.base import make_synthetic_base
from fly64_dose_overlap.simulation.diffraction import BLOCK_FRAMES, dose_factor, draw_counts, with_dose
from fly64_dose_overlap.training.examples import CropSampler, realise
from fly64_dose_overlap.training.trainer import resolve_precision
from fly64_dose_overlap.training.validation import loss_of

DOSE = 10_000
FIELD_PX = 240.0
ROUNDS = 5
REFERENCE_BATCH = 16
REFERENCE_CHANNELS = 208
REFERENCE_LAYERS = 2


def frames_per_cpu_second(work: Callable[[], object], frames: int, rounds: int = ROUNDS) -> float:
    """Return the median throughput of ``work``, which handles ``frames`` frames a call."""
    work()
    rates: list[float] = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        rates.append(frames / (time.process_time() - start))
    return statistics.median(rates)


def show(name: str, rate: float, reference: str, reference_rate: float) -> None:
    """Print one line of the report."""
    ratio = rate / reference_rate
    print(
        f"{name:<46} {rate:9.0f} frames/CPU s   {ratio:8.2f} x {reference} ({reference_rate:.0f})", flush=True
    )


def reference_network() -> nn.Module:
    """Return a network of 0.8 G multiply-adds per 64 x 64 frame."""
    layers: list[nn.Module] = [nn.Conv2d(1, REFERENCE_CHANNELS, 3, padding=1)]
    for _ in range(REFERENCE_LAYERS):
        layers += [nn.ReLU(), nn.Conv2d(REFERENCE_CHANNELS, REFERENCE_CHANNELS, 3, padding=1)]
    layers += [nn.ReLU(), nn.Conv2d(REFERENCE_CHANNELS, 2, 3, padding=1)]
    # Half the resolution, where most of the ancestor's operations are.
    return nn.Sequential(nn.AvgPool2d(2), *layers)


def reference_rates() -> tuple[float, float]:
    """Return the reference network's frames per CPU second in training and in inference."""
    network = reference_network()
    frames = torch.ones(REFERENCE_BATCH, 1, 64, 64)

    def train() -> None:
        network(frames).square().mean().backward()

    def infer() -> None:
        with torch.no_grad():
            network(frames)

    return frames_per_cpu_second(train, REFERENCE_BATCH), frames_per_cpu_second(infer, REFERENCE_BATCH)


def simulation(base: BaseSet) -> None:
    """Simulate and draw counts, against the bare FFT of as many frames."""
    block = replace(
        base, positions_px=base.positions_px[:BLOCK_FRAMES], scan_index=base.scan_index[:BLOCK_FRAMES]
    )
    scan = with_dose(block, dose_factor(block, DOSE))
    waves = torch.ones(BLOCK_FRAMES, *base.probe.shape, dtype=torch.complex64)
    bare = frames_per_cpu_second(partial(torch.fft.fft2, waves), BLOCK_FRAMES)
    rate = frames_per_cpu_second(lambda: list(draw_counts(scan, seed=0, dose=DOSE)), BLOCK_FRAMES)
    show("simulate: forward model and Poisson draw", rate, "bare complex64 FFT", bare)


def view_of(base: BaseSet, params: Params, view: ViewName) -> Dataset:
    """Return a small simulated view."""
    scan = with_dose(base, dose_factor(base, DOSE))
    counts = np.concatenate(list(draw_counts(scan, seed=0, dose=DOSE)))
    dataset = Dataset(
        amplitude=np.sqrt(counts).astype(np.float32),
        obj=scan.obj,
        probe=scan.probe,
        positions_px=scan.positions_px,
        scan_index=scan.scan_index,
        record=scan.record,
    )
    return make_view(dataset, params.overlap.views[view], params.overlap, name=view)[0]


def training(scan: Scan, params: Params, label: str, reference: float) -> None:
    """Measure a training step, and a whole epoch with its thinning and stitching."""
    config = params.train
    network = build_corrector(config.width, seed=0)
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, fused=True)
    sampler = CropSampler(scan, np.arange(len(scan.positions_px)), config.crop_px, config.frames_per_step)
    mixed = resolve_precision(config) == "bf16-mixed"

    start = time.process_time()
    mosaics = GroupStart(config.start_iterations)
    realisation = realise(scan, config.target, mosaics, 0.5, generator(0, "benchmark"), "thin")
    preparation = time.process_time() - start
    rng = generator(0, "benchmark", "crops")

    def step() -> int:
        crop = sampler.draw(realisation, rng)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            expected = crop.predict(network)
        loss_of(config, expected, crop.target).backward()
        optimizer.step()
        return crop.target.shape[1]

    step()
    frames, start = 0, time.process_time()
    for _ in range(30):
        frames += step()
    seconds = time.process_time() - start
    show(f"train, {label}: steps", frames / seconds, "network of PtychoPINN's size", reference)
    epoch_frames = frames / 30 * config.steps_per_epoch
    epoch_seconds = seconds / 30 * config.steps_per_epoch + preparation
    show(f"train, {label}: epochs, thinning included", epoch_frames / epoch_seconds, "the same", reference)


def inference(scan: Scan, params: Params, label: str, reference: float) -> None:
    """Reconstruct a scan: classical start, stitching and network."""
    network = build_corrector(params.train.width, seed=0).eval()

    def reconstruct() -> None:
        start = GroupStart(params.train.start_iterations)
        estimate = start(scan, scan.counts, fraction=1.0, label="reconstruct")
        correct_image(network, input_planes(estimate))

    rate = frames_per_cpu_second(reconstruct, len(scan.positions_px), rounds=3)
    show(f"reconstruct, {label}", rate, "network of PtychoPINN's size", reference)


def main() -> None:
    """Run all benchmarks on one thread."""
    torch.set_num_threads(1)
    params = load_params(Path("params.yaml"))
    base = make_synthetic_base(params.base.model_copy(update={"field_px": FIELD_PX, "frame_side_px": 64}))
    simulation(base)
    train_reference, infer_reference = reference_rates()
    for view in ("baseline", "dense"):
        scan = load_scan(view_of(base, params, view), torch.device("cpu"))
        label = f"group side {params.overlap.views[view].gridsize}"
        training(scan, params, label, train_reference)
        inference(scan, params, label, infer_reference)


if __name__ == "__main__":
    main()
