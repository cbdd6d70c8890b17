"""The Slurm profile: what sbatch gets, what jobs load, and the image that they run in."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import fake_lab
import pytest
from lab_workflow import ROOT, SLURM, site, snakemake, workflow

from fewscans.cluster import profile
from fewscans.cluster.container import binds

# -- what sbatch gets ------------------------------------------------------------------------------

HEAD = "--parsable --job-name RUN --output DIR/.snakemake/slurm_logs/rule_{0}/%j.log --export=ALL --comment rule_{0} "
TAIL = " -D DIR"
CONVERT = (
    HEAD.format("convert")
    + "-A biology -p std -t 20 --qos=low --mem 700 --requeue --reservation=spring --ntasks=1 "
    "--cpus-per-task=2 --open-mode=append" + TAIL
)
PRETRAIN = (
    HEAD.format("pretrain")
    + "-A biology -p gpu -t 90 -C nvlink --mem 9000 --nodes=2 --requeue --reservation=spring "
)
FINETUNE = (
    HEAD.format("finetune")
    + "-A biology -p gpu -t 60 -C nvlink --mem 8000 --requeue --reservation=spring "
    "--cpus-per-task=1 --open-mode=append --exclude=x7" + TAIL
)
EXTRA = "--ntasks=4 --cpus-per-task=1 --open-mode=append --exclude=x7" + TAIL
GOLDEN = {
    "gpus": {
        "convert": CONVERT,
        "pretrain": f"{PRETRAIN}--ntasks-per-gpu=1 {EXTRA} --gpus=a100:4",
        "finetune": f"{FINETUNE} --gpus=a100:1",
    },
    # Two of the four on each of the two nodes.
    "gres": {
        "convert": CONVERT,
        "pretrain": f"{PRETRAIN}{EXTRA} --gres=gpu:a100:2",
        "finetune": f"{FINETUNE} --gres=gpu:a100:1",
    },
    "none": {"convert": CONVERT, "pretrain": f"{PRETRAIN}{EXTRA}", "finetune": FINETUNE},
}


def submissions(folder: Path) -> dict[str, str]:
    """Rule -> what sbatch was given, without what it is to run."""
    found = {}
    for call in fake_lab.calls(folder / "lab"):
        if call.startswith("sbatch "):
            text = call.partition(" --wrap=")[0].removeprefix("sbatch ")
            text = re.sub(r"--job-name \S+", "--job-name RUN", text).replace(
                str(folder / "w"), "DIR"
            )
            found[re.search(r"--comment rule_(\w+)", text)[1]] = text
    return found


@pytest.mark.parametrize("how", GOLDEN)
def test_the_text_that_sbatch_gets(tmp_path, how):
    env = workflow(tmp_path, text=f"gpu_request: {how}\n")
    short = ["--retries", "0", "--slurm-init-seconds-before-status-checks", "1"]
    done = snakemake(env, tmp_path / "w", "--profile", str(SLURM), *short, check=False)
    assert "Provided remote nodes: 60" in done.stdout  # not held to the cores of this machine
    assert submissions(tmp_path) == GOLDEN[how], done.stdout
    # The settings reach jobs, and the folder is not left locked.
    (wrapped,) = {c for c in fake_lab.calls(tmp_path / "lab") if "--comment rule_convert" in c}
    assert "--nolock" in wrapped
    assert "--keep-incomplete" in wrapped


def test_a_cancelled_job_is_told_as_snakemake_knows_it(tmp_path):
    real = tmp_path / "sacct"
    real.write_text(
        "#!/bin/sh\nprintf '1|RUNNING\\n2|CANCELLED by 1000\\n3|COMPLETED\\n'\necho no >&2\nexit 3\n"
    )
    real.chmod(0o755)
    folder = SLURM / "bin/accounting"
    env = {"PATH": f"{folder}:{folder}:{tmp_path}:/usr/bin:/bin"}
    status = ["sacct", "-X", "--parsable2", "--format=JobIdRaw,State", "--name", "x"]
    done = subprocess.run(status, env=env, capture_output=True, text=True, check=False)
    assert done.stdout == "1|RUNNING\n2|CANCELLED\n3|COMPLETED\n"
    assert (done.returncode, done.stderr) == (3, "no\n")
    other = subprocess.run(["sacct", "-X"], env=env, capture_output=True, text=True, check=False)
    assert "2|CANCELLED by 1000\n" in other.stdout
    assert other.returncode == 3


# -- modules ---------------------------------------------------------------------------------------


def test_modules_are_loaded_in_jobs_and_only_there(tmp_path):
    (tmp_path / "init").mkdir()
    # As modules do: a function that does not bear `set -u`.
    (tmp_path / "init/bash").write_text('module() { echo "$@" "$NOT_SET" >> loaded; }\n')
    text = profile.prelude(site("modules: [cuda/12.6, 'my gcc']\n")) + "echo done; echo $-"
    env = {"PATH": "/usr/bin:/bin", "MODULESHOME": str(tmp_path)}
    for job in ({}, {"SLURM_JOB_ID": "7"}):
        done = subprocess.run(
            ["bash", "-c", f"set -euo pipefail; {text}"],
            cwd=tmp_path,
            env={**env, **job},
            text=True,
            capture_output=True,
            check=True,
        )
        assert done.stdout.splitlines()[0] == "done"
        assert "u" in done.stdout.splitlines()[1]
        assert (tmp_path / "loaded").exists() == bool(job)
    assert (tmp_path / "loaded").read_text() == "load cuda/12.6 my gcc \n"
    assert profile.prelude(None) == profile.prelude(site()) == ""


def test_a_module_that_is_missing_ends_the_job(tmp_path):
    (tmp_path / "init").mkdir()
    (tmp_path / "init/bash").write_text('module() { echo "no such module" >&2; return 1; }\n')
    done = subprocess.run(
        ["bash", "-c", f"set -euo pipefail; {profile.prelude(site('modules: [x]'))} echo on"],
        env={"PATH": "/usr/bin:/bin", "MODULESHOME": str(tmp_path), "SLURM_JOB_ID": "7"},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""


# -- containers ------------------------------------------------------------------------------------

IN_IMAGE = """
import os
container: os.environ["FEWSCANS_CONTAINER"]
rule all:
    output: "made"
    shell: "echo inside > {output}"
"""


def test_jobs_in_an_image(tmp_path):
    image = tmp_path / "image.sif"
    image.touch()
    data = tmp_path / "data"
    data.mkdir()
    env = workflow(tmp_path, IN_IMAGE, f"container: {{image: {image}, binds: ['/opt:/mnt']}}\n")
    (tmp_path / "w/own.yaml").write_text(f"data_root: {data}\nresults: {tmp_path}/out/results\n")
    apptainer = tmp_path / "lab/bin/apptainer"
    apptainer.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo apptainer version 1.3.0 && exit\necho "$*" >> {tmp_path}/ran\n'
        'while [ "$1" != -c ]; do shift; done; exec bash -c "$2"\n'
    )
    apptainer.chmod(0o755)
    # Jobs of Slurm run the same line; here Snakemake runs it itself.
    arguments = ["--executor", "local", "--cores", "1", "--configfile", "own.yaml"]
    snakemake(env, tmp_path / "w", "--profile", str(ROOT / "profiles/slurm-apptainer"), *arguments)
    ran = (tmp_path / "ran").read_text()
    assert "--nv" in ran
    assert str(image) in ran
    # The folder that will hold results does not exist yet, so the one above it is bound; it holds work and data too.
    bound = re.findall(r"--bind (\S+)", ran)[:3]
    assert bound == [*sorted([str(tmp_path), str(ROOT)]), "/opt:/mnt"]
    assert (tmp_path / "w/made").read_text() == "inside\n"


def test_an_image_is_asked_for_in_words(tmp_path):
    env = workflow(tmp_path)
    folder = str(ROOT / "profiles/slurm-apptainer")
    done = snakemake(env, tmp_path / "w", "--profile", folder, "-n", check=False)
    assert done.returncode == 1
    assert "container: {image: /shared/fewscans.sif}" in done.stdout


def test_binds_follow_from_the_config(tmp_path):
    folders = [tmp_path / name for name in ("study", "scans", "more", "real")]
    for folder in folders:
        folder.mkdir()
    study, scans, more, real = folders
    (scans / "link").symlink_to(real)
    (study / "c.yaml").write_text(
        f"data_root: {scans}\nwork: {tmp_path}/scratch/work\n"
        f"datasets: {{a: {{root: link}}, b: {{root: b, table: {more}/t.csv}}, c: {{npz: c.npz}}, d: 3}}\n"
    )
    words = ["snakemake", "--configfile", str(study / "c.yaml"), "--directory", str(study)]
    # `scratch` does not exist: the folder above is bound, and everything below it with it.
    assert binds(words) == sorted([str(tmp_path), str(ROOT)])
    (tmp_path / "scratch").mkdir()
    wanted = sorted(map(str, [*folders, tmp_path / "scratch", ROOT]))
    assert binds(words) == wanted
    assert binds([*words, "--config", f"work={study}/w"]) == [
        path for path in wanted if not path.endswith("scratch")
    ]
