"""Jobs in an image: which folders it must see."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

# Set by profiles/slurm-apptainer: the image for the Snakefile, and the options for who wants to see them.
IMAGE = "FEWSCANS_CONTAINER"
ARGUMENTS = "FEWSCANS_CONTAINER_ARGS"
ROOT = Path(__file__).resolve().parents[2]


def arguments_of(folders: Iterable[str]) -> str:
    """Options of apptainer: `--nv` (cards, silently nothing where there are none) and the folders."""
    return " ".join(["--nv", *(f"--bind {shlex.quote(folder)}" for folder in folders)])


def binds(argv: Sequence[str]) -> list[str]:
    """Folders that a run with this command line reads and writes, none of them inside another.

    The clone, the working directory, and from the config `data_root`, the data sets' folders and tables, `work` and
    `results`. What does not exist yet is bound by the nearest folder above it that does.
    """
    directory = Path((_values(argv, "--directory", "-d") or ["."])[-1]).resolve()
    config = config_of(argv, directory)
    wanted = [ROOT, directory]
    data_root = directory / str(config.get("data_root") or ".")
    wanted += [data_root, directory / str(config.get("work", "work"))]
    wanted.append(directory / str(config.get("results", "results")))
    datasets = config.get("datasets")
    for dataset in datasets.values() if isinstance(datasets, Mapping) else []:
        if isinstance(dataset, Mapping):
            root = data_root / str(dataset.get("root") or ".")
            files = [
                root / str(dataset.get("table") or "."),
                data_root / str(dataset.get("npz") or "."),
            ]
            wanted += [root, *files]
    return _outermost(_existing(path) for path in wanted)


def config_of(argv: Sequence[str], directory: Path) -> dict[str, Any]:
    """The config as far as it can be read; its mistakes are for the workflow to name."""
    files = [Path(name) for name in _values(argv, "--configfile", "--configfiles")]
    if not files:
        own = directory / "config/config.yaml"
        files = [own if own.exists() else ROOT / "config/config.yaml"]
    from snakemake.utils import update_config

    found: dict[str, Any] = {}
    for file in files:
        try:
            raw = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        update_config(found, raw if isinstance(raw, dict) else {})
    for pair in _values(argv, "--config", "-C"):
        key, equals, value = pair.partition("=")
        if equals and key in ("data_root", "work", "results"):
            found[key] = value
    return found


def _values(argv: Sequence[str], *names: str) -> list[str]:
    """What was given for an option that takes one or several values."""
    found: list[str] = []
    taking = False
    for word in argv[1:]:
        name, equals, value = word.partition("=")
        if name in names:
            taking = not equals
            found += [value] if equals else []
        elif word.startswith("-"):
            taking = False
        elif taking:
            found.append(word)
    return found


def _existing(path: Path) -> Path:
    path = Path(os.path.abspath(path)).resolve()
    while not path.is_dir():
        path = path.parent
    return path


def _outermost(paths: Iterable[Path]) -> list[str]:
    found = sorted(set(paths))
    # The root of the file system is never meant: something does not exist yet.
    found = [path for path in found if path != Path(path.anchor)]
    return [
        str(p) for p in found if not any(other != p and p.is_relative_to(other) for other in found)
    ]
