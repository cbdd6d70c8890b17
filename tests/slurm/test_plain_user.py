"""Nothing here needs root: run by root, some of these tests are run once more by a user who may do nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
AGAIN = [
    "test_cluster.py::test_a_job_ends_and_is_accounted_for",
    "test_cluster.py::test_nothing_is_left_of_a_stopped_cluster",
    "test_main_process.py::test_killed_and_started_again_waits_for_its_jobs",
]


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder of that user; pytest's own are root's alone."""
    made = Path(tempfile.mkdtemp(prefix="fsl-home-", dir="/tmp"))
    os.chown(made, NOBODY, NOBODY)
    yield made
    shutil.rmtree(made)


# Where Python lies in a home folder that nobody else may enter: the right to look, and no other.
LOOK = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]


def as_nobody(home: Path, rights: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with these arguments, as that user."""
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *rights]
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    return subprocess.run(
        ["setpriv", *user, sys.executable, *arguments],
        cwd=ROOT, env={**kept, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_cluster_workflow_and_kill_as_a_plain_user(slurm_installed, home):
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv (util-linux)")
    # a Python that can start itself
    probe = "import subprocess, sys, snakemake; subprocess.run([sys.executable, '-V'], check=True)"
    fitting = [
        rights for rights in ([], LOOK) if not as_nobody(home, rights, "-c", probe).returncode
    ]
    if not fitting:
        pytest.skip(f"a plain user cannot run {sys.executable}")
    tests = [str(ROOT / "tests/slurm" / name) for name in AGAIN]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={home}/tmp"]
    done = as_nobody(home, fitting[0], "-m", "pytest", *options, *tests)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(tests)} passed" in done.stdout
