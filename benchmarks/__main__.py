"""Measure the parts of the study against what they cannot do without: ``python -m benchmarks``.

Every figure is processor time of one thread, and every line ends with a ratio against a
reference measured in the same run, since absolute figures drift with the machine: that of
physics is the bare Fourier transforms that it needs, that of the likelihood also the same in
plain torch, that of training a plain convolutional network with the operation count of
PtychoPINN's default network at N = 64 (0.8 G multiply-adds forward per frame, float32, batch 16).

Where there is a GPU, training and inference are measured there too, in seconds on the clock.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import nn

from fly64_dose_overlap import front
from fly64_dose_overlap.config import load_params
from fly64_dose_overlap.learning.corrector import build_corrector, correct_image, input_planes
from fly64_dose_overlap.learning.estimate import GroupedScan, Start, grouped_scan
from fly64_dose_overlap.learning.examples import CropSampler, realise
from fly64_dose_overlap.learning.mosaic import GroupStart
from fly64_dose_overlap.learning.trainer import resolve_precision
from fly64_dose_overlap.methods.joint_posterior import Stage, continued
from fly64_dose_overlap.methods.posterior import FIRST_WEIGHT, Posterior, flat_object, weight_of
from fly64_dose_overlap.methods.refined import JointStart
from fly64_dose_overlap.methods.registry import make_method
from fly64_dose_overlap.physics.fisher import FisherInformation
from fly64_dose_overlap.physics.illumination import shifted_probes
from fly64_dose_overlap.physics.likelihood import BACKGROUND_PHOTONS, poisson_deviance
from fly64_dose_overlap.physics.model import FRAMES_PER_BATCH
from fly64_dose_overlap.physics.propagation import intensity
from fly64_dose_overlap.physics.sweep import sweep
from fly64_dose_overlap.scan import Scan, Unknown
from fly64_dose_overlap.seeding import generator

FIELD_PX = 240.0
ROUNDS = 5
STEPS = 30
REFERENCE_BATCH = 16
REFERENCE_CHANNELS = 208
CPU = torch.device("cpu")


def seconds(work: Callable[[], object], device: torch.device = CPU, rounds: int = ROUNDS) -> float:
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


def show(name: str, us: float, reference: str, reference_us: float) -> None:
    """Print one line of the report: microseconds a frame, and how many times the reference that is."""
    print(f"{name:<50} {us:9.1f} us a frame   {us / reference_us:8.3g} x {reference}", flush=True)


def bare_transform(side: int) -> float:
    """Return the time of one Fourier transform of a frame, in microseconds, in batches that fit the cache."""
    waves = torch.ones(FRAMES_PER_BATCH, side, side, dtype=torch.complex64)
    out = torch.empty_like(waves)
    repeats = 20

    def work() -> None:
        for _ in range(repeats):
            torch.fft.fft2(waves, out=out)

    return seconds(work) / (repeats * FRAMES_PER_BATCH) * 1e6


def plain_likelihood(scan: Scan, obj: torch.Tensor) -> float:
    """Return what `sweep` does, in plain torch: value and gradient of the likelihood."""
    model, value, gradient = scan.model, 0.0, scan.model.blank(obj.dtype)
    for frames in model.batches():
        field = model.far_field(obj, frames)
        seen, expected = torch.from_numpy(scan.counts[frames]), intensity(field).sum(dim=1)
        value += float(poisson_deviance(expected, seen))
        weight = 2 - 2 * (seen + BACKGROUND_PHOTONS) / (expected + BACKGROUND_PHOTONS)
        model.back_project(field * weight[:, None], frames, gradient)
    return value


def physics(scan: Scan) -> None:
    """Measure the passes over all frames that every method is made of."""
    frames, transform = len(scan), bare_transform(scan.side)
    obj = torch.ones(scan.object_shape, dtype=torch.complex64)
    information = FisherInformation(scan.model, obj)
    shifts = np.full((frames, 2), 0.3)

    def each(work: Callable[[], object]) -> float:
        return seconds(work) / frames * 1e6

    def value_and_gradient() -> object:
        return sweep(scan.model, scan.counts, obj, BACKGROUND_PHOTONS, gradient=True)

    show("bare Fourier transform", transform, "itself", transform)
    fused, plain = each(value_and_gradient), each(lambda: plain_likelihood(scan, obj))
    show("likelihood and gradient", fused, "its two bare transforms", 2 * transform)
    show("  the same in plain torch", plain, "the compiled one", fused)
    value = each(lambda: sweep(scan.model, scan.counts, obj, BACKGROUND_PHOTONS, gradient=False))
    show("likelihood", value, "its bare transform", transform)
    show(
        "Fisher information", each(lambda: information.product(obj)), "its two bare transforms", 2 * transform
    )
    shifted = each(lambda: [shifted_probes(scan.probe, shifts[i : i + 64]) for i in range(0, frames, 64)])
    show("shifted probe", shifted, "its bare transform", transform)


def iterations(scan: Scan) -> None:
    """Measure an epoch of each iterative method."""
    transform = bare_transform(scan.side)
    for name in ("ml", "map", "lsqml", "lsqml_compact", "rpie", "epie", "ad_poisson"):
        states = make_method(name).run(scan, 42)
        next(states)
        epochs = 3
        started = time.process_time()
        list(islice(states, epochs))
        us = (time.process_time() - started) / epochs / len(scan) * 1e6
        show(f"an epoch of {name}", us, "two bare transforms", 2 * transform)
    unsure = replace(scan, unknown=Unknown(probe=True, positions_px=1.0, flux=0.03))
    obj, count, took = flat_object(scan), 20, list[float]()
    solver = Posterior(weight_of(FIRST_WEIGHT, scan), obj)
    for work in (
        lambda: list(islice(solver(scan), count)),
        lambda: continued(unsure, obj, Stage(count, BACKGROUND_PHOTONS)),
    ):
        started = time.process_time()
        work()
        took.append((time.process_time() - started) / count / len(scan) * 1e6)
    show("an iteration of joint MAP, all free", took[1], "one of map", took[0])


def reference_network() -> nn.Module:
    """Return a network of 0.8 G multiply-adds per 64 x 64 frame."""
    wide = partial(nn.Conv2d, kernel_size=3, padding=1)
    layers: list[nn.Module] = [wide(1, REFERENCE_CHANNELS)]
    for _ in range(2):
        layers += [nn.ReLU(), wide(REFERENCE_CHANNELS, REFERENCE_CHANNELS)]
    # Half the resolution, where most of the ancestor's operations are.
    return nn.Sequential(nn.AvgPool2d(2), *layers, nn.ReLU(), wide(REFERENCE_CHANNELS, 2))


def training_step(grouped: GroupedScan, start: Start, settings: Any) -> tuple[float, float]:
    """Return the seconds of a training step, and its frames."""
    device = grouped.device
    network = build_corrector(settings.width, seed=0).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate, fused=True)
    frames = np.arange(len(grouped.scan))
    sampler = CropSampler(grouped, frames, settings.crop_px, settings.frames_per_step)
    drawn = realise(grouped, settings.target, start, 0.5, generator(0, "benchmark"), "thin")
    mixed = resolve_precision(settings) == "bf16-mixed"
    scored = 0

    def steps() -> None:
        nonlocal scored
        scored, rng = 0, generator(0, "benchmark", "crops")
        for _ in range(STEPS):
            crop = sampler.draw(drawn, rng)
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
                expected = crop.predict(network, None)
            poisson_deviance(expected, crop.target).backward()
            optimizer.step()
            scored += crop.target.shape[1]

    return seconds(steps, device, rounds=3) / STEPS, scored / STEPS


def networks(scan: Scan, device: torch.device) -> None:
    """Measure training and inference of both networks on a device."""
    reference = reference_network().to(device)
    batch = torch.ones(REFERENCE_BATCH, 1, 64, 64, device=device)

    def reference_step() -> None:
        reference(batch).square().mean().backward()

    trained = seconds(reference_step, device) / REFERENCE_BATCH * 1e6
    with torch.no_grad():
        inferred = seconds(lambda: reference(batch), device) / REFERENCE_BATCH * 1e6
    peer = "network of PtychoPINN's size"
    grouped = grouped_scan(scan, device)
    starts: dict[str, Start] = {"network": GroupStart(6), "refined": JointStart(30, 0.4)}
    for name, start in starts.items():
        settings = make_method(name).settings
        step, frames = training_step(grouped, start, settings)
        show(f"training of {name}, {step * 1e3:.0f} ms a step", step / frames * 1e6, peer, trained)
        network = build_corrector(settings.width, seed=0).to(device).eval()

        def image(start: Start = start, network: nn.Module = network) -> None:
            estimate = start(grouped, scan.counts, fraction=1.0, label="estimate")
            correct_image(network, input_planes(estimate).to(device), None)

        us = seconds(image, device, rounds=2) / len(scan) * 1e6
        show(f"image of {name}, its estimate included", us, peer, inferred)


def main(
    field_px: Annotated[float, typer.Option(help="Side of the scanned square, object pixels.")] = FIELD_PX,
) -> None:
    """Run all benchmarks on one thread of the processor, and on a GPU if there is one."""
    torch.set_num_threads(1)
    params = load_params(Path("params.yaml"))
    whole, _ = front.simulate(1e4, seed=params.base.seed, field_px=field_px)
    scan = front.view(whole, 0.6, group_side=2)
    physics(scan)
    iterations(scan)
    networks(scan, CPU)
    if torch.cuda.is_available():
        print(torch.cuda.get_device_name())
        networks(scan, torch.device("cuda"))


if __name__ == "__main__":
    typer.run(main)
