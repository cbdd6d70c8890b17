"""Run the workflow as a user would, on a small folder of scans, in a copy of the clone that a test may change."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
SNAKEMAKE = [sys.executable, "-m", "snakemake"]
PARTS = ["Snakefile", "rules", "scripts", "fewscans", "profiles", "config", "envs", "report"]
PARTS += ["snakemake_logger_plugin_fewscans"]
TIME_COLUMNS = ["device_seconds"]

CONFIG = {
    "datasets": {"tiny": {"root": "raw", "table": "labels.csv", "private": False}},
    "recipes": {"px32": {"size": 32}},
    "encoders": {
        "simclr": {"method": "simclr", "backbone": "test_resnet", "epochs": 2, "batch_size": 16}
    },
    "baselines": ["majority", "scratch"],
    "protocols": ["linear", "finetune"],
    "protocol_settings": {"finetune": {"steps": 4, "batch_size": 8}},
    "budgets": ["6", "all"],
    "validation": {"folds": 2, "seeds": 1, "draws": 1},
    "score": {"resamples": 200},
}


@dataclass
class Clone:
    """A copy of the workflow with a config and data of its own, in `folder`."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        """As typed in `folder`."""
        return [*SNAKEMAKE, *arguments]

    def run(
        self, *arguments: str, check: bool = True, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """Run Snakemake in `folder`; its output is in `stdout` (both streams)."""
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=environment(),
            timeout=timeout,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stdout[-6000:]}"
            )
        return done

    def to_run(self, *arguments: str) -> dict[str, int]:
        """Rule -> number of jobs that a dry-run would run."""
        text = self.run("-n", *arguments).stdout
        table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", text, re.MULTILINE | re.DOTALL)
        rows = [line.split() for line in table[1].splitlines() if line.strip()] if table else []
        return {rule: int(count) for rule, count in rows if rule != "all"}

    def config(self, **changes) -> None:
        """Write the config with some top-level keys changed."""
        (self.folder / "config/config.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}))

    def table(self) -> str:
        """The ablation table as text, columns of time apart."""
        frame = pd.read_csv(
            self.folder / "results/ablation_table.csv", dtype=str, keep_default_na=False
        )
        return frame.drop(columns=TIME_COLUMNS).to_csv(index=False)


def environment() -> dict[str, str]:
    """Ours, without what a test runner or another profile would add."""
    kept = {k: v for k, v in os.environ.items() if k not in ("SNAKEMAKE_PROFILE", "PYTHONPATH")}
    return {**kept, "COLUMNS": "200"}


def make_clone(folder: Path) -> Clone:
    """Code, config and scans in `folder`; nothing has run."""
    folder.mkdir(parents=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy2(source, folder / part)
    subprocess.run(
        [
            sys.executable,
            str(ROOT / "scripts/phantom.py"),
            "--params",
            '{"cohort": {"n_patients": 24, "seed": 3}}',
            "--out",
            str(folder / "raw"),
        ],
        check=True,
        capture_output=True,
        env={**environment(), "PYTHONPATH": str(ROOT)},
    )
    made = Clone(folder)
    made.config()
    return made


def copy_clone(clone: Clone, folder: Path) -> Clone:
    """The same with all that has run, times of files kept."""
    subprocess.run(["cp", "-a", str(clone.folder), str(folder)], check=True)
    return Clone(folder)
