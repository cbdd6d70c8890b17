"""What `fewscans doctor --probe` asks nodes: the job's script is run for real, with a srun that starts its command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fewscans.__main__ import main
from fewscans.cluster import probe, profile, slurm
from fewscans.cluster.site import Site


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of its own, on a machine without Slurm unless a test says otherwise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEWSCANS_SITE", raising=False)
    monkeypatch.setattr(slurm, "available", lambda *_: False)
    return tmp_path


@pytest.fixture
def node(here, monkeypatch):
    """Runs a probe's script as a node would; gives (exit code, checks)."""
    bin_folder = here / "bin"
    bin_folder.mkdir()
    (bin_folder / "srun").write_text('#!/bin/sh\nshift 2\nexec "$@"\n')
    (bin_folder / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    token = here / "token"
    token.write_text("abc")

    def run(
        folder: Path = here,
        data: tuple[str, ...] = (),
        gpu: bool = False,
        before=lambda: None,
        modules: tuple[str, ...] = (),
    ):
        out = here / "out.json"
        prelude = profile.prelude(Site(modules=list(modules)))
        text = probe.script(folder, token, out, data, gpu, prelude)
        before()
        (here / "job.sh").write_text(text)
        done = subprocess.run(["bash", "job.sh"], capture_output=True, text=True, check=False)
        return done.returncode, json.loads(out.read_text()) if out.exists() else []

    return run


def test_a_node_that_sees_everything(node, here):
    (here / "scans").mkdir()
    (here / "scans/a.png").write_text("x")
    code, checks = node(data=(str(here / "scans"),))
    assert code == 0
    by_name = {one["name"]: one for one in checks}
    assert {"folder", "same files", "srun", "writable", "python", "torch"} <= set(by_name)
    assert all(one["ok"] for one in checks)
    assert by_name[f"data {here / 'scans'}"]["text"] == "1 entries, readable"


def test_data_and_gpu_that_are_not_there_are_said(node, here):
    code, checks = node(data=(str(here / "gone"),), gpu=True)
    assert code == 0
    bad = {one["name"]: one["text"] for one in checks if not one["ok"]}
    assert "No such file" in bad[f"data {here / 'gone'}"]
    assert "sees no GPU" in bad["gpu"]


def test_modules_are_loaded_as_jobs_load_them(node, here, monkeypatch):
    (here / "init").mkdir()
    (here / "init/bash").write_text('module() { [ "$2" = good ]; }\n')
    for name, value in (("LMOD_PKG", here), ("MODULESHOME", here), ("SLURM_JOB_ID", 7)):
        monkeypatch.setenv(name, str(value))
    assert node(modules=("bad",)) == (1, [])
    code, checks = node(modules=("good",))
    assert code == 0
    assert all(one["ok"] for one in checks)


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        ("folder", probe.NO_FOLDER),
        ("token", probe.OTHER_FILES),
        ("python", probe.NO_PYTHON),
        ("srun", probe.NO_SRUN),
        ("package", probe.NO_PACKAGE),
    ],
)
def test_what_python_cannot_tell_is_an_exit_code(node, here, monkeypatch, trouble, code):
    if trouble == "python":
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
    if trouble == "package":
        monkeypatch.setattr(probe, "ROOT", here)

        (here / "fewscans.py").write_text("raise ImportError")

    def before() -> None:
        if trouble == "token":
            (here / "token").write_text("of another folder")
        if trouble == "srun":
            (here / "bin/srun").write_text("#!/bin/sh\nexit 1\n")

    folder = here / "gone" if trouble == "folder" else here
    assert node(folder, before=before)[0] == code
    assert code in probe.SAID


def test_which_partitions_are_asked(monkeypatch):
    both = {"a": {"max_gpu": 2, "max_runtime": 2, "default": True}, "b": {"max_gpu": 1}, "c": {}}
    site = Site.model_validate(
        {"partitions": both, "classes": {"gpu": {"partition": "b"}, "cpu": {}}}
    )
    assert probe.targets(site) == {"a": probe.Target(False, 2), "b": probe.Target(True)}
    everything = Site.model_validate({"partitions": both})
    assert list(probe.targets(everything)) == ["a", "b", "c"]
    monkeypatch.setattr(
        slurm, "run", lambda *_: "cpu|(null)|1:00:00\nshort|(null)|1:00\ngpu|gpu:a:2|infinite\n"
    )
    assert probe.targets(None) == {
        "cpu": probe.Target(False),
        "short": probe.Target(False, 1),
        "gpu": probe.Target(True),
    }


def test_a_probe_without_sbatch_is_refused_in_words(capsys):
    assert main(["doctor", "--probe"]) == 2
    assert "no sbatch here" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="scripts are for bash")
@pytest.mark.parametrize(
    ("exit_code", "said"), [(61, "does not have it"), (0, "did not appear"), (3, "exit code 3")]
)
def test_answers_without_a_report(here, monkeypatch, exit_code, said):
    monkeypatch.setattr(probe, "LATE_S", 0.0)
    monkeypatch.setattr(slurm, "show", lambda *_: {"ExitCode": f"{exit_code}:0", "NodeList": "n7"})
    monkeypatch.setattr(slurm, "jobs", lambda *_, **__: [])
    monkeypatch.setattr(slurm, "cancel", lambda *_: None)
    monkeypatch.setattr(slurm, "run", lambda command, *_: "12\n")
    site = Site.model_validate({"partitions": {"cpu": {}}, "account": "proj"})
    (answer,) = probe.probe(Path("work"), [], site, print, poll_s=0)
    assert not answer.ok
    assert answer.node == "n7"
    assert said in answer.checks[0].text
