"""The measures run: each says what it does, and a tiny case of it comes through. No figure is tested."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks"
FACTS = {"cases", "cores", "date", "load", "machine", "versions"}
# Those that measure training; the others run the whole workflow or a cluster.
TINY = {
    "engine": "--cases simclr:test_resnet mae:monai-test-vit:3d --size 16 --size-3d 16 --batch 8 --batch-3d 4"
    " --steps 1 --repeats 2",
    "augmentation": "--shapes 2d --families crop noise --peers monai --repeats 1 --each 2 --threads 1",
    "fuzz": "--files 12 --readers npy bmp",
    "prepare": "--kinds nifti-gz nifti png-8 png-16 series series-jpeg2000 --scans 2 --volume 20 --image 32 --size 16"
    " --series 2 --slices 3 --repeats 1",
    "replicas": "--replicas 2 --size 16 --steps 1 --repeats 2",
}


@pytest.fixture
def run(monkeypatch):
    """A script in this process, since each import of torch takes seconds; its exit code."""
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()

    def run(name: str, *words: str) -> int:
        path = str(FOLDER / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [path, *words])
        with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:
            runpy.run_path(path, run_name="__main__")
        return ended.value.code

    yield run
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "name",
    [
        *TINY,
        "audit",
        "engine_growth",
        "invariance",
        "learning_rates",
        "runs_per_hour",
        "scans_growth",
    ],
)
def test_help_tells_the_command(run, capsys, name):
    assert run(name, "--help") == 0
    assert f"python benchmarks/{name}.py" in capsys.readouterr().out


def test_help_of_peers(run, capsys):
    pytest.importorskip("lightly")
    assert run("peers", "--help") == 0
    assert "python benchmarks/peers.py" in capsys.readouterr().out


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_case_writes_its_results(run, name, tmp_path):
    out = tmp_path / "results" / f"{name}.json"
    assert run(name, *TINY[name].split(), "--out", str(out)) == 0
    written = json.loads(out.read_text())
    assert set(written) >= FACTS
    assert len(written["cases"]) >= 1


def test_the_best_rate_has_the_smallest_loss_that_is_no_collapse(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    best = runpy.run_path(str(FOLDER / "learning_rates.py"))["best"]
    found = {
        rate: {"loss": loss, "effective_rank": rank}
        for rate, loss, rank in [(1e-3, 2.0, 40.0), (2e-3, 1.0, 30.0), (4e-3, 0.1, 3.0)]
    }
    assert best(found) == 2e-3


def test_growth_by_scans_and_a_store_above_the_limit(tmp_path):
    """In a process that has no threads yet: its children are forked."""
    out = tmp_path / "growth.json"
    words = "--scans 20 --size 16 --batch 10 --steps 2 --large 100 --large-size 128 --limit 50"
    made = subprocess.run(
        [sys.executable, str(FOLDER / "engine_growth.py"), *words.split(), "--out", str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    small, large = json.loads(out.read_text())["cases"]
    assert small["steps_run"] == 2
    assert small["step_s"] > 0
    assert large["voxels_mb"] > large["limit_mb"]


def test_the_audit_grows_and_loses_no_pair(tmp_path):
    out = tmp_path / "audit.json"
    made = subprocess.run(
        [sys.executable, str(FOLDER / "audit.py"), "--sizes", "60", "120", "--search", "200", "--out", str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    cases = json.loads(out.read_text())["cases"]
    assert [case["scans"] for case in cases] == [60, 120, 200]
    assert [case.get("lost") for case in cases] == [0, 0, None]
    assert cases[1]["pairs"] == 120 // 20


def test_the_first_stages_grow_with_scans(tmp_path):
    out = tmp_path / "scans_growth.json"
    words = ["--sizes", "40", "--chunks", "2", "--out", str(out)]
    made = subprocess.run(
        [sys.executable, str(FOLDER / "scans_growth.py"), *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    written = json.loads(out.read_text())
    (case,) = written["cases"]
    assert written["private"]
    assert case["scans"] == 40
    for step in ("plan", "read", "convert", "gather", "audit"):
        assert case[step]["mb"] > 20


@pytest.mark.parametrize("path", sorted((FOLDER / "results").glob("*.json")), ids=lambda p: p.stem)
def test_results_say_what_they_were_measured_with(path):
    assert set(json.loads(path.read_text())) >= FACTS
    assert any(
        (FOLDER / f"{name}.py").is_file() for name in (path.stem, path.stem.rsplit("_", 1)[0])
    )
