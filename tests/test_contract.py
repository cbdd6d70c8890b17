"""What the engine may take for granted of a method, for every name in the registry, in 2D and 3D."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from contract_cases import CASES, batch, make, views_of

from fewscans import ranks as launching

ROOT = Path(__file__).resolve().parent.parent
# Methods whose loss is the same with the two views in each other's place.
SYMMETRIC = (
    "simclr",
    "micle",
    "supcon",
    "mocov3",
    "byol",
    "simsiam",
    "barlow",
    "vicreg",
    "exemplar",
)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory) -> list[dict]:
    """What each of two processes found in `contract_worker.py`."""
    folder = tmp_path_factory.mktemp("ranks")
    outer = ("RANK", "WORLD_SIZE", "SLURM_JOB_ID", "SLURM_STEP_NUM_TASKS")
    clean = {key: value for key, value in os.environ.items() if key not in outer}
    started = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "tests/contract_worker.py"), str(folder)],
            env={
                **clean, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "RANK": str(rank), "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo", launching.RENDEZVOUS: f"file://{folder}/meet",
            },
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=900)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize(("name", "backbone", "ndim"), CASES)
def test_two_ranks_are_one_process(two_ranks, name, backbone, ndim):
    for found in two_ranks:
        one = found[f"{name}-{backbone}"]
        assert one["same parameters"]
        assert one["loss"] < 1e-6
        assert one["gradient"] < 1e-6
        assert one["state"] < 1e-6


@pytest.mark.parametrize(("name", "backbone", "ndim"), CASES)
def test_the_order_of_a_batch_does_not_matter(name, backbone, ndim):
    order = torch.tensor([3, 0, 7, 5, 1, 2, 6, 4])
    one, other = make(name, backbone, ndim), make(name, backbone, ndim)
    views = views_of(one, batch(ndim))
    loss = one.loss(*views)[0]
    mixed = other.loss(*(view[order] for view in views))[0]
    assert float(loss.detach()) == pytest.approx(float(mixed.detach()), abs=1e-9)
    loss.backward()
    mixed.backward()
    for (key, p), q in zip(one.named_parameters(), other.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, atol=1e-8, rtol=1e-6, msg=key)


@pytest.mark.parametrize(("name", "backbone", "ndim"), [c for c in CASES if c[0] in SYMMETRIC])
def test_the_order_of_views_does_not_matter(name, backbone, ndim):
    one, other = make(name, backbone, ndim), make(name, backbone, ndim)
    first, second, *more = views_of(one, batch(ndim))
    loss = float(one.loss(first, second, *more)[0].detach())
    assert float(other.loss(second, first, *more)[0].detach()) == pytest.approx(loss, abs=1e-9)


@pytest.mark.parametrize(("name", "backbone", "ndim"), CASES)
def test_views_depend_on_their_scan_alone(name, backbone, ndim):
    """Not on who else is in the batch, in which order, or how many; that is what makes ranks and batches free."""
    method = make(name, backbone, ndim)
    whole = method.views(batch(ndim))
    rows = [6, 1, 4]
    some = batch(ndim).scans.batch(torch.tensor(rows).numpy(), 0, 5)
    for a, b in zip(whole, method.views(some), strict=True):
        torch.testing.assert_close(a[rows], b)
    later = method.views(batch(ndim, epoch=1))
    assert not all(torch.equal(a, b) for a, b in zip(whole, later, strict=True))
