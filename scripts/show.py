"""Print an ablation table, short, and where its other forms lie.

python scripts/show.py [results/ablation_table.csv]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewscans import cli
from fewscans.contracts import read_table
from fewscans.errors import UserError
from fewscans.report.audit import TITLES
from fewscans.tables import read_csv, terminal_table

DEFAULT = "results/ablation_table.csv"


def show(arguments: argparse.Namespace, _: Any) -> None:
    """Print."""
    path = Path(arguments.table or arguments.place or DEFAULT)
    if not path.is_file():
        raise UserError(f"{path}: no such file. Run the workflow first: snakemake")
    print(terminal_table(read_csv(path), _metric(path, arguments.plan)))
    print()
    for line in _audit_lines(path.parent / "plan.json"):
        print(line)
    others = {
        "table": path, "figures": path.parent / "figures", "report": path.parent / "report.html",
        "settings": path.parent / "plan.json",
    }  # fmt: skip
    for name, place in others.items():
        if place.exists():
            print(f"{name:<9} {place}")


def _audit_lines(plan: Path) -> list[str]:
    """What the audits found and what was done about it, a line per check; notes on classes and chance left out."""
    lines: list[str] = []
    datasets = json.loads(plan.read_text(encoding="utf-8"))["datasets"] if plan.is_file() else {}
    for name, dataset in datasets.items():
        findings = Path(dataset["audit"]) / "findings.parquet"
        if not findings.is_file():
            continue
        found = read_table(findings, "findings")
        found = found[(found["severity"] != "info") | found["action"].ne("")]
        lines.append(f"{name}: what the audit found, and what was done")
        for check, part in found.groupby("check", sort=False):
            done = "; ".join(dict.fromkeys(action for action in part["action"] if action))
            lines.append(
                f"  {TITLES.get(check, check)} ({len(part)})" + (f": {done}" if done else "")
            )
        lines.append("")
    return lines


def _metric(table: Path, given: str | None) -> str:
    """Metric of the verdicts, as the plan says."""
    for place in [Path(given)] if given else [table.parent / "plan.json", Path("work/plan.json")]:
        if place.is_file():
            return json.loads(place.read_text(encoding="utf-8"))["config"]["compare"]["metric"]
    if given:
        raise UserError(f"{given}: no such file.")
    return "auroc"


def main(argv: Sequence[str] | None = None) -> int:
    """Run; an exit code."""
    made = cli.parser(__doc__ or "")
    made.add_argument(
        "place", nargs="?", metavar="TABLE", help=f"CSV of the table (without it {DEFAULT})"
    )
    made.add_argument("--table", help="the same as a flag")
    made.add_argument(
        "--plan", help="plan.json (without it the one beside the table, else work/plan.json)"
    )
    return cli.run(made, show, argv)


if __name__ == "__main__":
    raise SystemExit(main())
