"""Jobs of a dry-run, rebuilt from what Snakemake tells its loggers: what each asks for, why, and after which others."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

# What Snakemake says -> our word; where several hold, the first counts.
REASONS = {
    "Missing output files": "missing",
    "Incomplete output files": "incomplete",
    "Forced execution": "forced",
    "Code has changed": "code",
    "Params have changed": "params",
    "Set of input files has changed": "inputs",
    "Updated input files": "inputs",
    "Software environment definition has changed": "software",
    "Input files updated by another job": "earlier job",
}
# Snakemake appends these to names of files: `out.txt (pipe)`.
NOTES = re.compile(r" \((?:pipe|service|nodelocal|update|before update|access: [^)]*)\)$")
# A digest of code is a param here (fewscans/digest.py), so a change of code shows as a change of params.
DIGEST = re.compile(r"'?[0-9a-f]{16,64}'?")


@dataclass(frozen=True, slots=True)
class Job:
    """One job to run; None: not known."""

    name: str
    """``RULE[WILDCARD=VALUE,...]``."""
    rule: str
    reason: str
    """One of the words of `REASONS`, or ``other``."""
    cpus: int = 1
    gpus: int = 0
    gpu_model: str | None = None
    mem_mb: int | None = None
    runtime_min: int | None = None
    """Time limit asked for."""
    partition: str | None = None
    nodes: int = 1
    expected_s: float | None = None
    """Usual seconds (median), without what the cluster adds."""
    expected_p95_s: float | None = None
    """Seconds that one in twenty exceeds."""
    estimate: str = "unknown"
    """Where they come from: ``measured:N``, ``scaled``, ``declared``, ``unknown``."""
    output_mb: float | None = None
    output_files: int | None = None
    scratch_mb: float = 0.0
    """Space taken while it runs and given back: checkpoints."""
    inner_gpu_s: float = 0.0
    """GPU seconds of jobs that it submits by itself: trials of a search."""
    folder: str = "."
    """Where its first output goes."""
    benchmark: str | None = None
    after: tuple[int, ...] = ()
    """Places of the jobs it waits for."""


def number(value: Any) -> float | None:
    """`value` as a number; None for what is missing, ``<TBD>`` or text."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if found == found and abs(found) != float("inf") else None


def whole(value: Any) -> int | None:
    """`value` as a whole number, or None."""
    found = number(value)
    return None if found is None else int(found)


def reason_word(text: str) -> str:
    """Our word for Snakemake's reason."""
    return next((word for begin, word in REASONS.items() if begin in text), "other")


def changed_digests(text: str) -> frozenset[str]:
    """Digests among the params that a job has now and had not before; empty if anything else has changed too."""
    _, _, sets = text.partition("across all output: before: ")
    before, _, now = sets.partition(" now: ")
    values = [
        v.strip() for v in (*before.split(","), *now.partition(";")[0].split(",")) if v.strip()
    ]
    if not values or not all(DIGEST.fullmatch(value) for value in values):
        return frozenset()
    return frozenset(value.strip("' ") for value in now.partition(";")[0].split(","))


def gpu_request(resources: Mapping[str, Any]) -> tuple[int, str | None]:
    """(GPUs, model) from ``gpu`` with ``gpu_model``, or from ``gres: gpu:MODEL:N``."""
    gres = str(resources.get("gres") or "")
    if gres.startswith("gpu"):
        parts = gres.split(":")
        count = int(parts[-1]) if parts[-1].isdigit() else 1
        models = [part for part in parts[1:] if not part.isdigit()]
        return count, models[0] if models else None
    model = resources.get("gpu_model")
    return max(0, whole(resources.get("gpu")) or 0), str(model) if model else None


class Collector:
    """Takes one event per job while the dry-run goes on; keeps little of each."""

    def __init__(self) -> None:
        self.seen: dict[int, dict[str, Any]] = {}

    def add(self, event: Any) -> None:
        """Keep a job; `event` has the attributes of Snakemake's JOB_INFO. Mere targets are none."""
        output = [NOTES.sub("", str(f)) for f in event.output or ()]
        if not output and not getattr(event, "shellcmd", None):
            return
        self.seen[event.jobid] = {
            "rule": event.rule_name,
            "wildcards": {str(k): str(v) for k, v in dict(event.wildcards or {}).items()},
            "reason": reason_word(str(event.reason or "")),
            "digests": changed_digests(str(event.reason or "")),
            "threads": whole(event.threads) or 1,
            "resources": {str(k): v for k, v in dict(event.resources.items()).items()},
            "input": [NOTES.sub("", str(f)) for f in event.input or ()],
            "output": output,
            "benchmark": getattr(event, "benchmark", None),
        }

    def jobs(self, codes: Set[str] = frozenset()) -> list[Job]:
        """All jobs, in an order that depends on their names alone, with their graph.

        `codes` are the digests of code in force: a job whose params differ in these alone has changed code.
        """
        # A name may come twice (rules without wildcards and other outputs); outputs differ.
        named = sorted(
            ((_name(seen), seen) for seen in self.seen.values()),
            key=lambda pair: (pair[0], pair[1]["output"]),
        )
        maker = {file: place for place, (_, seen) in enumerate(named) for file in seen["output"]}
        made = []
        for place, (name, seen) in enumerate(named):
            before = {maker[f] for f in seen["input"] if f in maker} - {place}
            if seen["reason"] == "params" and seen["digests"] and seen["digests"] <= codes:
                seen = {**seen, "reason": "code"}
            made.append(_job(name, seen, tuple(sorted(before))))
        return made


def _name(seen: Mapping[str, Any]) -> str:
    values = ",".join(f"{key}={value}" for key, value in sorted(seen["wildcards"].items()))
    return f"{seen['rule']}[{values}]" if values else seen["rule"]


def _job(name: str, seen: Mapping[str, Any], after: tuple[int, ...]) -> Job:
    resources = seen["resources"]
    gpus, model = gpu_request(resources)
    expected = number(resources.get("expected_s"))
    estimate = str(resources.get("expected_from") or "unknown")
    if expected is None or expected <= 0 or estimate.startswith("unknown"):
        expected, estimate = None, "unknown"
    slow = number(resources.get("expected_p95_s")) if expected is not None else None
    tasks = max(1, whole(resources.get("tasks")) or 1)
    first = seen["output"][0] if seen["output"] else ""
    partition = resources.get("slurm_partition")
    return Job(
        name=name,
        rule=seen["rule"],
        reason=seen["reason"],
        cpus=(whole(resources.get("cpus_per_task")) or seen["threads"]) * tasks,
        gpus=gpus,
        gpu_model=model,
        mem_mb=whole(resources.get("mem_mb")),
        runtime_min=whole(resources.get("runtime")),
        partition=str(partition) if partition else None,
        nodes=max(1, whole(resources.get("nodes")) or 1),
        expected_s=expected,
        expected_p95_s=max(slow or 0.0, expected) if expected is not None else None,
        estimate=estimate,
        output_mb=number(resources.get("output_mb")),
        output_files=whole(resources.get("output_files")),
        scratch_mb=number(resources.get("scratch_mb")) or 0.0,
        inner_gpu_s=number(resources.get("trial_gpu_s")) or 0.0,
        folder=first.rpartition("/")[0] or ("/" if first.startswith("/") else "."),
        benchmark=seen["benchmark"],
        after=after,
    )


def to_rows(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """Jobs as plain values, for JSON."""
    return [asdict(job) for job in jobs]


def from_rows(rows: Iterable[Mapping[str, Any]]) -> list[Job]:
    """Jobs from what `to_rows` gave."""
    return [Job(**{**row, "after": tuple(row["after"])}) for row in rows]
