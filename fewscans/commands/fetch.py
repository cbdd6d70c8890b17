"""``fewscans fetch``: weights from outside, ahead of a run whose nodes have no internet."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from fewscans.commands import run_config
from fewscans.errors import Problems

HELP = "get the weights that a config needs, ahead of a run without internet"
ROOT = Path(__file__).resolve().parents[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which config."""
    run_config.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write each encoder's weights where the workflow looks for them.

    Raises
    ------
    UserError
        With all weights that cannot be had.
    """
    from fewscans.plan import Paths, expand

    plan = expand(run_config.read(arguments))
    paths = Paths(plan.config.work, plan.config.results)
    problems = Problems("weights that cannot be had")
    written: list[str] = []
    for name, recipe in plan.pairs:
        encoder = plan.encoders[name]
        if encoder.settings.source != "weights":
            continue
        out = paths.encoder(f"{name}/{recipe}/all/all/all")
        weights = getattr(encoder.settings, "weights", None) or "hub"
        if Path(out, "encoder.json").is_file():
            print(f"{name}: there already, {out}")
        elif failure := get(encoder.settings.backbone, weights, out):
            problems.add(f"encoder {name}", failure)
            continue
        else:
            print(f"{name}: from {weights}, {out}")
        written.append(out)
    problems.raise_if_any()
    if not written:
        print("nothing to get: no encoder of this config starts from weights of others.")
        return 0
    print(
        f"Jobs read them from {plan.config.work}/encoders, as the rule `weights` would have left them; it does not run "
        "again. Keep that folder where all nodes see it."
    )
    return 0


def get(backbone: str, weights: str, out: str | None = None) -> str | None:
    """None once the weights are written (without `out`: can be had); else why not.

    In a process of its own, since torch is loaded for it.
    """
    command = [sys.executable, str(ROOT / "scripts" / "weights.py"), "--backbone", backbone]
    done = subprocess.run(
        [*command, "--weights", weights, *(["--out", out] if out else [])],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.returncode:
        return None
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return last.removeprefix("error: ")
