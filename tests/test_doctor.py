"""What `fewscans doctor` finds in a folder, says to do, and exits with; what its jobs on the nodes tell."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from fewscans.__main__ import main
from fewscans.cluster import doctor, filesystems, leftovers, orphans, probe, slurm
from fewscans.cluster.site import Site
from fewscans.runrecord import RunRecord, process_space, process_start

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder of its own, on a machine without Slurm unless a test says otherwise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEWSCANS_SITE", raising=False)
    monkeypatch.setattr(slurm, "available", lambda *_: False)
    return tmp_path


def findings(area: str, site: Site | None = None) -> list[doctor.Finding]:
    return [one for one in doctor.examine("work", "results", site) if one.area == area]


def queue_of(monkeypatch, *jobs: slurm.Job) -> None:
    monkeypatch.setattr(slurm, "available", lambda *_: True)
    monkeypatch.setattr(slurm, "run", lambda *_, **__: "slurm 22.05")
    monkeypatch.setattr(
        slurm, "jobs", lambda *_, name=None, **__: [j for j in jobs if name in (None, j.name)]
    )


def job(job_id: str, name: str, state: str = "RUNNING", reason: str = "None") -> slurm.Job:
    return slurm.Job(
        job_id, name, state, "rule_pretrain", os.getcwd(), "gpu", "", None, None, reason, 0
    )


def dead() -> dict[str, object]:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return {"host": socket.gethostname(), "pid": gone.pid, "start": "1", "command": "snakemake"}


# -- run and jobs ----------------------------------------------------------------------------------


def test_an_empty_folder_is_well(capsys):
    assert {one.level for one in doctor.examine("work", "results", None)} == {"ok"}
    assert main(["doctor"]) == 0
    assert "nobody runs here" in capsys.readouterr().out


def test_a_living_run_and_its_jobs(monkeypatch):
    RunRecord("work").take(["snakemake", "-j9"], run_id="a")
    queue_of(monkeypatch, job("1", "a"), job("2", "a", "PENDING", "Priority"))
    (run,) = findings("run")
    assert run.level == "note"
    assert "snakemake -j9" in run.text
    assert f"kill -INT {os.getpid()}" in run.todo
    (jobs,) = findings("jobs")
    assert jobs.text == "2 job(s) of the run: 1 RUNNING, 1 PENDING"
    RunRecord("work").release()


def test_a_dead_run_and_its_orphans(monkeypatch, here, capsys):
    (here / "work").mkdir()
    (here / "work/run.json").write_text(json.dumps({**dead(), "run_id": "a"}))
    queue_of(monkeypatch, job("1", "a"), job("2", "a", "PENDING", "PartitionTimeLimit"))
    (run,) = findings("run")
    assert run.level == "problem"
    assert "same command" in run.todo
    texts = [one.text for one in findings("jobs") if one.level == "problem"]
    assert "more time than its partition allows" in texts[0]
    assert "2 job(s) of a run that is gone" in texts[1]
    assert main(["doctor"]) == 1
    assert "scancel 1 2" in capsys.readouterr().out


def test_silence_of_slurm_is_a_problem_and_ends_nothing(monkeypatch):
    monkeypatch.setattr(slurm, "available", lambda *_: True)

    def silent(*_, **__):
        raise slurm.SlurmError(["squeue"], "retrying\nUnable to contact slurm controller")

    monkeypatch.setattr(slurm, "jobs", silent)
    monkeypatch.setattr(slurm, "run", silent)
    (jobs,) = findings("jobs")
    assert jobs.text == "Slurm gives no answer: Unable to contact slurm controller"
    assert "does not answer" in findings("versions")[0].text


def test_the_rules_looked_for_are_those_of_the_workflow():
    named = {
        line.split()[1].rstrip(":")
        for path in [*(ROOT / "rules").glob("*.smk")]
        for line in path.read_text().splitlines()
        if line.strip().startswith("rule ") and line.strip().endswith(":")
    }
    named -= {"tuned"}  # a target, no job
    assert named
    assert all(orphans.rule_of(_comment(name), doctor.rules()) == name for name in named)


def _comment(name: str) -> slurm.Job:
    return slurm.Job("1", "a", "RUNNING", f"rule_{name}", "", "", "", None, None, "", 0)


# -- trainings and disk ----------------------------------------------------------------------------


def test_unfinished_trainings_with_step_age_and_owner(here):
    torch = pytest.importorskip("torch")
    place = here / "work/checkpoints"
    for name in ("free", "held", "dead"):
        (place / name).mkdir(parents=True)
    state = {"step": 120, "model": {"w": torch.zeros(3)}, "losses": [1.0], "loader": ("a", None)}
    torch.save(state, place / "free/state.pt")
    os.utime(place / "free/state.pt", (1, 1))
    host = f"{socket.gethostname()} {process_space()}".strip()
    mine = {"host": host, "pid": os.getpid(), "process_start": process_start(os.getpid())}
    (place / "held/lease.json").write_text(json.dumps({**mine, "job_id": "77"}))
    gone = {**dead(), "host": host, "process_start": "1"}
    (place / "dead/lease.json").write_text(json.dumps(gone))
    by_name = {one.text.split(":")[0]: one for one in findings("training")}
    assert "step 120 saved" in by_name["free"].text
    assert "days ago" in by_name["free"].text
    assert "nobody works on it" in by_name["free"].text
    assert by_name["held"].level == "note"
    assert "job 77" in by_name["held"].text
    assert by_name["dead"].level == "problem"


def test_a_checkpoint_that_cannot_be_read_has_no_step(here):
    (here / "state.pt").write_bytes(b"no archive")
    assert leftovers.step_of(here / "state.pt") is None
    assert leftovers.step_of(here / "none.pt") is None


def test_half_written_files_of_dead_processes_are_found_and_removed(here, capsys):
    (here / "work/parts").mkdir(parents=True)
    pid = dead()["pid"]
    host = socket.gethostname()
    bad = here / f"work/parts/.out.txt.{host}-{pid}-123.tmp"
    folder = here / f"work/.entry.{host}-{pid}-124.tmp"
    living = here / f"work/parts/.out.txt.{host}-{os.getpid()}-123.tmp"
    elsewhere = here / "work/parts/.out.txt.other-1-123.tmp"
    folder.mkdir()
    for path in (bad, living, elsewhere, folder / "x", here / "work/parts/out.txt"):
        path.write_text("x")
    assert leftovers.half_written(here / "work") == sorted([bad, folder])
    assert main(["doctor", "--clean"]) == 0
    assert not bad.exists()
    assert not folder.exists()
    assert living.exists()
    assert elsewhere.exists()


def test_sizes_count_linked_files_once(here):
    (here / "work/cache").mkdir(parents=True)
    (here / "work/cache/a").write_bytes(b"x" * 1000)
    os.link(here / "work/cache/a", here / "work/b")
    assert leftovers.size_of("work") == (1000, 1)
    assert "work: 1 kB in 1 files, 1 kB of it cache" in findings("disk")[0].text


# -- file systems ----------------------------------------------------------------------------------

MOUNTS = """/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
tmpfs /home/me/ram tmpfs rw 0 0
fs /with\\040blank lustre rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind", "sharing"),
    [
        ("/opt/x", "ext4", "own"),
        ("/homestead", "ext4", "own"),
        ("/home/me", "nfs4", "shared"),
        ("/home/me/ram/work", "tmpfs", "passing"),
        ("/with blank/x", "lustre", "shared"),
    ],
)
def test_kinds_of_file_systems(path, kind, sharing):
    assert filesystems.kind_of(path, MOUNTS) == kind
    assert filesystems.sharing(kind) == sharing


def test_on_a_cluster_a_folder_that_nodes_do_not_share_is_a_problem(monkeypatch):
    monkeypatch.setattr(filesystems, "kind_of", lambda *_: "tmpfs")
    assert findings("files")[0].level == "ok"
    (found,) = findings("files", Site())
    assert found.level == "problem"
    assert "--probe" in found.todo
    assert "only this machine" in (filesystems.warning("work") or "")


# -- probe: the job's script is run for real, with a srun that only starts its command --------------


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
        folder: Path = here, data: tuple[str, ...] = (), gpu: bool = False, before=lambda: None
    ):
        out = here / "out.json"
        text = probe.script(folder, token, out, data, gpu)
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
