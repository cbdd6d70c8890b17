"""``fewscans plan`` and the end of a dry-run, for real, on a small workflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from forecast_factory import ROOT, SITE, SNAKEFILE
from PIL import Image

from fewscans.__main__ import main

pytestmark = pytest.mark.slow
RULES = {"convert": 1, "pretrain": 3, "aggregate": 1}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    monkeypatch.chdir(tmp_path)
    for name in ("FEWSCANS_SITE", "FEWSCANS_PLAN", "SNAKEMAKE_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def snakemake(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--logger", "fewscans", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=False,
    )


def planned(*words: str) -> tuple[int, dict]:
    """(exit code, plan as JSON)."""
    code = main(["plan", "--cores", "2", "--json", "plan.json", *words])
    return code, json.loads(Path("plan.json").read_text())


def jobs_of(plan: dict) -> dict[str, int]:
    return {rule["rule"]: rule["jobs"] for rule in plan["rules"]}


def test_a_dry_run_ends_with_the_plan_after_its_own_words(folder):
    done = snakemake("-n")
    assert done.returncode == 0, done.stderr
    own, _, ours = done.stdout.partition("The plan: 5 jobs to run, 0 up to date")
    assert "This was a dry-run" in own
    assert "rule pretrain:" in own
    assert "pretrain" in ours
    assert "work" not in os.listdir(folder)


def test_under_quiet_too(folder):
    assert "The plan: 5 jobs" in snakemake("-n", "--quiet", "all").stdout
    short = snakemake("-n", "-q").stdout  # here Snakemake names no job
    assert "`fewscans plan` shows it" in short


def test_other_outputs_of_a_dry_run_stay_as_they_are(folder):
    done = snakemake("-n", "--dag")
    assert "digraph" in done.stdout
    assert done.stdout.rstrip().endswith("}")


def test_plan_run_and_what_was_used(folder, capsys):
    code, plan = planned()
    assert code == 0
    assert jobs_of(plan) == RULES
    assert plan["totals"]["jobs_of_unknown_length"] == 1
    assert plan["critical_path"]["rules"] == ["convert", "pretrain", "aggregate"]
    assert plan["disk"]["files"] == 1 + 3 * 2
    first = Path("plan.json").read_bytes()
    again = {**planned()[1], "now": 0}
    assert json.dumps(again) == json.dumps({**json.loads(first), "now": 0})

    done = snakemake()
    assert done.returncode == 0, done.stderr
    assert "The plan" not in done.stdout + done.stderr
    capsys.readouterr()
    code, after = planned("--diff", "plan.json")
    assert code == 0
    assert after["rules"] == []
    assert after["up_to_date"] == RULES
    shown = capsys.readouterr().out
    assert "nothing to do, 5 jobs are up to date" in shown
    assert "pretrain" in shown

    assert main(["plan", "--cores", "2", "--actual"]) == 0
    shown = capsys.readouterr().out
    assert "As it was: 5 jobs" in shown
    lines = Path("work/runs/jobs.jsonl").read_text().splitlines()
    recorded = {job["name"]: job for job in map(json.loads, lines)}
    assert recorded["pretrain[i=2]"]["expected_s"] == 7
    assert recorded["pretrain[i=2]"]["ended_unix_s"] >= recorded["pretrain[i=2]"]["started_unix_s"]

    # Why: a param of one rule, and what follows from it.
    _, changed = planned("--config", "level=2")
    reasons = {rule["rule"]: rule["reasons"] for rule in changed["rules"]}
    assert reasons == {
        "convert": {"params": 1},
        "pretrain": {"earlier job": 3},
        "aggregate": {"earlier job": 1},
    }
    _, rewritten = planned("--config", "code=6c47151a18f194e9")
    assert rewritten["rules"][0]["reasons"] == {"code": 1}
    Path("work/converted.txt").write_text("others\n")
    _, touched = planned()
    assert {r["rule"]: r["reasons"] for r in touched["rules"]}["pretrain"] == {"inputs": 3}
    assert touched["totals"]["jobs_up_to_date"] == 1


def test_targets_files_and_picture(folder, capsys):
    code, plan = planned("work/encoders/1.txt", "--csv", "p.csv", "--gantt", "p.png", "--gpus", "2")
    assert code == 0
    assert jobs_of(plan) == {"convert": 1, "pretrain": 1}
    assert len(Path("p.csv").read_text().splitlines()) == 3
    picture = Image.open("p.png")
    assert picture.size[0] == 1400
    assert len(picture.convert("RGB").getcolors(1 << 24)) > 10
    assert [w["count"] for w in plan["wall_times"]] == [1, 2, 4, 8]
    assert {w["kind"] for w in plan["wall_times"]} == {"gpus"}


def test_on_a_cluster(folder, monkeypatch, capsys):
    Path("site.yaml").write_text(yaml.safe_dump(SITE))
    monkeypatch.setenv("FEWSCANS_SITE", str(folder / "site.yaml"))
    code, plan = planned("--config", "runs=20")
    assert code == 0
    assert plan["place"]["cluster"]
    assert plan["totals"]["submissions"] == 22
    assert {r["rule"]: r["partitions"] for r in plan["rules"]}["pretrain"] == ["gpu"]
    assert plan["totals"]["peak_gpus"] == 8
    assert plan["totals"]["gpu_hours"] > 0

    small = {**SITE, "partitions": {**SITE["partitions"], "gpu": {"max_mem_mb": 100, "max_gpu": 1}}}
    Path("site.yaml").write_text(yaml.safe_dump(small))
    capsys.readouterr()
    assert planned()[0] == 2
    assert "pretrain (3 jobs): asks for 200 MB of memory" in capsys.readouterr().out


def test_over_a_budget(folder, capsys):
    assert planned("--budget-cpu-hours", "0.001")[0] == 2
    assert "over budget" in capsys.readouterr().out
    Path("config").mkdir()
    Path("config/plan.yaml").write_text("budget: {disk_gb: 0.001}\nrates: {cpu_hour: 3}\n")
    code, plan = planned()
    assert code == 2
    assert plan["totals"]["money"] > 0
    assert "disk gb" in capsys.readouterr().out


def test_settings_are_those_of_the_folder_unless_others_are_named(folder, monkeypatch):
    Path("elsewhere/config").mkdir(parents=True)
    Path("elsewhere/config/plan.yaml").write_text("rates: {cpu_hour: 3}\n")
    Path("named.yaml").write_text("rates: {cpu_hour: 0}\n")
    assert planned("--directory", "elsewhere")[1]["totals"]["money"] > 0
    monkeypatch.setenv("FEWSCANS_PLAN", "named.yaml")
    assert planned("--directory", "elsewhere")[1]["totals"]["money"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nosuch.txt"], "No rule to produce nosuch.txt"),
        (["--configfile", "none.yaml"], "none.yaml: no such file"),
        (["--settings", "none.yaml"], "none.yaml: no such file"),
        (["--json", "none/plan.json"], "its folder is not there"),
        (["--gantt", "plan.pdf"], "ends in .png"),
        (["--diff", "none.json"], "cannot be read"),
        (["--config", "runs=many"], "invalid literal"),
    ],
)
def test_mistakes_are_said_in_words(folder, capsys, words, said):
    assert main(["plan", "--cores", "2", *words]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


def test_a_broken_plan_never_breaks_a_run(folder, monkeypatch):
    monkeypatch.setenv("FEWSCANS_PLAN", "none.yaml")
    done = snakemake("-n")
    assert done.returncode == 0
    assert "no plan: UserError: none.yaml: cannot be read" in done.stderr
    Path("work").mkdir()
    Path("work/runs").write_text("in the way of the record")
    done = snakemake()
    assert done.returncode == 0, done.stderr
    assert Path("results/table.csv").exists()


@pytest.mark.parametrize("profile", [[], ["--profile", str(ROOT / "profiles/slurm")]])
def test_profiles_of_ours_show_it(tmp_path, profile):
    """As typed in a clone, by the command `snakemake`, with no flag but -n."""
    command = [str(Path(sys.executable).parent / "snakemake"), "-n", "--quiet", "rules"]
    kept = ("PYTHONPATH", "SNAKEMAKE_PROFILE", "FEWSCANS_SITE")
    done = subprocess.run(
        [*command, *profile, "--directory", str(tmp_path)],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k not in kept},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "This was a dry-run" in done.stdout
    place = "on the cluster" if profile else "on this machine"
    assert f"up to date, {place}" in done.stdout
    assert "finetune" in done.stdout.partition("The plan")[2]
