"""What cannot work is said before anything is submitted."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_lab
import pytest

from fewscans.cluster import check, preflight
from fewscans.cluster.site import Site, parse_site
from fewscans.errors import Problems, UserError

ROOT = Path(__file__).resolve().parents[1]
FACTS = """
cluster: {name: lab, accounting: true, max_submit_jobs: 100}
partitions:
  std: {max_runtime: 1440, max_threads: 64, max_mem_mb: 180000, default: true}
  gpu: {max_runtime: 2880, max_threads: 32, max_mem_mb: 500000, max_gpu: 4, gpu_models: [a100, v100]}
  scavenge: {max_gpu: 4, gpu_models: [a100], preempt: requeue}
"""
GOOD = "classes: {gpu: {partition: gpu, gpu_model: a100}}\n"


def site(text: str = GOOD, facts: str = FACTS) -> Site:
    return parse_site(facts + text, "partitions.yaml")


def told(function, *arguments) -> list[tuple[str, str]]:
    problems = Problems("title")
    function(*arguments, problems)
    return problems.lines


def test_a_good_site_has_no_problem():
    assert told(check.check_site, site()) == []
    assert told(check.check_site, Site()) == []


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (
            "classes: {cpu: {partition: sdt}, gpu: {partition: gpu, gpu_model: a100}}",
            "cpu.partition",
            "mean 'std'?",
        ),
        (
            "classes: {gpu: {partition: std}}",
            "gpu.partition",
            "std has no GPUs. These have: gpu, scavenge",
        ),
        ("", "gpu.partition", "the default partition has no GPUs"),
        ("classes: {gpu: {partition: gpu}}", "gpu.gpu_model", "several: a100, v100. Name one"),
        (
            "classes: {gpu: {partition: gpu, gpu_model: a10}}",
            "gpu.gpu_model",
            "Did you mean 'a100'?",
        ),
        (
            "classes: {gpu: {partition: gpu, gpu_model: a-b}}",
            "gpu.gpu_model",
            "letters, digits, _ and . only",
        ),
        (
            "classes: {gpu: {partition: gpu, gpu_model: a100, min_runtime: 3000, min_mem_mb: 600000}}",
            "gpu.min_runtime",
            "at most 2880",
        ),
        (
            "classes: {gpu: {partition: scavenge, extra: '--time=5 -x n1'}}",
            "gpu.extra",
            "--time is set from",
        ),
        (
            'classes: {gpu: {partition: scavenge, extra: "-x \'n1"}}',
            "gpu.extra",
            "No closing quotation",
        ),
        (
            "gpu_request: none\nclasses: {gpu: {partition: gpu, gpu_model: a100}}",
            "gpu.gpu_model",
            "contradicts gpu_request: none",
        ),
    ],
)
def test_a_site_that_contradicts_itself(text, place, words):
    lines = told(check.check_site, site(text))
    assert f"classes.{place}" in [line[0] for line in lines]
    assert words in str(lines)


def test_all_problems_are_told_at_once():
    text = "classes: {cpu: {partition: x}, light: {partition: y}, gpu: {partition: z}}"
    assert len(told(check.check_site, site(text))) == 3


def test_training_on_cpus_where_there_are_no_gpus():
    assert told(check.check_site, site("gpu_request: none")) == []


def test_nodes_chosen_by_features_need_no_model():
    assert (
        told(check.check_site, site("classes: {gpu: {partition: gpu, constraint: hopper}}")) == []
    )


@pytest.mark.parametrize(
    ("settings", "facts", "words"),
    [
        ({"slurm-array-jobs": "all"}, {}, "first job's time and memory"),
        ({"slurm-status-command": "sacct"}, {"accounting": False}, "keeps no accounts"),
        (
            {"slurm-status-command": "squeue"},
            {"min_job_age_s": 120},
            "forgets a finished job after 120 s",
        ),
        (
            {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 101},
            {"min_job_age_s": 300},
            "needed: 303 s",
        ),
        ({"jobs": 101}, {"max_submit_jobs": 100}, "--jobs 100"),
    ],
)
def test_settings_that_hang_are_refused(settings, facts, words):
    one = site().model_copy(update={"cluster": site().cluster.model_copy(update=facts)})
    ((_, message),) = told(check.check_profile, settings, one)
    assert words in message


def test_no_requeue_where_jobs_are_preempted():
    one = site("classes: {gpu: {partition: scavenge}}")
    ((place, message),) = told(check.check_profile, {"slurm-requeue": False}, one)
    assert place == "slurm-requeue"
    assert "wait for ever" in message
    assert told(check.check_profile, {"slurm-requeue": True}, one) == []
    assert told(check.check_profile, {"slurm-requeue": False}, site()) == []


def test_good_settings_pass():
    good = {"jobs": 100, "slurm-status-command": "sacct", "slurm-requeue": True}
    assert told(check.check_profile, good, site()) == []
    # Without a site file nothing is known, and nothing is refused.
    assert told(check.check_profile, {"slurm-status-command": "sacct"}, Site()) == []


@dataclass
class Job:
    """A job as Snakemake has it."""

    name: str
    resources: dict[str, Any]
    threads: int = 1
    is_local: bool = False
    rule: Any = field(init=False)

    def __post_init__(self):
        self.rule = SimpleNamespace(name=self.name)


def test_jobs_that_would_pend_for_ever():
    jobs = [
        Job("convert", {"mem_mb": 190000, "runtime": 60}, threads=65),
        Job("pretrain", {"slurm_partition": "gpu", "gpu": 5, "runtime": 3000}),
        Job("pretrain", {"slurm_partition": "gpu", "gpu": 6, "runtime": 2881}),
        Job("finetune", {"slurm_partition": "gpx", "gpu": 1}),
        Job(
            "fits",
            {"slurm_partition": "gpu", "gpu": 8, "nodes": 2, "mem_mb": 500000, "runtime": 2880},
        ),
        Job("weights", {"mem_mb": 10**6}, is_local=True),
    ]
    lines = told(check.check_jobs, jobs, site())
    assert sorted(place for place, _ in lines) == [
        "rule convert",
        "rule convert",
        "rule finetune",
        "rule pretrain",
        "rule pretrain",
    ]
    text = str(lines)
    assert (
        "190000 MB of memory in the default partition, and no node there has more than 180000"
        in text
    )
    assert "6 GPUs in gpu, and a job there can have 4" in text
    assert "3000 minutes in gpu, and the longest job there has 2880" in text


def test_a_job_without_partition_goes_to_the_default_one():
    jobs = [Job("theirs", {"mem_mb": 190000})]
    elsewhere = site("classes: {light: {partition: gpu}}")
    ((_, message),) = told(check.check_jobs, jobs, elsewhere)
    assert "in the default partition" in message


def test_gpus_do_not_count_where_none_are_asked_for():
    jobs = [Job("pretrain", {"gpu": 1})]
    assert told(check.check_jobs, jobs, site("gpu_request: none")) == []
    assert len(told(check.check_jobs, jobs, site())) == 1


@pytest.mark.parametrize("found", ["9.19.0", "10.0.0", "8.30"])
def test_versions_out_of_range(monkeypatch, found):
    monkeypatch.setattr(check, "version", lambda name: found if name == "snakemake" else "2.8.0")
    ((place, message),) = told(check.check_versions)
    assert place == "snakemake"
    assert f"is version {found}" in message
    assert "pip install 'snakemake>=9.20,<10'" in message


def test_versions_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["slurm"]]
    for name, (first, before) in check.VERSIONS.items():
        (line,) = [one for one in wanted if re.match(rf"{name}[><=]", one)]
        assert f">={'.'.join(map(str, first))}" in line
        assert "<" not in line or f"<{'.'.join(map(str, before))}" in line
    assert told(check.check_versions) == []


# -- at the start of a run -------------------------------------------------------------------------


def workflow(jobs=(), plugin="slurm", **settings):
    """Snakemake's, as far as it is asked."""
    executor = {
        "array_jobs": None,
        "status_command": "sacct",
        "init_seconds_before_status_checks": 40,
        "requeue": True,
    }
    return SimpleNamespace(
        executor_plugin=SimpleNamespace(name=plugin),
        executor_settings=SimpleNamespace(**{**executor, **settings}),
        resource_settings=SimpleNamespace(nodes=100),
        dag=SimpleNamespace(needrun_jobs=lambda: iter(jobs)),
    )


@pytest.fixture
def lab(tmp_path, monkeypatch):
    monkeypatch.delenv("FEWSCANS_SITE", raising=False)
    preflight.current_site.cache_clear()

    def install(**changes):
        folder = fake_lab.install(tmp_path / "lab", {**fake_lab.LAB, **changes})
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin:/bin")
        return tmp_path / "lab"

    return install


def test_a_good_run_starts(lab):
    lab()
    preflight.check_start(
        workflow([Job("light", {"mem_mb": 100})]), site("account: biology\n" + GOOD)
    )


def test_a_local_run_is_not_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    preflight.check_start(workflow(plugin="local"), site("account: nobody\n"))


def test_everything_at_once(lab):
    lab()
    jobs = [Job("convert", {"mem_mb": 10**6})]
    with pytest.raises(UserError) as caught:
        preflight.check_start(workflow(jobs, array_jobs="all"), site("account: biologie\n" + GOOD))
    places = [place for place, _ in caught.value.problems]
    assert places == ["account", "slurm-array-jobs", "rule convert"]
    assert "Did you mean 'biology'?" in str(caught.value)


def test_nothing_is_submitted_by_looking(lab):
    folder = lab()
    preflight.check_start(workflow(), site())
    assert {call.split()[0] for call in fake_lab.calls(folder)} <= {"sacctmgr", "scontrol"}


def test_no_command_in_path(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", f"{ROOT}/profiles/slurm/bin:{tmp_path}")
    with pytest.raises(UserError, match=r"sbatch +is not in PATH: start this on a login node"):
        preflight.check_start(workflow(), site())


def test_a_user_without_account(lab):
    lab(**{"sacctmgr -nP show assoc": ""})
    with pytest.raises(UserError, match="has none on this cluster"):
        preflight.check_start(workflow(), site())


def test_without_site_file_the_way_to_follow_jobs_is_still_checked(lab):
    config = fake_lab.CONFIG.replace("slurmdbd", "none")
    lab(**{"scontrol show config": config})
    with pytest.raises(UserError, match="keeps no accounts"):
        preflight.check_start(workflow())
    preflight.check_start(workflow(status_command="squeue"))


def test_a_missing_image(lab, monkeypatch):
    lab()
    monkeypatch.setenv("FEWSCANS_CONTAINER", "/nowhere/fewscans.sif")
    with pytest.raises(UserError, match=r"/nowhere/fewscans\.sif: no such file"):
        preflight.check_start(workflow(), site())


def test_options_that_the_executor_sets_are_all_known(lab):
    lab()  # the executor asks scontrol while it is imported
    validation = pytest.importorskip("snakemake_executor_plugin_slurm.validation")
    for option in check.TAKEN:
        found = [p for p in validation.get_forbidden_slurm_options() if re.search(p, f"{option} x")]
        assert found, option
