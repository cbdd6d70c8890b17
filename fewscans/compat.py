"""torchvision beside a CPU-only torch: the two operators whose absence kills its import."""

from __future__ import annotations

import importlib.util

_LIBRARY = None


def ensure_torchvision() -> None:
    """Make ``import torchvision`` (and so timm) work where its C++ library cannot load. Idempotent.

    torchvision's wheel is built against the CUDA build of torch. With a CPU-only torch its operators do not
    register, and its own import dies on ``torchvision::nms``. Defining the two schemas is enough for models and
    transforms. Where torch has CUDA this does nothing.
    """
    global _LIBRARY
    import torch

    if _LIBRARY is not None or torch.version.cuda is not None:
        return
    if importlib.util.find_spec("torchvision") is None:
        return
    if hasattr(torch.ops.torchvision, "nms"):
        return
    _LIBRARY = torch.library.Library("torchvision", "DEF")
    _LIBRARY.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _LIBRARY.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
