"""Losses against slow transcriptions of the papers' equations in float64, and an invariance of each."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fewscans.methods.mae import masked_error, normalise_patches, sincos
from fewscans.methods.masks import draw_masked, enlarge, n_masked_of, patchify, unpatchify
from fewscans.methods.simclr import nt_xent
from fewscans.methods.simmim import masked_l1
from fewscans.shape import Shape


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_nt_xent(z1, z2, temperature) -> float:
    """Chen et al. 2020, equation 1 and algorithm 1, one pair at a time."""
    z = [
        row.tolist() for pair in zip(z1, z2, strict=True) for row in pair
    ]  # 2k-1 and 2k are views of one scan

    def sim(u, v):
        dot = sum(a * b for a, b in zip(u, v, strict=True))
        return dot / math.sqrt(sum(a * a for a in u)) / math.sqrt(sum(b * b for b in v))

    def pair_loss(i, j):
        below = sum(math.exp(sim(z[i], z[k]) / temperature) for k in range(len(z)) if k != i)
        return -math.log(math.exp(sim(z[i], z[j]) / temperature) / below)

    n = len(z) // 2
    return sum(pair_loss(2 * k, 2 * k + 1) + pair_loss(2 * k + 1, 2 * k) for k in range(n)) / (
        2 * n
    )


@pytest.mark.parametrize("b", [2, 3, 8])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_nt_xent_is_equation_1(b, temperature):
    z1, z2 = _random(b, 5, seed=1), _random(b, 5, seed=2)
    assert float(nt_xent(z1, z2, temperature)) == pytest.approx(
        slow_nt_xent(z1, z2, temperature), abs=1e-10
    )


def test_nt_xent_invariances():
    z1, z2 = _random(6, 4, seed=1), _random(6, 4, seed=2)
    base = nt_xent(z1, z2, 0.3)
    scale = _random(6, 1, seed=3).abs() + 0.1
    rotation, _ = torch.linalg.qr(_random(4, 4, seed=4))
    order = torch.tensor([3, 1, 0, 5, 2, 4])
    for other in (nt_xent(z1 * scale, z2 * 7, 0.3), nt_xent(z1 @ rotation, z2 @ rotation, 0.3),
                  nt_xent(z1[order], z2[order], 0.3), nt_xent(z2, z1, 0.3)):  # fmt: skip
        assert float(other) == pytest.approx(float(base), abs=1e-10)


def test_nt_xent_in_half_precision_is_computed_in_single():
    z1, z2 = _random(4, 8, seed=1).bfloat16(), _random(4, 8, seed=2).bfloat16()
    loss = nt_xent(z1, z2, 0.05)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(nt_xent(z1.double(), z2.double(), 0.05)), rel=1e-4)


def slow_masked_error(predicted, image, masked, side, normalise) -> float:
    """He et al. 2022, section 3: patch by patch, number by number."""
    _, channels, height, width = image.shape
    losses = []
    for b in range(len(image)):
        n = 0
        for top in range(0, height, side):
            for left in range(0, width, side):
                if masked[b, n]:
                    values = [
                        float(image[b, c, top + i, left + j])
                        for i in range(side) for j in range(side) for c in range(channels)
                    ]  # fmt: skip
                    if normalise:
                        mean = sum(values) / len(values)
                        variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
                        values = [(v - mean) / math.sqrt(variance + 1e-6) for v in values]
                    errors = [
                        (float(p) - v) ** 2 for p, v in zip(predicted[b, n], values, strict=True)
                    ]
                    losses.append(sum(errors) / len(errors))
                n += 1
    return sum(losses) / len(losses)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_mae_error_is_the_papers(normalise, channels):
    side, image = 4, _random(3, channels, 8, 12, seed=1)
    predicted = _random(3, 6, side * side * channels, seed=2)
    masked = draw_masked(np.random.default_rng(0).random((3, 6)), 4)
    target = patchify(image, side)
    if normalise:
        target, _, _ = normalise_patches(target)
    expected = slow_masked_error(predicted, image, masked, side, normalise)
    assert float(masked_error(predicted, target, masked)) == pytest.approx(expected, abs=1e-10)


def test_mae_error_does_not_see_visible_patches():
    target, predicted = _random(2, 6, 5, seed=1), _random(2, 6, 5, seed=2)
    masked = draw_masked(np.random.default_rng(0).random((2, 6)), 3)
    changed = torch.where(masked[..., None], predicted, predicted + 100)
    assert torch.equal(
        masked_error(predicted, target, masked), masked_error(changed, target, masked)
    )


def test_normalised_patches_forget_brightness_and_contrast():
    patches = _random(2, 4, 16, seed=1)
    found, mean, sd = normalise_patches(patches)
    torch.testing.assert_close(found * sd + mean, patches)
    again, _, _ = normalise_patches(patches * 3 + 2)
    torch.testing.assert_close(again, found, rtol=0, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_simmim_error_is_equation_1(channels):
    x, predicted = _random(2, channels, 8, 8, seed=1), _random(2, channels, 8, 8, seed=2)
    masked = draw_masked(np.random.default_rng(0).random((2, 4)), 2).view(2, 2, 2)
    total, n = 0.0, 0
    for b in range(2):
        for c in range(channels):
            for i in range(8):
                for j in range(8):
                    if masked[b, i // 4, j // 4]:
                        total += abs(float(x[b, c, i, j]) - float(predicted[b, c, i, j]))
                        n += 1
    found = masked_l1(predicted, x, enlarge(masked, 4))
    assert float(found) == pytest.approx(total / n, abs=1e-10)
    visible = torch.where(enlarge(masked, 4), predicted, predicted - 9)
    assert torch.equal(masked_l1(visible, x, enlarge(masked, 4)), found)


def test_patchify_is_undone():
    x = _random(2, 3, 12, 12)
    patches = patchify(x, 4)
    assert patches.shape == (2, 9, 48)
    assert torch.equal(unpatchify(patches, 4, Shape(12, 3)), x)
    torch.testing.assert_close(patches[0, 1].view(4, 4, 3), x[0, :, :4, 4:8].permute(1, 2, 0))


def test_sincos_is_the_formula():
    found = sincos(8, (2, 3))
    assert found.shape == (1, 6, 8)
    row, column = 1, 2
    expected = [
        f(p * 10000 ** (-i / 2))
        for p in (column, row)
        for f in (math.sin, math.cos)
        for i in range(2)
    ]
    np.testing.assert_allclose(found[0, row * 3 + column], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "n", "expected"), [(0.75, 16, 12), (0.6, 64, 38), (0.01, 4, 1), (0.99, 4, 3)]
)
def test_mask_has_exactly_its_share(ratio, n, expected):
    assert n_masked_of(ratio, n) == expected
    masked = draw_masked(np.random.default_rng(0).random((50, n)), expected)
    assert (masked.sum(dim=1) == expected).all()


def test_every_place_is_masked_equally_often():
    masked = draw_masked(np.random.default_rng(0).random((4000, 8)), 2).double().mean(dim=0)
    assert ((masked > 0.22) & (masked < 0.28)).all()
