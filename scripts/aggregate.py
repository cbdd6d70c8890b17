"""Score predictions: intervals, contrasts with verdicts, and the ablation table in all its forms.

python scripts/aggregate.py --params @aggregate.yaml --plan results/plan.json --scores results/scores.parquet \
    --contrasts results/contrasts.parquet --table results/ablation_table.csv
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from fewscans import cli
from fewscans.aggregate.build import as_frames, build
from fewscans.aggregate.table import tidy_table, wide_table
from fewscans.config.stages import AggregateParams
from fewscans.contracts import write_table
from fewscans.errors import UserError
from fewscans.files import write_text
from fewscans.tables import latex_table, markdown_table, write_csv, write_parquet


def aggregate(arguments: argparse.Namespace, params: AggregateParams) -> dict[str, Any]:
    """Write every table; facts for the side-car."""
    try:
        plan = json.loads(Path(arguments.plan).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{arguments.plan}: no such file. Make it with `scripts/plan.py`."
        ) from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{arguments.plan}: not valid JSON ({error}). Make it again with `scripts/plan.py`."
        ) from None
    with threadpool_limits(1):  # sums are split by threads; one, so that the last digit stays
        built = build(plan, params)
    scores, contrasts = as_frames(built)
    metric = params.compare.metric
    table = wide_table(plan, built, scores, contrasts, metric)
    write_table(arguments.scores, "scores", scores)
    write_table(arguments.contrasts, "contrasts", contrasts)
    path = Path(arguments.table)
    write_parquet(path.with_suffix(".parquet"), tidy_table(table, scores, contrasts))
    write_text(path.with_suffix(".md"), markdown_table(table, metric))
    write_text(path.with_suffix(".tex"), latex_table(table, metric))
    write_csv(path, table)
    verdicts = {
        str(name): int(n) for name, n in table["verdict"].value_counts().sort_index().items()
    }
    return {"rows": len(table), "verdicts": verdicts}


def main(argv: Sequence[str] | None = None) -> int:
    """Run; an exit code."""
    made = cli.parser(__doc__ or "", AggregateParams)
    made.add_argument(
        "--plan", required=True, help="plan.json; its paths start at the working directory"
    )
    made.add_argument("--scores", required=True, help="scores.parquet to write")
    made.add_argument("--contrasts", required=True, help="contrasts.parquet to write")
    made.add_argument(
        "--table", required=True, help="CSV to write; .parquet (long), .md and .tex lie beside it"
    )
    made.add_argument("--sidecar", help="JSON with settings, versions, seconds and facts")
    return cli.run(made, aggregate, argv, AggregateParams)


if __name__ == "__main__":
    raise SystemExit(main())
