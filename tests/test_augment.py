"""Views: keyed by scan, one interpolation that means what it says, intensities within [0, 1]."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from fewscans import augment, keyed
from fewscans.augment import grid
from fewscans.augment.intensity import bias_field, blur, sharpen

B, SIZE = 12, 32
KEYS = keyed.scan_keys([f"{i:016x}" for i in range(B)])
KINDS = ("ssl", "supervised", "mae")


@pytest.fixture
def x() -> torch.Tensor:
    """Smooth images with structure, so that a wrong map shows."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(B, 1, 6, 6, generator=generator)
    return F.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear").clamp(0, 1)


def view(x, keys=KEYS, *, strength=1.0, kind="ssl", seed_key=1, epoch=0, view=0):
    return augment.apply(
        x, keys, seed_key=seed_key, epoch=epoch, view=view, policy=augment.policy(strength, kind)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_shape_range_and_input_kept(x, kind, channels):
    x = x.repeat(1, channels, 1, 1)
    before = x.clone()
    out = view(x, kind=kind, strength=2.0)
    assert out.shape == x.shape
    assert out.dtype == torch.float32
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(x, before)
    assert not torch.equal(out, x)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_does_not_depend_on_its_batch(x, kind):
    whole = view(x, kind=kind)
    order = np.random.default_rng(1).permutation(B)[:5]
    torch.testing.assert_close(
        view(x[order], KEYS[order], kind=kind), whole[order], rtol=0, atol=1e-6
    )


def test_every_part_of_the_key_moves_the_view(x):
    base = view(x)
    for other in ({"seed_key": 2}, {"epoch": 1}, {"view": 1}):
        moved = (view(x, **other) - base).abs().amax(dim=(1, 2, 3))
        assert (moved > 0.01).all(), other
    assert torch.equal(view(x), base)


def test_epochs_per_row(x):
    epochs = np.arange(B)
    together = view(x, epoch=epochs)
    apart = torch.cat([view(x[i : i + 1], KEYS[i : i + 1], epoch=i) for i in range(B)])
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_strength_zero_leaves_crops_and_flips(kind):
    zero = augment.policy(0.0, kind)
    assert not zero.changes_intensity
    assert zero.rotation_deg == zero.scale == zero.translation == 0
    assert zero.crop_area[0] < 1
    assert zero.horizontal_flip == 0.5
    drawn = augment.draw(KEYS, seed_key=1, epoch=0, view=0, policy=zero)
    # No rotation: the map is a box; it lies inside the image.
    assert torch.equal(drawn.affine[:, 0, 1].abs(), torch.zeros(B))
    assert (drawn.affine[:, 0, 0].abs() + drawn.affine[:, 0, 2].abs() <= 1 + 1e-6).all()
    assert (drawn.affine[:, 1, 1].abs() + drawn.affine[:, 1, 2].abs() <= 1 + 1e-6).all()


def test_default_has_no_vertical_flip():
    many = np.arange(2000, dtype=np.uint64)
    drawn = augment.draw(many, seed_key=1, epoch=0, view=0, policy=augment.policy(0.0, "ssl"))
    assert (drawn.affine[:, 1, 1] > 0).all()
    assert 0.45 < (drawn.affine[:, 0, 0] < 0).float().mean() < 0.55


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="no policy 'strong'"):
        augment.policy(1.0, "strong")


def neutral(**changes) -> augment.Parameters:
    """Parameters that change nothing, but for `changes`."""
    return dataclasses.replace(augment.Parameters(torch.eye(2, 3).repeat(B, 1, 1)), **changes)


def test_neutral_parameters_are_the_identity(x):
    torch.testing.assert_close(augment.render(x, neutral()), x, rtol=0, atol=2e-6)


def test_flip_is_exact(x):
    affine = torch.tensor([[-1.0, 0, 0], [0, 1, 0]]).repeat(B, 1, 1)
    torch.testing.assert_close(
        augment.render(x, neutral(affine=affine)), x.flip(-1), rtol=0, atol=2e-6
    )


def test_composed_map_is_crop_then_rotation_about_its_middle(x):
    """One interpolation equals scipy's, with the matrix put together by hand."""
    policy = dataclasses.replace(
        augment.Policy(),
        crop_area=(0.4, 0.5),
        rotation_deg=20.0,
        scale=0.1,
        translation=0.05,
        horizontal_flip=1.0,
    )
    drawn = augment.draw(KEYS, seed_key=3, epoch=0, view=0, policy=policy)
    out = augment.render(x, drawn)
    for i in range(4):
        a = drawn.affine[i].double().numpy()
        swap = a[::-1][:, [1, 0]]  # scipy counts rows first
        middle = (SIZE - 1) / 2
        offset = (
            np.array([a[1, 2], a[0, 2]]) * SIZE / 2 + middle - swap @ np.array([middle, middle])
        )
        expected = ndimage.affine_transform(
            x[i, 0].double().numpy(), swap, offset=offset, order=1, mode="nearest"
        )
        np.testing.assert_allclose(out[i, 0].numpy(), expected, atol=1e-4)
    # A flip, a rotation and a scaling by the crop's sides: the area is the determinant.
    area = torch.linalg.det(drawn.affine[:, :, :2]).abs()
    assert (area > 0.4 / 1.1**2 * 0.99).all()
    assert (area < 0.5 * 1.1**2 * 1.01).all()
    assert (torch.linalg.det(drawn.affine[:, :, :2]) < 0).all()


def test_gamma_contrast_brightness(x):
    gamma = torch.linspace(0.5, 2, B)
    torch.testing.assert_close(
        augment.render(x, neutral(gamma=gamma)), x ** gamma.view(-1, 1, 1, 1), rtol=0, atol=1e-5
    )
    shifted = augment.render(
        x, neutral(contrast=torch.full((B,), 0.5), brightness=torch.full((B,), 0.1))
    )
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(shifted, (x - mean) * 0.5 + mean + 0.1, rtol=0, atol=1e-5)


def test_blur_is_gaussian_and_keeps_constants(x):
    sd = torch.linspace(0.01, 0.06, B)
    blurred = blur(x, sd)
    for i in (0, B - 1):
        expected = ndimage.gaussian_filter(
            x[i, 0].double().numpy(), float(sd[i]) * SIZE, truncate=6
        )
        inside = slice(10, -10)
        np.testing.assert_allclose(
            blurred[i, 0, inside, inside].numpy(), expected[inside, inside], atol=2e-3
        )
    constant = torch.full_like(x, 0.3)
    torch.testing.assert_close(blur(constant, sd), constant)
    assert torch.isfinite(blur(x, torch.zeros(B))).all()


def test_noise_is_white_and_as_strong_as_it_says():
    grey = torch.full((B, 1, 64, 64), 0.5)
    keys = keyed.scan_keys([f"{i:016x}" for i in range(B)])
    start = torch.from_numpy(keyed.uniform(0, 0, keys, 0, 1)[:, 0]).float()
    noise = augment.render(grey, neutral(noise_sd=torch.full((B,), -0.05), noise_start=start)) - 0.5
    sd = noise.flatten(1).std(dim=1)
    assert ((sd > 0.047) & (sd < 0.053)).all()
    flat = noise.flatten(1)
    neighbours = (flat[:, 1:] * flat[:, :-1]).mean(dim=1) / sd**2
    assert (neighbours.abs() < 0.08).all()
    across = torch.corrcoef(flat) - torch.eye(B)
    assert (across.abs() < 0.1).all()


# -- 3D, and the families that no policy has by itself --------------------------------------------


VOLUME = (12, 16, 20)
EVERYTHING = dataclasses.replace(
    augment.policy(1.0, "ssl", "mr"), elastic=0.06, shear=0.1, window=0.1, sharpen=0.5, sharpen_share=0.5,
    shuffle_share=0.5, erase_share=0.5, depth_flip=0.5, vertical_flip=0.5,
)  # fmt: skip


@pytest.fixture
def volumes() -> torch.Tensor:
    coarse = torch.rand(B, 2, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, size=VOLUME, mode="trilinear").clamp(0, 1)


@pytest.mark.parametrize("shape", [(24, 32), VOLUME])
def test_every_family_at_once_in_2d_and_3d(shape):
    x = torch.rand(B, 2, *shape, generator=torch.Generator().manual_seed(2))
    call = {"seed_key": 1, "epoch": 3, "view": 1, "policy": EVERYTHING}
    out = augment.apply(x, KEYS, **call)
    assert out.shape == x.shape
    assert torch.isfinite(out).all()
    assert out.min() >= 0
    assert out.max() <= 1
    order = np.random.default_rng(1).permutation(B)[:5]
    torch.testing.assert_close(
        augment.apply(x[order], KEYS[order], **call), out[order], rtol=0, atol=1e-5
    )


def test_a_family_more_changes_none_of_the_others():
    plain = augment.draw(KEYS, seed_key=1, epoch=0, view=0, policy=augment.policy(1.0))
    more = dataclasses.replace(augment.policy(1.0), elastic=0.05, erase_share=1.0, window=0.1)
    drawn = augment.draw(KEYS, seed_key=1, epoch=0, view=0, policy=more)
    for name in ("affine", "brightness", "contrast", "gamma", "noise_sd", "noise_start", "blur_sd"):
        assert torch.equal(getattr(drawn, name), getattr(plain, name)), name


def test_volume_is_turned_in_its_plane_as_an_image_is(volumes):
    """Without tilt, each slice of a volume is what a 2D view makes of it, but for crops along z."""
    policy = dataclasses.replace(
        augment.Policy(), crop_area=(1.0, 1.0), crop_aspect=1.0, rotation_deg=20.0
    )
    call = {"seed_key": 3, "epoch": 0, "view": 0, "policy": policy}
    whole = augment.apply(volumes, KEYS, **call)
    for z in (0, VOLUME[0] // 2):
        one = augment.apply(volumes[:, :, z], KEYS, **call)
        torch.testing.assert_close(whole[:, :, z], one, rtol=0, atol=1e-5)


def test_composed_map_in_3d_is_scipys(volumes):
    policy = dataclasses.replace(
        augment.Policy(), crop_area=(0.5, 0.7), rotation_deg=20.0, tilt_deg=15.0, scale=0.1, shear=0.1,
        translation=0.05, horizontal_flip=0.5, vertical_flip=0.5, depth_flip=0.5,
    )  # fmt: skip
    drawn = augment.draw(KEYS, seed_key=3, epoch=0, view=0, policy=policy, ndim=3)
    out = augment.render(volumes, drawn)
    half = np.array(VOLUME) / 2
    for i in range(3):
        a = drawn.affine[i].double().numpy()
        # scipy counts z first, and in voxels whose first has its middle at 0
        matrix = half[:, None] * a[::-1, 2::-1] / half[None]
        offset = half * a[::-1, 3] + (half - 0.5) - matrix @ (half - 0.5)
        expected = ndimage.affine_transform(
            volumes[i, 0].double().numpy(), matrix, offset=offset, order=1, mode="nearest"
        )
        np.testing.assert_allclose(out[i, 0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
def test_crop_has_the_volume_it_was_drawn_with(ndim):
    many = np.arange(500, dtype=np.uint64)
    policy = dataclasses.replace(augment.Policy(), crop_area=(0.2, 0.4), horizontal_flip=0.0)
    drawn = augment.draw(many, seed_key=1, epoch=0, view=0, policy=policy, ndim=ndim)
    volume = torch.linalg.det(drawn.affine[..., :ndim])
    assert volume.min() > 0.2 * 0.999
    assert volume.max() < 0.4 * 1.001
    sides = torch.diagonal(drawn.affine[..., :ndim], dim1=1, dim2=2)
    ratio = sides[:, 0] / sides[:, 1]
    assert ratio.max() <= 4 / 3 * 1.001
    assert ratio.max() > 1.3


@pytest.mark.parametrize("shape", [(32, 32), VOLUME])
def test_elastic_folds_nothing_and_leaves_the_corners(shape):
    start = torch.linspace(0.01, 0.9, 40)
    field = grid.displacement(start, torch.full((40,), 0.2), torch.Size(shape))
    assert field.shape == (40, len(shape), *shape)
    limit = 2 / (3 * grid.ELASTIC_CELLS)
    assert field.abs().max() <= limit
    assert field.abs().amax(dim=tuple(range(1, field.ndim))).min() > 0.2 * limit
    for axis, length in enumerate(shape):
        step = torch.diff(field[:, len(shape) - 1 - axis], dim=axis + 1)
        assert step.min() > -2 / length, "two neighbours change places"
    corner = (..., *[0] * len(shape))
    assert field[corner].abs().max() < 0.02


@pytest.mark.parametrize("shape", [(12, 12), (12, 9, 10), (1, 6, 5)])
def test_sampling_is_torchs(shape):
    """Ours is put together otherwise, to be faster."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, 2, *shape, generator=generator)
    ndim = len(shape)
    affine = torch.eye(ndim, ndim + 1) + 0.3 * torch.randn(3, ndim, ndim + 1, generator=generator)
    where = F.affine_grid(affine, list(x.shape), align_corners=False)
    expected = F.grid_sample(x, where, padding_mode="border", align_corners=False)
    torch.testing.assert_close(
        grid.sample(x, affine, None, None), expected, rtol=0, atol=1e-5 if ndim == 2 else 1e-4
    )


def test_without_geometry_nothing_is_sampled(x):
    still = augment.Policy(crop_area=(1.0, 1.0), crop_aspect=1.0, horizontal_flip=0.0)
    assert torch.equal(augment.apply(x, KEYS, seed_key=1, epoch=0, view=0, policy=still), x)
    smaller = augment.apply(x, KEYS, seed_key=1, epoch=0, view=0, policy=still, size=16)
    torch.testing.assert_close(smaller, F.avg_pool2d(x, 2), rtol=0, atol=1e-5)
    for moved in ({"horizontal_flip": 1.0}, {"elastic": 0.05}, {"crop_area": (0.5, 1.0)}):
        policy = dataclasses.replace(still, **moved)
        out = augment.apply(x, KEYS, seed_key=1, epoch=0, view=0, policy=policy)
        assert not torch.equal(out, x)


def test_window_bias_and_sharpening(x):
    window = torch.tensor([[-0.1, 1.1]]).repeat(B, 1)
    wider = augment.render(x, neutral(window=window))
    torch.testing.assert_close(wider, (x + 0.1) / 1.2, rtol=0, atol=1e-5)
    largest = torch.linspace(0, 0.5, B)
    field = bias_field(torch.linspace(0, 0.9, B), largest, torch.Size((SIZE, SIZE)))
    assert (field.log().abs().flatten(1).amax(dim=1) <= largest + 1e-6).all()
    assert (torch.diff(field, dim=-1).abs().max() < 0.1).all()
    amount = torch.linspace(0, 1, B)
    sharper = sharpen(x, amount)
    torch.testing.assert_close(sharper[0], x[0])
    assert (sharper[-1].var() > x[-1].var()).all()
    flat = torch.full_like(x, 0.4)
    torch.testing.assert_close(sharpen(flat, amount), flat)


def test_modalities_keep_what_their_images_never_show():
    assert augment.policy(1.0, "ssl", "xray").horizontal_flip == 0
    assert augment.policy(1.0, "mae", "xray").horizontal_flip == 0
    assert augment.policy(1.0, "ssl", "photograph").vertical_flip == 0.5
    assert augment.policy(1.0, "ssl", "ct").window > 0
    assert augment.policy(0.0, "ssl", "ct").window == 0
    half = augment.policy(1.0, "supervised", "mr").bias_field
    assert half == augment.policy(1.0, "ssl", "mr").bias_field / 2
    with pytest.raises(ValueError, match="no modality 'pet'"):
        augment.policy(1.0, "ssl", "pet")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_same_views_on_cuda(x):
    torch.testing.assert_close(view(x.cuda()).cpu(), view(x), rtol=0, atol=1e-4)
