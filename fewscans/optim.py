"""What a training runs on and by: device and threads, optimizer, and the schedule of its learning rate."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable

import torch
from torch import nn

from fewscans.config.models import ComputeSettings, default_rates
from fewscans.errors import UserError
from fewscans.groups import parameter_groups
from fewscans.lars import LARS
from fewscans.scaler import Scaler

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
    """``fp32``, ``bf16`` or ``fp16``: what `auto` comes to on `device`.

    On a CPU without bf16 units autocast is far slower than fp32.
    """
    if compute.precision != "auto":
        return compute.precision
    return "bf16" if device.type == "cuda" else "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[None]:
    """Autocast to bf16 or fp16, or nothing."""
    if precision not in HALF:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=HALF[precision])


def make_scaler(device: torch.device, precision: str) -> Scaler | None:
    """Of losses, for fp16, whose numbers end at 6e-8; bf16 has the range of fp32."""
    return Scaler(device) if precision == "fp16" else None


def place(module: nn.Module, device: torch.device) -> nn.Module:
    """`module` on `device`, convolution weights channels-last (a third faster on CPU, and what bf16 wants on CUDA)."""
    module = module.to(device=device)
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])
    return module


def rates(kind: str, batch_size: int, base_lr: float, weight_decay: float) -> tuple[float, float]:
    """(peak learning rate, weight decay) of a pretraining that says neither: the method's for AdamW."""
    return default_rates(kind, batch_size) or (base_lr * batch_size / 256, weight_decay)


def make_optimizer(
    modules: nn.Module | Iterable[nn.Module],
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    *,
    kind: str = "adamw",
    momentum: float = 0.9,
    factors: dict[int, float] | None = None,
) -> torch.optim.Optimizer:
    """AdamW, SGD or LARS over all trainable parameters; no decay on biases, norms and tokens (`parameter_groups`).

    Parameters
    ----------
    betas
        Of AdamW.
    momentum
        Of the others.
    factors
        Of the learning rate, by id of a parameter.
    """
    modules = [modules] if isinstance(modules, nn.Module) else list(modules)
    groups = parameter_groups(modules, weight_decay, factors)
    # One kernel over all tensors: a small network has a hundred of them, and a step each costs more than its sums.
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=True)
    if kind == "lars":
        return LARS(groups, lr=lr, momentum=momentum)
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)


def step(
    optimizer: torch.optim.Optimizer,
    module: nn.Module,
    clip_grad_norm: float | None = None,
    scaler: Scaler | None = None,
) -> None:
    """Clip the gradients of `module` and move its weights."""
    if scaler is not None:
        scaler.step(optimizer, module.parameters(), clip_grad_norm)
        return
    if clip_grad_norm is not None:
        torch.nn.utils.clip_grad_norm_(module.parameters(), clip_grad_norm)
    optimizer.step()


def lr_at(step: int, n_steps: int, warmup_share: float, peak: float) -> float:
    """Learning rate at `step` of `n_steps`: linear to `peak` over the warm-up, then half a cosine to zero.

    The first step is not at zero and the last one is not yet, so that no step is wasted.
    """
    n_warmup = round(warmup_share * n_steps)
    if step < n_warmup:
        return peak * (step + 1) / n_warmup
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def weight_decay_at(step: int, n_steps: int, first: float, growth: float) -> float:
    """Weight decay at `step` of `n_steps`: by half a cosine from `first` to `growth` times that."""
    return first * (1 + (growth - 1) * (1 - math.cos(math.pi * step / n_steps)) / 2)


def set_weight_decay(optimizer: torch.optim.Optimizer, weight_decay: float) -> None:
    """Set the weight decay of the groups that have one."""
    for group in optimizer.param_groups:
        if group["decayed"]:
            group["weight_decay"] = weight_decay


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group, times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
