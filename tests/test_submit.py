"""The wrapper of sbatch, in front of an sbatch and a squeue that answer as a test says."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from fewscans.cluster import submit
from fewscans.cluster.slurm import SEPARATOR

ROOT = Path(__file__).resolve().parents[1]
WRAPPER = ROOT / "profiles/slurm/bin/sbatch"
# Words of Slurm 22.05.
AWAY = "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
LOST = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
FULL = (
    "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates "
    "accounting/QOS policy (job submit limit, user's size and/or time limits)"
)
TOO_LONG = (
    "sbatch: error: AssocMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: Job violates "
    "accounting/QOS policy (job submit limit, user's size and/or time limits)"
)
ACCOUNT = (
    "sbatch: error: Batch job submission failed: Invalid account or account/partition combination"
)
JOB = ["--parsable", "--job-name", "run-1", "--comment", "rule_pretrain_wildcards_a", "--wrap=true"]
FAKE = """#!/bin/sh
# The Nth call prints N.out and N.err and fails if there is N.err; past the last one as the last.
cd "{folder}/$(basename "$0")"
n=$(($(wc -l < calls) + 1)); echo "$*" >> calls
while [ ! -e $n.out ] && [ ! -e $n.err ] && [ $n -gt 1 ]; do n=$((n - 1)); done
if [ -e $n.err ]; then cat $n.err >&2; exit 1; fi
cat $n.out
"""


@dataclass
class Cluster:
    """Commands that answer by the script of a test."""

    folder: Path

    def answers(self, command: str, *answers: str) -> None:
        """What the calls of a command give, in turn; what has an `error:` in it is a failure."""
        made = self.folder / command
        made.mkdir()
        (made / "calls").touch()
        for n, answer in enumerate(answers, 1):
            (made / f"{n}.{'err' if 'error:' in answer else 'out'}").write_text(answer)
        script = self.folder / "bin" / command
        script.parent.mkdir(exist_ok=True)
        script.write_text(FAKE.format(folder=self.folder))
        script.chmod(0o755)

    def calls(self, command: str) -> list[str]:
        return (self.folder / command / "calls").read_text().splitlines()


def row(number: str, comment: str = "rule_pretrain_wildcards_a") -> str:
    """A line of squeue."""
    fields = [number, "run-1", "PENDING", comment, "/w", "gpu", "", "N/A", "N/A", "None", "0"]
    return SEPARATOR.join(fields) + "\n"


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{WRAPPER.parent}:{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(submit.tempfile, "tempdir", None)
    monkeypatch.setattr(submit, "PAUSE_S", 0.01)
    monkeypatch.setattr(submit, "LONGEST_PAUSE_S", 0.02)
    return Cluster(tmp_path)


def test_a_submission_is_passed_through(cluster, capfd):
    cluster.answers("sbatch", "12;cluster\n")
    assert submit.main(JOB) == 0
    assert capfd.readouterr() == ("12;cluster\n", "")
    assert cluster.calls("sbatch") == [" ".join(JOB)]


@pytest.mark.parametrize("failure", [AWAY, LOST, FULL])
def test_a_passing_failure_is_tried_again(cluster, capfd, failure):
    cluster.answers("sbatch", failure, failure, "12\n")
    cluster.answers("squeue", "")
    assert submit.main(JOB) == 0
    assert capfd.readouterr().out == "12\n"
    assert len(cluster.calls("sbatch")) == 3


@pytest.mark.parametrize("failure", [ACCOUNT, TOO_LONG])
def test_a_lasting_failure_is_passed_on_at_once(cluster, capfd, failure):
    cluster.answers("sbatch", failure)
    assert submit.main(JOB) == 1
    assert capfd.readouterr().err == failure
    assert len(cluster.calls("sbatch")) == 1


def test_a_lost_answer_is_no_second_submission(cluster, capfd):
    # The controller wakes up: the first look comes before it has taken the job in.
    cluster.answers("sbatch", LOST)
    cluster.answers("squeue", "", row("31", "rule_other") + row("32"))
    assert submit.main(JOB) == 0
    assert capfd.readouterr().out == "32\n"
    assert len(cluster.calls("sbatch")) == 1


def test_no_second_submission_before_the_controller_answers(cluster, capfd):
    cluster.answers("sbatch", LOST, "99\n")
    silent = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    cluster.answers("squeue", silent, silent, silent, row("32"))
    assert submit.main(JOB) == 0
    assert capfd.readouterr().out == "32\n"
    assert len(cluster.calls("sbatch")) == 1


def test_an_earlier_attempt_of_the_same_job_is_not_taken_for_it(cluster, capfd):
    cluster.answers("sbatch", "31\n", LOST, "32\n")
    cluster.answers("squeue", row("31"))
    assert submit.main(JOB) == 0
    assert submit.main(JOB) == 0
    assert capfd.readouterr().out == "31\n32\n"


def test_a_job_without_name_is_not_submitted_twice(cluster):
    cluster.answers("sbatch", LOST)
    assert submit.main(["--wrap=true"]) == 1
    assert len(cluster.calls("sbatch")) == 1


def test_patience_ends(cluster, monkeypatch, capfd):
    monkeypatch.setenv(submit.PATIENCE, "100")
    clock = [0.0]
    fake = SimpleNamespace(
        monotonic=lambda: clock[0], sleep=lambda s: clock.__setitem__(0, clock[0] + s)
    )
    monkeypatch.setattr(submit, "time", fake)
    monkeypatch.setattr(submit, "PAUSE_S", 2.0)
    monkeypatch.setattr(submit, "LONGEST_PAUSE_S", 60.0)
    cluster.answers("sbatch", FULL)
    assert submit.main(JOB) == 1
    message = capfd.readouterr().err
    assert message.startswith(FULL)
    assert "tried again for 100 s, in vain" in message
    # After 2 s, 3.4, 5.8, ... 28.4: the next pause would end after the patience.
    assert len(cluster.calls("sbatch")) == 7


def test_a_script_from_a_pipe_is_given_to_each_try(cluster, tmp_path):
    cluster.answers("sbatch")
    (tmp_path / "bin/sbatch").write_text(
        f"#!/bin/sh\ncat >> {tmp_path}/scripts\n[ -e {tmp_path}/tried ] && echo 7 && exit\n"
        f'touch {tmp_path}/tried; echo "{FULL}" >&2; exit 1\n'
    )
    command = "from fewscans.cluster import submit; submit.PAUSE_S = 0.01; "
    command += "import sys; sys.exit(submit.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", command, "--job-name=x", "/dev/stdin"],
        input="#!/bin/sh\ntrue\n",
        text=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "7\n")
    assert (tmp_path / "scripts").read_text() == "#!/bin/sh\ntrue\n" * 2


@pytest.mark.parametrize(
    ("how", "given", "wanted"),
    [
        ("gpus", "--gpus=a100:2 -D w", "--gpus=a100:2 -D w"),
        ("gres", "--gpus=a100:2 -D w", "--gres=gpu:a100:2 -D w"),
        ("gres", "--gpus=1", "--gres=gpu:1"),
        # --gpus counts for the job, --gres for a node
        (
            "gres",
            "--nodes=2 --ntasks-per-gpu=1 --ntasks=4 --gpus=a100:4",
            "--nodes=2 --ntasks=4 --gres=gpu:a100:2",
        ),
        ("none", "--ntasks=1 --gpus=1", "--ntasks=1"),
        ("gpus", "--gpus=a100:0 -D w", "-D w"),
        ("gres", "--mem 5", "--mem 5"),
    ],
)
def test_gpus_are_asked_for_in_one_form(how, given, wanted):
    assert submit.ask_for_gpus(given.split(), how) == wanted.split()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("-t 5 --exclude=None assigned --ntasks=1", "-t 5 --ntasks=1"),
        ("--exclude=None assigned,n3 -A p", "--exclude=n3 -A p"),
        ("--exclude=n1,None assigned -A p", "--exclude=n1 -A p"),
        ("--exclude=n1,None assigned,n3 -A p", "--exclude=n1,n3 -A p"),
        ("--exclude=n1,n2 -A p", "--exclude=n1,n2 -A p"),
        ("--exclude=None --ntasks=1", "--exclude=None --ntasks=1"),
        ("-A p job.sh", "-A p job.sh"),
    ],
)
def test_a_node_that_the_accounts_do_not_know_is_not_excluded(given, wanted):
    assert submit.exclude_real_nodes(given.split()) == wanted.split()


def test_nor_is_it_as_one_word():
    given = ["--exclude=None assigned,n2", "--wrap=python x"]
    assert submit.exclude_real_nodes(given) == ["--exclude=n2", "--wrap=python x"]


def test_as_snakemake_calls_it(cluster):
    """The file in PATH, links to the clone included, finds the next sbatch and not itself."""
    cluster.answers("sbatch", "12\n")
    link = cluster.folder / "link"
    link.symlink_to(WRAPPER.parent)
    done = subprocess.run(
        ["sbatch", *JOB, "--gpus=a100:1"],
        env={
            **os.environ,
            "PATH": f"{link}:{os.environ['PATH']}",
            "FEWSCANS_PYTHON": sys.executable,
            "FEWSCANS_GPU_REQUEST": "gres",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "12\n"
    assert cluster.calls("sbatch") == [" ".join([*JOB, "--gres=gpu:a100:1"])]


def test_no_sbatch_at_all(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("PATH", f"{WRAPPER.parent}:{tmp_path}")
    assert submit.main(JOB) == 127
    assert "not installed" in capfd.readouterr().err
