"""Which of MONAI's networks there are, and what each is built with; MONAI itself is not imported here."""

from __future__ import annotations

from typing import Any

from fewscans.errors import UserError, did_you_mean
from fewscans.shape import Shape

# Block, blocks of each stage, width of the first stage.
RESNETS: dict[str, tuple[str, list[int], int]] = {
    "monai-test-resnet": ("basic", [1, 1, 1, 1], 8),
    "monai-resnet10": ("basic", [1, 1, 1, 1], 64),
    "monai-resnet18": ("basic", [2, 2, 2, 2], 64),
    "monai-resnet34": ("basic", [3, 4, 6, 3], 64),
    "monai-resnet50": ("bottleneck", [3, 4, 6, 3], 64),
}
# Width, blocks, heads; the MLP is four times as wide (Dosovitskiy et al. 2021, table 1).
VITS: dict[str, tuple[int, int, int]] = {
    "monai-test-vit": (64, 4, 4),
    "monai-vit-tiny": (192, 12, 3),
    "monai-vit-small": (384, 12, 6),
    "monai-vit-base": (768, 12, 12),
}
UNETS: dict[str, tuple[int, ...]] = {
    "monai-test-unet": (8, 8, 16, 32, 64, 8),
    "monai-unet": (32, 32, 64, 128, 256, 32),
}
NAMES = (*RESNETS, *VITS, *UNETS)


def kwargs_of(backbone: str, shape: Shape, patch: int | None) -> dict[str, Any]:
    """What the class is called with.

    Raises
    ------
    UserError
        No such network, or the scans are too small for it.
    """
    space = {"spatial_dims": shape.ndim}
    if backbone in RESNETS:
        block, layers, width = RESNETS[backbone]
        # At 32 voxels a further halving would leave a last map of one place.
        stride = 2 if shape.size >= 64 else 1
        return {
            **space, "n_input_channels": shape.channels, "block": block, "layers": layers,
            "block_inplanes": [width, 2 * width, 4 * width, 8 * width], "conv1_t_stride": stride,
            "feed_forward": False, "bias_downsample": False,
        }  # fmt: skip
    if backbone in VITS:
        width, depth, heads = VITS[backbone]
        return {
            **space, "in_channels": shape.channels, "img_size": list(shape.axes), "patch_size": patch,
            "hidden_size": width, "mlp_dim": 4 * width, "num_layers": depth, "num_heads": heads, "qkv_bias": True,
        }  # fmt: skip
    if backbone in UNETS and shape.size < 32:  # its instance norms need more than one place
        raise UserError(
            f"backbone '{backbone}' halves a scan four times: `size` must be at least 32."
        )
    if backbone in UNETS:
        return {**space, "in_channels": shape.channels, "features": list(UNETS[backbone])}
    raise UserError(f"backbone '{backbone}' is not known.{did_you_mean(backbone, NAMES)}")
