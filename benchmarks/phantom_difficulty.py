"""How hard the demo's cohort is for supervised training from scratch, by number of labelled patients.

No self-supervised method runs here: the cohort's parameters were fixed from this and the audit alone.

    python benchmarks/phantom_difficulty.py                     # the demo's steps and learning rate
    python benchmarks/phantom_difficulty.py --lr 1e-3           # fine-tuning's own default
    python benchmarks/phantom_difficulty.py --backbone test_vit

AUROC per patient, mean over 3 folds and the draws (range over draws; `all` has one), 150 steps of 32
images at 48 pixels, one thread, torch 2.13:

===========  ====  ====  ===================  ===================  =====
network      lr    seed  12 patients          30 %                 all
===========  ====  ====  ===================  ===================  =====
test_resnet  3e-3  0     0.727 (0.701-0.752)  0.933 (0.897-0.968)  0.989
test_resnet  3e-3  1                                               0.969
test_resnet  3e-3  2                                               0.958
test_resnet  1e-3  0     0.687 (0.660-0.713)  0.819 (0.819-0.819)  0.942
test_resnet  1e-3  1                                               0.868
test_resnet  1e-3  2                                               0.878
test_vit     3e-3  0     0.538 (0.457-0.619)  0.459 (0.430-0.487)  0.416
===========  ====  ====  ===================  ===================  =====

Two draws a budget. Folds differ by a standard deviation of 0.01 (all, 3e-3) to 0.08 (12 patients).
test_vit (patches of 8 pixels) stays at chance: 150 steps from random weights are too few for it.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from fewscans.compat import ensure_torchvision
from fewscans.phantom import Image, PhantomSettings, make_cohort

PERCENTILES = (0.5, 99.5)  # per image, as `normalise: percentile`: a PNG has no HU of its own


def load(images: list[Image], size_px: int) -> torch.Tensor:
    """[N, 1, size, size] float32 in [0, 1] by percentiles, then zero mean and unit variance over the cohort."""
    rows = []
    for image in images:
        low, high = np.percentile(image.hu, PERCENTILES)
        scaled = np.clip((image.hu - low) / (high - low), 0, 1).astype(np.float32)
        x = torch.from_numpy(scaled)[None, None]
        rows.append(
            F.interpolate(
                x, (size_px, size_px), mode="bilinear", antialias=True, align_corners=False
            )
        )
    x = torch.cat(rows)
    return (x - x.mean()) / x.std()


def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flip left-right, rotate by up to 20 degrees, shift by up to 6 % and scale by up to 10 %."""
    n = len(x)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    turn, scale = uniform(-0.35, 0.35), uniform(0.9, 1.1)
    cos, sin = torch.cos(turn) * scale, torch.sin(turn) * scale
    theta = torch.stack(
        [torch.stack([cos * flip, -sin, uniform(-0.12, 0.12)], 1),
         torch.stack([sin * flip, cos, uniform(-0.12, 0.12)], 1)], 1
    )  # fmt: skip
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def train(x: torch.Tensor, y: torch.Tensor, args: argparse.Namespace, seed: int) -> torch.nn.Module:
    """Train from random weights with AdamW, a tenth of warm-up, then a cosine; the network in eval mode."""
    import timm

    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    size: dict[str, int] = {}
    if "vit" in args.backbone:
        size = {"img_size": x.shape[-1], "patch_size": args.patch_size}
    network = timm.create_model(args.backbone, pretrained=False, in_chans=1, num_classes=2, **size)
    optimiser = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=0.05)
    warmup = max(1, round(0.1 * args.steps))

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (args.steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, share)
    order = torch.empty(0, dtype=torch.long)
    network.train()
    for _ in range(args.steps):
        while len(order) < args.batch:
            order = torch.cat([order, torch.randperm(len(x), generator=generator)])
        batch, order = order[: args.batch], order[args.batch :]
        loss = F.cross_entropy(network(augment(x[batch], generator)), y[batch])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def patient_auroc(
    network: torch.nn.Module, x: torch.Tensor, patients: np.ndarray, target: dict[str, int]
) -> float:
    """AUROC over patients of the mean probability of a patient's images."""
    prob = torch.softmax(network(x), 1)[:, 1].numpy()
    names = sorted(set(patients))
    return float(
        roc_auc_score([target[n] for n in names], [prob[patients == n].mean() for n in names])
    )


def labelled(
    names: np.ndarray, target: dict[str, int], budget: str, rng: np.random.Generator
) -> list[str]:
    """A random subset of `names`, of the size of `budget`, with both classes in their proportion."""
    if budget == "all":
        return list(names)
    n = round(len(names) * float(budget[:-1]) / 100) if budget.endswith("%") else int(budget)
    chosen: list[str] = []
    classes = [[p for p in rng.permutation(names) if target[p] == c] for c in (0, 1)]
    first = round(n * len(classes[0]) / len(names))
    chosen += classes[0][:first] + classes[1][: n - first]
    return chosen


def main(argv: list[str] | None = None) -> int:
    """Print one line per budget."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--seed", type=int, default=0, help="of the cohort")
    parser.add_argument("--size", type=int, default=48, help="pixels")
    parser.add_argument("--patch-size", type=int, default=8, help="of a ViT, pixels")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=3e-3, help="peak; the demo's")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=2, help="subsets per budget; 'all' has one")
    parser.add_argument("--budgets", default="12,30%,all")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    ensure_torchvision()

    cohort = make_cohort(PhantomSettings(seed=args.seed, faults=False, unlabelled_share=0))
    images = list(cohort.images)
    x = load(images, args.size)
    y = torch.tensor([image.target for image in images])
    patients = np.array([image.patient for image in images])
    target = {image.patient: image.target for image in images}
    names = np.array(sorted(target))
    classes = np.array([target[n] for n in names])
    print(
        f"seed {args.seed}: {len(names)} patients, {len(images)} images, {classes.mean():.2f} malignant"
    )
    for budget in args.budgets.split(","):
        start, scores = time.perf_counter(), []
        for draw in range(1 if budget == "all" else args.draws):
            folds = StratifiedKFold(args.folds, shuffle=True, random_state=args.seed).split(
                names, classes
            )
            for fold, (train_names, test_names) in enumerate(folds):
                rng = np.random.default_rng((args.seed, fold, draw))
                chosen = np.isin(patients, labelled(names[train_names], target, budget, rng))
                test = np.isin(patients, names[test_names])
                network = train(x[chosen], y[chosen], args, seed=1000 * draw + fold)
                scores.append(patient_auroc(network, x[test], patients[test], target))
        by_draw = np.reshape(scores, (-1, args.folds)).mean(1)
        spread = f"{by_draw.min():.3f} to {by_draw.max():.3f}"
        print(
            f"{args.backbone:12s} {budget:>4s} AUROC {by_draw.mean():.3f} (draws {spread}; folds sd "
            f"{np.std(scores):.3f}) {(time.perf_counter() - start) / len(scores):.1f} s a training",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
