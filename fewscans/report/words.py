"""What the page says that does not depend on the numbers: verdicts, flags and captions in words."""

from __future__ import annotations

import string
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fewscans.figures import names

if TYPE_CHECKING:
    from fewscans.figures.inputs import Results

FLAGS = {
    "no-inner-validation": (
        "Too few labelled patients of a class to choose anything inside the budget; documented defaults were used."
    ),
    "transductive": "Pretraining saw the images of the test fold (never their labels). Not comparable with the others.",
    "training-variance-unknown": (
        "The trainings that were done cannot show how much luck there is in training, so no verdict is given. "
        "More seeds or draws would."
    ),
    "not-converged": "The training loss was still falling at the end; more steps may change the score.",
    "diverged": "Training diverged; what is scored are class frequencies.",
    "constant-predictor": "The same answer for everybody, whatever the image.",
    "class-missing": "A fold or a budget lacks a class.",
    "no-patient-ids": (
        "No patient ids: every scan counts as a patient of its own, so scans of one patient may be on both sides of "
        "a split, and intervals may be too narrow."
    ),
    "few-groups": "Few independent patients in a class: intervals are rough.",
    "lr-halved": "Pretraining diverged or collapsed once and went on from its last sound state at half the rate.",
    "collapsed": "Pretraining collapsed: all scans have nearly the same embedding.",
    "pretrained-with-labels": "The encoder has seen all labels of the training fold, whatever the budget of the row: a "
    "reference, no contender.",
    "oom-halved": "The device ran out of memory: batches were cut into micro-batches, and training begun anew.",
    "compared-in-parts": "Batches were cut into micro-batches, and the method compared scans within these alone.",
    "resumed-elsewhere": "Pretraining was interrupted and went on on another model of CPU or GPU, which rounds "
    "differently: the same command need not give the same weights again.",
    "tuned": "Trained with the values that a search found for each fold (tune.use); settings shown are the config's.",
    "fold-missing": "Not every fold has this budget; the score is over those that do.",
    "incomplete": "Some trainings are missing, so the score is a mean over fewer.",
    "unpaired-trainings": "Arm and baseline have different trainings; only common ones are compared.",
    "no-validation-score": "No inner validation at this budget, so this arm cannot be named best.",
    "patients-with-several-classes": "A patient with scans of two classes counts once for each.",
    "as-published": "The official validation part was used for choices, outside the label budget.",
    "degenerate-resamples": "Some resamples lack a class, so the interval is rough.",
}

# Name -> title and caption. `{metric}`, `{baseline}`, `{unit}`, `{level}`, `{gain}` and `{picture}` are filled in.
CAPTIONS = {
    "forest": (
        "Difference from the baseline",
        "Marks are differences in {metric} from {baseline} with the same network, images and labels; lines are "
        "{level} intervals that hold together for all arms of a panel. Filled triangles upwards are gains, downwards "
        "losses; hollow circles cannot be told. The shaded strip is smaller than the smallest gain of interest "
        "({gain}, dotted): a line that ends left of the dotted one rules such a gain out. An arrow means that the "
        "interval goes on.",
    ),
    "budget": (
        "How much labels are worth",
        "{metric} per {unit} against the number of labelled patients; one panel per encoder, one colour, marker and "
        "line style per way of using the labels. Grey in every panel is {baseline}. Bands and "
        "whiskers are {level} intervals. Intervals of a curve and of the baseline may overlap although they differ: "
        "the figure of differences judges, where they are paired.",
    ),
    "roc": (
        "ROC curves",
        "Out-of-fold test predictions per {unit} at the largest budget. The line is the mean over folds, seeds and "
        "draws, the band the range over folds (over trainings, with an official split). "
        "With two classes the last one is positive; with more, it is the mean of "
        "each class against the rest. Numbers are the table's AUROC.",
    ),
    "learning": (
        "Pretraining",
        "Loss and gauges; a thin line per fold and seed. The loss should level off. Embedding SD and effective rank "
        "say how much the embeddings differ, and in how many directions: near zero, or near one direction, the encoder "
        "has collapsed. The last is the balanced accuracy of nearest neighbours among labelled training scans of other "
        "patients; nothing is chosen by it. Losses of different methods cannot be compared.",
    ),
    "embeddings": (
        "Embeddings of test scans",
        "Test scans of the first fold, which the encoder has not seen, drawn by {picture}. Above: by class; clusters "
        "mean that a simple probe will do. Below: scans of one patient are joined; where they sit together, the "
        "encoder tells patients apart rather than disease. For scratch it is the network fine-tuned with the largest "
        "budget. Distances between clusters mean nothing.",
    ),
    "views": (
        "What pretraining sees",
        "Training scans and two augmented views of each. A view must keep what the diagnosis lies in: where a lesion "
        "is cropped away or smeared out, lower the encoder's `strength`.",
    ),
    "reconstructions": (
        "Masked and filled in",
        "Training scans, what a masked method saw of them, and what it put in place of the hidden patches after the "
        "last epoch.",
    ),
}  # fmt: skip
PICTURES = {"tsne": "t-SNE", "umap": "UMAP"}


def level(results: Results) -> str:
    """``95 %``."""
    return f"{100 * results.confidence:g}{names.NBSP}%"


def caption(name: str, results: Results, picture: str = "tsne") -> tuple[str, str]:
    """Title and caption of a figure."""
    title, text = CAPTIONS[name]
    metric = names.metric(results.metric)
    filled = text.format(
        metric=metric,
        baseline=results.baseline_title,
        unit=results.unit,
        level=level(results),
        gain=f"{results.compare.smallest_gain:g}",
        picture=PICTURES[picture],
    )
    return title, filled[0].upper() + filled[1:]


def rst(name: str) -> str:
    """``report/figures/NAME.rst``: the caption for ``snakemake --report``, which knows no settings."""
    title, text = CAPTIONS[name]
    filled = text.format(
        metric="the chosen metric", baseline="the baseline", unit="patient (or scan)", level="95 %",
        gain="the dotted line", picture="t-SNE",
    ).replace("(the dotted line, dotted)", "(dotted)")  # fmt: skip
    body = textwrap.fill(
        filled[0].upper() + filled[1:].replace("`", "``"), 100, break_on_hyphens=False
    )
    return f"**{title}.**\n\n{body}\n"


def verdicts(results: Results) -> list[tuple[str, str]]:
    """Verdict and what it says, with the smallest gain of interest filled in."""
    gain = f"{results.compare.smallest_gain:g}"
    return [
        ("gain", f"The whole interval is above zero, and reaches {gain}, the smallest gain of interest."),
        ("worse", "The whole interval is below zero."),
        ("no gain", f"The whole interval is below {gain}: a gain worth having is ruled out."),
        ("cannot tell", "These data cannot decide. The smallest difference that they would have shown four times in "
                        "five stands beside it."),
    ]  # fmt: skip


def explain_flags(flags: Iterable[str]) -> list[dict[str, str]]:
    """Letter, flag and explanation, in the order of `FLAGS`; one without explanation is shown all the same."""
    found = set(flags)
    known = [(flag, text) for flag, text in FLAGS.items() if flag in found]
    known += [(flag, flag.replace("-", " ")) for flag in sorted(found - FLAGS.keys())]
    letters = string.ascii_lowercase + string.ascii_uppercase
    return [
        {"letter": letter, "flag": flag, "text": text}
        for letter, (flag, text) in zip(letters, known, strict=False)
    ]
