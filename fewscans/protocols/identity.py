"""Digests of what a run follows from, and finished runs in the cache under them. No torch here.

Names of arms, folds and budgets are not in a digest: what they stand for is. The fold's name and
the seed come in by the keys of the random numbers alone, where there are any.
"""

from __future__ import annotations

import json
import tempfile
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fewscans.config.stages import FinetuneParams
from fewscans.digest import code_digest
from fewscans.files import Cache, digest, sha256_file
from fewscans.protocols import NEEDS
from fewscans.protocols.task import Outcome, Task

if TYPE_CHECKING:
    from fewscans.labelled import Fold
    from fewscans.protocols.source import Source
    from fewscans.store import Store

# Libraries whose arithmetic a run goes through.
LIBRARIES = {
    "nothing": ("numpy",),
    "features": ("numpy", "scipy", "scikit-learn"),
    "weights": ("numpy", "torch", "timm"),
}
CODE = {
    "nothing": "fewscans.protocols.task",
    "features": "fewscans.protocols.task",
    "weights": "fewscans.protocols.source",
}


class Identity:
    """Digests of one job: an encoder, a recipe, a fold, a seed."""

    def __init__(
        self,
        params: FinetuneParams,
        fold: Fold,
        encoder: dict[str, Any],
        folder: Path | None,
        store: Store | None,
        source: Source | None,
    ) -> None:
        self.params, self.fold, self.encoder = params, fold, encoder
        self.folder, self.store, self.source = folder, store, source

    @cached_property
    def pixels(self) -> list[str]:
        """Digest of each scan's pixels in the store."""
        return (
            [] if self.store is None else [str(one) for one in self.store.digests(self.fold.scans)]
        )

    @cached_property
    def start(self) -> dict[str, Any]:
        """The weights that training or embedding starts from, before any label is seen."""
        settings, recipe = self.params.settings, self.params.recipe
        made: dict[str, Any] = {
            "backbone": settings.backbone,
            "patch_size": settings.patch_size,
            "recipe": recipe.model_dump(mode="json"),
        }
        if settings.source != "none" and self.folder is not None:
            made["weights"] = sha256_file(self.folder / "encoder.safetensors")
            made["network"] = self.encoder.get("network")
        elif settings.method == "random":
            from fewscans.protocols.source import random_key

            made["key"] = random_key(self.params)
            made["statistics"] = [[self.fold.scans[i], self.pixels[i]] for i in self.fold.train]
        return made

    @cached_property
    def machine(self) -> dict[str, Any]:
        """What rounds differently: threads, device, precision."""
        if self.source is None:
            return {}
        return {
            "threads": self.params.compute.threads,
            "device": self.source.device.type,
            "precision": self.source.precision,
        }

    @cached_property
    def of_features(self) -> str:
        """Digest of the frozen embeddings of all scans of the fold."""
        return digest(
            {
                "what": "features",
                "start": self.start,
                "scans": list(zip(self.fold.scans, self.pixels, strict=True)),
                "machine": self.machine,
                "code": code_digest("fewscans.protocols.source"),
                "versions": {name: version(name) for name in LIBRARIES["weights"]},
            }
        )

    def of_run(self, protocol: str, task: Task) -> str:
        """Digest of one protocol on one budget and draw."""
        needs = NEEDS[protocol]
        settings = getattr(self.params.protocol_settings, protocol, None)
        parts: dict[str, Any] = {
            "what": protocol,
            "settings": None if settings is None else settings.model_dump(mode="json"),
            "labelled": [self.fold.scans[i] for i in task.labelled],
            "targets": task.targets.tolist(),
            "inner": task.inner.tolist(),
            "test": [self.fold.scans[i] for i in task.test],
            "classes": task.n_classes,
            "code": code_digest(CODE[needs], protocols=[protocol]),
            "versions": {name: version(name) for name in LIBRARIES[needs]},
        }
        if needs == "features":
            parts |= {"features": self.of_features, "machine": self.machine}
        if needs == "weights":
            used = [*task.labelled, *task.test]
            parts |= {
                "start": self.start,
                "pixels": [self.pixels[i] for i in used],
                "key": task.key,
                "machine": self.machine,
            }
        return digest(parts)

    def code(self, protocol: str) -> str:
        """Digest of all code that a run of it goes through: one table holds runs of one state of the code."""
        needs = NEEDS[protocol]
        embeds = ("fewscans.protocols.source",) if needs == "features" else ()
        return code_digest(CODE[needs], *embeds, protocols=[protocol])

    def encoder_facts(self) -> dict[str, Any]:
        """What tables say about the encoder: single values and settings of encoder.json."""
        facts = {
            k: v
            for k, v in self.encoder.items()
            if isinstance(v, str | int | float | bool) or k == "settings"
        }
        facts.setdefault("transductive", False)
        facts.setdefault("digest", digest(self.start))
        facts["parents"] = [
            str(one.get("name") or one.get("method")) for one in self.encoder.get("parents") or []
        ]
        return facts


def keep_run(cache: Cache, mark: str, outcome: Outcome, seconds: float) -> None:
    """Put a run in the cache under its digest, whole or not at all."""
    facts = {"choices": outcome.choices, "flags": outcome.flags, "device_seconds": seconds}
    arrays: dict[str, Any] = {"test_prob": outcome.test_prob, "facts": np.array(json.dumps(facts))}
    if outcome.val_prob is not None:
        arrays["val_prob"] = outcome.val_prob
    if outcome.test_embeddings is not None:
        arrays["test_embeddings"] = outcome.test_embeddings
    keep_arrays(cache, mark, arrays)


def recall_run(cache: Cache, mark: str) -> tuple[Outcome, float] | None:
    """(outcome, seconds that it took) of a run; None where it has not been made."""
    arrays = recall_arrays(cache, mark)
    if arrays is None:
        return None
    facts = json.loads(str(arrays["facts"]))
    outcome = Outcome(
        arrays["test_prob"],
        arrays.get("val_prob"),
        facts["choices"],
        facts["flags"],
        arrays.get("test_embeddings"),
    )
    return outcome, facts["device_seconds"]


def keep_arrays(cache: Cache, mark: str, arrays: dict[str, Any]) -> None:
    """Put arrays in the cache: one file, since cluster file systems count them."""
    cache.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache.root, prefix=".run-") as folder:
        path = Path(folder, "run.npz")
        np.savez(path, **arrays)
        cache.put(mark, {path.name: path})


def recall_arrays(cache: Cache, mark: str) -> dict[str, NDArray[Any]] | None:
    """Arrays kept under `mark`, or None."""
    path = cache.entry(mark) / "run.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
