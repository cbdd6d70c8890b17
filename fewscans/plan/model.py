"""What will be done: encoders, arms, runs, and where their files are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import PurePosixPath
from typing import Literal

from fewscans.config import ENCODERS, Config, EncoderSettings, RecipeSettings
from fewscans.config.encoders import PretrainSettings
from fewscans.config.stages import Length

# Class of each rule's jobs; what a class gets at a site stands in its file, what a job takes in `fewscans.cost`.
Kind = Literal["light", "cpu", "gpu"]
RULES: dict[str, Kind] = {
    "phantom": "light",
    "convert": "cpu",
    "export": "cpu",
    "audit": "cpu",
    "audit_page": "cpu",
    "normalise": "cpu",
    "normalise_fold": "cpu",
    "folds": "light",
    "budgets": "light",
    "weights": "light",
    "tune": "light",
    "pretrain": "gpu",
    "pretrain_ranks": "gpu",
    "finetune": "gpu",
    "plan": "light",
    "aggregate": "cpu",
    "learns": "cpu",
    "report": "cpu",
    "shareable": "light",
}
TITLES = {name: settings.title for name, settings in ENCODERS.items()}


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
        return self.settings.method

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

    def by_fold(self, dataset: str, recipe: str) -> bool:
        """Whether each fold has a store of its own: the recipe is fitted on its training scans. A pool has one."""
        return self.recipes[recipe].is_fitted and dataset in self.evaluated

    def store_folds(self, dataset: str, recipe: str) -> list[str]:
        """Folds with a store each, and `all` for transductive encoders; none where there is one store."""
        if not self.by_fold(dataset, recipe):
            return []
        everything = any(
            getattr(self.encoders[name].settings, "transductive", False)
            for name, other in self.pairs
            if other == recipe
        )
        return [*self.folds(dataset), *(["all"] if everything else [])]

    def stores(self) -> Iterator[tuple[str, str, str | None]]:
        """(data set, recipe, fold or None) of every store."""
        for dataset, recipe in product(self.config.datasets, self.recipes):
            folds: list[str | None] = [*self.store_folds(dataset, recipe)]
            for fold in folds or [None]:
                yield dataset, recipe, fold

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

    def start_of(self, encoder: str) -> str | None:
        """Name of the encoder whose weights `encoder` starts from; None where it has none, or a file."""
        settings = self.encoders[encoder].settings
        start = getattr(settings, "start", None)
        if start is None or "/" in start:
            return None
        return baseline_name("imagenet", *network(settings)) if start == "imagenet" else start

    def pretrainings(self, backbone: str, patch: int | None, recipe: str) -> list[Length]:
        """How long the encoders of this network and recipe are pretrained, each length once."""
        found = {
            Length(epochs=s.epochs, steps=s.steps, batch_size=s.batch_size): None
            for name, r in self.pairs
            if r == recipe and isinstance(s := self.encoders[name].settings, PretrainSettings)
            if network(s) == (backbone, patch)
        }
        return list(found)


def network(settings: EncoderSettings) -> tuple[str, int | None]:
    """What has to be the same for one encoder to be another's baseline."""
    return settings.backbone, settings.patch_size


def baseline_name(method: str, backbone: str, patch: int | None) -> str:
    """What the baseline `method` with this network is called."""
    words = [method, backbone.lower().replace("_", "-"), *([f"p{patch}"] if patch else [])]
    return "-".join(words)


@dataclass(frozen=True)
class Paths:
    """Where things are, below the working directory."""

    work: str
    results: str

    def dataset(self, dataset: str, *parts: str) -> str:
        """``work/DATASET/...``."""
        return str(PurePosixPath(self.work, dataset, *parts))

    def store(self, dataset: str, recipe: str, fold: str | None = None) -> str:
        """Seal of a store, written last: where it stands, voxels and rows stand beside it."""
        return self.dataset(dataset, recipe, *([fold] if fold else []), "store", "store.json")

    def encoder(self, key: str, *parts: str) -> str:
        """``work/encoders/ENCODER/RECIPE/TARGET/FOLD/SEED/...``."""
        return str(PurePosixPath(self.work, "encoders", key, *parts))

    def predictions(self, run: Run) -> str:
        """Predictions of a run."""
        return str(PurePosixPath(self.work, "predictions", run.key, "predictions.parquet"))

    def embeddings(self, run: Run, *parts: str) -> str:
        """Embeddings of a run."""
        return str(PurePosixPath(self.work, "embeddings", run.key, *parts))
