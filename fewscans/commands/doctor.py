"""``fewscans doctor``: the state of a work folder, and with ``--probe`` what nodes of the cluster see of it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fewscans.commands import run_config

if TYPE_CHECKING:
    from fewscans.cluster.doctor import Finding
    from fewscans.cluster.probe import Answer
    from fewscans.cluster.site import Site

HELP = "who runs here, what was left behind, what hangs; --probe asks a node of each partition"
SIGNS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to look, and whether to ask the nodes."""
    parser.epilog = "Exit code: 0 nothing to do, 1 problems found, 2 it cannot look."
    parser.add_argument("--work", type=Path, help="work folder (default: the config's, else work)")
    run_config.add_arguments(parser)
    parser.add_argument(
        "--probe",
        action="store_true",
        help="one short job per partition: folder, python, torch, data, srun, GPU",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=300,
        metavar="S",
        help="how long --probe waits for its jobs (default: 300 s)",
    )
    parser.add_argument(
        "--clean", action="store_true", help="remove half-written files of processes that are gone"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; an exit code."""
    from fewscans.cluster import doctor, leftovers

    work, results, data = _places(arguments)
    if arguments.clean:
        for path in leftovers.half_written(work):
            leftovers.remove(path)
            print(f"removed {path}")
    site = _site()
    findings = list(doctor.examine(work, results, site))
    print(page(findings))
    bad = any(one.level == "problem" for one in findings)
    if arguments.probe:
        from fewscans.cluster import probe, slurm
        from fewscans.errors import UserError

        if not slurm.available("sbatch"):
            raise UserError("--probe: no sbatch here; run it on a login node of the cluster.")
        answers = probe.probe(work, data, site, _say, patience_s=arguments.patience)
        print(table(answers))
        if all(
            answer.ok for answer in answers
        ):  # nodes do see the files, whatever their system is called
            bad = any(one.level == "problem" and one.area != "files" for one in findings)
        else:
            bad = True
    return 1 if bad else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def page(findings: Iterable[Finding]) -> str:
    """Findings with what to do, problems marked."""
    lines = []
    for one in findings:
        first, *rest = one.text.splitlines()
        lines.append(f"{SIGNS[one.level]}  {one.area:<9} {first}")
        lines += [f"{'':19}{line}" for line in rest]
        if one.todo:
            lines.append(f"{'':19}-> {one.todo}")
    return "\n".join(lines)


def table(answers: Iterable[Answer]) -> str:
    """What nodes said, a line per check."""
    rows = [("partition", "node", "check", "", "")]
    for answer in answers:
        for i, check in enumerate(answer.checks):
            first = (answer.partition, answer.node) if i == 0 else ("", "")
            rows.append(
                (*first, check.name, "ok" if check.ok else "NO", " ".join(check.text.split()))
            )
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]])
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _places(arguments: argparse.Namespace) -> tuple[Path, Path, list[str]]:
    """Work, results and the data's folders, as far as the config can be read; its mistakes are told elsewhere."""
    from fewscans.cluster.container import binds, config_of

    argv = ["snakemake", *run_config.as_words(arguments)]
    config = config_of(argv, Path.cwd())
    work = arguments.work or Path(str(config.get("work", "work")))
    results = Path(str(config.get("results", "results")))
    inside = [str(Path.cwd()), str(Path(work).resolve()), str(results.resolve())]
    return work, results, [place for place in binds(argv) if place not in inside]


def _site() -> Site | None:
    from fewscans.cluster.site import VARIABLE, read_site

    default = Path(__file__).resolve().parents[2] / "profiles/slurm/partitions.yaml"
    path = os.environ.get(VARIABLE) or (str(default) if default.is_file() else None)
    return read_site(path) if path else None
