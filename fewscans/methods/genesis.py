"""Models Genesis (Zhou et al. 2020): restore scans that were bent, shuffled and painted over.

"Models Genesis", Medical Image Analysis 67, arXiv 2004.07882. One encoder-decoder for all distortions, alone or
together (section 2.2); both are handed on.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewscans import augment
from fewscans.errors import UserError
from fewscans.methods import distortions
from fewscans.methods.base import Batch, Method, precise
from fewscans.networks.decoder import Decoder
from fewscans.networks.maps import map_shapes, pyramid
from fewscans.shape import Shape


class Genesis(Method):
    """A decoder on the encoder's maps of all sizes gives the scan as it was."""

    policy_kind: ClassVar[augment.Kind] = "mae"
    base_lr: ClassVar[float] = 2e-3
    weight_decay: ClassVar[float] = 1e-4

    def __init__(self, encoder: nn.Module, settings: Any, shape: Shape) -> None:
        super().__init__(encoder, settings, shape)
        maps = map_shapes(encoder, shape)
        if not maps:
            raise UserError(
                f"genesis needs a network with maps for its decoder, and '{settings.backbone}' has none. Use "
                "monai-unet, resnet18 or their like."
            )
        if hasattr(encoder, "own_decoder"):
            self.decoder = encoder.own_decoder(shape.channels)
        else:
            widths = [width for width, _ in reversed(maps)]
            width = settings.decoder_dim or max(32, widths[0] // 2)
            self.decoder = Decoder(widths, width, shape.channels, shape.ndim)

    def views(self, batch: Batch) -> tuple[Tensor, ...]:
        """A crop, and what became of it."""
        x = batch.augmented(0, self.policy)
        u = batch.random(distortions.numbers(self.shape.ndim))
        return x, distortions.distorted(x, u, self.settings)

    def loss(self, *views: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of all pixels (section 2.3)."""
        x, distorted = views
        maps = pyramid(self.encoder, distorted)
        embedding = maps[-1].mean(dim=tuple(range(2, x.ndim)))
        return F.mse_loss(self.restored(maps), x), {"embedding": embedding.detach()}

    def restored(self, maps: list[Tensor]) -> Tensor:
        """[B, C, *S] in [0, 1] of the encoder's maps, fine to coarse."""
        return torch.sigmoid(precise(self.decoder(maps[::-1], self.shape.axes)))

    def handed_on(self) -> dict[str, nn.Module]:
        """The decoder."""
        return {"decoder": self.decoder}

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """The scan, what became of it, what was made of that."""
        x, distorted = self.views(batch)
        restored = self.restored(pyramid(self.encoder, distorted)).float()
        return {"original": x, "masked": distorted, "reconstructed": restored}


METHOD = Genesis
