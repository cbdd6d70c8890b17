"""R small fine-tunings at once, their parameters stacked, against one after the other.

A fine-tuning is `test_resnet` with a linear head on 64 labelled scans of 32 pixels: batches of 16, cross-entropy,
AdamW, `--steps` steps; the replicas differ in weights and order of scans, as seeds do. At once they are one model under
``torch.func`` (`stack_module_state`, `functional_call`, `vmap` of `grad_and_value`) and one AdamW over the stacked
parameters. Batch norms take the batch's own statistics in both (``track_running_stats=False``), since `vmap` takes no
buffer that is written in place. Both start from the same weights and see the same scans; the largest difference of
their last losses is reported beside the times.

    python benchmarks/replicas.py --replicas 1 4 8 16 --out benchmarks/results/replicas.json
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from common import now, since, spread, write_results
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.nn import functional

from fewscans import networks, optim
from fewscans.config.models import ComputeSettings
from fewscans.shape import Shape

BACKBONE, SCANS, BATCH, CLASSES = "test_resnet", 64, 16, 2


def make_network(key: int, size: int) -> nn.Module:
    """Encoder and head, batch norms without running statistics."""
    encoder = networks.make_encoder(BACKBONE, Shape(size), patch_size=None, init_key=key)
    for part in encoder.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.track_running_stats = False
            part.running_mean = part.running_var = part.num_batches_tracked = None
    return nn.Sequential(encoder, nn.Linear(networks.embedding_dim(encoder), CLASSES)).train()


def loss_of(logits: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(logits, y)


def make_adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.05, foreach=True)


def one_by_one(models: list[nn.Module], x: Tensor, y: Tensor, orders: Tensor) -> list[Tensor]:
    """Each replica's last loss; `orders` [R, steps, batch]."""
    last = []
    for model, order in zip(models, orders, strict=True):
        optimizer = make_adamw(model.parameters())
        loss = torch.zeros(())
        for picked in order:
            optimizer.zero_grad(set_to_none=True)
            loss = loss_of(model(x[picked]), y[picked])
            loss.backward()
            optimizer.step()
        last.append(loss.detach())
    return last


def at_once(models: list[nn.Module], x: Tensor, y: Tensor, orders: Tensor) -> list[Tensor]:
    """The same, stacked."""
    parameters, _ = stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")

    def loss(one: dict[str, Tensor], xs: Tensor, ys: Tensor) -> Tensor:
        return loss_of(functional_call(skeleton, one, (xs,)), ys)

    step = vmap(grad_and_value(loss), randomness="error")
    optimizer = make_adamw(parameters.values())
    values = torch.zeros(len(models))
    for picked in orders.transpose(0, 1):
        detached = {name: one.detach() for name, one in parameters.items()}
        gradients, values = step(detached, x[picked], y[picked])
        for name, one in parameters.items():
            one.grad = gradients[name]
        optimizer.step()
    return list(values.detach())


def measure(replicas: int, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of both, turn about, and the ratio."""
    optim.set_up(ComputeSettings(threads=given.threads, device="cpu"))
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(SCANS, 1, given.size, given.size, generator=generator)
    y = torch.arange(SCANS) % CLASSES
    orders = torch.stack([
        torch.stack([torch.randperm(SCANS, generator=generator)[:BATCH] for _ in range(given.steps)])
        for _ in range(replicas)
    ])  # fmt: skip
    networks_ = [make_network(key, given.size) for key in range(replicas)]
    taken: dict[str, list[tuple[float, float]]] = {"one_by_one": [], "at_once": []}
    losses: dict[str, list[Tensor]] = {}
    for turn in range(given.repeats + 1):
        for name, run in (("one_by_one", one_by_one), ("at_once", at_once)):
            models = copy.deepcopy(networks_)
            began = now()
            losses[name] = run(models, x, y, orders)
            if turn:  # the first warms up
                taken[name].append(since(began))
    pairs = list(zip(taken["one_by_one"], taken["at_once"], strict=True))
    apart = torch.stack(losses["one_by_one"]) - torch.stack(losses["at_once"])
    return {
        "replicas": replicas, "steps": given.steps, "threads": given.threads, "size": given.size,
        "one_by_one_s": round(statistics.median(a[0] for a, _ in pairs), 3),
        "at_once_s": round(statistics.median(b[0] for _, b in pairs), 3),
        "ratio": spread([a[0] / b[0] for a, b in pairs], 2),
        "ratio_of_processor_time": spread([a[1] / b[1] for a, b in pairs], 2),
        "largest_difference_of_losses": float(f"{apart.abs().max():.2g}"),
    }  # fmt: skip


def main() -> int:
    """Print a line per number of replicas; with --out also write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    made = []
    for replicas in given.replicas:
        made.append(measure(replicas, given))
        print(json.dumps(made[-1]), flush=True)
    write_results(given.out, made, backbone=BACKBONE, batch=BATCH)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
