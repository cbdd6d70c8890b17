"""Edited while jobs wait: a script that is not what the run planned stops, and a table holds one state of the code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fewscans.cluster import rundigests
from fewscans.contracts import read_metadata, read_table, write_table
from fewscans.digest import code_digest
from fewscans.errors import UserError

sys.path.insert(0, str(Path(__file__).parent))
from aggregate_factory import Study

ROOT = Path(__file__).resolve().parent.parent
CONFIG = {"datasets": {"tiny": {"root": "raw", "table": "labels.csv"}}}


def job(cfg: str | None, code: str | None) -> SimpleNamespace:
    given = {"cfg": cfg, "code": code, "out": "x"}
    return SimpleNamespace(params={key: value for key, value in given.items() if value})


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that planned some jobs; its variable is gone afterwards."""
    monkeypatch.delenv(rundigests.VARIABLE, raising=False)

    def planned(*jobs: SimpleNamespace) -> Path:
        path = tmp_path / "work" / rundigests.FILE
        monkeypatch.setenv(rundigests.VARIABLE, str(path))
        rundigests.write(path, jobs)
        return path

    return planned


def test_outside_a_run_nothing_is_checked(monkeypatch):
    monkeypatch.delenv(rundigests.VARIABLE, raising=False)
    rundigests.check("scripts.plan", "{}")


def test_what_was_planned_passes(run):
    run(job('{"a": 1}', code_digest("scripts.plan")), job(None, code_digest("scripts.weights")))
    assert os.environ[rundigests.VARIABLE].endswith("work/run-digests.json")
    rundigests.check("scripts.plan", '{"a": 1}')
    rundigests.check("scripts.weights", None)


def test_settings_that_were_not_planned_stop(run):
    run(job('{"a": 1}', code_digest("scripts.plan")))
    with pytest.raises(UserError, match=r"changed since submission: its settings.*Run again"):
        rundigests.check("scripts.plan", '{"a": 2}')


def test_a_part_of_a_script_counts_as_it(run):
    run(job('{"a": 1}', code_digest("fewscans.split.folds")))
    with pytest.raises(UserError, match="changed since submission"):
        rundigests.check("scripts.split", '{"a": 2}')


def test_a_script_that_no_job_runs_is_not_the_runs_business(run):
    run(job('{"a": 1}', code_digest("scripts.plan")))
    rundigests.check("scripts.audit", "{}")


@pytest.mark.parametrize("settings", ['{"a": 1}', None])
def test_code_that_changed_stops(run, settings):
    path = run(job(settings, code_digest("scripts.weights")))
    plan = json.loads(path.read_text().replace(code_digest("scripts.weights"), "0" * 16))
    path.write_text(json.dumps(plan))
    with pytest.raises(UserError, match=r"its code \(scripts.weights\)"):
        rundigests.check("scripts.weights", settings)


def test_a_module_that_is_gone_is_a_change(run):
    path = run(job('{"a": 1}', code_digest("scripts.plan")))
    path.write_text(path.read_text().replace('"scripts.plan"', '"scripts.gone"'))
    with pytest.raises(UserError, match="changed since submission"):
        rundigests.check("scripts.plan", '{"a": 1}')


def test_a_record_that_is_gone_or_unreadable_stops_nobody(run):
    path = run(job('{"a": 1}', code_digest("scripts.plan")))
    path.write_text("{half")
    rundigests.check("scripts.plan", '{"a": 2}')
    path.unlink()
    rundigests.check("scripts.plan", '{"a": 2}')


def test_a_queued_script_finds_other_code(tmp_path):
    """In a copy, as a process of its own: planned, run, edited, run."""
    shutil.copytree(
        ROOT / "fewscans", tmp_path / "fewscans", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    environment.pop(rundigests.VARIABLE, None)
    text = json.dumps(CONFIG)
    plan = (
        "from types import SimpleNamespace; from fewscans.cluster import rundigests;"
        " from fewscans.digest import code_digest; import sys;"
        " params = dict(cfg=sys.argv[1], code=code_digest('scripts.plan'));"
        " rundigests.write('run-digests.json', [SimpleNamespace(params=params)])"
    )
    subprocess.run([sys.executable, "-c", plan, text], cwd=tmp_path, env=environment, check=True)
    environment[rundigests.VARIABLE] = str(tmp_path / "run-digests.json")

    def start(settings: str = text) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "scripts/plan.py", "--params", settings, "--out", "plan.json"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    assert start().returncode == 0, start().stderr
    script = tmp_path / "scripts/plan.py"
    script.write_text(script.read_text() + "\n# a comment retrains nothing\n")
    assert start().returncode == 0
    script.write_text(script.read_text().replace("indent=1", "indent=2"))
    done = start()
    assert done.returncode == 2
    assert "changed since submission" in done.stderr
    assert "Traceback" not in done.stderr
    assert start(json.dumps({**CONFIG, "seed": 5})).returncode == 2


# -- aggregate -------------------------------------------------------------------------------------


def with_code(study: Study, run_code, encoder_code) -> None:
    """Rewrite the metadata of all predictions; the functions take the number of the file."""
    files = [run for run in study.plan["runs"] if run["arms"]]
    for i, run in enumerate(files):
        said = read_metadata(run["predictions"])
        for one in said["runs"]:
            one["code"] = run_code(i)
        said["encoder"]["code"] = encoder_code(i)
        write_table(
            run["predictions"], "predictions", read_table(run["predictions"], "predictions"), **said
        )


@pytest.mark.parametrize(
    ("run_code", "encoder_code", "said"),
    [
        (lambda i: "new" if i else "old", lambda i: "same", "protocol"),
        (lambda i: "same", lambda i: f"state{i % 2}", "encoders by"),
        (lambda i: "same", lambda i: "same", None),
        (lambda i: "" if i else "old", lambda i: "", None),
    ],
)
def test_aggregate_refuses_a_mix(tmp_path, monkeypatch, run_code, encoder_code, said):
    from fewscans.aggregate.inputs import read_datasets

    monkeypatch.chdir(tmp_path)
    study = Study(tmp_path)
    study.write()
    with_code(study, run_code, encoder_code)
    if said is None:
        assert len(list(read_datasets(study.plan))) == 1
        return
    with pytest.raises(UserError, match="states of the code") as error:
        list(read_datasets(study.plan))
    assert said in str(error.value)
    assert "Run again" in str(error.value)
