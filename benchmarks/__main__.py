"""Measure simulation, training and inference: ``python -m benchmarks``.

Every figure is frames per second of one thread of the processor, and every line ends with a
ratio against a reference measured in the same run, since absolute figures drift with the
machine. The reference of simulation is the bare FFT of the same frames; that of
training and inference is a plain convolutional network with the operation count of
PtychoPINN's default network at N = 64, 0.8 G multiply-adds forward per frame, float32,
batch 16: what that engine's convolutions alone cost here. (That engine itself was
measured at 35 to 45 frames per CPU second of training.)

Below it are the operations of a frame, the network's convolutions and all Fourier transforms
(5 n log2 n for n pixels), and the part of the speed of a large matrix product at which they
are done, in the precision of the convolutions; what is left is element by element, and bound
by memory.

Where there is a GPU, the same is measured there, in seconds of wall time, for several sizes
of a batch, with the most memory that was taken, and with and without mixed precision.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fly64_dose_overlap.config import Params, TrainParams, ViewName, load_params
from fly64_dose_overlap.files.dataset import BaseSet, Dataset
from fly64_dose_overlap.learning.corrector import build_corrector, correct_image, input_planes
from fly64_dose_overlap.learning.examples import CropSampler, Realisation, realise
from fly64_dose_overlap.learning.mosaic import GroupStart
from fly64_dose_overlap.learning.scan import Scan, load_scan
from fly64_dose_overlap.learning.trainer import resolve_precision
from fly64_dose_overlap.learning.validation import loss_of
from fly64_dose_overlap.seeding import generator
from fly64_dose_overlap.study.base import make_synthetic_base
from fly64_dose_overlap.study.dose import BLOCK_FRAMES, dose_factor, draw_counts, with_dose
from fly64_dose_overlap.study.views import make_view

DOSE = 10_000
FIELD_PX = 240.0
ROUNDS = 5
STEPS = 30
REFERENCE_BATCH = 16
REFERENCE_CHANNELS = 208
REFERENCE_LAYERS = 2
MATRIX = 1024
GPU_MATRIX = 8192
GPU_FRAMES = (96, 384, 1536)
"""Frames of a training step on a GPU."""
GPU_CROP_PX = 256


@dataclass(frozen=True)
class Bench:
    """What is measured on, and the speeds that figures are compared with.

    Attributes
    ----------
    device : torch.device
    peak, mixed_peak : float, operations per second
        Of a large matrix product, in float32 and in bfloat16.
    training, inference : float, frames per second
        Of the reference network.
    """

    device: torch.device
    peak: float
    mixed_peak: float
    training: float
    inference: float


def seconds(work: Callable[[], object], device: torch.device, rounds: int = ROUNDS) -> float:
    """Return the median time of a call: of the processor, or of the clock if a GPU works."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times: list[float] = []
    for _ in range(rounds + 1):
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(clock() - start)
    return statistics.median(times[1:])


def show(name: str, rate: float, reference: str, reference_rate: float) -> None:
    """Print one line of the report."""
    ratio = rate / reference_rate
    print(f"{name:<52} {rate:9.0f} frames/s   {ratio:8.2f} x {reference} ({reference_rate:.0f})", flush=True)


def show_operations(peak: float, rate: float, convolutions: float, transforms: float, side: int) -> None:
    """Print the operations of a frame, and how fast they are done.

    Parameters
    ----------
    peak : float, operations per second
    rate : float, frames per second
    convolutions : float, operations per frame
    transforms : float
        Fourier transforms per frame, of ``side`` x ``side`` pixels.
    side : int
    """
    fourier = transforms * 5 * side**2 * math.log2(side**2)
    part = rate * (convolutions + fourier) / peak
    print(
        f"    {(convolutions + fourier) / 1e6:.1f} M operations per frame, {fourier / 1e6:.1f} M of them in "
        f"{transforms:.1f} Fourier transforms; {part:.1%} of the matrix product's {peak / 1e9:.0f} G/s",
        flush=True,
    )


def reference_network() -> nn.Module:
    """Return a network of 0.8 G multiply-adds per 64 x 64 frame."""
    layers: list[nn.Module] = [nn.Conv2d(1, REFERENCE_CHANNELS, 3, padding=1)]
    for _ in range(REFERENCE_LAYERS):
        layers += [nn.ReLU(), nn.Conv2d(REFERENCE_CHANNELS, REFERENCE_CHANNELS, 3, padding=1)]
    layers += [nn.ReLU(), nn.Conv2d(REFERENCE_CHANNELS, 2, 3, padding=1)]
    # Half the resolution, where most of the ancestor's operations are.
    return nn.Sequential(nn.AvgPool2d(2), *layers)


def bench_on(device: torch.device) -> Bench:
    """Measure what figures are compared with."""
    network = reference_network().to(device)
    frames = torch.ones(REFERENCE_BATCH, 1, 64, 64, device=device)
    side = MATRIX if device.type == "cpu" else GPU_MATRIX

    def matrix_product(dtype: torch.dtype) -> float:
        matrix = torch.ones(side, side, device=device, dtype=dtype)
        return 2 * side**3 / seconds(lambda: matrix @ matrix, device)

    def train() -> None:
        network(frames).square().mean().backward()

    def infer() -> None:
        with torch.no_grad():
            network(frames)

    return Bench(
        device,
        peak=matrix_product(torch.float32),
        mixed_peak=matrix_product(torch.bfloat16),
        training=REFERENCE_BATCH / seconds(train, device),
        inference=REFERENCE_BATCH / seconds(infer, device),
    )


def simulation(base: BaseSet) -> None:
    """Simulate and draw counts, against the bare FFT of as many frames."""
    cpu = torch.device("cpu")
    block = replace(
        base, positions_px=base.positions_px[:BLOCK_FRAMES], scan_index=base.scan_index[:BLOCK_FRAMES]
    )
    scan = with_dose(block, dose_factor(block, DOSE))
    waves = torch.ones(BLOCK_FRAMES, *base.probe.shape, dtype=torch.complex64)
    bare = seconds(partial(torch.fft.fft2, waves), cpu)
    drawn = seconds(lambda: list(draw_counts(scan, seed=0, dose=DOSE)), cpu)
    name = "simulate: forward model and Poisson draw"
    show(name, BLOCK_FRAMES / drawn, "bare complex64 FFT", BLOCK_FRAMES / bare)


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


def training(bench: Bench, scan: Scan, config: TrainParams, label: str, *, mixed: bool) -> None:
    """Measure a training step, and a whole epoch with its thinning and stitching."""
    device = bench.device
    network = build_corrector(config.width, seed=0).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate, fused=True)
    sampler = CropSampler(scan, np.arange(len(scan.positions_px)), config.crop_px, config.frames_per_step)
    start = GroupStart(config.start_iterations)
    drawn: list[Realisation] = []

    def prepare() -> None:
        rng = generator(0, "benchmark")
        drawn[:] = [realise(scan, config.target, start, 0.5, rng, f"thin, {label}")]

    preparation = seconds(prepare, device, rounds=1)
    frames = 0

    def steps() -> None:
        nonlocal frames
        frames, rng = 0, generator(0, "benchmark", "crops")
        for _ in range(STEPS):
            crop = sampler.draw(drawn[0], rng)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
                expected = crop.predict(network, None)
            loss_of(config, expected, crop.target).backward()
            optimizer.step()
            frames += crop.target.shape[1]

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    each = seconds(steps, device, rounds=3) / STEPS
    with FlopCounterMode(display=False) as counter:
        steps()
    rate = frames / STEPS / each
    show(f"train, {label}: steps", rate, "network of PtychoPINN's size", bench.training)
    # A transform forward, and one back for its gradient.
    peak = bench.mixed_peak if mixed else bench.peak
    show_operations(peak, rate, counter.get_total_flops() / frames, 2, scan.probe.shape[-1])
    if device.type == "cuda":
        print(f"    {torch.cuda.max_memory_allocated(device) / 2**20:.0f} MiB at most", flush=True)
    epoch = each * config.steps_per_epoch + preparation
    whole = frames / STEPS * config.steps_per_epoch / epoch
    show(f"train, {label}: epochs, thinning included", whole, "the same", bench.training)


def inference(bench: Bench, scan: Scan, config: TrainParams, label: str) -> None:
    """Reconstruct a scan: classical start, stitching and network."""
    network = build_corrector(config.width, seed=0).to(bench.device).eval()
    start = GroupStart(config.start_iterations)

    def reconstruct() -> None:
        estimate = start(scan, scan.counts, fraction=1.0, label=f"reconstruct, {label}")
        correct_image(network, input_planes(estimate).to(bench.device), None)

    frames = len(scan.positions_px)
    rate = frames / seconds(reconstruct, bench.device, rounds=3)
    with FlopCounterMode(display=False) as counter:
        reconstruct()
    show(f"reconstruct, {label}", rate, "network of PtychoPINN's size", bench.inference)
    # All frames of all groups; the far field of the empty object is computed once.
    transforms = (2 * config.start_iterations - 1) * scan.groups.size / frames
    show_operations(bench.peak, rate, counter.get_total_flops() / frames, transforms, scan.probe.shape[-1])


def measure(device: torch.device, base: BaseSet, params: Params) -> None:
    """Measure training and inference on a device."""
    bench = bench_on(device)
    steps = [params.train]
    if device.type == "cuda":
        print(torch.cuda.get_device_name(device))
        change = {"crop_px": GPU_CROP_PX}
        steps = [params.train.model_copy(update={**change, "frames_per_step": n}) for n in GPU_FRAMES]
    for view in ("baseline", "dense"):
        scan = load_scan(view_of(base, params, view), device)
        label = f"group side {params.overlap.views[view].gridsize}"
        inference(bench, scan, params.train, label)
        for config in steps:
            mixed = resolve_precision(config) == "bf16-mixed"
            for each in (False, True) if device.type == "cuda" else (mixed,):
                kind = f"{label}, {config.frames_per_step} frames, {'mixed' if each else 'float32'}"
                training(bench, scan, config, kind, mixed=each)


def main() -> None:
    """Run all benchmarks, on one thread of the processor and on a GPU if there is one."""
    torch.set_num_threads(1)
    params = load_params(Path("params.yaml"))
    base = make_synthetic_base(params.base.model_copy(update={"field_px": FIELD_PX, "frame_side_px": 64}))
    simulation(base)
    measure(torch.device("cpu"), base, params)
    if torch.cuda.is_available():
        measure(torch.device("cuda"), base, params)


if __name__ == "__main__":
    main()
