"""A light decoder: from maps of a convolutional network back to pixels, in 2D and 3D.

After the U-Net (Ronneberger et al. 2015) and the decoder of Tian et al. 2023 (arXiv 2301.03580, section 3.2): maps of
each size are brought to the decoder's width and added, doubled in size, and halved in width.

Legend: B batch, C channels, S axes of space of the scan, s those of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

_LEAST_WIDTH = 16


class Decoder(nn.Module):
    """Maps [B, E_i, *s_i], coarse to fine, -> [B, C, *S].

    Parameters
    ----------
    widths
        E_i, coarse to fine.
    width
        Of the coarsest level; each finer one has half of it, 16 at least.
    """

    def __init__(self, widths: Sequence[int], width: int, channels: int, ndim: int) -> None:
        super().__init__()
        conv = nn.Conv2d if ndim == 2 else nn.Conv3d
        levels = [max(_LEAST_WIDTH, width // 2**i) for i in range(len(widths) + 1)]
        self.mode = "bilinear" if ndim == 2 else "trilinear"
        # As in the authors' code: the coarsest map by places, the others with their neighbours.
        self.to_width = nn.ModuleList(
            conv(e, level, kernel_size=1 if i == 0 else 3, padding=0 if i == 0 else 1)
            for i, (e, level) in enumerate(zip(widths, levels, strict=False))
        )
        self.blocks = nn.ModuleList(_block(a, b, ndim) for a, b in pairwise(levels))
        self.to_pixels = conv(levels[-1], channels, kernel_size=1)

    def forward(self, maps: Sequence[Tensor], places: Sequence[int]) -> Tensor:
        """[B, C, *S] of `maps`, coarse to fine; `places` is S."""
        x = self.to_width[0](maps[0])
        for i, block in enumerate(self.blocks):
            last = i + 1 == len(maps)
            size = list(places) if last else list(maps[i + 1].shape[2:])
            x = block(F.interpolate(x, size=size, mode=self.mode, align_corners=False))
            if not last:
                x = x + self.to_width[i + 1](maps[i + 1])
        return self.to_pixels(x)  # type: ignore[no-any-return]


def _block(a: int, b: int, ndim: int) -> nn.Sequential:
    conv, norm = (nn.Conv2d, nn.BatchNorm2d) if ndim == 2 else (nn.Conv3d, nn.BatchNorm3d)
    return nn.Sequential(
        conv(a, a, 3, padding=1, bias=False), norm(a), nn.ReLU(inplace=True),
        conv(a, b, 3, padding=1, bias=False), norm(b),
    )  # fmt: skip
