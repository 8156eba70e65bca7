"""Train the networks of each cell of the study, as independent jobs."""

from fly64_dose_overlap.learning.jobs import (
    TrainingJob,
    build_training_jobs,
    cell_job,
    execute_refining_job,
    execute_supervised_job,
    execute_training_job,
    run_training_job,
)
from fly64_dose_overlap.learning.manifest import write_manifest

__all__ = [
    "TrainingJob",
    "build_training_jobs",
    "cell_job",
    "execute_refining_job",
    "execute_supervised_job",
    "execute_training_job",
    "run_training_job",
    "write_manifest",
]
