"""Cells on Dask workers: of this machine, of a scheduler that runs, or started by dask-jobqueue."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from fly64_dose_overlap.errors import StudyError
from fly64_dose_overlap.pipeline.matrix.cluster import RETRIES, Outcome, attempt, require
from fly64_dose_overlap.pipeline.matrix.node import CellJob, stop_cells


def run_on_dask(
    jobs: Sequence[CellJob],
    *,
    workers: int = 2,
    address: str | None = None,
    jobqueue: str | None = None,
    cluster: Mapping[str, Any] | None = None,
    gpus: Sequence[str] = (),
    retries: int = RETRIES,
) -> Generator[Outcome]:
    """Run cells on Dask workers, and yield each with its error as it finishes.

    The workers are of this machine unless ``address`` or ``jobqueue`` says otherwise.

    Parameters
    ----------
    workers : int
        Worker processes to start, and so cells at a time; unused with ``address``.
    address : str, optional
        A scheduler that runs, such as ``tcp://host:8786``. Give its workers one thread each:
        a worker runs as many cells at once as it has threads.
    jobqueue : str, optional
        A class of dask-jobqueue that starts workers, such as ``PBSCluster``.
    cluster : mapping, optional
        Arguments of that class, such as ``{"cores": 1, "memory": "8GB"}``.
    gpus : sequence of str
        Values of CUDA_VISIBLE_DEVICES that the workers of this machine take in turn.
    retries : int
        How often a cell whose worker died is run again; with ``address`` the scheduler's
        own ``distributed.scheduler.allowed-failures`` holds.

    Raises
    ------
    StudyError
        If Dask is missing, its scheduler cannot be reached, or ``jobqueue`` is no class of
        dask-jobqueue or refuses its arguments.
    """
    if not jobs:
        return
    distributed = require("distributed", "dask[distributed]")
    import dask.config

    with ExitStack() as stack:
        settings = {
            "distributed.scheduler.allowed-failures": retries,
            # No cell waits at a worker, where it would share the blame if that one dies.
            "distributed.scheduler.worker-saturation": 1.0,
        }
        stack.enter_context(dask.config.set(settings))
        target: Any = address
        if jobqueue and not address:
            target = stack.enter_context(_jobqueue_cluster(jobqueue, cluster or {}))
            # Not `scale`, which starts no job in place of one that ended or was cancelled.
            target.adapt(minimum_jobs=workers, maximum_jobs=workers)
        elif not address:
            local = {"threads_per_worker": 1, "memory_limit": 0, "dashboard_address": "127.0.0.1:0"}
            target = stack.enter_context(distributed.LocalCluster(n_workers=workers, **local))
        try:
            client = stack.enter_context(distributed.Client(target))
        except (OSError, ValueError) as error:
            raise StudyError(f"Dask's scheduler {address}", f"cannot be reached ({error})") from None
        own = () if address or jobqueue else tuple(gpus)
        futures = {client.submit(_on_a_worker, job, own, pure=False): job for job in jobs}
        stack.callback(_stop, client, futures)
        for future in distributed.as_completed(list(futures)):
            job = futures.pop(future)
            yield job, _error_of(future)


def _jobqueue_cluster(name: str, arguments: Mapping[str, Any]) -> Any:
    in_charge = signal.getsignal(signal.SIGINT)
    jobqueue = require("dask_jobqueue", "dask-jobqueue")
    signal.signal(signal.SIGINT, in_charge)  # its import takes Ctrl+C over, and ends with status 0
    known = sorted(name for name in vars(jobqueue) if name.endswith("Cluster"))
    if name not in known:
        raise StudyError(name, "is no class of dask-jobqueue", f"there are {', '.join(known)}")
    try:
        return getattr(jobqueue, name)(**arguments)
    except (ValueError, TypeError, RuntimeError) as error:
        raise StudyError(name, f"cannot be made ({error})", "give its arguments by --cluster") from error


def _on_a_worker(job: CellJob, gpus: Sequence[str]) -> str | None:
    if gpus:
        from distributed import get_worker

        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[int(get_worker().name) % len(gpus)]
    return attempt(job)


def _error_of(future: Any) -> str | None:
    if future.status == "finished":
        return future.result()
    if future.status == "cancelled":
        return "was cancelled by Dask's scheduler"
    error = future.exception()
    if type(error).__name__ == "KilledWorker":
        return "its worker died each time it was run"
    return " ".join(f"{type(error).__name__}: {error}".split())


def _stop(client: Any, futures: Mapping[Any, CellJob]) -> None:
    """Take back what waits, and stop what runs."""
    if futures:
        client.cancel(list(futures), force=True)
        client.run(stop_cells, list(futures.values()))
