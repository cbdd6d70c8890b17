"""What a training runs on and by: device and threads, AdamW, and the schedule of its learning rate."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable

import torch
from torch import nn

from fewscans.config.models import ComputeSettings
from fewscans.errors import UserError


def set_up(compute: ComputeSettings) -> torch.device:
    """Set threads and determinism for this process; the device to compute on.

    The number of threads is a setting of ours, not what the machine has: sums are split by threads, and other splits
    round differently. On CUDA the deterministic kernels are asked for where there are any.

    Raises
    ------
    UserError
        CUDA was asked for and is not there.
    """
    torch.set_num_threads(compute.threads)
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "compute.device: no CUDA device is available to torch. Use 'auto' or 'cpu'."
        )
    if compute.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    # Read by cuBLAS when it starts; without it some of its sums are not reproducible.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda")


def precision_of(compute: ComputeSettings, device: torch.device) -> str:
    """``fp32`` or ``bf16``: what `auto` comes to on `device`.

    On a CPU without bf16 units autocast is far slower than fp32.
    """
    if compute.precision != "auto":
        return compute.precision
    return "bf16" if device.type == "cuda" else "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[None]:
    """Autocast to bf16, or nothing."""
    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def place(module: nn.Module, device: torch.device) -> nn.Module:
    """`module` on `device`, convolution weights channels-last (a third faster on CPU, and what bf16 wants on CUDA)."""
    module = module.to(device=device)
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])
    return module


def make_optimizer(
    modules: nn.Module | Iterable[nn.Module],
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
) -> torch.optim.AdamW:
    """AdamW over all trainable parameters; no decay on biases, norms and single tokens (1-d parameters).

    Tokens and position embeddings have shape [1, N, E]; they are not decayed either, as in timm.
    """
    modules = [modules] if isinstance(modules, nn.Module) else list(modules)
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    seen: set[int] = set()
    for module in modules:
        for name, parameter in module.named_parameters():
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            is_token = name.rpartition(".")[2] in (
                "pos_embed",
                "cls_token",
                "reg_token",
                "mask_token",
            )
            (free if parameter.ndim <= 1 or is_token else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    # One kernel over all tensors: a small network has a hundred of them, and a step each costs more than its sums.
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


def lr_at(step: int, n_steps: int, warmup_share: float, peak: float) -> float:
    """Learning rate at `step` of `n_steps`: linear to `peak` over the warm-up, then half a cosine to zero.

    The first step is not at zero and the last one is not yet, so that no step is wasted.
    """
    n_warmup = round(warmup_share * n_steps)
    if step < n_warmup:
        return peak * (step + 1) / n_warmup
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
