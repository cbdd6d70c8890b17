"""SparK (Tian et al. 2023): masked modelling for convolutional networks, sparse and hierarchical.

"Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked Modeling", arXiv 2301.03580. The network sees
visible squares alone (section 3.1), maps of all its stages are filled up with learned vectors (equation 2), and a light
decoder makes the hidden squares of them (section 3.2).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewscans import augment
from fewscans.errors import UserError
from fewscans.methods.base import Batch, Method
from fewscans.methods.mae import masked_error, normalise_patches
from fewscans.methods.masks import (
    check_square,
    draw_squares,
    enlarge,
    fitting_square,
    n_masked_of,
    patchify,
    unpatchify,
)
from fewscans.networks.decoder import Decoder
from fewscans.networks.maps import map_shapes, pyramid
from fewscans.networks.sparse import Seen, seeing_only
from fewscans.shape import Shape


class SparK(Method):
    """Reconstruct hidden squares from maps of all sizes that only visible ones have reached."""

    policy_kind: ClassVar[augment.Kind] = "mae"
    base_lr: ClassVar[float] = 2e-3
    weight_decay: ClassVar[float] = 0.04  # appendix B

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        maps = map_shapes(encoder, shape)
        if not maps:
            raise UserError(
                f"spark needs a convolutional network, and '{settings.backbone}' has no maps. Use resnet18 or its "
                "like, or method mae or simmim."
            )
        widths = [width for width, _ in reversed(maps)]  # coarse to fine, as the decoder takes them
        self.mask_patch = settings.mask_patch or fitting_square(
            shape.size, math.ceil(shape.size / maps[-1][1])
        )
        check_square(self.mask_patch, shape.size)
        self.rows = shape.size // self.mask_patch
        self.n_masked = n_masked_of(settings.mask_ratio, self.rows**shape.ndim)
        norm = nn.BatchNorm2d if shape.ndim == 2 else nn.BatchNorm3d
        self.norms = nn.ModuleList(norm(width) for width in widths)
        # Of maps with a place for each square at least; a place of a coarser map covers several, and is hardly ever
        # hidden: then it stays zero. (In the paper squares are as large as the places of the coarsest map.)
        self.mask_tokens = nn.ParameterDict({
            str(places): nn.init.trunc_normal_(torch.empty(1, e, *[1] * shape.ndim), std=0.02)
            for e, places in maps if places >= self.rows
        })  # fmt: skip
        width = settings.decoder_dim or max(32, widths[0] // 2)
        self.decoder = Decoder(widths, width, shape.channels, shape.ndim)

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """A crop, and which squares are hidden: bool [B, *s], exactly `n_masked` in each."""
        masked = draw_squares(batch, self.rows, self.n_masked)
        return batch.augmented(0, self.policy), masked

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error on the hidden squares, each normalised by its own mean and variance."""
        x, masked = views
        predicted, embedding = self.restored(x, masked)
        target, _, _ = normalise_patches(patchify(x, self.mask_patch))
        loss = masked_error(patchify(predicted, self.mask_patch), target, masked.flatten(1))
        return loss, {"embedding": embedding.detach()}

    def restored(self, x: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pixels [B, C, *S], and the mean [B, E] of the visible places of the coarsest map."""
        seen = Seen(~enlarge(masked, self.mask_patch))
        with seeing_only(self.encoder, seen, self.gather_for_norms):
            maps = pyramid(self.encoder, seen.only(x))[::-1]
        with seeing_only(self.norms, seen, self.gather_for_norms):
            filled = [
                self.filled(norm(one), seen) for one, norm in zip(maps, self.norms, strict=True)
            ]
        dims = tuple(range(2, x.ndim))
        places = seen.at(tuple(maps[0].shape[2:])).sum(dim=dims)
        return self.decoder(filled, x.shape[2:]), seen.only(maps[0]).sum(dim=dims) / places

    def filled(self, one: Tensor, seen: Seen) -> Tensor:
        """A map [B, E, *s] with the learned vector of its size where it is hidden."""
        places = tuple(one.shape[2:])
        if str(places[0]) not in self.mask_tokens:
            return one
        return torch.where(seen.at(places), one, self.mask_tokens[str(places[0])].to(one.dtype))

    def resolved(self) -> dict[str, Any]:
        """The mask and the decoder in numbers."""
        return {
            "mask_patch": self.mask_patch,
            "n_patches": self.rows**self.shape.ndim,
            "n_masked": self.n_masked,
            "decoder_dim": self.decoder.to_width[0].out_channels,
        }

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """Visible pixels as they are, hidden ones predicted (scaled back by the square's own mean and deviation)."""
        x, masked = self.views(batch)
        side = self.mask_patch
        _, mean, sd = normalise_patches(patchify(x, side))
        predicted = patchify(self.restored(x, masked)[0].float(), side) * sd + mean
        hidden = enlarge(masked, side)
        return {
            "original": x,
            "masked": torch.where(hidden, torch.full_like(x, 0.5), x),
            "reconstructed": torch.where(hidden, unpatchify(predicted, side, self.shape), x).clamp(
                0, 1
            ),
        }


METHOD = SparK
