"""What `fewscans doctor` finds in a folder, says to do, and exits with; what its jobs on the nodes tell."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from fewscans.__main__ import main
from fewscans.cluster import doctor, filesystems, leftovers, orphans, slurm
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
    # A number greater than any that a process can have.
    return {
        "host": socket.gethostname(),
        "pid": 2**22 + 1,
        "start": "1",
        "command": "snakemake",
    }


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


def test_it_looks_where_the_config_says(here, capsys):
    (here / "mine.yaml").write_text("work: scratch/w\n")
    (here / "scratch/w").mkdir(parents=True)
    assert main(["doctor", "--configfile", "mine.yaml"]) == 0
    assert "scratch/w/run.json is not there" in capsys.readouterr().out


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


@pytest.mark.parametrize("host", ["n1", "n1.lab.org"])
def test_half_written_files_of_dead_processes_are_found_and_removed(here, monkeypatch, host):
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    (here / "work/parts").mkdir(parents=True)
    pid = dead()["pid"]
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
