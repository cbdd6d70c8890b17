"""At the end of a run: which benchmark file belongs to which job of the plan, for the history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from fewscans.cost import history
from fewscans.cost.history import Job
from fewscans.cost.model import Model
from fewscans.plan import Paths, Plan
from fewscans.rawdata import chunks_of


def remember(plan: Plan, since: float) -> int:
    """Keep what the jobs of a run that began at `since` took; how many. Called when a run ends.

    A disk that is full costs the measurements, not the run.
    """
    try:
        return history.collect(plan.config.work, jobs(Model(plan)), since)
    except OSError:
        return 0


def jobs(model: Model) -> Iterator[Job]:
    """Every job of the plan that leaves a measurement; not searches and downloads, which are never twice the same."""
    config = model.plan.config
    folder = Path(config.work, "benchmarks")

    def job(rule: str, file: str, *where: str, trained: Path | None = None) -> Job:
        return Job(rule, folder / file, *model.mark(rule, *where), trained)

    for rule in ("plan", "aggregate", "report"):
        yield job(rule, f"{rule}.tsv", "", "", "")
    for name, dataset in config.datasets.items():
        if dataset.phantom is not None:
            yield job("phantom", f"phantom/{name}.tsv", "", "", name)
        for chunk in range(chunks_of(config, name)):
            yield job("convert", f"convert/{name}.{chunk}.tsv", "", "", name)
        for rule in ("audit", "folds", "budgets"):
            yield job(rule, f"{rule}/{name}.tsv", "", "", name)
        for recipe in model.plan.recipes:
            if folds := model.plan.store_folds(name, recipe):
                for fold in folds:
                    file = f"normalise_fold/{name}.{recipe}.{fold}.tsv"
                    yield job("normalise", file, "", recipe, name)
            else:
                yield job("normalise", f"normalise/{name}.{recipe}.tsv", "", recipe, name)
    yield from _trainings(model, job)


def _trainings(model: Model, job: Callable[..., Job]) -> Iterator[Job]:
    plan = model.plan
    paths = Paths(plan.config.work, plan.config.results)
    done = set()
    for run in plan.runs():
        where = (run.encoder, run.recipe, run.dataset)
        file = f"finetune/{run.key.replace('/', '.')}.tsv"
        yield job("finetune", file, *where, trained=Path(paths.predictions(run)))
        key = plan.encoder_key(run)
        if key is None or key in done or not plan.encoders[run.encoder].pretrained:
            continue
        done.add(key)
        file = f"pretrain/{key.replace('/', '.')}.tsv"
        yield job("pretrain", file, *where, trained=Path(paths.encoder(key, "encoder.json")))
