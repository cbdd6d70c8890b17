"""Augmentation by family: images/s of ours against kornia, torchvision v2, MONAI and TorchIO.

Every sample has parameters of its own. Ours draws them by key and renders the batch; kornia does a batch
(``same_on_batch=False``); the others are called sample by sample, on as many samples as ``--each`` says. All start from
float32 in memory and have the same number of threads, one after the other in each of ``--repeats`` rounds. The ratio
is ours over theirs, the median of the rounds.

    pip install kornia torchio   # those that are not there are left out, and named
    python benchmarks/augmentation.py --threads 2 --out benchmarks/results/augmentation.json
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import warnings
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import torch
from augmentation_peers import PARTS, PEERS, Transform
from common import now, since, spread, write_results

from fewscans import augment
from fewscans.augment import Policy
from fewscans.keyed import scan_keys


def ours(**ranges: Any) -> Policy:
    """One family alone."""
    return Policy(**{"crop_area": (1.0, 1.0), "crop_aspect": 1.0, "horizontal_flip": 0.0, **ranges})


FAMILIES = {
    "crop": Policy(),
    "affine": ours(rotation_deg=15.0, tilt_deg=10.0, scale=0.1, translation=0.05),
    "elastic": ours(elastic=0.05),
    "intensity": ours(brightness=0.2, contrast=0.4, gamma=0.4),
    "bias": ours(bias_field=0.3),
    "noise": ours(noise_sd=0.05),
    "blur": ours(blur_sd=1 / 64),
    "sharpen": ours(sharpen=0.5),
    "shuffle": ours(shuffle_share=0.5),
    "erase": ours(erase_share=0.5),
    "cutout": ours(erase_share=0.5, erase_with="mean"),
    "ssl": augment.policy(1.0, "ssl"),
}
SHAPES = {"2d": (128, 1, 64, 64), "2d-rgb": (128, 3, 64, 64), "3d": (8, 1, 32, 32, 32)}


def our_transform(policy: Policy) -> Transform:
    """`draw` and `render` as training calls them, a further epoch in each call."""
    epochs = count()

    def run(x: torch.Tensor) -> torch.Tensor:
        keys = scan_keys([f"{i:016x}" for i in range(len(x))])
        return augment.apply(x, keys, seed_key=0, epoch=next(epochs), view=0, policy=policy)

    return run


def measure(family: str, shape: str, given: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each library that has the family."""
    x = torch.rand(SHAPES[shape], generator=torch.Generator().manual_seed(0))
    runs: dict[str, Transform] = {"fewscans": our_transform(FAMILIES[family])}
    for name in given.peers:
        theirs = PEERS[name](SHAPES[shape][2:])
        if family in theirs:
            runs[name] = theirs[family]
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for turn in range(given.repeats + 1):
        for name, run in runs.items():
            given_x = x if name in ("fewscans", "kornia") else x[: given.each]
            began = now()
            made = run(given_x)
            wall, cpu = since(began)
            if made.shape != given_x.shape:
                raise SystemExit(f"{name}, {family}: {list(made.shape)} of {list(given_x.shape)}")
            if turn:  # the first warms up
                seconds[name].append((wall / len(given_x), cpu / len(given_x)))
    rows = []
    for name, taken in seconds.items():
        row: dict[str, Any] = {
            "family": family, "shape": shape, "library": name,
            "images_per_s": round(1 / statistics.median(wall for wall, _ in taken), 1),
        }  # fmt: skip
        if name != "fewscans":
            pairs = list(zip(taken, seconds["fewscans"], strict=True))
            row["ratio"] = spread([their[0] / our[0] for their, our in pairs], 2)
            row["ratio_of_processor_time"] = spread([their[1] / our[1] for their, our in pairs], 2)
        if (name, family) in PARTS:
            row["only"] = PARTS[name, family]
        rows.append(row)
    return rows


def present(names: list[str]) -> list[str]:
    """Those that can be imported; the others are named."""
    found = []
    for name in names:
        try:
            PEERS[name]((8, 8))
        except ImportError as error:
            print(f"{name}: left out, it cannot be imported ({error})", file=sys.stderr)
        else:
            found.append(name)
    return found


def main() -> int:
    """Print a line per family, shape and library; with --out also write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--each", type=int, default=16, help="samples for those called one by one")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    warnings.filterwarnings("ignore")  # of what others will change one day
    torch.set_num_threads(given.threads)
    with contextlib.suppress(ImportError):
        import SimpleITK

        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(given.threads)
    given.peers = present(given.peers)
    made = []
    for shape in given.shapes:
        for family in given.families:
            rows = measure(family, shape, given)
            made += rows
            for row in rows:
                ratio = f"{row['ratio']['median']:8.2f}" if "ratio" in row else " " * 8
                print(
                    f"{shape:7} {family:10} {row['library']:12} {row['images_per_s']:10.1f} images/s {ratio}"
                    f"  {row.get('only', '')}",
                    flush=True,
                )
    peers = {name: version(name) for name in given.peers}
    write_results(
        given.out, made, threads=given.threads, repeats=given.repeats, each=given.each,
        peers=peers, shapes=SHAPES,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
