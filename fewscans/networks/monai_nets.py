"""MONAI's networks, 2D and 3D, as encoders: [B, C, *S] -> [B, E]. Importing this imports MONAI, which takes seconds.

Names of weights are MONAI's own, so that they load into the classes they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.nets import BasicUNet, ResNet, ViT
from torch import Tensor, nn

from fewscans.networks.monai_names import RESNETS, VITS


class PooledViT(ViT):
    """The mean over patches after the last norm."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, E]."""
        return super().forward(x)[0].mean(dim=1)


EXPANDING = ("upcat_4", "upcat_3", "upcat_2", "upcat_1", "final_conv")


class UNetDecoder(nn.Module):
    """The expanding path of `BasicUNet`, which with the encoder's weights is the whole."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        whole = BasicUNet(**kwargs)
        for name in EXPANDING:
            self.add_module(name, getattr(whole, name))

    def forward(self, maps: Sequence[Tensor], places: Sequence[int]) -> Tensor:
        """[B, C, *S] of five maps, coarse to fine; `places` is S, and is not asked for."""
        x, *finer = maps
        for name, skip in zip(EXPANDING, finer, strict=False):
            x = getattr(self, name)(x, skip)
        return self.final_conv(x)  # type: ignore[no-any-return, operator]


class UNetEncoder(BasicUNet):
    """The contracting path of `BasicUNet`: the mean over its last map."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kwargs = kwargs
        for name in EXPANDING:
            delattr(self, name)

    def own_decoder(self, channels: int) -> UNetDecoder:
        """The other path of the same `BasicUNet`, with new weights from the global stream."""
        return UNetDecoder(**{**self._kwargs, "out_channels": channels})

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Maps from fine to coarse; what a decoder of `BasicUNet` is given."""
        maps = [self.conv_0(x)]
        for down in (self.down_1, self.down_2, self.down_3, self.down_4):
            maps.append(down(maps[-1]))
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """[B, E]."""
        return self.pyramid(x)[-1].flatten(2).mean(dim=2)


def build(backbone: str, kwargs: dict[str, Any]) -> nn.Module:
    """The network, with weights from the global stream."""
    if backbone in RESNETS:
        model = ResNet(**kwargs)
        model.fewscans_width = model.in_planes
        return model
    if backbone in VITS:
        model = PooledViT(**kwargs)
        model.fewscans_grid = tuple(n // kwargs["patch_size"] for n in kwargs["img_size"])
        model.fewscans_width = kwargs["hidden_size"]
        return model
    model = UNetEncoder(**kwargs)
    model.fewscans_width = kwargs["features"][4]
    return model
