r"""Use one encoder on one fold with one seed: all protocols, budgets and draws in one process.

python scripts/finetune.py --params @finetune.yaml --store work/D/R/store \
    --labels work/D/labels.parquet --folds work/D/folds.parquet --budgets work/D/budgets.parquet \
    --encoder work/encoders/E/R/D/F/S --embeddings work/embeddings/E/R/D/F/S \
    --predictions work/predictions/E/R/D/F/S/predictions.parquet
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewscans import cli, slots
from fewscans.config.stages import FinetuneParams
from fewscans.finetune import Files, finetune
from fewscans.tune.space import use_in_finetune


def work(arguments: argparse.Namespace, params: FinetuneParams) -> dict[str, Any]:
    """Run the job; facts for the side-car."""
    paths = {
        name: None if (given := getattr(arguments, name)) is None else Path(given)
        for name in (
            "labels",
            "folds",
            "budgets",
            "predictions",
            "cache",
            "store",
            "encoder",
            "embeddings",
        )
    }
    tuned: list[str] = []
    if arguments.tuned:
        params, tuned = use_in_finetune(params, Path(arguments.tuned))
    with slots.take(1, params.compute.device):
        return finetune(params, Files(**paths), tuned)  # type: ignore[arg-type]  # argparse has made the required ones sure


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script; an exit code."""
    made = cli.parser(__doc__, FinetuneParams)
    made.add_argument("--store", help="store of the recipe (not read by majority)")
    made.add_argument("--labels", required=True, help="labels.parquet of the data set")
    made.add_argument("--folds", required=True, help="folds.parquet of the data set")
    made.add_argument("--budgets", required=True, help="budgets.parquet of the data set")
    made.add_argument("--encoder", help="folder of the weights, where the encoder has any")
    made.add_argument("--tuned", help="best.json of a search: its values replace those")
    made.add_argument("--predictions", required=True, help="Parquet file to write")
    made.add_argument(
        "--embeddings", help="folder to write embeddings.npy and embeddings.parquet to"
    )
    made.add_argument("--cache", default="work/cache", help="finished runs by content digest")
    made.add_argument("--sidecar", help="JSON with settings, versions, seconds and facts")
    return cli.run(made, work, argv, FinetuneParams)


if __name__ == "__main__":
    raise SystemExit(main())
