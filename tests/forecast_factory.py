"""Jobs, places and a small workflow for the tests of the plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fewscans.cluster.site import Site
from fewscans.forecast.context import Facts
from fewscans.forecast.jobs import Job
from fewscans.forecast.place import Place
from fewscans.forecast.rates import PlanSettings, Terms
from fewscans.forecast.totals import build

ROOT = Path(__file__).resolve().parents[1]
NOTHING_ADDED = Terms(local_start_s=0, local_job_s=0, cluster_start_s=0, in_job_s=0, notice_s=0)
SITE = {
    "cluster": {"name": "tiny"},
    "classes": {"gpu": {"partition": "gpu"}, "cpu": {"partition": "cpu"}},
    "partitions": {
        "cpu": {"max_runtime": 600, "max_threads": 16, "max_mem_mb": 64000, "nodes": 4},
        "gpu": {
            "max_runtime": 1440,
            "max_threads": 32,
            "max_mem_mb": 64000,
            "nodes": 2,
            "max_gpu": 4,
            "total_gpu": 8,
            "gpu_models": ["a100"],
        },
    },
}  # fmt: skip

# Rules with the resources that ours have; `work` and `results` below the working directory.
SNAKEFILE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from fewscans.forecast import context
context.note(workflow, "work")
N = int(config.get("runs", 3))
COST = dict(mem_mb=200, runtime=10, expected_p95_s=20, expected_from="scaled", output_mb=5)

rule all:
    input: "results/table.csv"

rule convert:
    output: "work/converted.txt"
    benchmark: "work/benchmarks/convert.tsv"
    params: level=config.get("level", 1), code=config.get("code", "15d3625774bfdd71")
    resources: expected_s=10, output_files=1, gpu=0, **COST
    shell: "echo {{params.level}} > {{output}}"

rule pretrain:
    input: "work/converted.txt"
    output: "work/encoders/{{i}}.txt"
    benchmark: "work/benchmarks/pretrain.{{i}}.tsv"
    resources: expected_s=lambda w: 5 + int(w.i), output_files=2, gpu=1, **COST
    shell: "cp {{input}} {{output}}"

rule aggregate:
    input: expand("work/encoders/{{i}}.txt", i=range(N))
    output: "results/table.csv"
    resources: mem_mb=200, runtime=10, gpu=0
    shell: "cat {{input}} > {{output}}"
"""


def job(rule: str = "convert", **changes: Any) -> Job:
    """A job of a minute, with everything known."""
    values: dict[str, Any] = {
        "name": changes.pop("name", rule),
        "reason": "missing",
        "cpus": 1,
        "mem_mb": 1000,
        "runtime_min": 60,
        "expected_s": 60.0,
        "expected_p95_s": 90.0,
        "estimate": "measured:4",
        "output_mb": 10.0,
        "output_files": 2,
    }
    return Job(rule=rule, **{**values, **changes})


def local(cores: int = 4, gpus: int = 0, terms: Terms = NOTHING_ADDED, **facts: Any) -> Place:
    """One machine."""
    return Place(Facts(cores=cores, gpus=gpus, **facts), None, terms)


def cluster(terms: Terms = NOTHING_ADDED, slots: int | None = None, **changes: Any) -> Place:
    """The cluster of `SITE`, with some of its keys changed."""
    facts = Facts(cluster=True, slots=slots, retries=changes.pop("retries", 0))
    return Place(facts, Site.model_validate({**SITE, **changes}), terms)


def plan(
    jobs: Sequence[Job], place: Place | None = None, gpus: int | None = None, **settings: Any
) -> dict[str, Any]:
    """What is said of `jobs`, by default on one machine."""
    return build(jobs, place or local(), PlanSettings.model_validate(settings), gpus)


def event(jobid: int, rule: str, **values: Any) -> SimpleNamespace:
    """What Snakemake tells a logger about a job."""
    usual = {
        "input": [],
        "output": [f"{rule}.txt"],
        "wildcards": {},
        "threads": 1,
        "resources": {},
        "reason": "Missing output files: x",
        "shellcmd": "true",
        "benchmark": None,
    }
    return SimpleNamespace(**{**usual, "jobid": jobid, "rule_name": rule, **values})
