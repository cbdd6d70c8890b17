"""What jobs took is kept under the settings that it was measured with, and only where they did the work."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fewscans.config import load
from fewscans.cost import history
from fewscans.cost.history import History, Job, Measured, collect
from fewscans.cost.model import Model
from fewscans.cost.record import jobs, remember
from fewscans.plan import expand

HEAD = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time"
CONFIG = {
    "datasets": {"p": {"phantom": {"n_patients": 40}}},
    "recipes": {"px48": {"size": 48}},
    "encoders": {"simclr": {"method": "simclr", "backbone": "test_resnet", "epochs": 10}},
    "validation": {"folds": 2, "seeds": 1, "draws": 1},
}


def write_benchmark(path: Path, seconds: float, rss: str = "700.5", when: float = 1000.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    row = f"{seconds}\t0:00:01\t{rss}\t1\t1\t1\t0\t0\t90\t1.0"
    path.write_text(f"{HEAD}\n{row}\n")
    os.utime(path, (when, when))
    return path


def job(path: Path, key: str = "k", amount: float = 10.0, trained: Path | None = None) -> Job:
    return Job("pretrain", path, key, amount, trained)


def test_what_a_run_wrote_is_kept_and_what_stood_before_is_not(tmp_path):
    new = write_benchmark(tmp_path / "a.tsv", 20.0, when=1000.0)
    old = write_benchmark(tmp_path / "b.tsv", 90.0, when=500.0)
    assert collect(tmp_path, iter([job(new), job(old), job(tmp_path / "none.tsv")]), 900.0) == 1
    assert History.read(tmp_path).measured == {"k": [Measured(20.0, 700.5, 10.0)]}


def test_a_job_that_found_its_work_done_is_left_out(tmp_path):
    path = write_benchmark(tmp_path / "a.tsv", 5.0)
    trained = tmp_path / "encoder.json"
    trained.write_text(json.dumps({"device_seconds": 3600.0}))
    assert collect(tmp_path, iter([job(path, trained=trained)]), 0.0) == 0
    trained.write_text(json.dumps({"device_seconds": 3.0}))
    assert collect(tmp_path, iter([job(path, trained=trained)]), 0.0) == 1


@pytest.mark.parametrize("text", ["", "s\n", f"{HEAD}\n", f"{HEAD}\nnot a number\n"])
def test_a_broken_benchmark_costs_nothing(tmp_path, text):
    (tmp_path / "a.tsv").write_text(text)
    assert collect(tmp_path, iter([job(tmp_path / "a.tsv")]), 0.0) == 0


def test_memory_that_was_not_measured_is_none(tmp_path):
    # Snakemake writes a dash for jobs that are over before it looks.
    collect(tmp_path, iter([job(write_benchmark(tmp_path / "a.tsv", 0.3, rss="-"))]), 0.0)
    assert History.read(tmp_path).rss_mb("k") == (0.0, False)


def test_the_newest_are_kept(tmp_path):
    made = History()
    for i in range(history.KEPT + 5):
        made.add("k", Measured(float(i), 1.0, 1.0))
    assert [one.seconds for one in made.measured["k"]] == [*map(float, range(5, history.KEPT + 5))]


def test_measurements_of_other_amounts_are_scaled_only_where_there_are_no_others():
    made = History({"k": [Measured(10.0, 1.0, 5.0), Measured(30.0, 1.0, 10.0)]})
    assert made.like("k", 10.2) == ([30.0], True)
    assert made.like("k", 20.0) == ([40.0, 60.0], False)
    assert made.like("other", 20.0) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "measured": 3}'])
def test_a_broken_history_is_as_good_as_none(tmp_path, text):
    (tmp_path / history.FILE).write_text(text)
    assert History.read(tmp_path).measured == {}


def test_quantiles_of_few_values():
    assert history.quantile([4.0], 0.95) == 4.0
    assert history.quantile([0.0, 10.0], 0.95) == pytest.approx(9.5)


def test_each_job_of_a_plan_has_its_benchmark_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = expand(load(CONFIG, "config"))
    made = {str(one.benchmark) for one in jobs(Model(plan, History(), {}))}
    assert len(made) == len(list(jobs(Model(plan, History(), {}))))
    folder = "work/benchmarks"
    assert f"{folder}/pretrain/simclr.px48.p.1.0.tsv" in made
    assert f"{folder}/finetune/majority.px48.p.0.0.tsv" in made
    assert {f"{folder}/plan.tsv", f"{folder}/convert/p.0.tsv", f"{folder}/phantom/p.tsv"} <= made


def test_a_run_teaches_the_next_plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = expand(load(CONFIG, "config"))
    write_benchmark(tmp_path / "work/benchmarks/audit/p.tsv", 50.0)
    write_benchmark(tmp_path / "work/benchmarks/finetune/majority.px48.p.0.0.tsv", 7.0)
    # Without predictions nobody can say whether it did the work.
    assert remember(plan, since=0.0) == 1
    found = Model(plan, machines={}).of("audit", "", "", "p")
    assert (found.seconds, found.source) == (50.0, "measured:1")
