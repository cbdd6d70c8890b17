"""The Slurm profile: what it sets, and that reading it asks nobody."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fake_lab
import pytest
from lab_workflow import ROOT, SITE, SLURM, site, snakemake, workflow

from fewscans.cluster import profile
from fewscans.cluster.site import Site, parse_site
from fewscans.plan import RULES

# -- settings --------------------------------------------------------------------------------------


def test_settings_of_a_site():
    made = profile.settings(site())
    assert made["jobs"] == 60
    assert made["slurm-status-command"] == "sacct"
    assert made["slurm-reservation"] == "spring"
    assert made["default-resources"]["slurm_account"] == "'biology'"
    assert made["set-resources"]["pretrain"] == {
        "slurm_partition": "'gpu'",
        "gpu_model": "'a100'",
        "constraint": "'nvlink'",
        "slurm_extra": "'--open-mode=append --exclude=x7'",
    }
    assert made["set-resources"]["convert"] == {"slurm_partition": "'std'", "qos": "'low'"}
    assert set(made["set-resources"]) == set(RULES)


def test_without_a_site_nothing_about_a_cluster_is_said():
    made = profile.settings(Site())
    assert made.keys() == {"jobs", "default-resources"}
    assert made["jobs"] == profile.JOBS


@pytest.mark.parametrize(("age", "first"), [(300, 40), (90, 30), (2, 1)])
def test_squeue_where_there_are_no_accounts(age, first):
    made = profile.settings(parse_site(f"cluster: {{name: x, min_job_age_s: {age}}}", "file"))
    assert made["slurm-status-command"] == "squeue"
    assert made["slurm-init-seconds-before-status-checks"] == first


def test_packing():
    made = profile.settings(site("pack: 8\n"))
    assert made["groups"] == {"finetune": "finetune"}
    assert made["group-components"] == {"finetune": 8}
    # One after the other by a resource of their own: a limit of `gpu` would refuse jobs of two.
    assert made["set-resources"]["finetune"]["series"] == 1
    assert (made["resources"], made["set-resource-scopes"]) == ({"series": 1}, {"series": "local"})
    assert "groups" not in profile.settings(site())


# -- reading it ------------------------------------------------------------------------------------

READ = """
import os, sys
import snakemake.cli  # its import of the executor asks scontrol, for a help text
open({calls!r}, "w").close()
from snakemake.profiles import ProfileConfigFileParser
found = ProfileConfigFileParser().parse(open({path!r}))
print(found["executor"], found["jobs"])
print(os.environ.get("FEWSCANS_SITE"))
print(os.environ["PATH"].split(":")[0])
print([word for word in sys.modules if word == "torch"])
"""


def read(env: dict[str, str], cwd: Path, *arguments: str, path: Path = SLURM) -> list[str]:
    """The profile as Snakemake reads it when called with `arguments`, nothing of ours on its path."""
    code = READ.format(path=str(path / "config.yaml"), calls=str(cwd / "lab/calls"))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=cwd,
        env=env,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_no_command_runs_while_it_is_read(tmp_path):
    env = workflow(tmp_path)
    lines = read(env, tmp_path, "--profile", str(SLURM))
    assert lines == ["slurm 60", str(tmp_path / "partitions.yaml"), str(SLURM / "bin"), "[]"]
    assert fake_lab.calls(tmp_path / "lab") == []


def test_a_dry_run_looks_at_nothing_either(tmp_path):
    env = workflow(tmp_path)
    snakemake(env, tmp_path / "w", "--profile", str(SLURM), "-n")
    # The executor plugin asks this for its help text, whatever Snakemake is called for.
    assert set(fake_lab.calls(tmp_path / "lab")) <= {"scontrol show config"}


@pytest.mark.parametrize(
    "how", ["relative", "equals", "variable", "by name", "workflow profile", "file", "two"]
)
def test_it_finds_itself_however_it_is_named(tmp_path, how):
    env = workflow(tmp_path)
    clone = tmp_path / "clone"
    (clone / "fewscans").parent.mkdir()
    (clone / "fewscans").symlink_to(ROOT / "fewscans")
    shutil.copytree(ROOT / "profiles", clone / "profiles")
    slurm = clone / "profiles/slurm"
    (slurm / "partitions.yaml").unlink(missing_ok=True)
    (slurm / "partitions.yaml").write_text("cluster: {name: lab, max_submit_jobs: 7}\n")
    del env["FEWSCANS_SITE"]
    arguments: list[str] = []
    if how == "relative":
        arguments = ["--profile", "clone/profiles/slurm", "--directory", "/elsewhere"]
    elif how == "equals":
        arguments = [f"--profile={slurm}"]
    elif how == "variable":
        env["SNAKEMAKE_PROFILE"] = str(slurm)
    elif how == "by name":
        (tmp_path / ".config/snakemake").mkdir(parents=True)
        (tmp_path / ".config/snakemake/ours").symlink_to(slurm)
        env.pop("XDG_CONFIG_HOME", None)
        arguments = ["--profile", "ours"]
    elif how == "workflow profile":
        arguments = ["--workflow-profile", str(slurm)]
    elif how == "file":
        arguments = ["--profile", str(slurm / "config.yaml")]
    else:
        (tmp_path / "other").mkdir()
        (tmp_path / "other/config.yaml").write_text("verbose: true\n")
        arguments = ["--profile", "other", "--profile", str(slurm)]
    lines = read(env, tmp_path, *arguments, path=slurm)
    assert lines[:3] == ["slurm 7", str(slurm / "partitions.yaml"), str(slurm / "bin")]


def test_without_site_file_and_without_any_slurm_command(tmp_path):
    env = workflow(tmp_path)
    del env["FEWSCANS_SITE"]
    bare = tmp_path / "bare"
    bare.mkdir()
    for command in ("which", "bash", "sh", "uname"):
        (bare / command).symlink_to(shutil.which(command))
    env["PATH"] = str(bare)
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "fewscans").symlink_to(ROOT / "fewscans")
    ignored = shutil.ignore_patterns("partitions.yaml")
    shutil.copytree(ROOT / "profiles", clone / "profiles", ignore=ignored)
    done = snakemake(env, tmp_path / "w", "--profile", str(clone / "profiles/slurm"), "-n")
    assert re.search(r"total +4", done.stdout)


def test_a_mistake_in_the_file_is_the_last_word(tmp_path):
    env = workflow(tmp_path, text="pak: 3\n")
    done = snakemake(env, tmp_path / "w", "--profile", str(SLURM), "-n", check=False)
    assert done.returncode == 1
    assert "Did you mean 'pack'?" in done.stdout
    assert "usage:" not in done.stdout
    assert "Traceback" not in done.stdout


def test_the_wrapper_stands_first_once(tmp_path, monkeypatch):
    monkeypatch.setenv("FEWSCANS_SITE", str(tmp_path / "partitions.yaml"))
    (tmp_path / "partitions.yaml").write_text(SITE)
    for name in (profile.PYTHON, profile.GPU_REQUEST):
        monkeypatch.setenv(name, "")
    (tmp_path / "usr").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/usr")
    for _ in range(2):
        profile.prepare(SLURM)
    assert os.environ["PATH"] == f"{SLURM}/bin:{tmp_path}/usr"
    assert os.access(SLURM / "bin/sbatch", os.X_OK)
    # where there are accounts, questions about them are asked through a wrapper too
    (tmp_path / "usr/sacct").write_text("#!/bin/sh\n")
    (tmp_path / "usr/sacct").chmod(0o755)
    for _ in range(2):
        profile.prepare(SLURM)
    assert os.environ["PATH"] == f"{SLURM}/bin:{SLURM}/bin/accounting:{tmp_path}/usr"
