"""A small workflow with the Slurm profile, on a cluster whose commands are files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import fake_lab
from workflows import SNAKEMAKE, environment

from fewscans.cluster.site import Site, parse_site

ROOT = Path(__file__).resolve().parents[1]
SLURM = ROOT / "profiles/slurm"
SITE = """
cluster: {name: lab, accounting: true, max_submit_jobs: 60}
account: biology
reservation: spring
classes:
  light: {partition: std}
  cpu: {partition: std, qos: low}
  gpu: {partition: gpu, gpu_model: a100, constraint: nvlink, extra: --exclude=x7}
partitions:
  std: {max_mem_mb: 180000, max_runtime: 600, default: true}
  gpu: {max_gpu: 4, gpu_models: [a100, v100]}
"""
SNAKEFILE = """
rule all:
    input: "convert", "pretrain", "finetune"
rule convert:
    output: "convert"
    threads: 2
    resources: mem_mb=700, runtime=20
    shell: "true"
rule pretrain:
    output: "pretrain"
    resources: gpu=4, nodes=2, tasks=4, tasks_per_gpu=1, mpi="srun", mem_mb=9000, runtime=90
    shell: "true"
rule finetune:
    output: "finetune"
    resources: gpu=1, mem_mb=8000, runtime=60
    shell: "true"
"""


def site(text: str = "") -> Site:
    """The cluster's site, with `text` behind."""
    return parse_site(SITE + text, "partitions.yaml")


def workflow(folder: Path, snakefile: str = SNAKEFILE, text: str = "") -> dict[str, str]:
    """A small workflow beside `profiles/default`, with fake commands; returns the environment."""
    (folder / "w").mkdir(parents=True)
    (folder / "w/Snakefile").write_text(snakefile)
    shutil.copytree(ROOT / "profiles/default", folder / "w/profiles/default")
    (folder / "partitions.yaml").write_text(SITE + text)
    path = fake_lab.install(folder / "lab", fail="sbatch: error: not now, not ever")
    return {
        **{key: value for key, value in environment().items() if not key.startswith("FEWSCANS_")},
        "PATH": f"{path}:/usr/bin:/bin",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "FEWSCANS_SITE": str(folder / "partitions.yaml"),
    }


def snakemake(
    env: dict[str, str], cwd: Path, *arguments: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run it in `cwd`; both streams are in `stdout`."""
    done = subprocess.run(
        [*SNAKEMAKE, *arguments],
        cwd=cwd,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout
    return done
