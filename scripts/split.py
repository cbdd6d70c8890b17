r"""Make folds from labels and groups, and budgets from folds.

python scripts/split.py folds   --params @folds.yaml --labels work/D/labels.parquet --out
work/D/folds.parquet python scripts/split.py budgets --params @budgets.yaml --labels
work/D/labels.parquet \
    --folds work/D/folds.parquet --out work/D/budgets.parquet
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd

from fewscans import cli
from fewscans.config.stages import BudgetsParams, FoldsParams
from fewscans.contracts import read_table, write_table
from fewscans.errors import UserError
from fewscans.split import make_budgets, make_folds


def folds(arguments: argparse.Namespace, params: FoldsParams) -> dict[str, Any]:
    """Write the folds; facts for the side-car."""
    pools: dict[str, pd.DataFrame] = {}
    for text in arguments.pool_labels:
        name, mark, path = text.partition("=")
        if not (name and mark and path):
            raise UserError(f"--pool-labels: write NAME=FILE (given: {text!r}).")
        pools[name] = read_table(path, "labels")
    made = make_folds(read_table(arguments.labels, "labels"), params, pools)
    # Nothing that follows from labels goes into the metadata: the same roles must be the same
    # bytes.
    write_table(
        arguments.out,
        "folds",
        made,
        dataset=params.dataset,
        folds=list(made["fold"].drop_duplicates()),
    )
    return {
        "roles": {str(role): int(n) for role, n in made["role"].value_counts().sort_index().items()}
    }


def budgets(arguments: argparse.Namespace, params: BudgetsParams) -> dict[str, Any]:
    """Write the budgets; facts for the side-car."""
    made, merged = make_budgets(
        read_table(arguments.labels, "labels"), read_table(arguments.folds, "folds"), params
    )
    kept = list(made["budget"].drop_duplicates())
    write_table(arguments.out, "budgets", made, dataset=params.dataset, budgets=kept, merged=merged)
    return {"merged": merged}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `folds` or `budgets`; an exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument(
        "verb", choices=["folds", "budgets"], help="what to make; `split.py VERB --help` says more"
    )
    verb = top.parse_args(argv[:1]).verb
    params = FoldsParams if verb == "folds" else BudgetsParams
    made = cli.parser(f"Make {verb}: {params.__doc__}", params)
    made.prog = f"{made.prog} {verb}"
    made.add_argument("--labels", required=True, help="labels.parquet of the data set")
    if verb == "folds":
        made.add_argument(
            "--pool-labels",
            nargs="+",
            action="extend",
            default=[],
            metavar="NAME=FILE",
            help="labels.parquet of a data set whose scans join pretraining",
        )
    else:
        made.add_argument("--folds", required=True, help="folds.parquet of the data set")
    made.add_argument("--out", required=True, help="file to write")
    made.add_argument("--sidecar", help="JSON with settings, versions, seconds and facts")
    return cli.run(made, folds if verb == "folds" else budgets, argv[1:], params)


if __name__ == "__main__":
    raise SystemExit(main())
