"""What one cluster offers and what one lab wants of it: the file ``partitions.yaml``.

``fewscans cluster-setup`` writes it, people edit it, everything else only reads it. It reaches the workflow, also
inside jobs, through one environment variable: no Slurm command runs while a profile or a Snakefile is read.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from fewscans.config.base import Settings
from fewscans.config.load import parse
from fewscans.errors import UserError

# Set by the profile; jobs inherit it.
VARIABLE = "FEWSCANS_SITE"
Kind = Literal["light", "cpu", "gpu"]


class Partition(Settings):
    """Limits of a partition, per job or per node; None: no limit known."""

    max_runtime: int | None = Field(default=None, ge=1)
    """Longest time limit in minutes."""
    max_threads: int | None = Field(default=None, ge=1)
    """Most CPUs that a job can have on one node."""
    max_mem_mb: int | None = Field(default=None, ge=1)
    """Most memory that a job can have on one node, MB."""
    max_gpu: int = Field(default=0, ge=0)
    """Most GPUs on one node."""
    gpu_models: list[str] = []
    """GPU models (Slurm's GRES types) in this partition; more than one: jobs must name theirs."""
    nodes: int = Field(default=1, ge=1)
    """Nodes in it."""
    total_gpu: int = Field(default=0, ge=0)
    """GPUs in it."""
    preempt: Literal["off", "requeue", "cancel", "suspend"] = "off"
    """What happens to a job that a more important one pushes out."""
    default: bool = False
    """Where jobs go that name no partition."""


class JobClass(Settings):
    """What jobs of a class ask for here, where it differs from what the plan says."""

    partition: str | None = None
    """Partition; None: the cluster's default."""
    gpu_model: str | None = None
    """GPU model, where the partition has several."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features a node must have."""
    min_runtime: int | None = Field(default=None, ge=1)
    """Ask for at least so many minutes."""
    min_mem_mb: int | None = Field(default=None, ge=1)
    """Ask for at least so much memory, MB."""
    extra: str = ""
    """Further options of sbatch, as they are."""


class ClusterFacts(Settings):
    """What was found out about the whole cluster."""

    name: str = ""
    """Slurm's ClusterName."""
    slurm_version: str = ""
    """As `sinfo --version` says."""
    accounting: bool = False
    """Whether finished jobs can be asked for (slurmdbd)."""
    min_job_age_s: int = Field(default=300, ge=0)
    """How long squeue remembers a finished job."""
    job_requeue: bool = True
    """Whether jobs are requeued unless they ask otherwise (JobRequeue)."""
    kill_wait_s: int = Field(default=30, ge=0)
    """Seconds between SIGTERM and SIGKILL."""
    max_submit_jobs: int | None = Field(default=None, ge=1)
    """Most jobs of one user in the queue."""


class Container(Settings):
    """Jobs run in an image; folders of the workflow are bound by themselves."""

    image: str
    """Image file or address."""
    binds: list[str] = []
    """Further folders."""


class Site(Settings):
    """The whole of ``partitions.yaml``."""

    cluster: ClusterFacts = ClusterFacts()
    """Found by `fewscans cluster-setup`."""
    account: str | None = None
    """Who pays."""
    reservation: str | None = None
    """Reservation to run in."""
    gpu_request: Literal["gpus", "gres", "none"] = "gpus"
    """How GPUs are asked for: `--gpus=MODEL:N` or `--gres=gpu:MODEL:N`; `none`: a cluster without GPUs."""
    modules: list[str] = []
    """Environment modules that jobs load before the workflow's own Python."""
    container: Container | None = None
    """Image that jobs run in; used by `profiles/slurm-apptainer`."""
    scratch: str | None = None
    """Folder on the node's own disk, e.g. `$TMPDIR`: stores are copied there once per job."""
    orphans: Literal["wait", "cancel"] = "wait"
    """Jobs that an earlier, killed run of the same folder left in the queue: `wait` for them, or `cancel` them."""
    exclusive_nodes: bool = False
    """Jobs are billed for whole nodes."""
    notify: str | None = None
    """Command at the end of a run, e.g. `mail -s "fewscans $FEWSCANS_STATUS" me@lab < /dev/null`."""
    pack: int = Field(default=1, ge=1, le=256)
    """Fine-tuning jobs that share one submission."""
    classes: dict[Kind, JobClass] = {}
    """Per class of jobs: `light` (seconds), `cpu` (data), `gpu` (training)."""
    partitions: dict[str, Partition] = {}
    """Partitions by name."""

    def job_class(self, kind: Kind) -> JobClass:
        """Wishes of a class; empty where none are written."""
        return self.classes.get(kind, JobClass())

    def partition(self, kind: Kind) -> Partition | None:
        """Limits that jobs of a class meet; None where nothing is known."""
        name = self.job_class(kind).partition or self.default_partition
        return self.partitions.get(name) if name is not None else None

    @property
    def default_partition(self) -> str | None:
        """Name of the partition of jobs that name none; None where it is not known."""
        return next((name for name, one in self.partitions.items() if one.default), None)


def read_site(path: str | os.PathLike[str]) -> Site:
    """The site described by a file.

    Raises
    ------
    UserError
        It cannot be read or holds what is no setting; all problems at once.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    return parse_site(text, str(path))


def parse_site(text: str, title: str) -> Site:
    """As `read_site`, from the text of the file called `title`."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{title}: not valid YAML ({error}).") from None
    return parse(Site, raw or {}, title)


@lru_cache(1)
def current_site() -> Site | None:
    """The site of this run: None on a machine of its own."""
    path = os.environ.get(VARIABLE)
    return read_site(path) if path else None
