"""The slice of settings that each script is given as ``--params``: what it uses, and no more.

A rule's `params` hold exactly this, so that a setting reruns what uses it and nothing else.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from fewscans.batches import epoch_batches, training_steps
from fewscans.config.augment import Modality
from fewscans.config.base import Settings
from fewscans.config.encoders import AnyEncoder
from fewscans.config.models import (
    Columns,
    CompareSettings,
    ComputeSettings,
    DatasheetField,
    PhantomCohort,
    ProtocolSettings,
    ReportSettings,
    ScoreSettings,
    SplitNames,
)
from fewscans.config.recipe import RecipeSettings
from fewscans.config.slices import SliceSettings
from fewscans.config.tune import TunedArm
from fewscans.config.values import ValueTable


class ConvertParams(Settings):
    """Read the scans of one chunk of one data set."""

    dataset: str
    """Name of the data set."""
    root: str | None = None
    """Folder of the scans, resolved."""
    table: str | None = None
    """Label table, resolved; only its path column is read here."""
    npz: str | None = None
    """MedMNIST-like file, resolved."""
    path_column: str = "path"
    """Column of the table with paths."""
    exclude: list[str] = []
    """Paths or globs to leave out."""
    on_unreadable: Literal["leave-out", "stop"] = "leave-out"
    """What to do about a file that cannot be read."""
    ndim: Literal[2, 3] = 2
    """Axes of space of what is kept: images or volumes."""
    slices: SliceSettings | None = None
    """Which slices of volumes are the scans, where `ndim` is 2; without it scans are images."""
    mask_column: str | None = None
    """Column of the table with masks, where it has one."""
    chunk: int = 0
    """This chunk, from 0."""
    chunks: int = 1
    """Number of chunks."""
    private: str | None = None
    """Folder of what must not be passed on; without it names stay as they are."""
    key: str | None = None
    """File with the key of pseudonyms; without it `key` in that folder, which is made where it is missing."""

    @property
    def read_ndim(self) -> int:
        """Axes of space of what is read: volumes where slices are cut."""
        return 3 if self.slices is not None else self.ndim


class ExportParams(Settings):
    """Write converted scans for a viewer."""

    dataset: str
    """Name of the data set."""
    scans: list[str] = []
    """Keys or paths of scans; without them all."""


class AuditParams(Settings):
    """Find what is wrong with a data set; make groups."""

    dataset: str
    """Name of the data set."""
    root: str | None = None
    """Folder of the scans, resolved; without a table its folders are the classes."""
    pool: bool = False
    """Whether its scans only join the pretraining of others: labels may be missing."""
    table: str | None = None
    """Label table, resolved."""
    npz: str | None = None
    """MedMNIST-like file, resolved."""
    columns: Columns = Columns()
    """Names of columns."""
    attributes: list[str] = []
    """Further columns for the shortcut test."""
    origin: str | None = None
    """Which of them names the paper or study that a scan is from."""
    classes: list[str] | None = None
    """Classes in order; others are refused."""
    split_names: SplitNames = SplitNames()
    """What the official parts are called."""
    split: Literal["grouped", "official"] = "grouped"
    """Kind of split that will be made."""
    contradictions: Literal["exclude", "keep"] = "exclude"
    """What to do about labels that contradict each other."""
    near_duplicate: float = 0.98
    """Correlation from which two scans are near duplicates."""
    private: str | None = None
    """Folder of what must not be passed on; without it names stay as they are."""
    key: str | None = None
    """File with the key of pseudonyms; without it `key` in that folder, which is made where it is missing."""


class AuditPageParams(Settings):
    """Show what the audit of one data set found, and describe the data set."""

    dataset: str
    """Name of the data set."""
    modality: Modality = "any"
    """What the scans are."""
    source: str | None = None
    """Where it is to be had."""
    datasheet: dict[DatasheetField, str] = {}
    """What only the user knows of it."""
    exclude: list[str] = []
    """Paths or globs that were left out; only their number is shown."""
    private: bool = False
    """Whether names are private; the data sheet then says what became of them."""
    split: Literal["grouped", "official"] = "grouped"
    """Kind of split."""
    contradictions: Literal["exclude", "keep"] = "exclude"
    """What was done about labels that contradict each other."""
    near_duplicate: float = 0.98
    """Correlation from which two scans are near duplicates."""


class NormaliseParams(Settings):
    """Make one store."""

    dataset: str
    """Name of the data set."""
    recipe: RecipeSettings
    """Geometry and intensity."""
    fold: str | None = None
    """Whose training scans a recipe is fitted on that is fitted at all: a fold, or `all` for transductive encoders."""

    @model_serializer(mode="wrap")
    def _without_fold(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Not told where there is none: jobs of before there was such a setting are the same jobs."""
        return {key: value for key, value in handler(self).items() if value is not None}


class FoldsParams(Settings):
    """Who is in which fold."""

    dataset: str
    """Name of the data set."""
    split: Literal["grouped", "official"] = "grouped"
    """Kind of split."""
    folds: int = 5
    """Number of folds of a grouped split."""
    seed: int = 0
    """Of the config."""


class BudgetsParams(Settings):
    """Whose labels may be used."""

    dataset: str
    """Name of the data set."""
    budgets: list[str]
    """As written: "10", "50%", "all"."""
    draws: int = 1
    """Random subsets per budget."""
    seed: int = 0
    """Of the config."""


class PretrainParams(Settings):
    """Pretrain one encoder on one fold with one seed."""

    encoder: str
    """Its name."""
    settings: AnyEncoder
    """Method and settings."""
    recipe: RecipeSettings
    """Of the store (size, channels)."""
    dataset: str
    """Target data set."""
    values: dict[str, dict[str, ValueTable]] = {}
    """Tables of values by data set (itself and its pools) and name, for methods that want them."""
    fold: str
    """Fold whose test groups it may not see; "all" where transductive."""
    seed: int
    """Index of the seed, from 0."""
    base_seed: int = 0
    """Of the config."""
    compute: ComputeSettings = ComputeSettings()
    """Threads, device, precision."""


class Length(Settings):
    """How long a pretraining is."""

    epochs: int | None = None
    """As in its settings."""
    steps: int | None = None
    """As in its settings."""
    batch_size: int
    """As in its settings."""

    def count(self, n_scans: int) -> int:
        """Steps on so many scans."""
        per_epoch = epoch_batches(n_scans, self.batch_size)[0]
        return training_steps(per_epoch, self.epochs, self.steps)


class FinetuneParams(Settings):
    """Use one encoder on one fold with one seed: all protocols, budgets and draws."""

    encoder: str
    """Its name."""
    settings: AnyEncoder
    """Method and settings."""
    extra: list[Length] = []
    """For scratch-long without `extra_steps`: pretrainings; the steps of the longest are added."""
    recipe: RecipeSettings
    """Of the store."""
    recipe_name: str
    """Its name; the arm is `ENCODER.RECIPE.PROTOCOL`."""
    protocols: list[str]
    """Protocols to run, legal ones only."""
    protocol_settings: ProtocolSettings
    """Settings of those protocols."""
    dataset: str
    """Target data set."""
    classes: list[str]
    """Class names in order; the target column of predictions is an index into it. Empty: sorted labels."""
    fold: str
    """Fold whose test groups are predicted."""
    seed: int
    """Index of the seed, from 0."""
    base_seed: int = 0
    """Of the config."""
    compute: ComputeSettings = ComputeSettings()
    """Threads, device, precision."""


class TuneParams(Settings):
    """Search for the values of one encoder on the training scans of one fold."""

    encoder: str
    """Its name."""
    settings: AnyEncoder
    """Method and settings as they stand in the config; trial 0."""
    arm: TunedArm
    """What is searched."""
    protocol_settings: ProtocolSettings
    """Settings of the protocols as they stand in the config."""
    trials: int
    """Trials in all."""
    parallel: int
    """Trials of a round."""
    max_steps: int
    """Training steps of a trial at most."""
    prune: bool = True
    """End trials early that stand below the median."""
    budget: str | None = None
    """Labelled patients; without it the smallest budget that has inner folds."""
    recipe: RecipeSettings
    """Of the store."""
    recipe_name: str
    """Its name."""
    dataset: str
    """Target data set."""
    classes: list[str] = []
    """Class names in order. Empty: sorted labels."""
    fold: str
    """Fold whose test groups are never read."""
    base_seed: int = 0
    """Of the config."""
    compute: ComputeSettings = ComputeSettings()
    """Threads, device, precision."""


class AggregateParams(Settings):
    """Score predictions; the arms come from the plan file."""

    compare: CompareSettings = CompareSettings()
    """The question."""
    score: ScoreSettings = ScoreSettings()
    """Units and intervals."""
    seed: int = 0
    """Of the config; resamples follow from it."""


class ReportParams(Settings):
    """Draw figures and the page."""

    report: ReportSettings = ReportSettings()
    """Looks."""
    compare: CompareSettings = CompareSettings()
    """The question."""


class ShareableParams(Settings):
    """Gather what may leave the house."""

    datasets: list[str]
    """All data sets, pools too."""
    hidden: list[str] = []
    """Those whose names are private."""
    private: str | None = None
    """Folder of their private tables."""
    key: str | None = None
    """File with the key of pseudonyms; without it `key` in that folder."""
    places: list[str] = []
    """Folders and files of this machine that must not be named."""


class PhantomParams(Settings):
    """Write a generated cohort."""

    cohort: PhantomCohort = PhantomCohort()
    """Its settings."""
