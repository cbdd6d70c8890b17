"""One look for all figures: sizes, colours, markers, and files that are the same bytes for the same numbers.

Sizes are those of a journal page: 3.5 or 7 inches wide, no text below 7 points. Colour never stands alone: whatever
has a colour of its own has a marker or a line style of its own too.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from fewscans.errors import UserError
from fewscans.files import atomic

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every glyph
WIDE_INCH, NARROW_INCH = 7.0, 3.5
DPI = 200
SMALL_PT, TEXT_PT, TITLE_PT = 7.0, 7.5, 8.0
TITLE_CHARS_PER_INCH = 12.5  # bold, at TITLE_PT
INK, MUTED, FAINT = "#222222", "#666666", "#d4d4d4"

# Marker and line style; the colour is the place in this order.
PROTOCOLS: dict[str, tuple[str, str]] = {
    "linear": ("o", "-"), "finetune": ("s", "--"), "knn": ("^", "-."), "prior": ("D", ":"),
}  # fmt: skip
MARKERS = "osD^vP*X<>"
LINES: tuple[Any, ...] = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1)),
    (0, (3, 1, 1, 1)),
    (0, (1, 1)),
    (0, (7, 2, 2, 2)),
)

RC = {
    "font.family": "DejaVu Sans", "font.size": TEXT_PT, "axes.titlesize": TITLE_PT, "axes.labelsize": TEXT_PT,
    "xtick.labelsize": SMALL_PT, "ytick.labelsize": SMALL_PT, "legend.fontsize": SMALL_PT,
    "figure.titlesize": TITLE_PT, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.edgecolor": MUTED, "axes.labelcolor": INK, "axes.linewidth": 0.6, "text.color": INK,
    "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "axes.grid": False, "grid.color": "#ececec", "grid.linewidth": 0.6,
    "lines.linewidth": 1.2, "lines.markersize": 4.0, "legend.frameon": False, "legend.handlelength": 2.6,
    "figure.dpi": 100, "savefig.dpi": DPI, "savefig.facecolor": "white", "figure.facecolor": "white",
    # TrueType, so that a journal can edit the text; names from outside are never read as formulas.
    "pdf.fonttype": 42, "text.parse_math": False, "axes.unicode_minus": True,
    "figure.constrained_layout.h_pad": 0.05, "figure.constrained_layout.w_pad": 0.05,
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """Colours in force."""

    colours: tuple[Any, ...]

    def colour(self, index: int) -> Any:
        """Colour number `index`, from the start again after the last."""
        return self.colours[index % len(self.colours)]

    def protocol(self, name: str) -> dict[str, Any]:
        """Colour, marker and line style of a protocol."""
        order = list(PROTOCOLS)
        marker, line = PROTOCOLS.get(name, ("o", "-"))
        return {
            "color": self.colour(order.index(name) if name in order else len(order)),
            "marker": marker,
            "linestyle": line,
        }


@contextlib.contextmanager
def look(palette: str = "colorblind") -> Iterator[Look]:
    """Style in force within the block. A palette that seaborn does not know is a `UserError`."""
    try:
        colours = tuple(sns.color_palette(palette))
    except ValueError:
        raise UserError(
            "report settings",
            [
                (
                    "report.palette",
                    f"'{palette}' is not a seaborn palette. Good ones: colorblind, deep, muted, Set2.",
                )
            ],
        ) from None
    with mpl.rc_context(RC):
        yield Look(colours)


def new(width_inch: float, height_inch: float) -> Figure:
    """An empty figure that keeps its parts from overlapping."""
    return Figure(figsize=(width_inch, height_inch), layout="constrained")


def words(text: str, width_inch: float = NARROW_INCH) -> Figure:
    """A figure that says why there is nothing to show."""
    figure = new(width_inch, 0.9)
    axes = figure.subplots()
    axes.set_axis_off()
    lines = textwrap.fill(text, int(width_inch * 15))
    axes.text(0.5, 0.5, lines, ha="center", va="center", color=MUTED, transform=axes.transAxes)
    return figure


def shown(text: str, longest: int = 40) -> str:
    """`text` from outside, fit for a figure: printable, on one line, and cut where it is too long."""
    kept = "".join(c if unicodedata.category(c)[0] != "C" else " " for c in str(text))
    kept = " ".join(kept.split(" ")).strip() or "(no name)"
    # matplotlib leaves labels that begin with an underscore out of legends.
    kept = f" {kept}" if kept.startswith("_") else kept
    return kept if len(kept) <= longest else kept[: longest - 1] + "…"


def wrap(text: str, width: int) -> str:
    """`text` in lines of at most `width` characters, broken at spaces and hyphens."""
    return "\n".join(textwrap.wrap(text, width)) or text


def title(axes: Axes, text: str, width_inch: float) -> None:
    """Panel title at the upper left, wrapped to a panel of `width_inch`."""
    axes.set_title(wrap(text, max(8, int(TITLE_CHARS_PER_INCH * width_inch))), pad=4)


def columns_of(n: int, most: int) -> int:
    """Columns of a grid of `n` panels with at most `most` side by side, rows as equal as can be."""
    return -(-n // -(-n // most))


def legend_below(figure: Figure, handles: Sequence[Any], columns: int = 5) -> None:
    """Legend under all panels, where it hides nothing."""
    labels = [str(handle.get_label()) for handle in handles]
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=min(columns, len(labels)),
        columnspacing=1.4,
    )


def handle(label: str, **kind: Any) -> Line2D:
    """Legend entry."""
    return Line2D([], [], label=label, **kind)


def save(figure: Figure, numbers: pd.DataFrame, stem: str | os.PathLike[str]) -> Path:
    """Write ``STEM.pdf``, ``STEM.png`` and ``STEM.csv``; the PNG's path. No dates and versions inside."""
    stem = Path(stem)
    lay_out(figure)
    # By text: a data set's name may hold dots, which `with_suffix` would cut.
    pdf, png, csv = (stem.parent / f"{stem.name}.{suffix}" for suffix in ("pdf", "png", "csv"))
    with atomic(pdf) as temporary:
        empty = dict.fromkeys(("CreationDate", "ModDate", "Producer", "Creator"))
        figure.savefig(temporary, format="pdf", metadata=empty)
    with atomic(png) as temporary, io.BytesIO() as drawn:
        figure.savefig(drawn, format="png", metadata={"Software": None})
        _few_colours(Image.open(drawn)).save(temporary, format="png", dpi=(DPI, DPI), optimize=True)
    with atomic(csv) as temporary:
        numbers.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    return png


def lay_out(figure: Figure) -> None:
    """Place all parts, once and for all, so that every file of the figure looks the same."""
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)
        engine.execute(figure)  # panels of a fixed shape move in the first pass
        figure.set_layout_engine("none")


def _few_colours(image: Image.Image) -> Image.Image:
    """The same picture in a third of the bytes: gray levels exactly, else the best 256 colours."""
    bands = image.convert("RGB").split()
    if bands[0] == bands[1] == bands[2]:
        return bands[0]
    return image.convert("RGB").quantize(
        256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
    )
