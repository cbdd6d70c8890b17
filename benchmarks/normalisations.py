"""How alike the same tissue is in different MR scans after each normalisation.

Crops of T1-weighted MR around the hippocampus, with its two parts labelled (`../shared/data/hippocampus_nifti`), whose
scales differ by more than 1,000. Each is normalised by `normalise_scan`, at its own resolution. What is fitted is
fitted on the scans of the other folds. For each tissue (the hippocampus as a whole, and what is around it), numbers are

- `between`: standard deviation over scans of a scan's mean in the tissue, over the mean over scans of the standard
  deviation within it. 0: the same tissue has the same number in all scans. That a number mean
  one tissue in all scans is the first thing that Shinohara et al. ask for (NeuroImage: Clinical 6:9, 2014).
- `contrast`: mean over scans of the hippocampus's mean less that around it, over the root mean square of their standard
  deviations: what a normalisation must not lose.

Intervals are of the bootstrap over scans (percentiles, 95 %).

    python benchmarks/normalisations.py --out benchmarks/results/normalisations.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import ROOT, write_results

from fewscans import geometry
from fewscans.config.recipe import RecipeSettings
from fewscans.convert.volume import read_volume
from fewscans.normalise.nyul import standard_landmarks
from fewscans.normalise.scan import landmarks_of, normalise_scan

WAYS: dict[str, dict[str, Any]] = {
    "minmax": {"normalise": "minmax"},
    "percentile": {"normalise": "percentile"},
    "percentile, foreground": {"normalise": "percentile", "within": "foreground"},
    "zscore": {"normalise": "zscore"},
    "zscore, foreground": {"normalise": "zscore", "within": "foreground"},
    "nyul": {"normalise": "nyul"},
    "n4, zscore, foreground": {"normalise": "zscore", "within": "foreground", "n4": 2},
    "n4, nyul": {"normalise": "nyul", "n4": 2},
}
SIZE, FOLDS = 64, 5


def tissues(
    images: list[np.ndarray], labels: list[np.ndarray], recipe: RecipeSettings
) -> np.ndarray:
    """[scans, 4]: mean and standard deviation in the hippocampus, then around it, in a store's units."""
    fold = np.arange(len(images)) % FOLDS
    own = [landmarks_of(image, recipe) for image in images] if recipe.is_fitted else []
    found = []
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        others = [own[j] for j in np.flatnonzero(fold != fold[i])] if own else []
        standard = standard_landmarks(others) if own else None
        x = normalise_scan(image, (1.0,) * 3, recipe, standard=standard).x[0]
        place = geometry.pad_to_shape(label[None] + 1.0, (SIZE,) * 3, 0.0)[0]
        inside, around = x[place > 1], x[place == 1]
        found.append([inside.mean(), inside.std(), around.mean(), around.std()])
    return np.array(found)


def numbers(found: np.ndarray) -> dict[str, float]:
    """Of some scans [n, 4]."""
    mean_in, sd_in, mean_out, sd_out = found.T
    pooled = np.sqrt((sd_in**2 + sd_out**2) / 2)
    return {
        "between_hippocampus": mean_in.std(ddof=1) / sd_in.mean(),
        "between_around": mean_out.std(ddof=1) / sd_out.mean(),
        "contrast": float(np.mean((mean_in - mean_out) / pooled)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/hippocampus_nifti")
    parser.add_argument("--draws", type=int, default=2000, help="of the bootstrap")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    given = parser.parse_args()
    masks = given.data / "labelsTr"
    paths = sorted(
        p for p in (given.data / "imagesTr").glob("*.nii.gz") if (masks / p.name).is_file()
    )
    images = [read_volume(path, "NIFTI").physical() for path in paths]
    labels = [read_volume(masks / p.name, "NIFTI").array[0] > 0 for p in paths]
    draws = np.random.default_rng(0).integers(0, len(paths), (given.draws, len(paths)))
    cases = []
    for name, steps in WAYS.items():
        recipe = RecipeSettings(ndim=3, size=SIZE, spacing_mm=1.0, **steps)
        found = tissues(images, labels, recipe)
        drawn = pd.DataFrame([numbers(found[draw]) for draw in draws])
        low, high = drawn.quantile(0.025), drawn.quantile(0.975)
        made = {
            key: [round(float(v), 3) for v in (value, low[key], high[key])]
            for key, value in numbers(found).items()
        }
        cases.append({"way": name, "scans": len(paths), **made})
        print(cases[-1], flush=True)
    write_results(given.out, cases)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
