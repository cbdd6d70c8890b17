"""Rotation, jigsaw, relative location, exemplar: tasks as the papers have them, losses right to the digit."""

from __future__ import annotations

import contextlib
import itertools
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_factory import batch, make

from fewscans import augment, networks
from fewscans.errors import UserError
from fewscans.methods import exemplar, jigsaw, patches, permutations, rotation
from fewscans.methods.base import Batch
from fewscans.shape import Shape


@pytest.mark.parametrize(("ndim", "n"), [(2, 4), (3, 10)])
def test_rotations_are_exact_and_all_differ(ndim, n):
    x = torch.rand(2, 1, *[5] * ndim)
    turned = rotation.rotated(x)
    assert len(turned) == n
    assert torch.equal(turned[0], x)
    assert len({tuple(one.flatten().tolist()) for one in turned}) == n
    assert all(torch.equal(one.flatten().sort()[0], x.flatten().sort()[0]) for one in turned)
    # Each plane's three follow one another by a quarter turn, and a fourth would be the scan again.
    for plane in range((n - 1) // 3):
        k, axes = rotation.turns(ndim)[1 + 3 * plane]
        assert k == 1
        quarters = [x, *turned[1 + 3 * plane : 4 + 3 * plane], x]
        assert all(torch.equal(torch.rot90(a, 1, axes), b) for a, b in pairwise(quarters))


@pytest.mark.parametrize("ndim", [2, 3])
def test_memory_is_planned_for_all_images_of_a_step(ndim):
    shape = Shape(16, 1, ndim)
    for name, changes in (("rotation", {}), ("exemplar", {"copies": 3})):
        method = make(name, shape, **changes)
        views = method.views(batch(shape))
        n = len(rotation.rotated(views[0])) if name == "rotation" else len(views)
        assert method.settings.images(ndim) == n


@pytest.mark.parametrize("strength", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("modality", ["any", "ct", "xray", "photograph"])
def test_an_upright_policy_turns_nothing(strength, modality):
    made = augment.policy(strength, "upright", modality)
    assert made.rotation_deg == made.tilt_deg == made.vertical_flip == made.depth_flip == 0
    assert made.horizontal_flip == (0 if modality == "xray" else 0.5)


def test_rotation_loss_is_the_mean_over_rotations_and_scans():
    method = make("rotation", Shape(16)).double().eval()
    x = method.views(batch(Shape(16)))[0].double()
    with torch.no_grad():
        found = float(method.loss(x)[0])
        logits, classes = [], []
        for label, turned in enumerate(rotation.rotated(x)):
            logits += method.classifier(method.encoder(turned)).tolist()
            classes += [label] * len(x)
    assert found == pytest.approx(cross_entropy(logits, classes), abs=1e-10)


# Patches


def cells_of(shape: Shape, grid: int = 3) -> patches.Cells:
    encoder = networks.make_encoder(
        "test_resnet" if shape.ndim == 2 else "monai-test-resnet",
        shape,
        patch_size=None,
        init_key=1,
    )
    return patches.make_cells(encoder, shape, grid, "jigsaw")


@given(
    size=st.integers(16, 70), grid=st.sampled_from([2, 3]), ndim=st.sampled_from([2, 3]),
    u=st.floats(0, 1, exclude_max=True),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_patches_never_touch_and_lie_in_their_cells(size, grid, ndim, u):
    side = size if ndim == 2 else min(size, 24)
    cells = patches.Cells(grid, side // grid, max(1, int(64 / 75 * (side // grid))), ndim)
    if cells.side >= cells.cell:
        return
    # Each pixel holds where it is; without standardising, since that is what would hide it.
    places = torch.stack(torch.meshgrid(*[torch.arange(side) for _ in range(ndim)], indexing="ij"))
    drawn = np.full((1, cells.n * ndim), u)
    drawn[:, ::2] = 1 - 1e-9 - u * 0.5
    with patch_standardising_off():
        made = cells.cut(places[None].float(), drawn)[0]
    for i, cell in enumerate(np.ndindex(*[grid] * ndim)):
        for axis in range(ndim):
            found = made[i, axis].unique()
            assert len(found) == cells.side
            assert (found.diff() == 1).all()
            # A pixel at least between neighbours: none reaches the last one of its cell.
            assert cell[axis] * cells.cell <= found[0]
            assert found[-1] <= (cell[axis] + 1) * cells.cell - 2


@contextlib.contextmanager
def patch_standardising_off():
    was, patches.standardised = patches.standardised, lambda x: x
    try:
        yield
    finally:
        patches.standardised = was


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_ramp_of_brightness_gives_no_place_away(ndim):
    """Vignetting, coil profiles, depth gain: patches of a scan that is nothing else are all alike."""
    cells = cells_of(Shape(48, 1, ndim))
    axes = torch.meshgrid(*[torch.linspace(0, 1, 48) for _ in range(ndim)], indexing="ij")
    ramp = (0.2 * axes[0] + 0.5 * axes[-1])[None, None]
    made = cells.cut(ramp, np.random.default_rng(0).random((1, cells.n * ndim)))
    assert made.shape[1] == 3**ndim
    torch.testing.assert_close(made, made[:, :1].expand_as(made), atol=1e-4, rtol=0)
    assert float(made.mean()) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("name", ["jigsaw", "relative-location"])
def test_jitter_is_keyed_by_scan_and_differs_between_epochs(name):
    shape = Shape(64)
    method = make(name, shape)
    first = method.views(batch(shape))
    assert all(torch.equal(a, b) for a, b in zip(first, method.views(batch(shape)), strict=True))
    x = batch(shape)
    some = Batch(x.x[[2, 0]], x.keys[[2, 0]], 0, 5)
    assert all(torch.equal(a[[2, 0]], b) for a, b in zip(first, method.views(some), strict=True))
    assert not torch.equal(first[0], method.views(batch(shape, epoch=1))[0])


@pytest.mark.parametrize(("name", "shape", "grid"), [
    ("jigsaw", Shape(32), 2), ("jigsaw", Shape(72), 3), ("jigsaw", Shape(16, 1, 3), 2),
    ("relative-location", Shape(32), 3), ("relative-location", Shape(16, 1, 3), 3),
])  # fmt: skip
def test_grids_follow_the_size(name, shape, grid):
    method = make(name, shape)
    assert method.cells.grid == grid
    assert method.cells.side < method.cells.cell == shape.size // grid
    made = method.views(batch(shape))[0]
    assert made.shape == (4, grid**shape.ndim, 1, *[method.cells.side] * shape.ndim)
    assert method.shown(batch(shape)).shape == (4, 2, *shape.full)


def test_too_few_pixels_are_told():
    with pytest.raises(UserError, match=r"16 pixels are too few for 3 patches .* at least 27"):
        make("relative-location", Shape(16), "test_vit", patch_size=4)
    with pytest.raises(UserError, match="4 patches have 12 permutations that are far apart"):
        make("jigsaw", Shape(32), n_permutations=13)


# Permutations


@pytest.mark.parametrize("q", [4, 8, 9, 27])
def test_permutations_agree_in_one_place_at_most(q):
    made = permutations.far_apart(q, permutations.most(q))
    assert (np.sort(made, axis=1) == np.arange(q)).all()
    agree = (made[:, None] == made[None]).sum(axis=2)
    np.fill_diagonal(agree, 0)
    assert agree.max() == 1
    # Those of one coefficient agree nowhere, which is as far as permutations can be.
    assert (agree[:q, :q] == 0).all()
    assert np.array_equal(permutations.far_apart(q, 7), made[:7])
    # Each place gets each patch equally often.
    counts = [np.bincount(made[:, i], minlength=q) for i in range(q)]
    assert (np.array(counts) == q - 1).all()


def test_jigsaw_shows_the_head_the_patches_in_the_drawn_order():
    h = torch.arange(2 * 4 * 3).view(2, 4, 3).float()
    order = torch.tensor([[[3, 1, 0, 2]], [[0, 1, 2, 3]]])
    mixed = jigsaw.mix(h, order)
    assert mixed.shape == (2, 1, 12)
    assert mixed[0, 0].tolist() == [*h[0, 3], *h[0, 1], *h[0, 0], *h[0, 2]]
    assert torch.equal(mixed[1, 0], h[1].flatten())


def cross_entropy(logits: list[list[float]], classes: list[int]) -> float:
    """-log softmax of the class, mean over rows."""
    total = 0.0
    for row, label in zip(logits, classes, strict=True):
        top = max(row)
        total += top + math.log(sum(math.exp(value - top) for value in row)) - row[label]
    return total / len(logits)


@pytest.mark.parametrize("shape", [Shape(32), Shape(72), Shape(16, 1, 3)])
@pytest.mark.parametrize("n", [2, 5])
def test_jigsaw_loss_is_that_of_each_mixed_order(shape, n):
    method = make("jigsaw", shape, orders=3, head_hidden=16).double().eval()
    cut, drawn = method.views(batch(shape, n))
    cut = cut.double()
    with torch.no_grad():
        found = float(method.loss(cut, drawn)[0])
        logits, classes = [], []
        for b in range(n):
            h = [method.encoder(cut[b, i][None])[0] for i in range(method.cells.n)]
            for one in drawn[b].tolist():
                order = permutations.far_apart(method.cells.n, len(method.permutations))[one]
                logits.append(method.head(torch.cat([h[i] for i in order])[None])[0].tolist())
                classes.append(one)
    assert found == pytest.approx(cross_entropy(logits, classes), abs=1e-10)


@pytest.mark.parametrize("shape", [Shape(32), Shape(16, 1, 3)])
def test_relative_location_loss_is_that_of_each_place(shape):
    method = make("relative-location", shape, head_hidden=16).double().eval()
    cut = method.views(batch(shape, 3))[0].double()
    middle = method.cells.n // 2
    # The middle one is the same distance from both corners.
    assert np.unravel_index(middle, (3,) * shape.ndim) == (1,) * shape.ndim
    with torch.no_grad():
        found = float(method.loss(cut)[0])
        logits, classes = [], []
        for one in cut:
            h = method.encoder(one)
            for place, i in enumerate(i for i in range(method.cells.n) if i != middle):
                logits.append(method.head(torch.cat([h[i], h[middle]])[None])[0].tolist())
                classes.append(place)
    assert found == pytest.approx(cross_entropy(logits, classes), abs=1e-10)


# Exemplar


def slow_triplets(z: torch.Tensor, margin: float) -> float:
    """Schroff et al. 2015, section 3.2: for each anchor and positive the nearest negative that is farther."""
    v, b = z.shape[:2]
    rows = {(i, s): (z[i, s] / z[i, s].norm()).tolist() for i in range(v) for s in range(b)}

    def distance(one, other):
        return sum((x - y) ** 2 for x, y in zip(rows[one], rows[other], strict=True))

    total, n = 0.0, 0
    for a, p in itertools.permutations(rows, 2):
        if a[1] != p[1]:
            continue
        negatives = [distance(a, other) for other in rows if other[1] != a[1]]
        farther = [d for d in negatives if d > distance(a, p)]
        total += max(0.0, distance(a, p) - (min(farther) if farther else max(negatives)) + margin)
        n += 1
    return total / n


@pytest.mark.parametrize(("v", "b"), [(2, 2), (2, 7), (3, 4), (4, 3)])
@pytest.mark.parametrize("margin", [0.1, 0.5, 2.0])
def test_triplets_are_those_of_the_paper(v, b, margin):
    z = torch.randn(v, b, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(v * b))
    found = float(exemplar.semi_hard_triplets(z, margin))
    assert found == pytest.approx(slow_triplets(z, margin), abs=1e-10)


def test_a_scan_far_from_all_others_costs_nothing():
    z = torch.eye(4, dtype=torch.float64)[None].repeat(3, 1, 1)
    assert float(exemplar.semi_hard_triplets(z, 0.5)) == 0
    assert float(exemplar.semi_hard_triplets(z, 2.5)) == pytest.approx(0.5)
