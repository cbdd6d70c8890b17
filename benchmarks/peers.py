"""Against lightly: images/s of SimCLR, same network, images, size and batch, in one process, turn about.

lightly runs as its examples do: its stock transform on PIL images, a DataLoader with as many workers as there are
cores, the loss and projection head that it brings, SGD. Its images are in memory already, so that no decoding is
counted; its workers make some batches ahead while ours has its turn. Ours is the loop of `fewscans pretrain`: resident
store, augmentation of the whole batch, AdamW, schedule, gauges. Both train all weights in every step.

    python benchmarks/peers.py --sizes 32 64 96 --backbones test_resnet resnet18 --out benchmarks/results/peers.json

On a GPU ours runs in bf16 by default and lightly in fp32, as its examples do; ``--equal`` runs both in fp32. lightly is
installed with the tests.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import SyntheticStore, now, since, spread, write_results
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from fewscans import engine, methods, networks, optim
from fewscans.compat import ensure_torchvision
from fewscans.config.encoders import METHODS
from fewscans.config.models import ComputeSettings
from fewscans.resident import Resident
from fewscans.shape import Shape

ensure_torchvision()
from lightly.loss import NTXentLoss  # noqa: E402
from lightly.models.modules import SimCLRProjectionHead  # noqa: E402
from lightly.transforms import SimCLRTransform  # noqa: E402


def textures(n: int, size: int) -> np.ndarray:
    """Smooth noise as uint8 [N, 3, size, size]."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, 3, 8, 8), dtype=np.uint8).astype(np.float32)
    fine = torch.nn.functional.interpolate(torch.from_numpy(coarse), size=size, mode="bilinear")
    return fine.round().to(torch.uint8).numpy()


class InMemory(Dataset):
    """PIL images and lightly's transform of them."""

    def __init__(self, images: np.ndarray, size: int) -> None:
        self.images = [Image.fromarray(np.moveaxis(image, 0, -1)) for image in images]
        self.transform = SimCLRTransform(input_size=size, gaussian_blur=0.0 if size <= 32 else 0.5)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return self.transform(self.images[index])


class Theirs:
    """lightly's example, step by step."""

    def __init__(
        self, images: np.ndarray, backbone: str, size: int, batch: int, device: torch.device
    ) -> None:
        encoder = networks.make_encoder(backbone, Shape(size, 3), patch_size=None, init_key=0)
        width = networks.embedding_dim(encoder)
        head = SimCLRProjectionHead(width, width, 128)
        self.device, self.model = device, nn.Sequential(encoder, head).to(device).train()
        self.loss = NTXentLoss()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.06)
        self.loader = DataLoader(
            InMemory(images, size), batch_size=batch, shuffle=True, drop_last=True,
            num_workers=os.cpu_count() or 1, persistent_workers=True,
        )  # fmt: skip
        self.batches = self._endless()

    def _endless(self) -> Iterator[list[torch.Tensor]]:
        while True:
            yield from self.loader

    def steps(self, n: int) -> None:
        """Train."""
        for _ in range(n):
            one, two = (view.to(self.device) for view in next(self.batches))
            loss = self.loss(self.model(one), self.model(two))
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


class Ours:
    """The engine, step by step."""

    def __init__(
        self, images: np.ndarray, backbone: str, size: int, batch: int, device: torch.device, precision: str,
    ) -> None:  # fmt: skip
        settings = METHODS["simclr"].model_validate({"backbone": backbone, "batch_size": batch})
        encoder = networks.make_encoder(backbone, Shape(size, 3), patch_size=None, init_key=0)
        method = methods.load("simclr")(encoder, settings, Shape(size, 3))
        optim.place(method, device)
        store: Any = SyntheticStore(len(images), Shape(size, 3), voxels=images)
        per_epoch = len(images) // batch
        schedule = engine.Schedule(10_000, batch, per_epoch, 1e-3, 1e-4, 0.1, None, 0, precision)
        self.training = engine.Training(method, Resident(store, store.scans, device), schedule)

    def steps(self, n: int) -> None:
        """Train."""
        end = self.training.step + n
        self.training.should_stop = lambda: self.training.step >= end
        with contextlib.suppress(engine.StoppedError):
            self.training.run()


def measure(backbone: str, size: int, given: argparse.Namespace) -> dict[str, Any]:
    """Images/s of both: medians and quartiles of the ratio over repeats."""
    compute = ComputeSettings(threads=given.threads, device=given.device)
    device = optim.set_up(compute)
    precision = "fp32" if given.equal else optim.precision_of(compute, device)
    images = textures(given.batch * 8, size)
    ours = Ours(images, backbone, size, given.batch, device, precision)
    theirs = Theirs(images, backbone, size, given.batch, device)
    seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
    ours.steps(2), theirs.steps(2)
    for _ in range(given.repeats):
        for name, run in (("theirs", theirs), ("ours", ours)):
            began = now(device)
            run.steps(given.steps)
            seconds[name].append(since(began, device)[0])
    ratios = [t / o for o, t in zip(seconds["ours"], seconds["theirs"], strict=True)]
    scans = given.steps * given.batch
    return {
        "backbone": backbone, "size": size, "precision": precision,
        "ours_images_per_s": round(scans / statistics.median(seconds["ours"]), 1),
        "theirs_images_per_s": round(scans / statistics.median(seconds["theirs"]), 1),
        "ratio": spread(ratios, 2), "device": str(device),
    }  # fmt: skip


def main() -> int:
    """Print a line per case; with --out also write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 96])
    parser.add_argument("--backbones", nargs="+", default=["test_resnet", "resnet18"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8, help="in a repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--equal", action="store_true", help="both in fp32")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    made = []
    for backbone in given.backbones:
        for size in given.sizes:
            one = measure(backbone, size, given)
            low, high = one["ratio"]["quartile_low"], one["ratio"]["quartile_high"]
            print(
                f"{backbone:12} {size:4} px  {one['precision']}  ours {one['ours_images_per_s']:8.1f} images/s, "
                f"lightly {one['theirs_images_per_s']:8.1f}: {one['ratio']['median']:.2f} ({low:.2f} to {high:.2f})",
                flush=True,
            )
            made.append(one)
    write_results(
        given.out, made, made[0]["device"], batch=given.batch, threads=given.threads,
        steps=given.steps, repeats=given.repeats,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
