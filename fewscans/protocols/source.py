"""What protocols take from one encoder on one fold: pixels, fresh networks, frozen embeddings.

Everything is made when first asked for, so that a job whose runs all stand in the cache loads no
network.
"""

from __future__ import annotations

import copy
import time
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fewscans import keyed, networks, optim
from fewscans.config.stages import FinetuneParams
from fewscans.errors import UserError
from fewscans.resident import Resident
from fewscans.store import Store


class Source:
    """One encoder on one fold.

    Parameters
    ----------
    params
        Of the job.
    store, scans
        Pixels, and the N scans of the fold in order.
    train
        Positions of the training scans; they set the batch-norm statistics of a `random` encoder.
    folder
        Weights (`encoder.safetensors`), where the encoder has any.
    """

    def __init__(
        self,
        params: FinetuneParams,
        store: Store,
        scans: list[str],
        train: NDArray[np.int64],
        folder: Path | None,
    ) -> None:
        self.params = params
        self.store, self.scans, self.train, self.folder = store, scans, train, folder
        self.device = optim.set_up(params.compute)
        self.precision = optim.precision_of(params.compute, self.device)
        self.embedding_seconds = 0.0

    @property
    def frozen(self) -> bool:
        """Whether the encoder has weights before any label is seen (all but scratch)."""
        return self.params.settings.method not in ("scratch", "scratch-long")

    @cached_property
    def resident(self) -> Resident:
        """The fold's scans on the device."""
        return Resident(self.store, self.scans, self.device)

    def make_encoder(self, key: int) -> nn.Module:
        """A network to be trained: a copy of the encoder, or for scratch weights keyed by `key`."""
        if self.frozen:
            return copy.deepcopy(self._encoder)
        return self._untrained(keyed.key_of("init", key))

    def _untrained(self, key: int) -> nn.Module:
        settings, recipe = self.params.settings, self.params.recipe
        model = networks.make_encoder(
            settings.backbone,
            recipe.seen,
            patch_size=settings.patch_size,
            init_key=key,
        )
        return networks.in_parts(model, recipe.crop)

    @cached_property
    def _encoder(self) -> nn.Module:
        settings, recipe = self.params.settings, self.params.recipe
        if self.folder is None:
            model = optim.place(self._untrained(random_key(self.params)), self.device)
            networks.set_batchnorm_statistics(model, self.resident, self.train)
            return model
        if settings.source == "weights":
            file = self.folder / "encoder.safetensors"
            model = networks.load_pretrained(
                settings.backbone,
                file,
                recipe.seen,
                patch_size=settings.patch_size,
            )
        else:
            model, _ = networks.load_encoder(self.folder, recipe.seen)
        return optim.place(networks.in_parts(model, recipe.crop), self.device)

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """[N, E] embeddings of all scans of the fold by the frozen encoder.

        Raises
        ------
        UserError
            The encoder gives numbers that are not finite.
        """
        began = time.perf_counter()
        made = networks.embed(self._encoder, self.resident, np.arange(len(self.scans))).astype(
            np.float32
        )
        if not np.isfinite(made).all():
            raise UserError(
                f"{self.params.encoder}: its embeddings are not finite numbers. Its pretraining "
                "diverged: set a smaller `lr`, or `clip_grad_norm`."
            )
        self.embedding_seconds = time.perf_counter() - began
        return made

    @property
    def has_features(self) -> bool:
        """Whether the embeddings are in memory."""
        return "features" in self.__dict__

    def set_features(self, features: NDArray[np.float32], seconds: float) -> None:
        """Take embeddings that were made before, in `seconds`."""
        self.features, self.embedding_seconds = features, seconds

    def autocast(self) -> AbstractContextManager[None]:
        """Mixed precision where settings and device have it (bf16 on CUDA), else nothing."""
        return optim.autocast(self.device, self.precision)


def random_key(params: FinetuneParams) -> int:
    """Of the weights of an untrained frozen encoder."""
    return keyed.key_of("random", params.base_seed, params.seed, params.fold)
