"""What makes an environment, a release and a check is in step with itself."""

from __future__ import annotations

import ast
import os
import re
import stat
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fewscans

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
TARGETS = [
    "help", "demo", "test", "test-slurm", "setup", "fast", "lint", "types", "format", "config", "envs", "bench",
    "docs", "real", "learns", "clean",
]  # fmt: skip


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [
        (line.partition("==")[0], line.partition("==")[2])
        for line in lines
        if line and not line.startswith("#")
    ]
    return dict(pairs)


def tracked() -> list[str]:
    """Files of a clone; where there is no git, none."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def imported(folder: str) -> dict[str, set[str]]:
    """First words of what the files below `folder` import -> those files."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                tops = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                tops = [(node.module or "").partition(".")[0]]
            else:
                continue
            for top in tops:
                found.setdefault(top, set()).add(path.relative_to(ROOT).as_posix())
    return found


def undeclared(folder: str, requirements: list[str]) -> dict[str, set[str]]:
    ours = {"fewscans", "scripts", "tests", "snakemake_logger_plugin_fewscans"}
    # Benchmarks use the factories beside the tests.
    ours |= {path.stem for part in (folder, "tests") for path in (ROOT / part).rglob("*.py")}
    # An optional package need not be installed for its name to be known; pydantic keeps its errors in its core.
    known = {"umap": ["umap-learn"], **metadata.packages_distributions()}
    distributions = {**known, "pydantic_core": ["pydantic"]}
    declared = names(requirements)
    return {
        top: files
        for top, files in imported(folder).items()
        if top not in ours | set(sys.stdlib_module_names)
        and not {canonicalize_name(name) for name in distributions.get(top, [top])} & declared
    }


@pytest.mark.parametrize("folder", ["fewscans", "scripts"])
def test_what_the_workflow_imports_is_declared(folder):
    assert not undeclared(
        folder, PROJECT["dependencies"] + EXTRAS["umap"] + EXTRAS["slurm"] + EXTRAS["tune"]
    )


# Libraries that one measure compares with where somebody has installed them; it runs without, and names them.
ONLY_COMPARED_WITH = {
    "kornia": {"benchmarks/augmentation_peers.py"},
    "torchio": {"benchmarks/augmentation_peers.py", "benchmarks/prepare.py"},
}


@pytest.mark.parametrize("folder", ["tests", "benchmarks", "docs", "envs"])
def test_what_the_rest_imports_is_declared(folder):
    extras = [text for extra in EXTRAS.values() for text in extra]
    found = undeclared(folder, PROJECT["dependencies"] + extras)
    assert {
        top: files for top, files in found.items() if ONLY_COMPARED_WITH.get(top) != files
    } == {}


def test_optional_packages_are_not_imported_with_the_module():
    """`umap` may be missing; the figure that wants it says so."""
    for path in sorted((ROOT / "fewscans").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "umap" not in ast.unparse(node), path


def test_dependencies_have_lower_bounds_only():
    for text in PROJECT["dependencies"]:
        assert [item.operator for item in Requirement(text).specifier] == [">="], text


def test_every_requirement_is_pinned_within_its_bounds():
    known = pins()
    for text in PROJECT["dependencies"] + [text for extra in EXTRAS.values() for text in extra]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in known, f"{name}: install it, then python envs/make.py --pin"
        assert requirement.specifier.contains(known[name]), text


def test_pins_leave_the_build_of_torch_open():
    # A local version (+cpu) would forbid the CUDA build where there is a GPU.
    assert "+" not in "".join(pins().values())


def test_environment_files_are_in_step_with_the_pins():
    command = [sys.executable, "envs/make.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_lagging_environment_file_is_noticed(tmp_path):
    (tmp_path / "envs").mkdir()
    for name in ("envs/make.py", "constraints.txt", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    command = [sys.executable, "envs/make.py"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    assert subprocess.run([*command, "--check"], cwd=tmp_path, check=False).returncode == 0
    moved = re.sub(r"(?m)^numpy==.*$", "numpy==9.9.9", (ROOT / "constraints.txt").read_text())
    (tmp_path / "constraints.txt").write_text(moved)
    done = subprocess.run(
        [*command, "--check"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "numpy==9.9.9" in done.stderr
    assert "Run: python envs/make.py" in done.stderr


def test_conda_environment_has_third_party_packages_only():
    environment = yaml.safe_load((ROOT / "envs/fewscans.yaml").read_text())
    (by_pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    assert names(PROJECT["dependencies"]) <= names(by_pip)
    assert "fewscans" not in names(by_pip)
    assert not names(["ruff", "pytest"]) & names(by_pip)


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == fewscans.__version__
    assert metadata.version("fewscans") == fewscans.__version__
    assert PROJECT["license"] == citation["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # Not that of a `make test` around this one.
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**clean, **environment},
    )  # fmt: skip


def test_help_lists_every_target():
    said = make("help").stdout
    listed = re.findall(r"^  make ([\w-]+) ", said, re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert sorted(listed) == sorted(TARGETS) == sorted(phony[1].split())
    assert "TORCH_INDEX" in said
    assert make().stdout == said


def test_an_old_python_is_named(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = make("setup", f"VENV={tmp_path}/venv", f"PYTHON={old}")
    assert done.returncode != 0
    assert f"fewscans needs Python 3.11 or newer; '{old}' is not" in done.stdout


def test_a_python_without_venv_is_named(tmp_path):
    lame = tmp_path / "python3"
    lame.write_text('#!/bin/sh\ncase "$1" in -c) exit 0;; *) exit 1;; esac\n')
    lame.chmod(0o755)
    done = make("setup", f"VENV={tmp_path}/venv", f"PYTHON={lame}")
    assert done.returncode != 0
    assert "apt install python3-venv" in done.stdout


def test_setup_runs_again_only_where_the_pins_changed(tmp_path):
    (tmp_path / ".installed").touch()
    venv = f"VENV={tmp_path}"
    assert make("--question", "setup", venv).returncode == 0
    for changed in ("constraints.txt", "pyproject.toml"):
        assert make("--question", f"--what-if={changed}", "setup", venv).returncode == 1


def test_torch_comes_from_where_the_user_says(tmp_path):
    plain = make("--dry-run", "setup", f"VENV={tmp_path}/venv").stdout
    assert "--index-url" not in plain
    assert re.search(r"install -c constraints.txt torch==\S+ torchvision==", plain)
    other = make("--dry-run", "setup", f"VENV={tmp_path}/venv", "TORCH_INDEX=https://there").stdout
    assert re.search(r"--no-deps --index-url https://there torch==\S+ torchvision==", other)


@pytest.fixture
def machine(tmp_path):
    """Folder for PATH with a `make` that notes its targets and fails at the one in $FAILS."""
    (tmp_path / "make").write_text(
        '#!/bin/sh\necho "made $1"\necho "$1" >>"$LOG"\nif [ "$1" = "$FAILS" ]; then exit 3; fi\n'
    )
    # there already, so that nothing is installed
    there = ["chromium", "munged", "slurmctld", "slurmd", "sbatch", "slurmdbd", "mariadbd"]
    for name in there:
        (tmp_path / name).write_text("#!/bin/sh\n")
    for name in ("make", *there):
        (tmp_path / name).chmod(0o755)
    return tmp_path


def ci(machine, fails: str, data: Path) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    log = machine / "log"
    done = subprocess.run(
        ["bash", str(ROOT / ".ci/run")], capture_output=True, text=True, check=False, cwd=machine,
        env={
            "PATH": f"{machine}:{os.environ['PATH']}", "LOG": str(log), "FAILS": fails,
            "FEWSCANS_DATA": str(data),
        },
    )  # fmt: skip
    return done, log.read_text().split()


def test_ci_stops_at_the_first_failure_and_says_so(machine):
    done, made = ci(machine, "test", machine / "nowhere")
    assert made[-1] == "test"
    assert done.returncode == 3
    assert "== test: FAILED (exit 3)" in done.stdout
    assert done.stdout.splitlines()[-1] == "steps: 3 passed, 1 failed"


def test_ci_passes_and_runs_real_scans_where_they_are(machine):
    done, made = ci(machine, "", machine / "nowhere")
    assert done.returncode == 0
    assert made == ["setup", "lint", "types", "test", "test-slurm"]
    assert "the run on real scans is left out" in done.stdout
    (machine / "data" / "covid_ct").mkdir(parents=True)
    (machine / "data" / "covid_ct" / "labels.csv").write_text("path,label\n")
    (machine / "log").unlink()
    done, made = ci(machine, "", machine / "data")
    assert made == ["setup", "lint", "types", "test", "test-slurm", "real"]
    assert done.stdout.splitlines()[-1] == "steps: 6 passed, 0 failed"


@pytest.mark.parametrize("name", [".ci/run", ".ci/sizes"])
def test_programs_of_the_checks_can_be_run(name):
    assert (ROOT / name).stat().st_mode & stat.S_IXUSR
    assert "set -euo pipefail" in (ROOT / name).read_text()


def test_no_file_is_large():
    found = tracked()
    if not found:
        pytest.skip("no git here")
    done = subprocess.run(
        [".ci/sizes", *found], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_a_large_file_is_named(tmp_path):
    (tmp_path / "small file").write_bytes(b"x" * 51_200)
    (tmp_path / "large file").write_bytes(b"x" * 51_201)
    command = [str(ROOT / ".ci/sizes"), "small file", "large file", "no file"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("large file: 51201 bytes")
    assert "small file" not in done.stdout


def test_hooks_call_tools_that_are_installed():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]  # nothing to fetch
    known = {Path(name).name for name in os.listdir(Path(sys.executable).parent)}
    for hook in hooks[0]["hooks"]:
        program = hook["entry"].split()[0]
        assert hook["language"] == "system"
        if program.startswith(".venv/bin/"):
            assert Path(program).name in known
        else:
            assert (ROOT / program).is_file()


def test_workflow_catalog_finds_what_it_asks_for():
    # github.com/snakemake/snakemake-workflow-catalog: README with both words, Snakefile, *.smk, usage
    readme = (ROOT / "README.md").read_text().lower()
    assert "snakemake" in readme
    assert "workflow" in readme
    assert (ROOT / "Snakefile").is_file()
    assert list((ROOT / "rules").glob("*.smk"))
    assert (ROOT / "config/README.md").is_file()
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    deployment = {"conda", "apptainer", "apptainer+conda", "report"}
    assert set(usage["software-stack-deployment"]) == deployment
    assert usage["software-stack-deployment"]["report"] is True
