"""What encoders learnt to overlook: whether they find a scan again in another augmented view of it.

For the encoders that a run of ``make learns`` left, on the scans of their fold that they have not seen: two views of
each scan by the contrastive augmentation, features centred and of length 1, and the share of scans whose nearest second
view is their own. No label is read. A network at random, of the same kind, is the measure of all: where pretraining
does not rise above it, it taught the encoder nothing that this augmentation leaves as it is. (Methods that fill in or
order patches are not asked to find scans again, and need not.)

    python benchmarks/invariance.py --work work/learns --dataset cohort --recipe px32
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from common import write_results

from fewscans import augment, networks
from fewscans.keyed import key_of
from fewscans.resident import Resident
from fewscans.store import Store

KEY = key_of("invariance")


@torch.inference_mode()
def found_again(encoder: torch.nn.Module, resident: Resident) -> float:
    """Share of scans whose second view is nearest to their first one."""
    encoder.eval()
    x = resident.batch(list(range(len(resident))))
    policy = augment.policy(1.0, "ssl")
    first, second = (
        encoder(
            augment.apply(x, resident.keys, seed_key=KEY, epoch=0, view=view, policy=policy)
        ).float()
        for view in (0, 1)
    )
    middle = (first.mean(dim=0) + second.mean(dim=0)) / 2
    similarity = F.normalize(first - middle, dim=1) @ F.normalize(second - middle, dim=1).T
    return float((similarity.argmax(dim=1) == torch.arange(len(x))).double().mean())


def encoders(work: Path, dataset: str, recipe: str) -> Iterator[Path]:
    """Folders of all encoders of a data set."""
    for meta in sorted(work.glob(f"encoders/*/{recipe}/{dataset}/*/*/encoder.json")):
        yield meta.parent


def measure(work: Path, dataset: str, recipe: str) -> list[dict[str, Any]]:
    """A row per method: means over folds and seeds, beside those of random networks on the same scans."""
    store = Store.open(work / dataset / recipe / "store")
    shares: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for folder in encoders(work, dataset, recipe):
        trained, meta = networks.load_encoder(folder, store.shape)
        seen = set(meta["source_scans"])
        resident = Resident(store, [s for s in store.scans if s not in seen], torch.device("cpu"))
        network = meta["network"]
        untrained = networks.make_encoder(
            network["backbone"],
            store.shape,
            patch_size=meta["settings"]["patch_size"],
            init_key=key_of("invariance", meta["seed"]),
        )
        # An untrained network has no statistics of its own: those of the scans that are looked at.
        networks.set_batchnorm_statistics(untrained, resident, range(len(resident)))
        pair = (found_again(trained, resident), found_again(untrained, resident))
        shares.setdefault((meta["method"], network["backbone"]), []).append(pair)
    return [
        {
            "dataset": dataset, "method": method, "backbone": backbone, "encoders": len(pairs),
            "found_again": round(statistics.mean(a for a, _ in pairs), 3),
            "lowest": round(min(a for a, _ in pairs), 3),
            "at_random": round(statistics.mean(b for _, b in pairs), 3),
        }
        for (method, backbone), pairs in shares.items()
    ]  # fmt: skip


def main() -> int:
    """Print a line per method; with --out also write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder `work` of the run")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    made = measure(given.work, given.dataset, given.recipe)
    for one in made:
        print(json.dumps(one), flush=True)
    write_results(given.out, made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
