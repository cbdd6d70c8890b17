"""A ResNet of timm made three-dimensional (I3D: Carreira & Zisserman 2017, arXiv 1705.07750, section 2.4.1).

Kernels of k x k become k x k x k: the image network's, repeated k times along depth and divided by k. Where I3D pads
depth with zeros, its ends are repeated here: a volume that is the same along depth then gives what its slice gives the
image network, at every depth, also in the last maps of small volumes, which have one or two places along it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fewscans.errors import UserError
from fewscans.networks.outline import timm

# Layers that do not ask how many axes there are.
PLAIN = (nn.ReLU, nn.Identity, nn.Flatten, nn.Dropout)


class DepthConv3d(nn.Conv3d):
    """A convolution that repeats the first and the last slice where others pad depth with zeros."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C_out, *s] of [B, C_in, *S]."""
        pad, *plane = self.padding
        if pad:
            # Not `replication_pad3d`, whose gradient on CUDA differs from run to run.
            first, last = (
                end.expand(-1, -1, int(pad), -1, -1) for end in (input[:, :, :1], input[:, :, -1:])
            )
            input = torch.cat([first, input, last], dim=2)
        padding: Any = (0, *plane)
        return nn.functional.conv3d(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


class CutAvgPool3d(nn.AvgPool3d):
    """An average over no more than there is, as `AvgPool2d` has it; torch refuses windows longer than the volume."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, *s] of [B, C, *S]."""
        kernel = [min(k, s) for k, s in zip(self.kernel_size, input.shape[2:], strict=True)]
        return nn.functional.avg_pool3d(
            input, kernel, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )


def inflate(model: nn.Module, backbone: str) -> nn.Module:
    """The same object with layers of three dimensions, its weights inflated; names of weights stay.

    Raises
    ------
    UserError
        It has other layers than convolutions, batch norms, poolings and ReLUs, or is no ResNet.
    """
    if not isinstance(model, timm.models.ResNet):
        raise _refused(backbone, type(model).__name__)
    _replace(model, backbone)
    # timm's own pools over height and width.
    model.global_pool = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(1))  # type: ignore[assignment]
    return model


def _replace(module: nn.Module, backbone: str) -> None:
    for name, child in module.named_children():
        if name == "global_pool":
            continue
        if next(child.children(), None) is not None:
            _replace(child, backbone)
        elif not isinstance(child, PLAIN):
            setattr(module, name, _lifted(child, backbone))


def _lifted(layer: Any, backbone: str) -> nn.Module:
    """The layer of three dimensions."""
    kind = type(layer)
    if kind is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return _convolution(layer)
    if kind is nn.BatchNorm2d:
        norm = nn.BatchNorm3d(layer.num_features, layer.eps, layer.momentum)
        norm.load_state_dict(layer.state_dict())
        return norm
    if kind is nn.MaxPool2d:
        return nn.MaxPool3d(
            _cube(layer.kernel_size), _cube(layer.stride), _cube(layer.padding),
            _cube(layer.dilation), ceil_mode=layer.ceil_mode,
        )  # fmt: skip
    if kind is nn.AvgPool2d and not (layer.count_include_pad and _cube(layer.padding)[0]):
        return CutAvgPool3d(
            _cube(layer.kernel_size), _cube(layer.stride), _cube(layer.padding),
            layer.ceil_mode, layer.count_include_pad,
        )  # fmt: skip
    raise _refused(backbone, kind.__name__)


def _convolution(layer: nn.Conv2d) -> nn.Module:
    made = DepthConv3d(
        layer.in_channels, layer.out_channels, _cube(layer.kernel_size), _cube(layer.stride), _cube(layer.padding),
        _cube(layer.dilation), layer.groups, bias=layer.bias is not None, device=layer.weight.device,
    )  # fmt: skip
    with torch.no_grad():
        made.weight.copy_(inflated(layer.weight))
        if layer.bias is not None and made.bias is not None:
            made.bias.copy_(layer.bias)
    return made


def inflated(weight: Tensor) -> Tensor:
    """[O, I, k, k, k] of [O, I, k, k]: repeated along depth, divided by k."""
    depth = weight.shape[2]
    return weight.unsqueeze(2).expand(-1, -1, depth, -1, -1) / depth


def draw(model: nn.Module) -> None:
    """Kernels at random as timm draws a ResNet's, from the global stream: untrained ones would be alike along depth."""
    for module in model.modules():
        if isinstance(module, DepthConv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _cube(value: Any) -> tuple[int, int, int]:
    """Of a side, or of two: the first for depth."""
    pair = value if isinstance(value, tuple) else (value, value)
    return (int(pair[0]), int(pair[0]), int(pair[1]))


def _refused(backbone: str, found: str) -> UserError:
    flat = backbone.removeprefix("inflated-")
    return UserError(
        f"backbone '{backbone}': ResNets of convolutions, batch norms, poolings and ReLUs alone are inflated, and this"
        f" has {found}. Take slices-{flat}, or inflated-resnet18."
    )
