"""Losses of methods that compare two views: slow transcriptions in float64, lightly's, and what they ignore.

Where lightly's definition differs, the test says how.
"""

from __future__ import annotations

import math

import pytest
import torch

from fewscans.compat import ensure_torchvision
from fewscans.methods import barlow, byol, mocov3, momentum, simclr, simsiam, vicreg

ensure_torchvision()

SIZES = [(2, 3), (5, 4), (8, 16)]


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _dot(u, v) -> float:
    return sum(a * b for a, b in zip(u, v, strict=True))


def _cosine(u, v) -> float:
    return _dot(u, v) / math.sqrt(_dot(u, u)) / math.sqrt(_dot(v, v))


def slow_regression(q, z) -> float:
    """Grill et al. 2020, equation 2: squared distance of the normalised vectors, number by number."""
    total = 0.0
    for a, b in zip(q.tolist(), z.tolist(), strict=True):
        na, nb = math.sqrt(_dot(a, a)), math.sqrt(_dot(b, b))
        total += sum((x / na - y / nb) ** 2 for x, y in zip(a, b, strict=True))
    return total / len(q)


def slow_negative_cosine(p, z) -> float:
    """Chen & He 2021, equation 1, mean over the batch."""
    return -sum(_cosine(a, b) for a, b in zip(p.tolist(), z.tolist(), strict=True)) / len(p)


def slow_redundancy(z1, z2, weight) -> float:
    """Zbontar et al. 2021, equations 1 and 2, after centring over the batch."""
    a, b = ([_centred(column) for column in z.T.tolist()] for z in (z1, z2))
    total = 0.0
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            c = _cosine(x, y)
            total += (1 - c) ** 2 if i == j else weight * c**2
    return total


def _centred(column):
    mean = sum(column) / len(column)
    return [value - mean for value in column]


def slow_variance(z, gamma=1.0, epsilon=1e-4) -> float:
    """Bardes et al. 2022, equations 1 and 2."""
    columns = [_centred(column) for column in z.T.tolist()]
    s = [math.sqrt(_dot(c, c) / (len(c) - 1) + epsilon) for c in columns]
    return sum(max(0.0, gamma - x) for x in s) / len(s)


def slow_covariance(z) -> float:
    """Bardes et al. 2022, equations 3 and 4."""
    columns = [_centred(column) for column in z.T.tolist()]
    total = 0.0
    for i, x in enumerate(columns):
        for j, y in enumerate(columns):
            if i != j:
                total += (_dot(x, y) / (len(z) - 1)) ** 2
    return total / len(columns)


def slow_contrast(q, k, t) -> float:
    """Chen, Xie & He 2021, equation 1, times 2 t as in algorithm 1."""
    q, k = q.tolist(), k.tolist()
    losses = [
        -math.log(math.exp(_cosine(u, k[i]) / t) / sum(math.exp(_cosine(u, key) / t) for key in k))
        for i, u in enumerate(q)
    ]
    return 2 * t * sum(losses) / len(losses)


@pytest.mark.parametrize(("b", "d"), SIZES)
@pytest.mark.parametrize("t", [0.1, 0.2, 1.0])
def test_each_is_its_equation(b, d, t):
    x, y = _random(b, d, seed=1), _random(b, d, seed=2) + 0.5
    pairs = {
        "byol": (byol.regression(x, y), slow_regression(x, y)),
        "simsiam": (simsiam.negative_cosine(x, y), slow_negative_cosine(x, y)),
        "barlow": (barlow.redundancy(x, y, t), slow_redundancy(x, y, t)),
        "variance": (vicreg.variance(x * t), slow_variance(x * t)),
        "covariance": (vicreg.covariance(x), slow_covariance(x)),
        "mocov3": (mocov3.contrast(x, y, t), slow_contrast(x, y, t)),
    }
    for name, (found, expected) in pairs.items():
        assert float(found) == pytest.approx(expected, abs=1e-10, rel=1e-10), name


@pytest.mark.parametrize(("b", "d"), SIZES)
def test_lightly_says_the_same(b, d):
    from lightly import loss as lightly

    x, y = _random(b, d, seed=3), _random(b, d, seed=4)

    def same(ours, theirs):
        assert float(ours) == pytest.approx(float(theirs), abs=1e-6)

    same(simclr.nt_xent(x, y, 0.2), lightly.NTXentLoss(0.2)(x, y))
    same(simsiam.negative_cosine(x, y), lightly.NegativeCosineSimilarity()(x, y))
    # BYOL's squared distance of unit vectors is 2 - 2 cos; lightly leaves 2 and the factor out.
    same(byol.regression(x, y), 2 + 2 * lightly.NegativeCosineSimilarity()(x, y))
    # lightly is given 2 t outside: its loss is the plain cross entropy.
    t = 0.3
    sent = torch.nn.functional.cross_entropy(
        torch.nn.functional.normalize(x, dim=1) @ torch.nn.functional.normalize(y, dim=1).T / t,
        torch.arange(b),
    )
    same(mocov3.contrast(x, y, t), 2 * t * sent)


@pytest.mark.parametrize(("b", "d"), SIZES)
def test_lightly_says_nearly_the_same_of_redundancy(b, d):
    """lightly (as the authors' code) normalises by a batch norm with 1e-5 in the variance; equation 2 has none.

    With projections a thousand times as large that is nothing.
    """
    from lightly import loss as lightly

    x, y = 1e3 * _random(b, d, seed=5), 1e3 * _random(b, d, seed=6)
    theirs = lightly.BarlowTwinsLoss(lambda_param=0.005)(x, y)
    assert float(barlow.redundancy(x, y, 0.005)) == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize(("b", "d"), SIZES)
def test_lightly_halves_vicregs_variance(b, d):
    """lightly takes the mean over both views of the hinge, as the authors' code does; equation 6 and algorithm 1 have
    the sum. The invariance is a mean over numbers in all of them but equation 5."""
    from lightly import loss as lightly

    x, y = _random(b, d, seed=7) * 0.3, _random(b, d, seed=8) * 0.3
    theirs = lightly.VICRegLoss(lambda_param=25.0, mu_param=25.0, nu_param=1.0)(x, y)
    ours = (
        25 * torch.nn.functional.mse_loss(x, y)
        + 25 * (vicreg.variance(x) + vicreg.variance(y)) / 2
        + vicreg.covariance(x)
        + vicreg.covariance(y)
    )
    assert float(ours) == pytest.approx(float(theirs), abs=1e-6)


def test_order_of_scans_and_scale_do_not_matter():
    x, y = _random(6, 4, seed=1), _random(6, 4, seed=2)
    order = torch.tensor([3, 1, 0, 5, 2, 4])
    scale = _random(6, 1, seed=3).abs() + 0.1
    for loss in (
        byol.regression,
        simsiam.negative_cosine,
        lambda a, b: mocov3.contrast(a, b, 0.2),
    ):
        assert float(loss(x[order], y[order])) == pytest.approx(float(loss(x, y)), abs=1e-10)
        assert float(loss(x * scale, 7 * y)) == pytest.approx(float(loss(x, y)), abs=1e-10)
    same = barlow.redundancy(x, y, 0.1)
    assert float(barlow.redundancy(3 * x[order] + 2, y[order], 0.1)) == pytest.approx(float(same))
    assert float(vicreg.covariance(x[order] + 5)) == pytest.approx(float(vicreg.covariance(x)))


def test_targets_get_no_gradient():
    for loss in (
        byol.regression,
        simsiam.negative_cosine,
        lambda a, b: mocov3.contrast(a, b, 0.2),
    ):
        a, b = (_random(4, 3, seed=seed).requires_grad_() for seed in (1, 2))
        loss(a, b).backward()
        assert a.grad.abs().sum() > 0
        assert b.grad is None


def test_half_precision_is_computed_in_single():
    x, y = (_random(6, 4, seed=seed).bfloat16() for seed in (1, 2))
    for loss in (
        byol.regression,
        simsiam.negative_cosine,
        lambda a, b: mocov3.contrast(a, b, 0.05),
        lambda a, b: barlow.redundancy(a, b, 0.1),
    ):
        found = loss(x, y)
        assert found.dtype == torch.float32
        assert float(found) == pytest.approx(float(loss(x.double(), y.double())), rel=1e-4)


def test_one_scan_alone_has_nothing_to_vary_from():
    """Equation 4 of VICReg and equation 2 of Barlow Twins need two scans; that many is the least a batch has."""
    x, y = _random(2, 3, seed=1), _random(2, 3, seed=2)
    assert torch.isfinite(barlow.redundancy(x, y, 0.1))
    assert torch.isfinite(vicreg.variance(x) + vicreg.covariance(y))


@pytest.mark.parametrize(
    ("asked", "paper", "n_steps", "expected"),
    [
        (0.5, 0.996, 10**6, 0.5),  # as asked for
        (None, 0.996, 10**6, 0.996),  # the paper's, where there are steps enough
        (None, 0.996, 1000, 1 - 1 / 50),  # remembers a twentieth of the steps
        (None, 0.996, 3, 0.5),  # two steps at least
    ],
)
def test_momentum_is_the_papers_unless_steps_are_few(asked, paper, n_steps, expected):
    assert momentum.base_momentum(asked, paper, n_steps) == pytest.approx(expected)


def test_momentum_rises_to_one_by_a_cosine():
    """Grill et al. 2020, section 3.3: tau = 1 - (1 - base) (cos(pi k / K) + 1) / 2."""
    assert momentum.rising(0.9, 0, 10) == pytest.approx(0.9)
    assert momentum.rising(0.9, 5, 10) == pytest.approx(0.95)
    assert momentum.rising(0.9, 10, 10) == pytest.approx(1.0)


def test_a_follower_is_the_average_of_what_it_follows():
    module = torch.nn.Linear(3, 2)
    target = momentum.follower(module)
    expected = [p.detach().clone() for p in module.parameters()]
    for step in range(4):
        with torch.no_grad():
            for p in module.parameters():
                p.add_(step + 1)
        momentum.follow(target, module, 0.8)
        expected = [
            0.8 * e + 0.2 * p.detach() for e, p in zip(expected, module.parameters(), strict=True)
        ]
    for found, e in zip(target.parameters(), expected, strict=True):
        torch.testing.assert_close(found.detach(), e)
        assert not found.requires_grad
