"""The settings a config may hold, with bounds and what each is for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from fewscans.config.augment import AugmentSettings, Modality
from fewscans.config.base import Budget, Fraction, Name, Settings
from fewscans.config.encoders import AnyEncoder
from fewscans.config.recipe import RecipeSettings
from fewscans.config.slices import SliceSettings
from fewscans.config.tune import TuneSettings
from fewscans.config.values import ValueTable


class PhantomCohort(Settings):
    """A generated cohort in place of files; the settings of `fewscans.phantom`."""

    n_patients: int = Field(default=150, ge=20, le=5000)
    """Patients, each with one to four images."""
    seed: int = Field(default=0, ge=0)
    """Seed of the cohort; the same seed writes the same bytes."""


class Columns(Settings):
    """Names of the columns in the label table, where they differ from ours."""

    path: str = "path"
    """File, relative to the data set's root."""
    label: str = "label"
    """Class; empty = no label (such scans join pretraining)."""
    patient: str | None = "patient"
    """Whose scan it is; `null` where nobody knows: then every scan is a patient of its own, flagged."""
    split: str = "split"
    """Official split, where there is one."""
    site: str = "site"
    """Hospital or scanner, where known."""
    mask: str = "mask"
    """Label map of the scan (a file below root, as `path`; empty = none). Never a feature."""


class SplitNames(Settings):
    """How the table names the parts of an official split."""

    train: list[str] = ["train", "training"]
    """Names of the training part."""
    val: list[str] = ["val", "valid", "validation"]
    """Names of the validation part; it joins the labelled pool."""
    test: list[str] = ["test", "testing"]
    """Names of the test part."""


# What only the user knows of a data set.
DatasheetField = Literal[
    "purpose",
    "creators",
    "funding",
    "collection",
    "labelling",
    "ethics",
    "consent",
    "deidentification",
    "licence",
    "distribution",
    "maintenance",
    "uses",
]


class DatasetSettings(Settings):
    """Where scans and labels are: a folder and a table, a folder per class, one .npz, or a generated cohort."""

    root: str | None = None
    """Folder of the scans; relative paths start at `data_root`."""
    table: str | None = None
    """CSV, TSV or Parquet with a row per scan; relative to `root`. Without it `root` has a folder per class, or is BIDS
    or of the Decathlon; a table without `path` joins these by `participant_id` or `patient`."""
    npz: str | None = None
    """File in MedMNIST's layout (train_images, train_labels, val_*, test_*); in place of `root`."""
    phantom: PhantomCohort | None = None
    """Generate the cohort of the demo; in place of `root`."""
    columns: Columns = Columns()
    """Names of columns."""
    values: dict[Name, ValueTable] = {}
    """Tables of laboratory, clinical or genetic values by name, for methods that contrast scans with them."""
    attributes: list[str] = []
    """Further columns that should not tell the label: they join the shortcut test."""
    origin: str | None = None
    """Which of `attributes` names the paper or study a scan is from: one in train and test is told."""
    classes: list[str] | None = None
    """Classes in order; without it sorted. With two, the last is the positive one."""
    split: Literal["grouped", "official"] = "grouped"
    """`grouped`: stratified folds by group. `official`: the table's own split."""
    split_names: SplitNames = SplitNames()
    """What the official parts are called."""
    slices: SliceSettings | None = None
    """Make images of volumes: `{}` for all axial slices. Each is a scan, with label and patient of the volume; a row
    may also name one slice (`p01.nii.gz#axial-12`)."""
    exclude: list[str] = []
    """Paths to leave out (exact, or a glob such as `scouts/*`)."""
    on_unreadable: Literal["leave-out", "stop"] = "leave-out"
    """What to do about a file that cannot be read: list it and go on, or stop."""
    contradictions: Literal["exclude", "keep"] = "exclude"
    """Duplicates or patients with two labels: take their labels out of training and test, or keep them."""
    modality: Modality = "any"
    """What the scans are (`ct`, `mr`, `xray`, `ultrasound`, `photograph`): their augmentation follows from it."""
    near_duplicate: float = Field(default=0.98, gt=0.5, le=1)
    """Pearson correlation of 32 x 32 thumbnails from which two scans are near duplicates."""
    pools: list[Name] = []
    """Other data sets whose scans (never labels) join pretraining."""
    chunks: int | None = Field(default=None, ge=1, le=1000)
    """Convert in so many jobs; a scan's chunk is a hash of its path. Without it one, and twice as many whenever 2 GB of
    files a job are passed."""
    source: str | None = None
    """Where the data set is to be had; shown when its folder is not there."""
    private: bool | None = None
    """Whether patients, files and sites get pseudonyms, and their names stand in `work/private` alone. Without it yes,
    but for a generated cohort. `false` is for public data, whose names may be shown and are the same everywhere."""
    datasheet: dict[DatasheetField, str] = {}
    """What only you know, for its data sheet. In your words, without names of patients: why it was made (`purpose`), by
    whom, who paid (`funding`), how scans were chosen and acquired (`collection`), who labelled by what standard,
    approval (`ethics`), `consent` or its waiver, how names were removed and who checked it, terms, who may have it, who
    corrects it, and `uses` that it is, or is not, fit for."""

    @property
    def is_private(self) -> bool:
        """Whether names must not be passed on."""
        return self.phantom is None if self.private is None else self.private

    @field_validator("origin")
    @classmethod
    def _an_attribute(cls, origin: str | None, info: ValidationInfo) -> str | None:
        if origin is not None and origin not in info.data.get("attributes", [origin]):
            raise PydanticCustomError("origin", "must be one of `attributes`; add it there")
        return origin


class KnnSettings(Settings):
    """k nearest neighbours by cosine in standardised features, votes weighted by exp(similarity / temperature)."""

    k: list[Annotated[int, Field(ge=1)]] = [1, 3, 5, 9, 15, 25]
    """Candidates, chosen by inner folds."""
    default_k: int = Field(default=5, ge=1)
    """Where nothing can be chosen."""
    temperature: float = Field(default=0.1, gt=0)
    """Of the votes."""


class LinearSettings(Settings):
    """Logistic regression (L-BFGS) on standardised frozen features."""

    c: list[Annotated[float, Field(gt=0)]] = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0]
    """Candidates of the inverse regularisation, chosen by inner folds."""
    default_c: float = Field(default=0.01, gt=0)
    """Where nothing can be chosen."""
    max_iter: int = Field(default=1000, ge=10)
    """Iterations of the solver at most."""


def default_rates(optimizer: str, batch_size: int) -> tuple[float, float] | None:
    """(peak learning rate, weight decay) of SGD or LARS where neither is said; None for AdamW.

    SGD: 0.2 * batch / 256; SimSiam (Chen & He 2021, section 3) has 0.05, with a thousand times the steps: of 0.05, 0.2
    and 0.8 it had the lowest loss after 90 steps of SimCLR on CT slices (docs/notes/0009-optimizers.md). LARS: SimCLR's
    for small batches and few epochs, 0.075 * sqrt(batch) (Chen et al. 2020, appendix B.1). Decay as in these papers.
    """
    if optimizer == "sgd":
        return 0.2 * batch_size / 256, 1e-4
    if optimizer == "lars":
        return 0.075 * math.sqrt(batch_size), 1e-6
    return None


class FinetuneSettings(Settings):
    """All weights trained on the labelled scans."""

    steps: int = Field(default=300, ge=1, le=1_000_000)
    """Steps; fixed, or the largest candidate where they are chosen."""
    batch_size: int = Field(default=32, ge=2, le=4096)
    """Scans in a step; at most the number of labelled scans."""
    accumulate: int = Field(default=1, ge=1, le=4096)
    """Micro-batches that a batch is cut into: memory for one of them; batch norms see its scans alone. Doubled where
    the device runs out of memory (`oom-halved`)."""
    optimizer: Literal["adamw", "sgd", "lars"] = "adamw"
    """`sgd` and `lars` have momentum."""
    sgd_momentum: float = Field(default=0.9, ge=0, lt=1)
    """Of `sgd` and `lars`."""
    lr: float = Field(default=1e-3, gt=0, le=10)
    """Peak learning rate; without it 0.2 * batch_size / 256 for `sgd`, 0.075 * sqrt(batch_size) for `lars`."""
    weight_decay: float = Field(default=0.05, ge=0, le=10)
    """Of weights, not of biases and norms; without it 1e-4 for `sgd` and 1e-6 for `lars`."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor of the learning rate from a layer of the encoder to the one before it; the head has the whole rate. 0.65
    to 0.75 is usual for ViTs after masked modelling."""
    clip_grad_norm: float | None = Field(default=None, gt=0)
    """Largest gradient norm."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an average of the weights after each step; predictions are then the average's."""
    warmup: Fraction = 0.1
    """Share of the steps; then a cosine to zero."""
    strength: float = Field(default=0.5, ge=0, le=2)
    """Dial of the augmentation."""
    modality: Modality | None = None
    """What the scans are, of which the augmentation takes account: `photograph` may stand on its head, `xray` has no
    mirror image, `ct` other windows, `mr` and `ultrasound` uneven gain. Without it the data set's."""
    augment: AugmentSettings = AugmentSettings()
    """Ranges in place of the policy's."""
    mix: Literal["none", "mixup", "cutmix"] = "none"
    """Train on mixtures of two scans and of their labels: weighted means (mixup, Zhang et al. 2018), or a box of one in
    the other (cutmix, Yun et al. 2019). Partners are of the same micro-batch."""
    mix_alpha: float = Field(default=1.0, gt=0, le=100)
    """Shares are drawn from Beta(alpha, alpha): the smaller, the less is mixed."""
    balanced: bool = True
    """Draw classes equally often."""
    inner_folds: int = Field(default=0, ge=0, le=5)
    """Inner folds whose models choose the number of steps and give validation predictions; 0 = fixed steps.
    Each costs one more training per budget and draw. This is the early stopping: inner models are looked at along the
    schedule, and the final one stops where they were best."""

    @model_validator(mode="before")
    @classmethod
    def _rates(cls, given: Any) -> Any:
        """What is left open for another optimizer than AdamW."""
        if not isinstance(given, Mapping):
            return given
        size = given.get("batch_size", cls.model_fields["batch_size"].default)
        if not isinstance(size, int) or size < 1:  # told as a mistake by its own field
            return given
        found = default_rates(str(given.get("optimizer")), size)
        return given if found is None else {"lr": found[0], "weight_decay": found[1], **given}


class ProtocolSettings(Settings):
    """How labels are used."""

    linear: LinearSettings = LinearSettings()
    """Linear probe."""
    knn: KnnSettings = KnnSettings()
    """Nearest neighbours."""
    finetune: FinetuneSettings = FinetuneSettings()
    """Fine-tuning."""


class ValidationSettings(Settings):
    """Who is trained and tested on, how often."""

    folds: int = Field(default=5, ge=2, le=20)
    """Folds of a `grouped` split."""
    seeds: int = Field(default=3, ge=1, le=100)
    """Trainings with different random numbers."""
    draws: int = Field(default=3, ge=1, le=100)
    """Random nested subsets of a budget; `all` has one."""


class CompareSettings(Settings):
    """The question: against what, by which metric, from which gain on."""

    baseline: Literal["scratch", "scratch-long", "random", "imagenet", "majority"] = "scratch"
    """Encoder that every arm is compared with, at the same backbone, recipe and budget."""
    metric: Literal[
        "auroc", "average_precision", "accuracy", "balanced_accuracy", "f1", "precision", "recall"
    ] = "auroc"
    """Metric of verdicts and figures."""
    smallest_gain: float = Field(default=0.03, gt=0, lt=1)
    """Smallest difference of interest."""


class ScoreSettings(Settings):
    """How predictions become scores."""

    units: list[Literal["patient", "scan"]] = Field(default=["patient"], min_length=1)
    """What a score counts: patients (mean probability over their scans), scans, or both."""
    resamples: int = Field(default=2000, ge=200, le=100_000)
    """Bootstrap resamples."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """Level of the intervals."""


class ReportSettings(Settings):
    """How results are shown; never changes a number."""

    title: str = "fewscans"
    """Heading of the report."""
    embedding: Literal["tsne", "umap"] = "tsne"
    """Picture of the embeddings."""
    palette: str = "colorblind"
    """seaborn palette."""


class ComputeSettings(Settings):
    """What a job computes with; part of the digest of results."""

    threads: int = Field(default=1, ge=1, le=256)
    """Compute threads of a training job. Belongs to the result: other numbers of threads round differently."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: CUDA where there is one."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto`: bf16 autocast on CUDA, fp32 on CPU. `fp16` scales losses, and leaves out steps that overflow: for GPUs
    without bf16."""
    resume_elsewhere: bool = False
    """Go on with an interrupted pretraining on another model of CPU or GPU: saves its time where nodes differ, but the
    weights are then nobody's to repeat, and the arm is flagged `resumed-elsewhere`. If not, it begins anew there."""


Axis = Annotated[list[int | float | str | bool], Field(min_length=1)]


class AblationSettings(Settings, extra="allow"):
    """A product of axes: `{of: simclr, epochs: [50, 200], size: [48, 64]}`; axes are settings of encoder or recipe."""

    __pydantic_extra__: dict[str, Axis]

    of: Name
    """Encoder that is varied."""
    recipe: Name | None = None
    """Recipe that is varied; without it the first."""

    @property
    def axes(self) -> dict[str, list[int | float | str | bool]]:
        """Axis name -> values, in the order written."""
        return dict(self.__pydantic_extra__ or {})


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


# In YAML a budget of ten is a number; the schema says so to editors.
WrittenBudget = Annotated[Budget, BeforeValidator(_as_text, json_schema_input_type=Budget | int)]


class Config(Settings):
    """A fewscans config."""

    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Every random number follows from it."""
    data_root: str = "."
    """Where relative `root`s of data sets start."""
    work: str = "work"
    """Folder of everything between; may be large."""
    results: str = "results"
    """Folder of what may be shown."""
    pseudonym_key: str | None = None
    """File with the key of pseudonyms, which you alone can read. Without it one is made, once, as `work/private/key`:
    who loses it gets other pseudonyms, and other results within chance."""
    datasets: dict[Name, DatasetSettings] = Field(min_length=1)
    """Data sets by name."""
    recipes: dict[Name, RecipeSettings] = Field(default={"main": RecipeSettings()}, min_length=1)
    """Recipes by name; arms are made for each."""
    encoders: dict[Name, AnyEncoder] = {}
    """Encoders by name; `method` says which settings a one has."""
    protocols: list[Literal["linear", "knn", "finetune"]] = Field(
        default=["linear", "finetune"], min_length=1
    )
    """How labels are used."""
    protocol_settings: ProtocolSettings = ProtocolSettings()
    """Settings of the protocols."""
    baselines: list[Literal["majority", "random", "scratch", "scratch-long", "imagenet"]] = [
        "majority",
        "random",
        "scratch",
    ]
    """Made once for each backbone and recipe in use."""
    imagenet_weights: dict[str, str] = {}
    """Backbone -> local file of weights, as of ImageNet (that of `resnet18` serves `slices-resnet18` and
    `inflated-resnet18` too); others are asked of the hub."""
    budgets: list[WrittenBudget] = Field(default=["10", "50%", "all"], min_length=1)
    """Labelled patients: a number, a share of the training fold, or all."""
    validation: ValidationSettings = ValidationSettings()
    """Folds, seeds, draws."""
    compare: CompareSettings = CompareSettings()
    """The question."""
    score: ScoreSettings = ScoreSettings()
    """Units and intervals."""
    ablations: dict[Name, AblationSettings] = {}
    """Products of axes."""
    tune: TuneSettings | None = None
    """Search for hyper-parameters."""
    report: ReportSettings = ReportSettings()
    """Looks."""
    compute: ComputeSettings = ComputeSettings()
    """Threads, device, precision."""

    @property
    def ndim(self) -> int:
        """Axes of space, the same in all recipes: scans are converted once."""
        return next(iter(self.recipes.values())).ndim
