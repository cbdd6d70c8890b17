"""Pretrain one encoder on the training scans of one fold: store, folds -> encoder, history, views."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewscans import cli
from fewscans.config.stages import PretrainParams
from fewscans.errors import Problems

TERMINATED = 128 + 15


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code; see `fewscans.cli`."""
    made = cli.parser(__doc__ or "", PretrainParams)
    made.add_argument("--store", type=Path, required=True, help="store of the target data set")
    made.add_argument("--folds", type=Path, required=True, help="folds.parquet")
    made.add_argument(
        "--pool",
        nargs="*",
        default=[],
        metavar="NAME=STORE",
        help="stores whose scans join (role pool)",
    )
    made.add_argument("--out", type=Path, required=True, help="folder of the encoder")
    made.add_argument("--cache", type=Path, required=True, help="finished work by digest")
    made.add_argument(
        "--checkpoints", type=Path, required=True, help="state of unfinished trainings"
    )
    made.add_argument("--sidecar", type=Path, help="JSON with settings, versions and seconds")
    return cli.run(made, work, argv, PretrainParams)


def work(arguments: argparse.Namespace, params: PretrainParams) -> dict[str, Any]:
    """Open the stores and pretrain."""
    from fewscans.cluster.scratch import near
    from fewscans.engine import StoppedError
    from fewscans.pretrain import pretrain
    from fewscans.store import Store

    problems = Problems("--pool")
    pools: dict[str, Store] = {}
    for pair in arguments.pool:
        name, equals, folder = pair.partition("=")
        if not (name and equals and folder):
            problems.add(pair, "write NAME=STORE")
        else:
            pools[name] = Store.open(near(folder))
    problems.raise_if_any()
    store = Store.open(near(arguments.store))
    try:
        return pretrain(
            params,
            store,
            arguments.folds,
            pools,
            arguments.out,
            arguments.cache,
            arguments.checkpoints,
        )
    except StoppedError:
        raise SystemExit(TERMINATED) from None


if __name__ == "__main__":
    raise SystemExit(main())
