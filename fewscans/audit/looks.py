"""Numbers that tell a scan which looks like no other: intensity, clipped ends, border, size, shape."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from fewscans.audit.findings import Findings

Gray = npt.NDArray[np.float32]
Reals = npt.NDArray[np.float64]

# Columns of the table that `make_thumbnails` gives beside the pictures.
MEASURES = ("mean", "spread", "lowest", "highest", "border")
FRAME = 32  # the border is a 32nd of a side wide, and a pixel at least
CLIPPED = 0.05  # share of pixels at the highest value; the lowest is often the background
TINY, TINY_3D = 32, 16  # pixels of the shorter side in the plane
ODD = 3.0  # longer side by shorter
# Iglewicz & Hoaglin 1993, "How to detect and handle outliers", call 3.5 an outlier; scans of hospitals have longer
# tails than theirs.
FAR = 5.0
FEWEST = 20  # scans that say what is usual


def measure(gray: Gray) -> dict[str, float]:
    """Of [(D,) H, W] in physical units: mean and standard deviation, shares of pixels at both ends, border.

    `border` is the mean of the frame in the plane, 0 where it is as low as the lowest pixel, 1 as high as the highest;
    NaN for a constant scan.
    """
    low, high = float(gray.min()), float(gray.max())
    total = gray.sum(dtype=np.float64)
    wide = [max(1, side // FRAME) for side in gray.shape[-2:]]
    inner = gray[..., wide[0] : -wide[0], wide[1] : -wide[1]]
    n_frame = gray.size - inner.size
    frame = (total - inner.sum(dtype=np.float64)) / n_frame
    return {
        "mean": float(total / gray.size),
        "spread": float(gray.std(dtype=np.float64)),
        "lowest": float(np.count_nonzero(gray == low) / gray.size),
        "highest": float(np.count_nonzero(gray == high) / gray.size),
        "border": (frame - low) / (high - low) if high > low else np.nan,
    }


def robust_z(values: Reals) -> Reals:
    """[n] modified z-scores (Iglewicz & Hoaglin 1993): distance from the median in median absolute deviations.

    Scaled to standard deviations of a normal distribution. Where over half of the values are alike, mean absolute
    deviations take the place of the median; 0 where all are.
    """
    away = values - np.nanmedian(values)
    scale = 1.4826 * float(np.nanmedian(np.abs(away)))
    scale = scale or 1.2533 * float(np.nanmean(np.abs(away)))
    return away / scale if scale else np.zeros(len(values))


def note_looks(
    found: Findings, scans: pd.DataFrame, looks: pd.DataFrame, constant: npt.NDArray[np.bool_]
) -> None:
    """Clipped, tiny, oddly shaped and outlying scans; `looks` and `constant` [n] stand beside `scans`."""
    shown = (scans["status"] == "ok").to_numpy(bool) & ~constant
    part, seen = scans[shown], looks[shown]
    _note_clipped(found, part, seen)
    _note_shapes(found, part)
    for _, same in part.groupby(part["unit"].fillna("").astype(str), sort=True):
        _note_outliers(found, same, seen.loc[same.index])


def note_identity(found: Findings, scans: pd.DataFrame, looks: pd.DataFrame) -> None:
    """Scans whose pixels may show who it is: burned-in text, a face; by what their files say, and by their looks."""
    ok = (scans["status"] == "ok").to_numpy(bool)
    for check, column, seen, how in (
        ("burned-in", "burned_in", "text", "strokes like letters at the border"),
        ("face", "face", "head", "size and shape of a head, with air before it"),
    ):
        said = scans.get(column, pd.Series("", index=scans.index)).fillna("").astype(str)
        marked = looks[seen].to_numpy(bool)
        words = said.where(~marked, said.where(said == "", said + ", ") + how)
        chosen = scans[ok & (words != "").to_numpy(bool)]
        found.each(chosen, check, "warning", words[chosen.index], "kept; look before you share it")


def _note_clipped(found: Findings, scans: pd.DataFrame, looks: pd.DataFrame) -> None:
    # Masks have two values only: all their pixels are at an end.
    binary = looks["lowest"] + looks["highest"] > 0.999
    clipped = scans[(looks["highest"] >= CLIPPED) & ~binary]
    said = looks.loc[clipped.index, "highest"].map(
        "{:.0%} of the pixels have the highest value: what was brighter is lost".format
    )
    found.each(clipped, "clipped", "info", said, "kept")


def _note_shapes(found: Findings, scans: pd.DataFrame) -> None:
    planes = {i: (list(shape)[-2:], len(shape)) for i, shape in scans["shape"].items()}
    words = {
        i: " x ".join(str(side) for side in reversed(plane)) for i, (plane, _) in planes.items()
    }
    least = {2: TINY, 3: TINY_3D}
    tiny = [i for i, (plane, ndim) in planes.items() if min(plane) < least.get(ndim, TINY)]
    odd = [i for i, (plane, _) in planes.items() if max(plane) > ODD * min(plane)]
    for check, chosen, text in (
        ("tiny", tiny, "{} pixels in the plane: too few for most networks"),
        ("odd-shape", odd, "{} pixels in the plane: padding or stretching changes it much"),
    ):
        said = pd.Series({i: text.format(words[i]) for i in chosen}, dtype=object)
        found.each(scans.loc[chosen], check, "warning", said, "kept")


def _note_outliers(found: Findings, scans: pd.DataFrame, looks: pd.DataFrame) -> None:
    """One finding per scan, the farthest first."""
    if len(scans) < FEWEST:
        return
    area = scans["shape"].map(lambda shape: float(np.prod(list(shape), dtype=np.float64)))
    measures = {
        "mean intensity": (looks["mean"], looks["mean"]),
        "spread of intensity": (looks["spread"], looks["spread"]),
        # As a ratio: twice as large is as far as half as large.
        "number of pixels": (area, np.log(area)),
    }
    words: dict[object, list[str]] = {}
    worst: dict[object, float] = {}
    for name, (shown, compared) in measures.items():
        z = robust_z(compared.to_numpy(np.float64))
        usual = float(shown.median())
        for i, value, score in zip(scans.index, shown, z, strict=True):
            if abs(score) > FAR:
                words.setdefault(i, []).append(
                    f"{name} {_three(value)}, in the middle {_three(usual)}"
                )
                worst[i] = max(worst.get(i, 0.0), abs(float(score)))
    for i in sorted(words, key=lambda i: -worst[i]):
        row = scans.loc[i]
        found.add(
            "outlier",
            "info",
            f"{'; '.join(words[i])} ({worst[i]:.1f} robust standard deviations away)",
            "kept",
            scan=str(row["scan"]),
            path=str(row["path"]),
            value=worst[i],
        )


def _three(value: float) -> str:
    """Three digits of it."""
    return f"{float(f'{value:.3g}'):g}"
