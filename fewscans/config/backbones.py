"""What a backbone's name tells without timm or MONAI: whose it is, and how one of images is lifted to volumes."""

from __future__ import annotations

MONAI, SLICES, INFLATED = "monai-", "slices-", "inflated-"
# Slices of a volume that an image network looks at: what a step costs is bounded, however fine the volume is.
MOST_SLICES = 32


def flat_name(backbone: str) -> str:
    """Timm's name of the image network that `backbone` lifts to volumes; other names as they are."""
    prefix = next((one for one in (SLICES, INFLATED) if backbone.startswith(one)), "")
    return backbone.removeprefix(prefix)


def is_lifted(backbone: str) -> bool:
    """Whether it is a network of images made one of volumes."""
    return backbone.startswith((SLICES, INFLATED))


def looks_like_vit(backbone: str) -> bool:
    """Whether a name is that of a plain vision transformer."""
    return backbone.startswith(("vit_", "deit", "test_vit", "monai-vit", "monai-test-vit"))


def slices_of(depth: int) -> int:
    """Slices of a volume of `depth` that a `slices-` network looks at."""
    return min(depth, MOST_SLICES)


def seen_pixels(backbone: str, size: int, ndim: int) -> int:
    """Pixels of a scan, of one channel, that the network looks at."""
    depth = slices_of(size) if backbone.startswith(SLICES) else size
    return depth * size ** (ndim - 1)


def misfit(backbone: str, ndim: int, maps: bool = False) -> str | None:
    """Why a network does not take scans of `ndim` axes, and what to take (one with `maps`); None where it does."""
    if ndim == 2:
        if not is_lifted(backbone):
            return None
        return (
            f"'{backbone}' takes volumes, and the recipe makes images (`ndim: 2`). Take {flat_name(backbone)}, or write"
            " `ndim: 3` in the recipe."
        )
    flat = flat_name(backbone)
    if backbone.startswith(INFLATED) and looks_like_vit(flat):
        return f"'{backbone}': ResNets alone are inflated. Take {SLICES}{flat}, or monai-vit-tiny."
    if is_lifted(backbone) and flat.startswith((MONAI, SLICES, INFLATED)):
        return f"'{backbone}': networks of timm alone are lifted to volumes, once. Take {flat}."
    if is_lifted(backbone) or backbone.startswith(MONAI):
        return None
    ways = [] if maps else [f"{SLICES}{backbone}"]
    ways += [] if looks_like_vit(backbone) else [f"{INFLATED}{backbone}"]
    others = (
        "monai-vit-tiny or another of MONAI's"
        if looks_like_vit(backbone)
        else "one of MONAI's (monai-resnet18)"
    )
    return f"'{backbone}' takes images, and the recipe makes volumes (`ndim: 3`). Take {', '.join([*ways, others])}."
