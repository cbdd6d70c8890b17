"""Patients in contrastive methods: never negatives of each other, or each other's positives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from engine_factory import make_params, make_store

from fewscans import methods, networks
from fewscans.config.encoders import METHODS
from fewscans.config.encoders.contrastive import ContrastiveSettings
from fewscans.known import Known
from fewscans.methods import mocov3, simclr
from fewscans.methods.batch import Batch, Scans
from fewscans.methods.contrast import attract, related
from fewscans.resident import Resident
from fewscans.shape import Shape

SIZE, N = 32, 8
NAMES = [name for name, model in METHODS.items() if issubclass(model, ContrastiveSettings)]
# Patients with three, one, two and two scans.
PATIENT = np.array([0, 1, 0, 2, 3, 2, 0, 3])
PLACE = np.array([0, 0, 1, 0, 1, 1, 2, 0])


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _cosine(u, v) -> float:
    return float(u @ v / u.norm() / v.norm())


def slow_nt_xent(z1, z2, t, patient) -> float:
    """Chen et al. 2020, equation 1, where the sum leaves out the other scans of i's patient, view by view."""
    z, n = torch.cat([z1, z2]), len(z1)
    total = 0.0
    for i in range(2 * n):
        other = (i + n) % (2 * n)
        kept = [k for k in range(2 * n) if k == other or patient[k % n] != patient[i % n]]
        below = sum(math.exp(_cosine(z[i], z[k]) / t) for k in kept)
        total -= math.log(math.exp(_cosine(z[i], z[other]) / t) / below)
    return total / (2 * n)


def slow_contrast(q, k, t, patient) -> float:
    """Chen, Xie & He 2021, equation 1 times 2 t, likewise."""
    total = 0.0
    for i in range(len(q)):
        kept = [j for j in range(len(q)) if j == i or patient[j] != patient[i]]
        below = sum(math.exp(_cosine(q[i], k[j]) / t) for j in kept)
        total -= math.log(math.exp(_cosine(q[i], k[i]) / t) / below)
    return 2 * t * total / len(q)


@pytest.mark.parametrize("patient", [[0, 0, 1], [0, 1, 2, 3], PATIENT.tolist()])
@pytest.mark.parametrize("t", [0.1, 0.2, 1.0])
def test_spared_pairs_leave_the_denominator(patient, t):
    a, b = (_random(len(patient), 5, seed=seed) for seed in (1, 2))
    spared = related(torch.tensor(patient))
    found, expected = simclr.nt_xent(a, b, t, spared), slow_nt_xent(a, b, t, patient)
    assert float(found) == pytest.approx(expected, abs=1e-10)
    found, expected = mocov3.contrast(a, b, t, spared), slow_contrast(a, b, t, patient)
    assert float(found) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("loss", [simclr.nt_xent, mocov3.contrast])
def test_sparing_nobody_and_everybody(loss):
    a, b = (_random(6, 4, seed=seed).requires_grad_() for seed in (1, 2))
    nobody = related(torch.arange(6))
    assert float(loss(a, b, 0.2, nobody).detach()) == pytest.approx(
        float(loss(a, b, 0.2).detach()), abs=1e-12
    )
    alone = loss(a, b, 0.2, related(torch.zeros(6)))
    alone.backward()
    assert float(alone.detach()) == pytest.approx(0, abs=1e-12)
    assert a.grad.abs().max() == 0


def test_attraction_with_one_positive_is_a_cross_entropy():
    similarity = _random(5, 7, seed=1)
    own = torch.tensor([0, 3, 6, 1, 1])
    positive = torch.nn.functional.one_hot(own, 7).bool()
    found = attract(similarity, positive, torch.ones(5, 7, dtype=torch.bool))
    assert float(found) == pytest.approx(
        float(torch.nn.functional.cross_entropy(similarity, own)), abs=1e-12
    )


def test_rows_without_positives_count_nothing_and_disturb_nothing():
    similarity = _random(4, 4, seed=1).requires_grad_()
    positive = torch.eye(4, dtype=torch.bool)
    allowed = torch.ones(4, 4, dtype=torch.bool)
    positive[2] = allowed[2] = False
    found = attract(similarity, positive, allowed)
    kept = [0, 1, 3]
    expected = torch.nn.functional.cross_entropy(similarity[kept], torch.tensor(kept))
    assert float(found.detach()) == pytest.approx(float(expected.detach()), abs=1e-12)
    found.backward()
    assert torch.isfinite(similarity.grad).all()
    assert similarity.grad[2].abs().max() == 0


@pytest.fixture(scope="module")
def resident(tmp_path_factory) -> Resident:
    store = make_store(tmp_path_factory.mktemp("patients") / "store", n=N, size=SIZE)
    return Resident(store, store.scans)


def make(name: str, **settings):
    given = make_params(name, backbone="test_resnet", **settings).settings
    encoder = networks.make_encoder("test_resnet", Shape(SIZE, 1), patch_size=None, init_key=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return methods.load(name)(encoder, given, Shape(SIZE, 1))


def batch(resident: Resident, rows=range(N), *, known: bool = True) -> Batch:
    facts = Known(PATIENT, PLACE, np.full(N, -1)) if known else Known.nothing(N)
    return Scans(resident.keys, resident.batch, facts).batch(np.array(rows), 0, 5)


@pytest.mark.parametrize(
    ("settings", "wants"),
    [
        ({"positives": "self", "spare_patient": None}, ()),
        ({"positives": "self", "spare_patient": True}, ("patient",)),
        ({"positives": "neighbour", "spare_patient": None}, ("patient",)),
        ({"positives": "patient", "spare_patient": False}, ("patient",)),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_patients_are_asked_for_where_they_matter(name, settings, wants):
    assert make_params(name, **settings).settings.wants() == wants


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("positives", ["patient", "neighbour"])
def test_the_second_view_is_of_a_companion(resident, name, positives):
    method = make(name, positives=positives)
    whole = batch(resident)
    first, second, *_ = method.views(whole)
    companions = whole.companions(positives, view=1)
    assert torch.equal(first, whole.augmented(0, method.policy))
    assert torch.equal(second, companions.augmented(1, method.policy))
    assert torch.equal(second[1], whole.augmented(1, method.policy)[1])  # alone
    assert (companions.rows != whole.rows).sum() == N - 1
    assert (PATIENT[companions.rows] == PATIENT).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("settings", [{"spare_patient": True}, {"positives": "patient"}])
def test_shares_of_a_batch_make_its_loss_and_patients_matter(resident, name, settings):
    """Two processes with half a batch each, as in test_methods.py; then the same as if nobody knew of patients."""
    method = make(name, **settings).eval()
    views = method.views(batch(resident))
    method.loss(*views)
    method.after_step(1, 10)  # fills a queue with these scans
    halves = [tuple(view[part] for view in views) for part in (slice(0, N // 2), slice(N // 2, N))]
    seen: list[torch.Tensor] = []
    method.gather = lambda x: seen.append(x) or x
    for half in halves:
        method.loss(*half)
    middle = len(seen) // 2
    rows = iter([torch.cat(p) for p in zip(seen[:middle], seen[middle:], strict=True)] * 2)
    method.gather = lambda _: next(rows)
    found = torch.stack([method.loss(*half)[0] for half in halves]).mean()
    method.gather = lambda x: x
    whole = method.loss(*views)[0]
    torch.testing.assert_close(found, whole)
    nobody = method.loss(*method.views(batch(resident, known=False)))[0]
    assert not torch.isclose(whole, nobody)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_scans_does_not_matter(resident, name):
    method = make(name, spare_patient=True, positives="patient").eval()
    order = np.random.default_rng(0).permutation(N)
    one, other = (
        method.loss(*method.views(batch(resident, rows)))[0] for rows in (range(N), order)
    )
    torch.testing.assert_close(one, other)
