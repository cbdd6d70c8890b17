"""Make a store (voxels.npy, rows.parquet, store.json) of converted scans by one recipe."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewscans import cli
from fewscans.config.stages import NormaliseParams


def main(argv: Sequence[str] | None = None) -> int:
    """Run with the arguments `argv`; exit code."""
    made = cli.parser(__doc__ or "", NormaliseParams)
    made.add_argument(
        "--converted", required=True, nargs="+", help="folders that convert wrote, all chunks"
    )
    made.add_argument(
        "--folds", type=Path, nargs="+", default=[],
        help="folds.parquet: whose scans a recipe is fitted on that is fitted; of a pool, those of all that it joins",
    )  # fmt: skip
    made.add_argument(
        "--workers", type=int, default=1, help="processes, each with a scan in memory (default: 1)"
    )
    made.add_argument("--out", required=True, help="folder of the store")
    made.add_argument("--sidecar", help="write settings, seconds and counts to this JSON file")
    return cli.run(made, _normalise, argv, NormaliseParams)


def _normalise(arguments: argparse.Namespace, params: NormaliseParams) -> dict[str, Any]:
    from fewscans.normalise import make_store

    return make_store(
        params, arguments.converted, arguments.out, arguments.folds, arguments.workers
    )


if __name__ == "__main__":
    raise SystemExit(main())
