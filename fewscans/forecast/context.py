"""What the workflow knows and no event tells: noted while it is read, asked for when a dry-run ends.

The rules call `note`; the logger plugin, in the same process, calls `facts`. What cannot be found out is None.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fewscans.cluster.site import VARIABLE as SITE

# The profile gives machines without cards so large a number of them that it bounds nothing.
NO_CARDS = 1000
_noted: dict[str, Any] = {}


@dataclass(frozen=True)
class Facts:
    """Where a run would take place."""

    cluster: bool = False
    site: str | None = None
    """File that describes the cluster."""
    cores: int | None = None
    """Of this machine, as Snakemake was told."""
    gpus: int | None = None
    """Cards of this machine; 0 where there are none and jobs take the CPU; None: not known or no bound."""
    slots: int | None = None
    """Most jobs in flight on a cluster."""
    burst: tuple[float, float] | None = None
    """At most (submissions, in seconds)."""
    retries: int = 0
    up_to_date: dict[str, int] | None = None
    """Rule -> jobs that need not run."""
    work: str | None = None
    """Folder of everything between."""
    directory: str = "."
    """Where relative paths start."""


def note(workflow: Any, work: str) -> None:
    """Remember the workflow that is being read; costs nothing."""
    _noted.update(workflow=workflow, work=work)


def work_folder() -> str | None:
    """The noted folder of everything between."""
    return _noted.get("work")


def facts() -> Facts:
    """Everything that can be found out about the noted workflow."""
    workflow = _noted.get("workflow")
    site = os.environ.get(SITE) or None
    if workflow is None:
        return Facts(cluster=site is not None, site=site, directory=os.getcwd())
    resources = _try(lambda: workflow.resource_settings)
    # Snakemake sets it for every executor that is not this machine, and says so nowhere else in a dry-run.
    remote = bool(_try(lambda: workflow.execution_settings.use_threads))
    cluster = site is not None or remote
    cards = _gpus(_try(lambda: workflow.global_resources))
    return Facts(
        cluster=cluster,
        site=site,
        cores=None if cluster else _try(lambda: int(resources.cores)),
        gpus=None if cluster else (0 if cards is None or cards >= NO_CARDS else cards),
        slots=_try(lambda: int(resources.nodes)) if cluster else None,
        burst=_try(lambda: _burst(workflow.scheduling_settings)) if cluster else None,
        retries=_try(lambda: int(workflow.execution_settings.retries)) or 0,
        up_to_date=_try(lambda: _up_to_date(workflow.dag)),
        work=_noted.get("work"),
        directory=os.getcwd(),
    )


def code_digests() -> set[str]:
    """Digests of code that the jobs of the noted workflow have among their params."""
    workflow = _noted.get("workflow")
    found = _try(lambda: {str(job.params.get("code")) for job in workflow.dag.jobs})  # type: ignore[union-attr]
    return (found or set()) - {"None"}


def as_json(found: Facts) -> dict[str, Any]:
    """Facts as plain values."""
    return asdict(found)


def from_json(values: Mapping[str, Any]) -> Facts:
    """Facts from what `as_json` gave."""
    burst = values.get("burst")
    return Facts(**{**values, "burst": tuple(burst) if burst else None})


def _try(ask: Callable[[], Any]) -> Any:
    """What Snakemake says; its insides may change, and a plan must not break a run for it."""
    try:
        return ask()
    except Exception:
        return None


def _gpus(limits: Any) -> int | None:
    value = None if limits is None else limits.get("gpu")
    value = getattr(value, "value", value)
    return None if value is None else int(value)


def _burst(settings: Any) -> tuple[float, float] | None:
    limit = settings.max_jobs_per_timespan
    return None if limit is None else (float(limit.max_jobs), float(limit.timespan))


def _up_to_date(dag: Any) -> dict[str, int]:
    counted = Counter(job.rule.name for job in dag.jobs if job.rule.output and not dag.needrun(job))
    return dict(sorted(counted.items()))
