"""What tells how a training goes, besides its loss: collapse, alignment, uniformity, a probe of neighbours.

A gauge chooses nothing: no weight, no epoch and no setting follows from one, but that a collapsed training stops.

Legend: B scans, C channels, S axes of space, E embedding.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fewscans import augment, keyed, networks
from fewscans.known import Known, read_known
from fewscans.methods.base import Method
from fewscans.outofmemory import in_batches
from fewscans.resident import Resident

# Scans that a look takes, by key and so the same ones each time.
N_SEEN = 256
# Below, an encoder has collapsed. The spread alone says little: a large common part (MAE has 0.03 after a few hundred
# steps) goes when features are standardised.
COLLAPSED_SPREAD, COLLAPSED_RANK = 1e-3, 1.5
# Neighbours that vote, and the temperature of their votes (Wu et al. 2018, section 3.4).
_NEIGHBOURS, _TEMPERATURE = 20, 0.07


@dataclass(frozen=True)
class ProbeScans:
    """Rows of training scans whose labels may be seen, their classes, and whose scans they are: int64 [B] each."""

    rows: NDArray[np.int64]
    target: NDArray[np.int64]
    patient: NDArray[np.int64]

    @classmethod
    def read(
        cls, path: Path, resident: Resident, labelled: frozenset[str], dataset: str, seed_key: int
    ) -> ProbeScans | None:
        """Of ``labels.parquet``, `N_SEEN` at most; None where it is not there or fewer than two classes are."""
        rows = np.array([i for i, s in enumerate(resident.scans) if s in labelled], dtype=np.int64)
        if not path.is_file() or not len(rows):
            return None
        scans = [resident.scans[i] for i in rows]
        known: Known = read_known(("patient", "target"), scans, labelled, {dataset: path}, dataset)
        order = keyed.permutation(seed_key, 0, resident.keys[rows])
        order = order[known.target[order] >= 0][:N_SEEN]
        if len(set(known.target[order])) < 2:
            return None
        return cls(rows[order], known.target[order], known.patient[order])


class Looks:
    """A look at an encoder that is being trained: embeddings of a few training scans, none of which changes it.

    Parameters
    ----------
    resident
        The scans of the training.
    seed_key
        Chooses the scans and draws their views, which are others than those that are trained on.
    labelled
        For the probe of neighbours.
    """

    def __init__(
        self, resident: Resident, seed_key: int, labelled: ProbeScans | None = None
    ) -> None:
        self.resident, self.labelled = resident, labelled
        self.key = keyed.key_of("looks", seed_key)
        self.rows = keyed.permutation(self.key, 0, resident.keys)[:N_SEEN]

    def __call__(self, method: Method) -> dict[str, float]:
        """Alignment, uniformity, and the balanced accuracy of neighbours (no number without labels)."""
        was_training = method.training
        method.eval()
        with torch.inference_mode():
            first, second = (self._views(method, view) for view in (0, 1))
        found = float("nan")
        if self.labelled is not None:
            one = self.labelled
            h = networks.embed(method.encoder, self.resident, one.rows)
            found = neighbours_agree(torch.from_numpy(h), one.target, one.patient)
        method.train(was_training)
        return {
            "alignment": alignment(first, second),
            "uniformity": uniformity(first),
            "knn_balanced_accuracy": found,
        }

    def _views(self, method: Method, view: int) -> Tensor:
        def some(rows: NDArray[np.int64]) -> Tensor:
            x, keys = self.resident.batch(rows), self.resident.keys[rows]
            x = augment.part(x, keys, seed_key=self.key, epoch=0, side=method.shape.size)
            x = augment.apply(x, keys, seed_key=self.key, epoch=0, view=view, policy=method.policy)
            return method.encoder(x).float()  # type: ignore[no-any-return]

        return F.normalize(torch.cat(in_batches(some, self.rows, N_SEEN)), dim=1)


def collapse_gauges(h: Tensor) -> tuple[float, float]:
    """Spread and effective rank of embeddings [B, E]: both small where all scans look alike to the encoder.

    The spread is the standard deviation of the L2-normalised embeddings times sqrt(E), 1 where they fill the sphere
    (Chen & He 2021, section 4.1). The effective rank is exp of the entropy of the centred embeddings' normalised
    singular values (Roy & Vetterli 2007).
    """
    h = h.float()
    z = F.normalize(h, dim=1)
    spread = float(z.std(dim=0, correction=0).mean()) * h.shape[1] ** 0.5
    centred = (h - h.mean(dim=0)).double()
    gram = centred @ centred.T if len(h) < h.shape[1] else centred.T @ centred
    # Singular values; a tenth of the cost of an SVD.
    share = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    total = float(share.sum())
    if total <= 0:
        return spread, 1.0
    share = share / total
    return spread, float(torch.exp(-torch.xlogy(share, share).sum()))


def alignment(z1: Tensor, z2: Tensor) -> float:
    """Mean squared distance of two views [B, E] of each scan, of length 1: 0 where they are the same to the encoder.

    Wang & Isola 2020, arXiv 2005.10242, section 4.1.1, with alpha = 2.
    """
    return float((z1 - z2).square().sum(dim=1).mean())


def uniformity(z: Tensor) -> float:
    """Log of the mean of exp(-2 d^2) over pairs of scans [B, E] of length 1: from 0 (one point) down to about -4.

    Wang & Isola 2020, section 4.1.2, with t = 2. No number where there is one scan.
    """
    if len(z) < 2:
        return float("nan")
    return float(torch.pdist(z.double()).square().mul(-2).exp().mean().log())


def neighbours_agree(
    h: Tensor, target: NDArray[np.int64], patient: NDArray[np.int64], k: int = _NEIGHBOURS
) -> float:
    """Balanced accuracy of votes of the `k` nearest scans of other patients, by cosine of standardised features.

    Parameters
    ----------
    h
        Embeddings [B, E] of labelled training scans.
    """
    h = h.double()
    z = F.normalize((h - h.mean(dim=0)) / (h.std(dim=0, correction=0) + 1e-12), dim=1)
    classes = torch.from_numpy(target)
    whose = torch.from_numpy(patient)
    similarity = (z @ z.T).masked_fill(whose[:, None] == whose[None, :], float("-inf"))
    nearest, index = similarity.topk(min(k, len(h)), dim=1)
    votes = torch.zeros(len(h), int(classes.max()) + 1, dtype=z.dtype)
    votes.scatter_add_(1, classes[index], (nearest / _TEMPERATURE).exp())
    right = votes.argmax(dim=1) == classes
    return float(
        np.mean([float(right[classes == one].double().mean()) for one in classes.unique()])
    )


def memory_mb(device: torch.device) -> float:
    """Most memory that this process has had: of the GPU, else of the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def collapsed(row: Mapping[str, float]) -> bool:
    """Whether a row of history has embeddings as good as one point or one line, whatever the loss says."""
    return row["embedding_std"] < COLLAPSED_SPREAD or row["effective_rank"] < COLLAPSED_RANK
