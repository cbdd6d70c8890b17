"""Imports go one way, and what is parsed in every job is light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Lowest first; a module may import its own layer, those below, and its own package. A package stands for all in it
# that is not named apart: `methods` and `protocols` are tables of names, what they name is loaded when asked for.
LAYERS: dict[str, tuple[str, ...]] = {
    "ground": (
        "errors",
        "files",
        "config",
        "plan",
        "batches",
        "shape",
        "digest",
        "cli",
        "runrecord",
        "lease",
        "ranks",
        "slots",
        "rawdata",
        "progress",
        "convert.table",
        "convert.paths",
        "convert.exclude",
        "convert.kinds",
        "convert.pairs",
        "convert.layouts",
        "convert.bids",
        "convert.decathlon",
        "convert.rows",
        "convert.slices",
        "convert.meaning",
        "convert.values",
        "methods",
        "protocols",
        "cluster",
        "cost",
        "forecast",
        "commands",
        "tune.cost",
        "tune.searches",
        "tune.space",
        "tune.status",
        "__main__",
    ),
    "contracts": ("contracts", "keyed"),
    "data": (
        "convert",
        "geometry",
        "audit",
        "normalise",
        "export",
        "store",
        "split",
        "phantom",
        "known",
        "values",
        "fitted",
        "labelled",
        "predictions",
        "privacy",
        "commands.who",
        "protocols.task",
    ),
    "judging": (
        "metrics",
        "bootstrap",
        "delong",
        "clusters",
        "tables",
        "verdict",
        "learns",
        "aggregate",
        "tables",
        "figures",
        "report",
        "forecast.gantt",
        "commands.plan",
    ),
    "tensors": (
        "compat",
        "augment",
        "networks",
        "residence",
        "resident",
        "gauges",
        "optim",
        "average",
        "groups",
        "lars",
        "outofmemory",
        "scaler",
        "engine",
        "checkpoint",
        "distributed",
        "batchnorm",
        "weights",
        "methods.*",
    ),
    "training": (
        "pretrain",
        "training_job",
        "attempts",
        "pictures",
        "training_scans",
        "start",
        "finetune",
        "protocols.*",
        "tune",
    ),
}
RANK = {layer: rank for rank, layer in enumerate(LAYERS)}
TORCH = {"torch", "torchvision", "timm", "monai"}
HEAVY = TORCH | {"numpy", "pandas", "pyarrow", "scipy", "sklearn", "SimpleITK", "matplotlib"}
# A GPU box may have no more than these; the second line comes with scikit-learn, timm and torch.
GPU_BOX = TORCH - {"monai"} | {"pydantic", "numpy", "pandas", "pyarrow", "sklearn", "safetensors"}
GPU_BOX |= {"scipy", "yaml", "tqdm", "huggingface_hub", "pydantic_core"}


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, of the package and the scripts."""
    found = {}
    for folder in ("fewscans", "scripts"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def nodes(tree: ast.AST, deep: bool) -> Iterator[ast.AST]:
    """Nodes that run on import; with `deep` those in functions too. Types-only blocks never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        if deep or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from nodes(node, deep)


@cache
def imports(name: str, deep: bool) -> frozenset[str]:
    """Modules that `name` imports: ours by their full name, others by their first word."""
    found: set[str] = set()
    for node in nodes(ast.parse(modules()[name].read_text(encoding="utf-8")), deep):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            base = node.module or ""
            targets = [f"{base}.{alias.name}" for alias in node.names]
            targets = [full if full in modules() else base for full in targets]
        else:
            continue
        for target in targets:
            top = target.partition(".")[0]
            found.add(target if top in ("fewscans", "scripts") else top)
    return frozenset(found)


@cache
def reached(name: str, deep: bool) -> dict[str, str]:
    """Everything that importing `name` imports -> by which of our modules."""
    found: dict[str, str] = {}
    left = [name]
    done: set[str] = set()
    while left:
        module = left.pop()
        if module in done or module not in modules():
            continue
        done.add(module)
        for target in imports(module, deep):
            found.setdefault(target, module)
            left.append(target)
        if "." in module:  # a package's own file runs before what is in it
            left.append(module.rpartition(".")[0])
    return found


def layer(name: str) -> str | None:
    """Layer of ``fewscans.a.b``: of `a.b` itself, else of what stands for all in `a`, else of `a`."""
    parts = name.split(".")[1:]
    words = [".".join(parts)]
    for length in range(len(parts) - 1, 0, -1):
        outer = ".".join(parts[:length])
        words += [f"{outer}.*", outer]
    for word in words:
        for candidate, members in LAYERS.items():
            if word in members:
                return candidate
    return None


OURS = [name for name in modules() if name.startswith("fewscans.")]


def test_every_module_has_a_layer():
    homeless = [name for name in OURS if layer(name) is None]
    assert not homeless, f"say in LAYERS of tests/test_layers.py where these belong: {homeless}"


@pytest.mark.parametrize("name", OURS)
def test_imports_go_one_way(name):
    # Also in functions: a late import hides a layer, it does not change it.
    upward = [
        target
        for target in imports(name, deep=True)
        if target.startswith("fewscans.")
        and target in modules()
        and target.split(".")[1] != name.split(".")[1]
        and RANK[layer(target) or "ground"] > RANK[layer(name) or "ground"]
    ]
    assert not upward, f"{name} ({layer(name)}) imports {upward}, of a layer above"


@pytest.mark.parametrize("name", OURS)
def test_scripts_are_imported_by_nobody(name):
    assert not [target for target in imports(name, deep=True) if target.startswith("scripts")]


@pytest.mark.parametrize(
    "name", [name for name in OURS if layer(name) in ("ground", "contracts", "data", "judging")]
)
def test_no_torch_below_the_tensors(name):
    found = {top: by for top, by in reached(name, deep=True).items() if top in TORCH}
    assert not found, f"{name} reaches {found}"


@pytest.mark.parametrize("name", [name for name in OURS if layer(name) == "ground"])
def test_the_ground_is_light(name):
    found = {top: by for top, by in reached(name, deep=False).items() if top in HEAVY}
    assert not found, f"{name} imports {found}"


def snakefile_imports() -> list[str]:
    """Import statements of the Snakefile and the rules."""
    texts = [
        path.read_text() for path in (ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk")))
    ]
    lines = re.findall(r"^ *((?:from [\w.]+ )?import .+)$", "\n".join(texts), re.MULTILINE)
    return sorted({line for line in lines if "(" not in line})


def loaded_after(statements: str) -> set[str]:
    code = f"{statements}\nimport sys\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_parsing_the_workflow_loads_nothing_heavy():
    statements = [line for line in snakefile_imports() if "snakemake" not in line]
    assert any("fewscans" in line for line in statements)
    assert not loaded_after("\n".join(statements)) & HEAVY


def test_the_ground_in_one_process_loads_nothing_heavy():
    names = [name for name in OURS if layer(name) == "ground"]
    loaded = loaded_after("\n".join(f"import {name}" for name in names))
    assert "pydantic" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("script", ["pretrain", "finetune"])
def test_training_runs_where_only_torch_and_tables_are_installed(script):
    found = {
        top: by
        for top, by in reached(f"scripts.{script}", deep=False).items()
        if top not in GPU_BOX | {"fewscans", "scripts"} | set(sys.stdlib_module_names)
        and not top.startswith(("fewscans.", "scripts."))
    }
    assert not found, f"scripts/{script}.py needs {found}"


def test_late_imports_of_training_are_optional_too():
    """With every other package blocked, both scripts import and print their help."""
    blocked = [
        "snakemake",
        "SimpleITK",
        "nibabel",
        "pydicom",
        "PIL",
        "seaborn",
        "matplotlib",
        "jinja2",
        "umap",
    ]
    code = f"""
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(f"blocked: {{name}}")

sys.meta_path.insert(0, Blocked())
# What torch and timm themselves try, they try in vain and go on.
from scripts import finetune, pretrain

for script in (pretrain, finetune):
    try:
        script.main(["--help"])
    except SystemExit as end:
        assert end.code == 0
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--params" in done.stdout
