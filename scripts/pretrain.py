"""Pretrain one encoder on the training scans of one fold: store, folds -> encoder, history, views."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fewscans import cli, ranks, slots
from fewscans.config.stages import PretrainParams
from fewscans.config.values import with_files
from fewscans.tune.space import use_in_pretrain


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code; see `fewscans.cli`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
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
    made.add_argument(
        "--labels",
        nargs="*",
        default=[],
        metavar="NAME=FILE",
        help="labels.parquet of the data set and its pools, for methods that ask whose scans they are",
    )
    made.add_argument(
        "--gauge", type=Path, metavar="FILE",
        help="labels.parquet of the data set, for a probe of neighbours on the way that chooses nothing",
    )  # fmt: skip
    made.add_argument(
        "--values",
        nargs="*",
        default=[],
        metavar="NAME=FILE",
        help="tables of values (of a pool: POOL/NAME=FILE), for methods that contrast scans with them",
    )
    made.add_argument(
        "--start", type=Path, help="encoder's folder or file of weights that it starts from"
    )
    made.add_argument("--tuned", type=Path, help="best.json of a search: its values replace those")
    made.add_argument("--out", type=Path, required=True, help="folder of the encoder")
    made.add_argument("--cache", type=Path, required=True, help="finished work by digest")
    made.add_argument(
        "--checkpoints", type=Path, required=True, help="state of unfinished trainings"
    )
    made.add_argument("--sidecar", type=Path, help="JSON with settings, versions and seconds")
    return cli.run(made, partial(work, command=arguments), arguments, PretrainParams)


def work(
    arguments: argparse.Namespace, params: PretrainParams, command: list[str]
) -> dict[str, Any]:
    """Become as many processes as share this training, or pretrain as one of them."""
    if arguments.tuned is not None:
        params = use_in_pretrain(params, arguments.tuned)
    take = partial(slots.take, device=params.compute.device)
    n = getattr(params.settings, "ranks", 1)
    if n == 1:
        with take(1):
            return train(arguments, params)
    place = ranks.find_place(n)
    if place is None:
        started = [sys.executable, os.path.abspath(__file__), *command]
        raise SystemExit(ranks.start(n, started, threads=params.compute.threads, take=take))
    if place.rank:  # one speaks for all
        logging.getLogger("fewscans").setLevel(logging.ERROR)
        arguments.sidecar = None
    from fewscans.distributed import RankLostError

    try:
        return train(arguments, params, place)
    except RankLostError as lost:
        who = f"{params.encoder}, rank {place.rank} of {n}"
        print(f"error: {who}: {lost}", file=sys.stderr, flush=True)
        # At once: a GPU may still wait for the lost one, and would hold up an ordinary end.
        os._exit(1)


def train(
    arguments: argparse.Namespace, params: PretrainParams, place: ranks.Place | None = None
) -> dict[str, Any]:
    """Open the stores and pretrain."""
    from fewscans.cluster.scratch import near
    from fewscans.pretrain import pretrain
    from fewscans.store import Store
    from fewscans.training_scans import open_pools, pairs

    pools = open_pools(arguments.pool, near)
    given = pairs("--values", arguments.values)
    values = with_files(params.values, params.dataset, given)
    params = params.model_copy(update={"values": values})
    return pretrain(
        params,
        Store.open(near(arguments.store)),
        arguments.folds,
        pools,
        arguments.out,
        arguments.cache,
        arguments.checkpoints,
        place,
        pairs("--labels", arguments.labels),
        arguments.start,
        arguments.gauge,
    )


if __name__ == "__main__":
    raise SystemExit(main())
