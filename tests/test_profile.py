"""The Slurm profile: what it sets, what sbatch then gets, and that reading it asks nobody."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fake_lab
import pytest
from workflows import SNAKEMAKE, environment

from fewscans.cluster import profile
from fewscans.cluster.container import binds
from fewscans.cluster.site import Site, parse_site
from fewscans.plan import RULES

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


def site(text: str = "") -> Site:
    return parse_site(SITE + text, "partitions.yaml")


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


# -- what sbatch gets ------------------------------------------------------------------------------

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
    done = subprocess.run(
        [*SNAKEMAKE, *arguments],
        cwd=cwd,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout
    return done


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
