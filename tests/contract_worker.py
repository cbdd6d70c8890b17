"""One of two processes of test_contract.py: for each method, gradients of two ranks against those of one."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

import torch
from contract_cases import CASES, batch, make, views_of

from fewscans.batchnorm import make_global
from fewscans.distributed import join
from fewscans.ranks import find_place


def gradients(method, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a loss, by parameter."""
    method.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def main(folder: Path) -> None:
    place = find_place(2)
    assert place is not None
    torch.set_num_threads(1)
    found = {}
    with join(place, torch.device("cpu")) as ranks:
        for name, backbone, ndim in CASES:
            alone = make(name, backbone, ndim)
            views = views_of(alone, batch(ndim))
            together = make_global(copy.deepcopy(alone))
            together.gather = together.gather_for_norms = ranks.gather
            loss, _ = alone.loss(*views)
            expected = gradients(alone, loss)
            share, _ = together.loss(*(ranks.share(view) for view in views))
            gradients(together, share)
            mean = ranks.average(together, share.detach())
            made = {n: p.grad for n, p in together.named_parameters() if p.grad is not None}
            largest = max(float(g.abs().max()) for g in expected.values())
            found[f"{name}-{backbone}"] = {
                "loss": float((mean - loss.detach()).abs()),
                "gradient": max(
                    float((made[n] - g).abs().max()) / largest for n, g in expected.items()
                ),
                "same parameters": made.keys() == expected.keys(),
            }
            # What follows the step, and what batch norms remember, is the same too.
            for one in (alone, together):
                one.after_step(1, 10)
            pairs = zip(alone.state_dict().values(), together.state_dict().values(), strict=True)
            found[f"{name}-{backbone}"]["state"] = max(
                float((a.double() - b.double()).abs().max()) for a, b in pairs
            )
    (folder / f"rank{place.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
