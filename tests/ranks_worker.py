"""One of two processes of test_distributed.py: tries what ranks say to each other, and writes what it saw."""

from __future__ import annotations

import copy
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewscans.batchnorm import BatchNormAct2d, make_global
from fewscans.distributed import RankLostError, Ranks, join
from fewscans.ranks import find_place

PATIENCE_S = 8
SIDES = {
    "BatchNorm1d": (),
    "BatchNorm2d": (3, 3),
    "BatchNorm3d": (2, 2, 2),
    "BatchNormAct2d": (3, 3),
    "bare": (),
}


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).detach().abs().max())


def norms(ranks: Ranks) -> dict[str, Any]:
    """Largest differences between torch's batch norm on 6 rows, and ours on 3 rows a rank."""
    found: dict[str, Any] = {}
    for kind, sides in SIDES.items():
        torch.manual_seed(0)
        bare = kind == "bare"
        made = {"BatchNormAct2d": BatchNormAct2d, "bare": nn.BatchNorm1d}.get(kind) or getattr(
            nn, kind
        )
        whole = (made(4, affine=False, momentum=None) if bare else made(4)).double()
        if not bare:
            nn.init.normal_(whole.weight)
            nn.init.normal_(whole.bias)
        ours = make_global(copy.deepcopy(whole))
        x = torch.randn(6, 4, *sides, dtype=torch.float64) * 3 + 100
        x.requires_grad_()
        target = torch.randn_like(x)
        mine = ranks.share(x.detach().clone()).requires_grad_()
        for _ in range(2):  # twice, so that running statistics are averages of averages
            out, all_out = ours(mine), whole(x)
        # One loss is the mean over 6 rows, the other over 3; the mean of two of the latter is the former.
        (all_out * target).sum(dim=0).mul(1 / 6).sum().backward()
        (out * ranks.share(target)).sum(dim=0).mul(1 / 3).sum().backward()
        ranks.average(ours, torch.zeros((), dtype=torch.float64))
        assert x.grad is not None
        assert mine.grad is not None
        found[kind] = {
            "output": difference(out, ranks.share(all_out)),
            # Gradients of inputs are of the sum over ranks, those of parameters were averaged.
            "input gradient": difference(mine.grad / ranks.size, ranks.share(x.grad)),
            "running": max(
                difference(ours.running_mean, whole.running_mean), difference(ours.running_var, whole.running_var),
                difference(ours.num_batches_tracked, whole.num_batches_tracked),
            ),
            "weight gradient": max(
                [difference(p.grad, q.grad) for p, q in zip(ours.parameters(), whole.parameters(), strict=True)],
                default=0.0,
            ),
        }  # fmt: skip
        found[kind]["when evaluating"] = difference(ours.eval()(x), whole.eval()(x))
        found[kind]["names"] = float(ours.state_dict().keys() != whole.state_dict().keys())
    return found


def words(ranks: Ranks, rank: int) -> dict[str, Any]:
    rows = (torch.arange(4.0).view(2, 2) + 10 * rank).requires_grad_()
    everything = ranks.gather(rows)
    weights = torch.arange(1.0, 5.0)[:, None]
    ((rank + 1) * (weights * everything).sum()).backward()
    assert rows.grad is not None
    layer = nn.Linear(1, 1)
    layer.weight.grad = torch.tensor([[1.0 + rank]])
    layer.bias.grad = torch.tensor([10.0 + 10 * rank])
    loss = ranks.average(layer, torch.tensor(3.0 + 3 * rank))
    acted = []

    def fail() -> None:
        raise OSError("disk full")

    try:
        ranks.first(fail)
    except OSError as error:
        raised = f"{type(error).__name__}: {error}"
    return {
        "gathered": everything.tolist(),
        "gather gradient": rows.grad.tolist(),
        "average": [float(layer.weight.grad), float(layer.bias.grad), float(loss)],
        "flags": list(ranks.any(rank == 0, False, rank == 1)),
        "first": ranks.first(lambda: acted.append(1) or f"said by {rank}"),  # type: ignore[func-returns-value]
        "acted": bool(acted),
        "raised": raised,
        "share": ranks.share(list(range(6))),
    }


def main(folder: Path) -> None:
    place = find_place(2)
    assert place is not None
    with join(place, torch.device("cpu")) as ranks:
        found = {"norm": norms(ranks), **words(ranks, place.rank)}
    # Once more, and this time rank 1 says nothing until rank 0 has lost its patience. They have just met, so nobody
    # is late.
    again = replace(place, rendezvous=f"{place.rendezvous}-again")
    try:
        with join(again, torch.device("cpu"), timeout_s=PATIENCE_S) as ranks:
            if place.rank == 0:
                ranks.any(True)
            until = time.monotonic() + 120
            while not (folder / "rank0.json").exists() and time.monotonic() < until:
                time.sleep(0.05)
    except RankLostError as lost:
        found["silent"] = str(lost)
    (folder / f"rank{place.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
