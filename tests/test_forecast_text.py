"""The plan as a reader sees it: text, CSV, differences, what was used."""

from __future__ import annotations

import json
import os
import stat
from types import SimpleNamespace

import pytest
from forecast_factory import cluster, event, job, local, plan

from fewscans.errors import UserError
from fewscans.forecast import actual, context
from fewscans.forecast.diff import changes, diff_text
from fewscans.forecast.export import csv_text, read_json, save_json
from fewscans.forecast.rates import PlanSettings
from fewscans.forecast.record import Recorder
from fewscans.forecast.text import chain_words, plan_text
from fewscans.forecast.totals import build
from fewscans.forecast.words import amount, between, brief, count, duration, size


def many():
    return [
        job("convert", expected_s=40.0),
        *(
            job("pretrain", name=f"p{i}", gpus=1, expected_s=5000.0 + i, cpus=1 + i % 2, after=(0,))
            for i in range(1200)
        ),
        job("report", expected_s=None, output_mb=None, estimate="unknown", mem_mb=None),
    ]


@pytest.mark.parametrize(
    ("seconds", "text", "short"),
    [
        (None, "unknown", "unknown"),
        (0, "0 s", "0 s"),
        (4.2, "4.2 s", "4.2 s"),
        (61, "61 s", "61 s"),
        (190, "3.2 min", "3.2 min"),
        (3000, "50 min", "50 min"),
        (7260, "2 h 1 min", "2.02 h"),
        (90_000, "25 h", "25 h"),
        (172_800, "2 days", "2 days"),
        (190_000, "2 days 5 h", "2.2 days"),
    ],
)
def test_durations(seconds, text, short):
    assert duration(seconds) == text
    assert brief(seconds) == short


def test_other_words():
    assert [size(v) for v in (None, 0, 0.2, 850, 4200, 3.2e6)] == [
        "unknown", "0 MB", "under 1 MB", "850 MB", "4.2 GB", "3.2 TB",
    ]  # fmt: skip
    assert [amount(v) for v in (None, 0, 3, 0.4213, 12_400.4)] == [
        "unknown", "0", "3", "0.421", "12,400",
    ]  # fmt: skip
    assert between([1, 4]) == "1 to 4"
    assert between([4, 4]) == "4"
    assert (count(1, "try", "tries"), count(2, "try", "tries")) == ("1 try", "2 tries")
    assert chain_words(["a", "b", "b", "c"]) == "a > 2 x b > c"


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("place", [local(cores=2), local(cores=8, gpus=4), cluster(slots=50)])
def test_text_fits_and_is_never_blank(place, full):
    text = plan_text(plan(many(), place, rates={"gpu_hour": 1.5, "co2_g_per_kwh": 300}), full=full)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert "None" not in text
    assert "nan" not in text
    assert "1 job of unknown length" in text
    assert "1,202 jobs to run" in lines[0]
    assert not any(line.endswith("…") for line in lines)


def test_text_of_a_cluster_has_what_it_adds():
    text = plan_text(plan(many(), cluster(slots=50, retries=2)))
    assert "GPU-hours" in text
    assert "3 times" in text
    assert "at most 50 in flight" in text
    assert "queueing apart" in text


def test_everything_unknown():
    text = plan_text(plan([job(expected_s=None, output_mb=None, estimate="unknown")]))
    assert "wall time:      unknown (1 job of unknown length)" in text
    assert "disk:           unknown (1 job of unknown size)" in text


def test_nothing_to_do():
    assert plan_text(plan([])) == "The plan: nothing to do."
    done = plan([], local(up_to_date={"convert": 3}))
    assert plan_text(done) == "The plan: nothing to do, 3 jobs are up to date."


def test_problems_and_budget_are_shown():
    text = plan_text(plan([job("pretrain", gpus=5)], cluster(), budget={"cpu_hours": 0}))
    assert "! pretrain (1 job): asks for 5 GPUs" in text
    assert "It would be refused or wait for ever" in " ".join(text.split())
    assert "over budget" in text


def test_advice_to_pack_and_on_limits():
    short = [job("finetune", name=f"f{i}", gpus=1, expected_s=10.0) for i in range(40)]
    terms = PlanSettings(terms={"in_job_s": 10.0}).terms
    found = build(short, cluster(terms=terms), PlanSettings())
    assert any("`pack: 10` in the site file" in text for text in found["advice"])
    asked = plan([job("pretrain", gpus=1, runtime_min=1200)], cluster())
    assert any("asks for 20 h and needs 90 s at most" in text for text in asked["advice"])
    waits = plan([job("tune", runtime_min=1200)], cluster())
    assert not any("asks for" in text for text in waits["advice"])


def test_advice_where_more_gpus_gain_nothing():
    jobs = [job("pretrain", name=f"p{i}", gpus=1, expected_s=3600.0) for i in range(2)]
    found = plan(jobs, cluster())
    assert any("More than 2 GPUs gain little" in text for text in found["advice"])


def test_advice_on_the_longest_chain_is_about_the_job_that_is_on_it():
    jobs = [
        job("convert", expected_s=300.0, expected_p95_s=9000.0),
        job("pretrain", name="p0", gpus=1, expected_s=30.0, after=(0,)),
        job("pretrain", name="p1", gpus=1, expected_s=700.0, after=(0,)),
    ]
    found = plan(jobs, cluster())
    assert found["critical_path"]["longest_rule"] == "pretrain"
    assert any("One pretrain job is 70 % of the longest chain" in text for text in found["advice"])


def test_no_more_is_packed_than_is_advised():
    short = [job("finetune", name=f"f{i}", gpus=1, expected_s=0.1) for i in range(99)]
    terms = PlanSettings().terms
    assert any("pack: 64" in t for t in build(short, cluster(terms), PlanSettings())["advice"])
    packed = build(short, cluster(terms, pack=64), PlanSettings())
    assert not any("pack:" in text for text in packed["advice"])


def test_csv_has_a_line_per_rule():
    lines = csv_text(plan(many(), cluster())).splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(
        "rule,class,jobs,submissions,reasons,partitions,cpus_least,cpus_most"
    )
    assert "missing:1200" in lines[2]
    assert len(csv_text(plan([])).splitlines()) == 1


def test_json_goes_round_and_says_what_is_no_plan(tmp_path):
    file = tmp_path / "plan.json"
    save_json(plan(many()), file)
    first = file.read_bytes()
    save_json(read_json(file), file)
    assert file.read_bytes() == first
    for text, words in [
        ("{}", "no plan"),
        ("[1]", "no plan"),
        ("{", "not JSON"),
        ('{"schema_version": 99, "rules": []}', "version 99"),
    ]:
        file.write_text(text)
        with pytest.raises(UserError, match=words):
            read_json(file)
    with pytest.raises(UserError, match="cannot be read"):
        read_json(tmp_path / "none.json")


def test_differences():
    old = plan([job(), job("pretrain", gpus=1), job("report")], cluster())
    new = plan([job(mem_mb=2000), job("pretrain", gpus=1), job("pretrain", gpus=1)], cluster())
    found = {(rule, what): (a, b) for rule, what, a, b in changes(old, new)}
    assert found["convert", "memory"] == ("1 GB", "2 GB")
    assert found["pretrain", "jobs"] == ("1", "2")
    assert found["report", "jobs"] == ("1", "0")
    assert ("total", "GPU-hours") in found
    assert ("convert", "jobs") not in found
    assert diff_text(old, old, "old.json") == "Nothing has changed since old.json."
    assert max(map(len, diff_text(old, new, "old.json").splitlines())) <= 100


# -- actual ------------------------------------------------------------------------------------------------------------


def record(tmp_path, lines):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/jobs.jsonl").write_text("\n".join(lines) + "\n")


def ran(name, **changes):
    values = {
        "name": name, "rule": name.partition("[")[0], "cpus": 1, "gpus": 0, "mem_mb": 1000,
        "runtime_min": 60, "expected_s": 10.0, "expected_p95_s": 20.0, "estimate": "scaled",
        "benchmark": None, "started_unix_s": 100.0, "ended_unix_s": 115.0,
        "run_began_unix_s": 90.0, "slurm_id": None,
    }  # fmt: skip
    return json.dumps({**values, **changes})


def test_actual_takes_the_last_run_of_each_job_and_its_benchmark(tmp_path):
    benchmark = tmp_path / "b.tsv"
    benchmark.write_text("s\th:m:s\tmax_rss\n12.5\t0:00:12\t345.6\n")
    record(
        tmp_path,
        [
            ran("convert", expected_s=99.0),
            ran("convert", benchmark="b.tsv"),
            ran("pretrain[seed=0]", run_began_unix_s=95.0, ended_unix_s=155.0),
            '{"name": "cut sho',
        ],
    )
    found = actual.compare(actual.read_record(tmp_path), tmp_path)
    convert, pretrain = found["rules"]
    assert (convert["used_p50_s"], convert["used_mb"]) == (12.5, 345.6)
    assert convert["used_to_expected"] == 1.25
    assert (pretrain["used_p50_s"], pretrain["used_mb"]) == (55.0, None)
    assert found["wall_s"] == 60.0
    text = actual.actual_text(found)
    assert "unknown" in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_run_on_slurm_is_recorded_with_its_job_id(tmp_path, monkeypatch):
    monkeypatch.setattr(context, "_noted", {"work": str(tmp_path)})
    kinds = SimpleNamespace(JOB_INFO="info", JOB_FINISHED="finished", WORKFLOW_STARTED="started")
    recorder = Recorder(kinds)
    told = "Job 3 has been submitted with SLURM jobid 17 (log: logs/17.log)."
    recorder.take("started", SimpleNamespace(created=1.0))
    info = event(3, "convert", resources={"expected_s": 9, "expected_from": "scaled"})
    info.created = 2.0
    recorder.take("info", info)
    recorder.take(None, SimpleNamespace(msg=told))
    recorder.take("finished", SimpleNamespace(job_id=3, created=12.0))
    recorder.take("finished", SimpleNamespace(job_id=99, created=12.0))  # a target
    (found,) = actual.read_record(tmp_path)
    assert (found["slurm_id"], found["expected_s"]) == ("17", 9)
    assert found["ended_unix_s"] - found["started_unix_s"] == 10


def test_actual_without_record(tmp_path):
    with pytest.raises(UserError, match="no run has been recorded"):
        actual.read_record(tmp_path)


def test_actual_asks_the_accounts(tmp_path, monkeypatch):
    fake = tmp_path / "bin/sacct"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\nprintf '7|20|\\n7.batch|20|2048K\\n7.0|19|1.5G\\n8|5|\\n8.batch|5|\\n'\n"
    )
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    assert actual.sacct(["7", "8"]) == {
        "7": {"elapsed_s": 20.0, "used_mb": 1536.0},
        "8": {"elapsed_s": 5.0, "used_mb": None},
    }
    record(tmp_path, [ran("convert", slurm_id="7")])
    (rule,) = actual.compare(actual.read_record(tmp_path), tmp_path)["rules"]
    assert (rule["elapsed_most_s"], rule["used_mb"], rule["used_p50_s"]) == (20.0, 1536.0, None)


def test_actual_goes_on_where_the_accounts_are_away(tmp_path, monkeypatch):
    fake = tmp_path / "sacct"
    fake.write_text("#!/bin/sh\necho 'accounting storage is disabled' >&2\nexit 1\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert actual.sacct(["7"]) == {}
