"""From a config to what will be done: recipes, encoders, arms, runs, their files and their cost.

Standard library and settings only: this is computed each time that Snakemake parses the workflow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import PurePosixPath
from typing import Any, Literal

from fewscans.config import ENCODERS, Config, EncoderSettings, RecipeSettings
from fewscans.config.encoders import PretrainSettings

SHARED = ("backbone", "patch_size", *PretrainSettings.model_fields)
# Class of each rule's jobs; what a class gets at a site stands in its file, what a job takes in `fewscans.cost`.
Kind = Literal["light", "cpu", "gpu"]
RULES: dict[str, Kind] = {
    "phantom": "light",
    "convert": "cpu",
    "audit": "cpu",
    "normalise": "cpu",
    "folds": "light",
    "budgets": "light",
    "weights": "light",
    "tune": "light",
    "pretrain": "gpu",
    "pretrain_ranks": "gpu",
    "finetune": "gpu",
    "plan": "light",
    "aggregate": "cpu",
    "report": "cpu",
}
TITLES = {
    "majority": "majority",
    "random": "random, frozen",
    "scratch": "scratch",
    "scratch-long": "scratch, long",
    "imagenet": "ImageNet",
    "simclr": "SimCLR",
    "mae": "MAE",
    "simmim": "SimMIM",
}


@dataclass(frozen=True)
class Encoder:
    """How weights come to be, under a name that is a file name."""

    name: str
    settings: EncoderSettings
    title: str
    ablation: str | None = None

    @property
    def method(self) -> str:
        """Name in the registry."""
        return self.settings.method  # type: ignore[attr-defined]

    @property
    def pretrained(self) -> bool:
        """Whether `pretrain` makes it."""
        return self.settings.source == "pretrain"


@dataclass(frozen=True)
class Arm:
    """Encoder x protocol x recipe: one line of the ablation."""

    encoder: str
    recipe: str
    protocol: str
    baseline: str | None
    ablation: str | None = None

    @property
    def name(self) -> str:
        """``ENCODER.RECIPE.PROTOCOL``; looked up, never parsed back."""
        return f"{self.encoder}.{self.recipe}.{self.protocol}"


@dataclass(frozen=True)
class Run:
    """One fine-tuning job: all protocols, budgets and draws of an encoder on a fold with a seed."""

    dataset: str
    encoder: str
    recipe: str
    fold: str
    seed: int

    @property
    def key(self) -> str:
        """Path of its folders below ``work/predictions`` and ``work/embeddings``."""
        return f"{self.encoder}/{self.recipe}/{self.dataset}/{self.fold}/{self.seed}"


@dataclass
class Plan:
    """A config, expanded."""

    config: Config
    recipes: dict[str, RecipeSettings] = field(default_factory=dict)
    encoders: dict[str, Encoder] = field(default_factory=dict)
    # (encoder, recipe) pairs that are run, in the order of the table
    pairs: list[tuple[str, str]] = field(default_factory=list)
    arms: dict[str, Arm] = field(default_factory=dict)

    # -- data sets -----------------------------------------------------------------------------------------------------
    @property
    def evaluated(self) -> list[str]:
        """Data sets with folds: all that are no pool of another."""
        pools = {pool for dataset in self.config.datasets.values() for pool in dataset.pools}
        return [name for name in self.config.datasets if name not in pools]

    def folds(self, dataset: str) -> list[str]:
        """Names of its folds."""
        if self.config.datasets[dataset].split == "official":
            return ["official"]
        return [str(fold) for fold in range(self.config.validation.folds)]

    # -- runs ----------------------------------------------------------------------------------------------------------
    def runs(self) -> Iterator[Run]:
        """Every fine-tuning job."""
        for dataset, (encoder, recipe) in product(self.evaluated, self.pairs):
            seeds = (
                1 if self.encoders[encoder].method == "majority" else self.config.validation.seeds
            )
            for fold, seed in product(self.folds(dataset), range(seeds)):
                yield Run(dataset, encoder, recipe, fold, seed)

    def protocols(self, encoder: str) -> list[str]:
        """Protocols of an encoder's job, legal ones only."""
        legal = self.encoders[encoder].settings.protocols
        if legal == ("prior",):
            return ["prior"]
        return [protocol for protocol in self.config.protocols if protocol in legal]

    def encoder_key(self, run: Run) -> str | None:
        """Folder of the weights below ``work/encoders``; None where a run starts without a file."""
        encoder = self.encoders[run.encoder]
        if encoder.settings.source == "weights":
            return f"{run.encoder}/{run.recipe}/all/all/all"
        if not encoder.pretrained:
            return None
        fold = "all" if getattr(encoder.settings, "transductive", False) else run.fold
        return f"{run.encoder}/{run.recipe}/{run.dataset}/{fold}/{run.seed}"

    def longest_pretraining(self, backbone: str, patch: int | None, recipe: str) -> tuple[int, int]:
        """(epochs, batch size) with the most steps among encoders of this network and recipe; (0, 1) if none."""
        found = [
            (e.settings.epochs / e.settings.batch_size, e.settings.epochs, e.settings.batch_size)  # type: ignore[attr-defined]
            for name, r in self.pairs
            if r == recipe
            and (e := self.encoders[name]).pretrained
            and _network(e.settings) == (backbone, patch)
        ]
        return max(found)[1:] if found else (0, 1)


def expand(config: Config) -> Plan:
    """Everything that `config` asks for: named encoders, their ablations, and matched baselines."""
    plan = Plan(config, recipes=dict(config.recipes))
    main = list(config.recipes)
    for name, settings in config.encoders.items():
        plan.encoders[name] = Encoder(name, settings, _title(name, settings))
        plan.pairs += [(name, recipe) for recipe in main]
    for name, ablation in config.ablations.items():
        _expand_ablation(plan, name, ablation)
    _add_baselines(plan)
    _add_arms(plan)
    return plan


def _title(name: str, settings: EncoderSettings) -> str:
    known = TITLES[settings.method]  # type: ignore[attr-defined]
    return known if name.startswith(settings.method) and name == settings.method else name  # type: ignore[attr-defined]


def _network(settings: EncoderSettings) -> tuple[str, int | None]:
    return settings.backbone, settings.patch_size


def _expand_ablation(plan: Plan, name: str, ablation: Any) -> None:
    config = plan.config
    base = config.encoders[ablation.of]
    recipe_name = ablation.recipe or next(iter(config.recipes))
    recipe = config.recipes[recipe_name]
    axes = ablation.axes
    for values in product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        of_recipe = {k: v for k, v in chosen.items() if k in RecipeSettings.model_fields}
        of_encoder = {k: v for k, v in chosen.items() if k not in of_recipe}
        made_recipe = _place_recipe(plan, recipe_name, recipe, of_recipe)
        made = _place_encoder(plan, name, ablation.of, base, of_encoder)
        if (made, made_recipe) not in plan.pairs:
            plan.pairs.append((made, made_recipe))


def _place_recipe(plan: Plan, name: str, recipe: RecipeSettings, changes: Mapping[str, Any]) -> str:
    changed = RecipeSettings.model_validate({**recipe.model_dump(), **changes})
    for known, settings in plan.recipes.items():
        if settings == changed:
            return known
    made = "-".join([name, *(_word(axis, value) for axis, value in changes.items())])
    plan.recipes[made] = changed
    return made


def _place_encoder(
    plan: Plan, ablation: str, of: str, base: Any, changes: Mapping[str, Any]
) -> str:
    changes = dict(changes)
    method = changes.pop("method", None)
    values = base.model_dump()
    if method is not None and method != values["method"]:
        shared = {
            key: value
            for key, value in values.items()
            if key in SHARED and key in ENCODERS[method].model_fields
        }
        if "mae" in (method, values["method"]):  # the one cannot have the other's network
            shared.pop("backbone", None)
        values = {**shared, "method": method}
    changed = ENCODERS[values["method"]].model_validate({**values, **changes})
    for known, encoder in plan.encoders.items():
        if encoder.settings == changed:
            return known
    words = ([method] if method and method != base.method else []) + [
        _word(*change) for change in changes.items()
    ]
    made = "-".join([of, *words])
    plan.encoders[made] = Encoder(made, changed, made, ablation)
    return made


def _word(axis: str, value: Any) -> str:
    """``epochs50``, ``strength0.5``, ``backbone-vit-tiny``: fit for a file name."""
    text = str(value).lower().replace("_", "-")
    return f"{axis.replace('_', '-')}{'-' if isinstance(value, str) else ''}{text}"


def _add_baselines(plan: Plan) -> None:
    """Once per network and recipe in use, so that a contrast differs in the encoder alone."""
    used: dict[tuple[str, int | None, str], None] = {}
    for name, recipe in plan.pairs:
        used[(*_network(plan.encoders[name].settings), recipe)] = None
    if not used:
        used = {("resnet18", None, recipe): None for recipe in plan.recipes}
    front: list[tuple[str, str]] = []
    for method in plan.config.baselines:
        if method == "majority":
            plan.encoders["majority"] = Encoder("majority", ENCODERS[method](), TITLES[method])
            front.append(("majority", next(iter(plan.recipes))))
            continue
        for backbone, patch, recipe in used:
            name = "-".join(
                [method, backbone.lower().replace("_", "-"), *([f"p{patch}"] if patch else [])]
            )
            extra = (
                {"weights": plan.config.imagenet_weights.get(backbone)}
                if method == "imagenet"
                else {}
            )
            settings = ENCODERS[method].model_validate(
                {"backbone": backbone, "patch_size": patch, **extra}
            )
            plan.encoders[name] = Encoder(name, settings, f"{TITLES[method]} {backbone}")
            if (name, recipe) not in front:
                front.append((name, recipe))
    plan.pairs = front + [pair for pair in plan.pairs if pair not in front]


def _add_arms(plan: Plan) -> None:
    baseline = plan.config.compare.baseline
    for name, recipe in plan.pairs:
        encoder = plan.encoders[name]
        for protocol in plan.protocols(name):
            against = _baseline_arm(plan, baseline, encoder, recipe, protocol)
            arm = Arm(name, recipe, protocol, against, encoder.ablation)
            plan.arms[arm.name] = arm


def _baseline_arm(
    plan: Plan, baseline: str, encoder: Encoder, recipe: str, protocol: str
) -> str | None:
    """Arm of the baseline with the same network and recipe: the same protocol if legal there, else its only one."""
    if encoder.method in ("majority", baseline):
        return None
    for name, other in plan.pairs:
        found = plan.encoders[name]
        if found.method != baseline or (baseline != "majority" and other != recipe):
            continue
        if baseline != "majority" and _network(found.settings) != _network(encoder.settings):
            continue
        legal = plan.protocols(name)
        if legal:
            return f"{name}.{other}.{protocol if protocol in legal else legal[0]}"
    return None


@dataclass(frozen=True)
class Paths:
    """Where things are, below the working directory."""

    work: str
    results: str

    def dataset(self, dataset: str, *parts: str) -> str:
        """``work/DATASET/...``."""
        return str(PurePosixPath(self.work, dataset, *parts))

    def encoder(self, key: str, *parts: str) -> str:
        """``work/encoders/ENCODER/RECIPE/TARGET/FOLD/SEED/...``."""
        return str(PurePosixPath(self.work, "encoders", key, *parts))

    def predictions(self, run: Run) -> str:
        """Predictions of a run."""
        return str(PurePosixPath(self.work, "predictions", run.key, "predictions.parquet"))

    def embeddings(self, run: Run, *parts: str) -> str:
        """Embeddings of a run."""
        return str(PurePosixPath(self.work, "embeddings", run.key, *parts))


def as_json(plan: Plan, paths: Paths, digests: Mapping[str, str]) -> dict[str, Any]:
    """The plan as ``results/plan.json``: what aggregate and report read. Says nothing of where the data lie."""
    config = plan.config
    places = {name: {"root", "table", "npz"} for name in config.datasets}
    return {
        "config": config.model_dump(
            mode="json",
            exclude={"report": True, "data_root": True, "datasets": places, "tune": True},
        ),
        "datasets": {name: _dataset_json(plan, paths, name) for name in plan.evaluated},
        "encoders": {
            name: {
                "method": e.method,
                "backbone": e.settings.backbone,
                "source": e.settings.source,
                "title": e.title,
                "settings": e.settings.model_dump(mode="json"),
                "ablation": e.ablation,
            }
            for name, e in plan.encoders.items()
        },
        "recipes": {name: recipe.model_dump(mode="json") for name, recipe in plan.recipes.items()},
        "arms": [
            {
                "arm": arm.name,
                "encoder": arm.encoder,
                "recipe": arm.recipe,
                "protocol": arm.protocol,
                "baseline_arm": arm.baseline,
                "ablation": arm.ablation,
                "is_baseline": plan.encoders[arm.encoder].method == config.compare.baseline,
                "transductive": bool(
                    getattr(plan.encoders[arm.encoder].settings, "transductive", False)
                ),
            }
            for arm in plan.arms.values()
        ],
        "budgets": list(config.budgets),
        "runs": [_run_json(plan, paths, run) for run in plan.runs()],
        "digests": dict(digests),
    }


def _dataset_json(plan: Plan, paths: Paths, name: str) -> dict[str, Any]:
    settings = plan.config.datasets[name]
    return {
        "split": settings.split,
        "folds": plan.folds(name),
        "source": settings.source,
        "pools": settings.pools,
        "audit": paths.dataset(name, "audit"),
        "labels": paths.dataset(name, "labels.parquet"),
        "folds_file": paths.dataset(name, "folds.parquet"),
        "budgets_file": paths.dataset(name, "budgets.parquet"),
    }


def _run_json(plan: Plan, paths: Paths, run: Run) -> dict[str, Any]:
    key = plan.encoder_key(run)
    arms = [f"{run.encoder}.{run.recipe}.{protocol}" for protocol in plan.protocols(run.encoder)]
    return {
        "dataset": run.dataset,
        "encoder": run.encoder,
        "recipe": run.recipe,
        "fold": run.fold,
        "seed": run.seed,
        "predictions": paths.predictions(run),
        "arms": arms,
        "embeddings": None
        if plan.encoders[run.encoder].method == "majority"
        else paths.embeddings(run),
        "encoder_folder": None if key is None else paths.encoder(key),
    }
