"""Losses of contrastive methods: slow transcriptions in float64, lightly's, and what is special to each.

What they do with patients: test_patients.py.
"""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from engine_factory import make_folds, make_params, make_store
from slow_math import cosine, random_rows

from fewscans import engine, methods, networks
from fewscans.compat import ensure_torchvision
from fewscans.contracts import write_table
from fewscans.known import Known
from fewscans.methods import mocov2, simclr, supcon
from fewscans.methods.contrast import unit
from fewscans.pretrain import pretrain
from fewscans.resident import Resident
from fewscans.shape import Shape

ensure_torchvision()

SIZE, N = 16, 12


def make(name: str, **settings):
    given = make_params(name, backbone="test_resnet", **settings).settings
    encoder = networks.make_encoder("test_resnet", Shape(SIZE, 1), patch_size=None, init_key=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return methods.load(name)(encoder, given, Shape(SIZE, 1))


@pytest.fixture(scope="module")
def resident(tmp_path_factory) -> Resident:
    store = make_store(tmp_path_factory.mktemp("contrastive") / "store", n=N)
    return Resident(store, store.scans)


def schedule(epochs: int = 4, batch_size: int = 4) -> engine.Schedule:
    return engine.Schedule(
        epochs, batch_size, N // batch_size, 1e-3, 0.01, 0.1, None, seed_key=1, precision="fp32"
    )


# -- SupCon ----------------------------------------------------------------------------------------


def slow_l_out(z1, z2, target, t) -> float:
    """Khosla et al. 2020, equation 2, one view at a time; without a label the own other view alone is in P(i)."""
    z = [*z1.tolist(), *z2.tolist()]
    n, total = len(z1), 0.0
    for i in range(2 * n):
        others = [a for a in range(2 * n) if a != i]
        below = sum(math.exp(cosine(z[i], z[a]) / t) for a in others)
        own = target[i % n]
        p = [a for a in others if a % n == i % n or (own >= 0 and target[a % n] == own)]
        total -= sum(math.log(math.exp(cosine(z[i], z[a]) / t) / below) for a in p) / len(p)
    return total / (2 * n)


@pytest.mark.parametrize(
    "target", [[0, 0], [0, 1, 0, -1, -1], [-1, -1, -1], [2, 2, 0, 1, 2, 0, -1, 0]]
)
@pytest.mark.parametrize("t", [0.07, 0.1, 1.0])
def test_supcon_is_equation_2(target, t):
    z1, z2 = (random_rows(len(target), 5, seed=seed) for seed in (1, 2))
    found = supcon.l_out(z1, z2, torch.tensor(target), t)
    assert float(found) == pytest.approx(slow_l_out(z1, z2, target, t), abs=1e-10)


def test_supcon_without_labels_is_simclr():
    z1, z2 = (random_rows(6, 5, seed=seed) for seed in (1, 2))
    for target in (torch.full((6,), -1), torch.arange(6)):
        found = supcon.l_out(z1, z2, target, 0.1)
        assert float(found) == pytest.approx(float(simclr.nt_xent(z1, z2, 0.1)), abs=1e-12)


def test_supcon_does_not_care_what_classes_are_called():
    z1, z2 = (random_rows(6, 5, seed=seed) for seed in (1, 2))
    one, other = (
        supcon.l_out(z1, z2, torch.tensor(t), 0.1)
        for t in ([0, 1, 0, 2, -1, 1], [5, 0, 5, 1, -1, 0])
    )
    assert float(one) == pytest.approx(float(other), abs=1e-12)


def test_supcon_is_given_the_labels_of_its_batch(resident):
    target = np.array([0, 1, -1, 0, 1, 0, -1, 1, 0, 1, 0, 1])
    known = Known(np.arange(N), np.zeros(N, dtype=np.int64), target, ("healthy", "ill"))
    training = train(resident, make("supcon"), known=known)
    batch = training.batch(0)
    assert training.method.views(batch)[2].tolist() == target[batch.rows].tolist()


def test_an_encoder_that_saw_labels_says_so(tmp_path):
    """From here `finetune` hands the flag on to every row of the table."""
    store = make_store(tmp_path / "store", n=N)
    folds = make_folds(tmp_path / "folds.parquet", store.scans)
    rows = [
        {"scan": scan, "path": f"{scan}.png", "patient": scan, "group": scan, "target": "ab"[i % 2], "split": "",
         "site": "", "status": "ok", "reason": ""}
        for i, scan in enumerate(store.scans)
    ]  # fmt: skip
    write_table(tmp_path / "labels.parquet", "labels", pd.DataFrame(rows))
    for name, flags in (("supcon", ["pretrained-with-labels"]), ("micle", [])):
        facts = pretrain(
            make_params(name), store, folds, {}, tmp_path / name, tmp_path / "cache", tmp_path / "checkpoints",
            labels={"cohort": tmp_path / "labels.parquet"},
        )  # fmt: skip
        assert facts["flags"] == flags
        assert json.loads((tmp_path / name / "encoder.json").read_text())["flags"] == flags


# -- MICLe -----------------------------------------------------------------------------------------


def test_micle_is_simclr_between_images_of_a_patient(resident):
    known = Known(np.arange(N) // 3, np.arange(N) % 3, np.full(N, -1))
    settings = {"positives": "patient", "spare_patient": True}
    batches = (train(resident, make("micle"), known=known).batch(0) for _ in range(2))
    one, other = make("micle").eval(), make("simclr", **settings).eval()
    losses = [m.loss(*m.views(b))[0] for m, b in zip((one, other), batches, strict=True)]
    assert torch.equal(*losses)
    assert make_params("micle").settings.wants() == ("patient",)


# -- MoCo v2 ---------------------------------------------------------------------------------------


def slow_info_nce(q, k, queue, t, spared=None) -> float:
    """He et al. 2020, equation 1, number by number; a spared key has no part in the sum."""
    q, k, queue = q.tolist(), k.tolist(), queue.tolist()
    total = 0.0
    for i in range(len(q)):
        plus = math.exp(cosine(q[i], k[i]) / t)
        minus = sum(
            math.exp(cosine(q[i], key) / t)
            for j, key in enumerate(queue)
            if spared is None or not spared[i][j]
        )
        total -= math.log(plus / (plus + minus))
    return total / len(q)


@pytest.mark.parametrize(("b", "d", "n"), [(1, 3, 2), (3, 4, 7), (8, 16, 8)])
@pytest.mark.parametrize("t", [0.07, 0.2, 1.0])
def test_info_nce_is_equation_1(b, d, n, t):
    q, k, queue = (random_rows(m, d, seed=seed) for seed, m in enumerate((b, b, n)))
    found = mocov2.info_nce(q, k, unit(queue), t)
    assert float(found) == pytest.approx(slow_info_nce(q, k, queue, t), abs=1e-10)
    spared = random_rows(b, n, seed=9) > 0
    found = mocov2.info_nce(q, k, unit(queue), t, spared)
    assert float(found) == pytest.approx(slow_info_nce(q, k, queue, t, spared), abs=1e-10)


@pytest.mark.parametrize("t", [0.07, 0.2])
def test_lightly_says_the_same_with_its_memory_bank(t):
    from lightly import loss as lightly

    theirs = lightly.NTXentLoss(t, memory_bank_size=(10, 6))
    q, k = random_rows(4, 6, seed=1).float().requires_grad_(), random_rows(4, 6, seed=2).float()
    theirs(q, k)  # makes and fills the bank
    bank = theirs.memory_bank.bank.clone()
    q, k = random_rows(4, 6, seed=3).float().requires_grad_(), random_rows(4, 6, seed=4).float()
    found = mocov2.info_nce(q, k, bank, t)
    assert float(found.detach()) == pytest.approx(float(theirs(q, k).detach()), abs=1e-6)


def test_keys_get_no_gradient():
    q, k, queue = (random_rows(4, 3, seed=seed).requires_grad_() for seed in range(3))
    mocov2.info_nce(q, k, queue.detach(), 0.2).backward()
    assert q.grad.abs().sum() > 0
    assert k.grad is None


@pytest.mark.parametrize(
    ("n_scans", "batch_size", "expected"),
    [(180, 60, 120), (100, 33, 66), (12, 12, 12), (20, 12, 12), (10**6, 256, 65_536), (10**6, 300, 65_400)],
)  # fmt: skip
def test_the_queue_is_shorter_than_the_data(n_scans, batch_size, expected):
    assert mocov2.queue_length(n_scans, batch_size, 65_536) == expected
    assert expected % batch_size == 0


def train(resident, method, *, steps_of=schedule, known=None, **more) -> engine.Training:
    return engine.Training(method, resident, steps_of(), known=known, **more)


def test_the_queue_has_the_last_keys_in_order(resident):
    training = train(resident, make("mocov2"))
    method, expected = training.method, []
    assert len(method.queue) == 8
    assert method.resolved()["queue"] == 8
    for step in range(3):
        batch = training.batch(step)
        method.loss(*method.views(batch))
        method.after_step(step + 1, 12)
        expected.append((method.made[0].clone(), torch.from_numpy(batch.rows)))
    assert torch.equal(method.queue, torch.cat([keys for keys, _ in expected[1:]]))
    assert torch.equal(method.queue_kin, torch.cat([rows for _, rows in expected[1:]]))


def test_a_scans_own_older_key_is_no_negative(resident):
    """With the queue full of the batch's own keys, nothing is left to tell it from."""
    training = train(resident, make("mocov2", queue=4))
    method, batch = training.method, training.batch(0)
    views = method.views(batch)
    method.queue_kin[:] = torch.from_numpy(batch.rows[:1])
    q, k, queue = (
        unit(method.projector(method.encoder(views[0]))), unit(method.target(views[1])), method.queue,
    )  # fmt: skip
    expected = slow_info_nce(q[1:], k[1:], queue, 0.2) * 3 / 4  # the first one loses nothing
    method.train(False)
    with torch.no_grad():
        method.encoder.train()
        assert float(method.loss(*views)[0]) == pytest.approx(expected, abs=1e-5)


def test_a_key_depends_on_its_own_scan_alone(resident):
    """What shuffling batch norm is for: nothing of the batch leaks into a key."""
    method = make("mocov2").train()
    x = resident.batch(np.arange(N))
    with torch.no_grad():
        torch.testing.assert_close(method.target(x)[:3], method.target(x[:3]))
        assert not torch.allclose(method.encoder(x)[:3], method.encoder(x[:3]), atol=1e-3)


def test_statistics_of_the_key_network_follow(resident):
    training = train(resident, make("mocov2", momentum=0.75))
    method = training.method
    before = [b.clone() for b in method.target.buffers() if b.is_floating_point()]
    method.loss(*method.views(training.batch(0)))
    method.after_step(1, 12)
    online = torch.nn.Sequential(method.encoder, method.projector)
    now = [b for b in method.target.buffers() if b.is_floating_point()]
    new = [b for b in online.buffers() if b.is_floating_point()]
    assert len(now) > 0
    for a, b, c in zip(before, new, now, strict=True):
        torch.testing.assert_close(c, 0.75 * a + 0.25 * b)
        assert not torch.equal(a, b)


@pytest.mark.parametrize("name", ["mocov2"])
def test_halves_of_a_training_are_the_whole(resident, name):
    whole = train(resident, make(name))
    whole.run()
    states: list[dict] = []
    first = train(
        resident, make(name), save=lambda s: states.append(_copy(s)), should_stop=lambda: first.step == 5
    )  # fmt: skip
    with pytest.raises(engine.StoppedError):
        first.run()
    second = train(resident, make(name))
    second.load(states[-1])
    second.run()
    one, other = whole.method.state_dict(), second.method.state_dict()
    assert {"queue", "queue_kin"} <= set(one)
    assert all(torch.equal(one[key], other[key]) for key in one)


def _copy(state):
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: _copy(value) for key, value in state.items()}
    return [_copy(value) for value in state] if isinstance(state, list) else state
