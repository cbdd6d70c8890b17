r"""Search for the values of one encoder on the training scans of one fold, by inner folds of labelled ones.

python scripts/tune.py --params @tune.yaml --store work/D/R/store --labels work/D/labels.parquet \
    --folds work/D/folds.parquet --budgets work/D/budgets.parquet --out work/tune/E/R/D/F

Where the run has a site (partitions.yaml), trials are jobs of the cluster; else processes here. Killed or
interrupted: the same command goes on. `fewscans tune-status` shows how far it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewscans import cli
from fewscans.config.stages import TuneParams
from fewscans.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code; see `fewscans.cli`."""
    made = cli.parser(__doc__ or "", TuneParams)
    made.add_argument("--store", type=Path, required=True, help="store of the target data set")
    made.add_argument("--labels", type=Path, required=True, help="labels.parquet")
    made.add_argument("--folds", type=Path, required=True, help="folds.parquet")
    made.add_argument("--budgets", type=Path, required=True, help="budgets.parquet")
    made.add_argument(
        "--pool", nargs="*", default=[], metavar="NAME=STORE", help="stores that join"
    )
    made.add_argument("--encoder", type=Path, help="folder of weights from outside")
    made.add_argument("--out", type=Path, required=True, help="folder of the search")
    made.add_argument("--cores", type=int, default=1, help="of this machine, for local trials")
    made.add_argument("--minutes", type=int, default=240, help="time of a trial's job")
    made.add_argument("--mem-mb", type=int, default=8000, help="memory of a trial's job")
    made.add_argument("--poll-s", type=float, help="seconds between looks at the trials")
    made.add_argument("--trial", type=int, help="run this trial of the search (used by the search)")
    made.add_argument("--sidecar", type=Path, help="JSON with settings, versions and seconds")
    given = list(sys.argv[1:] if argv is None else argv)
    return cli.run(
        made, lambda arguments, params: work(arguments, params, given), given, TuneParams
    )


def work(arguments: argparse.Namespace, params: TuneParams, given: list[str]) -> dict[str, Any]:
    """Lead the search, or be one of its trials."""
    data = read(arguments, params)
    if arguments.trial is not None:
        return trial(arguments, params, data)
    try:
        from fewscans.tune.search import search
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed: pip install 'fewscans[slurm,tune]'"
        ) from None

    command = [sys.executable, str(Path(__file__).resolve()), *given]
    launcher = make_launcher(arguments, params)
    return search(params, data, arguments.out, launcher, lambda n: [*command, "--trial", str(n)])


def read(arguments: argparse.Namespace, params: TuneParams) -> Any:
    """Stores and labels; test scans are left where they are."""
    from fewscans.cluster.scratch import near
    from fewscans.contracts import read_table
    from fewscans.fitted import check_fitted
    from fewscans.store import Store
    from fewscans.training_scans import open_pools
    from fewscans.tune.labels import read_labelled
    from fewscans.tune.trial import Data

    # Trials read pixels again and again; who leads them hardly looks.
    place = near if arguments.trial is not None else Path
    if params.settings.source == "weights" and arguments.encoder is None:
        raise UserError(f"--encoder is missing: {params.settings.method} starts from weights.")
    pools = open_pools(arguments.pool, place)
    store = Store.open(place(arguments.store))
    labelled = read_labelled(
        params, arguments.labels, arguments.folds, arguments.budgets, set(store.scans)
    )
    check_fitted(
        {params.dataset: store, **pools},
        read_table(arguments.folds, "folds"),
        params.fold,
        is_fitted=params.recipe.is_fitted,
    )
    return Data(store, pools, arguments.folds, labelled, arguments.encoder)


def make_launcher(arguments: argparse.Namespace, params: TuneParams) -> Any:
    """Jobs of the cluster where the run has a site, else processes here: as many as cores allow."""
    from fewscans.cluster import slurm
    from fewscans.cluster.site import current_site
    from fewscans.tune.submit import Jobs, Processes, leave_job

    site = current_site()
    if site is None:
        made: Any = Processes(
            max(1, min(params.parallel, arguments.cores // params.compute.threads))
        )
    elif not slurm.available():
        raise UserError(
            "trials are jobs of the cluster, and there is no sbatch here (an image has none). Lead searches outside of "
            "it: snakemake tuned --executor local, see docs/tune.md."
        )
    else:
        leave_job()
        gpu = params.compute.device != "cpu"
        made = Jobs(
            site, arguments.out, params.parallel, minutes=arguments.minutes,
            mem_mb=arguments.mem_mb, threads=params.compute.threads, gpu=gpu,
        )  # fmt: skip
    if arguments.poll_s is not None:
        made.poll_s = arguments.poll_s
    return made


def trial(arguments: argparse.Namespace, params: TuneParams, data: Any) -> dict[str, Any]:
    """One trial, reporting to the journal of its search."""
    from fewscans import slots
    from fewscans.cluster.deadline import TO_BE_CONTINUED, ToBeContinuedError
    from fewscans.tune import journal
    from fewscans.tune.search import identity
    from fewscans.tune.status import JOURNAL, trial_folder
    from fewscans.tune.trial import PrunedError, run

    search = arguments.out / identity(params, data)
    if not (search / JOURNAL).is_file():
        raise UserError(
            f"{search}: no such search. Code, settings or labels have changed since it began: run it again."
        )
    study = journal.open_journal(search / JOURNAL, params)
    mine = journal.trial_of(study, arguments.trial)
    reported = set(study.get_trials()[arguments.trial].intermediate_values)

    def look(number: int, value: float) -> None:
        if number not in reported:
            mine.report(value, number)
        if mine.should_prune():
            raise PrunedError

    try:
        with slots.take(1, params.compute.device):
            run(params, mine.params, data, trial_folder(search, arguments.trial), look)
    except ToBeContinuedError:
        # Not through `cli`, which would requeue this job by itself: submitit does, or the search starts another.
        raise SystemExit(TO_BE_CONTINUED) from None
    return {}


if __name__ == "__main__":
    raise SystemExit(main())
