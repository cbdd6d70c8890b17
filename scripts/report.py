"""Draw the figures and write the page: plan, scores, contrasts, table -> results/figures/, results/report.html."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewscans import cli
from fewscans.config.stages import ReportParams


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code of the report."""
    made = cli.parser(__doc__ or "", ReportParams)
    made.add_argument(
        "--plan",
        type=Path,
        required=True,
        help="plan.json; its paths start at the working directory",
    )
    made.add_argument("--scores", type=Path, required=True, help="scores.parquet")
    made.add_argument("--contrasts", type=Path, required=True, help="contrasts.parquet")
    made.add_argument("--table", type=Path, required=True, help="ablation_table.csv")
    made.add_argument(
        "--figures", type=Path, required=True, help="folder of the figures; FOLDER/DATASET/FIGURE.*"
    )
    made.add_argument("--out", type=Path, required=True, help="the page, report.html")
    made.add_argument(
        "--sidecar", type=Path, help="also write settings and seconds to this JSON file"
    )
    return cli.run(made, report, argv, ReportParams)


def report(arguments: argparse.Namespace, params: ReportParams) -> dict[str, Any]:
    """Figures and page; facts for the side-car."""
    from fewscans.figures.inputs import read_results
    from fewscans.report import write_report

    results = read_results(
        arguments.plan, arguments.scores, arguments.contrasts, arguments.table, params.compare
    )
    write_report(results, params.report, arguments.figures, arguments.out)
    return {"datasets": results.datasets}


if __name__ == "__main__":
    raise SystemExit(main())
