"""Recipes: what stays without steps, spacing in mm, crop, foreground."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from recipe_factory import SMALL, ball, head, recipe
from scipy import ndimage

from fewscans import geometry
from fewscans.config.recipe import RecipeSettings
from fewscans.config.stages import ConvertParams, NormaliseParams
from fewscans.convert import read
from fewscans.convert.chunks import read_converted, write_chunk
from fewscans.errors import UserError
from fewscans.normalise import make_store, normalise_scan
from fewscans.normalise.foreground import _filled, _labelled, box_of, foreground_mask
from fewscans.store import Store

# --- defaults -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["percentile", "window", "minmax", "zscore"])
@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize("shape", [(21, 34), (9, 20, 14)])
def test_without_steps_a_scan_is_what_it_was_before_there_were_any(rule, fit, shape):
    """To the bit: the arithmetic of the first stores, written out."""
    image = np.random.default_rng(1).normal(size=(1, *shape)) * 300 - 500
    options = recipe(normalise=rule, fit=fit, ndim=len(shape))
    low, high = {
        "percentile": tuple(np.percentile(image, (0.5, 99.5))),
        "window": (-1000.0, 400.0),
        "minmax": (image.min(), image.max()),
        "zscore": (image.mean() - 3 * image.std(), image.mean() + 3 * image.std()),
    }[rule]
    fitted = geometry.fitted_shape(shape, (), 16, fit)
    made = image
    for axis, (n_in, n_out) in enumerate(zip(shape, fitted, strict=True), start=1):
        if n_in != n_out:
            moved = np.moveaxis(made, axis, 0)
            flat = geometry.resampling_weights(n_in, n_out) @ moved.reshape(n_in, -1)
            made = np.moveaxis(flat.reshape(n_out, *moved.shape[1:]), 0, axis)
    made = geometry.pad_to_shape(np.ascontiguousarray(made), (16,) * len(shape), image.min())
    expected = np.clip((made - low) / (high - low), 0.0, 1.0)
    np.testing.assert_array_equal(normalise_scan(image, (), options).x, expected)


def test_what_is_left_out_is_not_told_so_that_digests_stay():
    assert recipe().model_dump(mode="json") == {
        "size": 16, "crop": None, "ndim": 2, "channels": 1, "normalise": "percentile", "window_hu": [-1000.0, 400.0],
        "percentiles": [0.5, 99.5], "fit": "pad",
    }  # fmt: skip
    told = recipe(clahe=0.01, foreground=True, margin=0).model_dump(mode="json")
    assert {key: told[key] for key in ("clahe", "foreground", "margin")} == {
        "clahe": 0.01, "foreground": True, "margin": 0.0,
    }  # fmt: skip
    assert RecipeSettings(**told) == recipe(clahe=0.01, foreground=True, margin=0)


# --- spacing and crop -----------------------------------------------------------------------------


@SMALL
@given(
    st.integers(4, 60), st.integers(4, 60), st.floats(0.3, 3), st.floats(0.3, 3), st.floats(0.4, 4)
)
def test_a_spacing_is_pillows_resizing_of_the_middle(h, w, row_mm, column_mm, wanted):
    image = np.random.default_rng(h * 64 + w).uniform(size=(1, h, w)).astype(np.float32)
    samples, pitch, spacing = geometry.centred_grid(
        (h, w), (row_mm, column_mm), 16, (wanted, wanted)
    )
    assert spacing == (wanted, wanted)
    made = geometry.resize(image, samples, pitch)[0]
    top, left = (
        (n - count * step) / 2 for n, count, step in zip((h, w), samples, pitch, strict=True)
    )
    # Pillow takes no box that leaves the image by half a new pixel: replicate the border for it.
    edge = 10
    wide = Image.fromarray(np.pad(image[0], edge, mode="edge"), mode="F")
    box = (
        left + edge,
        top + edge,
        left + edge + samples[1] * pitch[1],
        top + edge + samples[0] * pitch[0],
    )
    expected = np.asarray(wide.resize(samples[::-1], Image.Resampling.BILINEAR, box=box))
    # Where the filter leaves the image, ours forgets what is outside; a border of replicas counts it.
    inner = tuple(
        slice(k := int(np.ceil(1 + 1 / step)), max(k, count - k))
        for count, step in zip(samples, pitch, strict=True)
    )
    np.testing.assert_allclose(made[inner], expected[inner], atol=2e-5)


def test_a_finer_spacing_is_the_linear_interpolation_of_simpleitk():
    volume = np.random.default_rng(0).normal(size=(10, 12, 14)).astype(np.float32)
    steps, wanted = (2.5, 1.5, 1.0), (1.1, 0.9, 0.7)
    x = normalise_scan(
        volume[None], steps, recipe(size=32, ndim=3, spacing_mm=list(wanted), normalise="minmax")
    )
    assert x.spacing_mm == wanted
    made = x.x[0] * (x.bounds[1] - x.bounds[0]) + x.bounds[0]
    samples = [
        round(n * step / want) for n, step, want in zip(volume.shape, steps, wanted, strict=True)
    ]
    source = sitk.GetImageFromArray(volume)
    source.SetSpacing(steps[::-1])
    # The middle of the first pixel of a grid that lies around the middle of the volume.
    origin = [
        (n * step - count * want) / 2 + want / 2 - step / 2
        for n, step, count, want in zip(volume.shape, steps, samples, wanted, strict=True)
    ]
    there = sitk.Resample(
        source, samples[::-1], sitk.Transform(), sitk.sitkLinear, origin[::-1], wanted[::-1],
        source.GetDirection(), 0.0, sitk.sitkFloat32, True,
    )  # fmt: skip
    begin = [(32 - count) // 2 for count in samples]
    cut = tuple(
        slice(max(0, b), max(0, b) + min(32, n)) for b, n in zip(begin, samples, strict=True)
    )
    np.testing.assert_allclose(made[cut], sitk.GetArrayFromImage(there), atol=1e-4)


@pytest.mark.parametrize("ndim", [2, 3])
def test_what_is_as_large_in_millimetres_is_as_large_in_the_store(ndim):
    sizes = []
    for shape, spacing in [((40, 60, 60), (3.0, 1.0, 1.0)), ((90, 50, 70), (1.0, 2.0, 1.5))]:
        shape, spacing = shape[:ndim], spacing[:ndim]
        options = recipe(size=32, ndim=ndim, spacing_mm=2.0, normalise="minmax")
        x, found, _, _ = normalise_scan(ball(shape, spacing, 20.0), spacing, options)
        assert found == (2.0,) * ndim
        sizes.append(x.sum() * 2.0**ndim)
    # Area of a disc of 20 mm, volume of such a ball.
    np.testing.assert_allclose(sizes, np.pi * 400 if ndim == 2 else 4 / 3 * np.pi * 8000, rtol=0.02)


def test_what_is_longer_than_the_store_is_cut_off_on_both_sides_and_what_is_shorter_padded():
    image = np.arange(40.0)[None, None] + np.zeros((1, 6, 1))
    x, spacing, (low, high), _ = normalise_scan(
        image, (1.0, 1.0), recipe(spacing_mm=1, normalise="minmax")
    )
    np.testing.assert_allclose(x[0, 7] * (high - low) + low, np.arange(12, 28))
    np.testing.assert_array_equal(x[0, :5], 0)
    assert spacing == (1, 1)


@pytest.mark.parametrize(
    ("shape", "spacing", "middle", "after"),
    [((32, 64), (1, 1), (32, 32), (2, 2)), ((32, 64), (), (32, 32), ()), ((16, 64), (4, 1), (16, 64), (4, 4))],
)  # fmt: skip
def test_crop_gives_the_shorter_side_the_size_and_keeps_the_middle_of_the_longer(
    shape, spacing, middle, after
):
    image = np.random.default_rng(0).uniform(size=(1, *shape))
    x, found, (low, high), _ = normalise_scan(
        image, spacing, recipe(fit="crop", normalise="minmax")
    )
    cut = tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(shape, middle, strict=True))
    # Resized as a whole and then cut: the same but for what the filter sees beyond the cut.
    whole = geometry.resize(image[:, cut[0], cut[1]], (16, 16))
    np.testing.assert_allclose((x * (high - low) + low)[0, 1:-1, 1:-1], whole[0, 1:-1, 1:-1])
    assert found == after


def test_a_scan_that_does_not_say_its_spacing_is_refused_with_ways_out(scan_folder, make_store):
    with pytest.raises(UserError, match="6 scans do not say how large a pixel is") as caught:
        make_store(scan_folder(6, kinds=["png"]), spacing_mm=1.0)
    said = str(caught.value)
    assert "Leave `spacing_mm` out" in said
    assert said.count(".png") == 6
    with pytest.raises(ValueError, match="has none"):
        normalise_scan(np.ones((1, 8, 8)), (), recipe(spacing_mm=1.0))


def test_volumes_of_any_spacing_go_through_to_a_store_of_one(tmp_path):
    for name, shape, zooms in [("a", (20, 24, 10), (1, 1, 3)), ("b", (30, 20, 40), (1.5, 1, 1))]:
        data = np.random.default_rng(0).integers(0, 400, shape).astype(np.int16)
        (tmp_path / "raw" / name).mkdir(parents=True)
        nib.save(nib.Nifti1Image(data, np.diag([*zooms, 1])), tmp_path / "raw" / name / "x.nii.gz")
    write_chunk(ConvertParams(dataset="d", root=str(tmp_path / "raw"), ndim=3), tmp_path / "0")
    options = recipe(ndim=3, spacing_mm=2.0, foreground=True, within="foreground", n4=4, clahe=0.01)
    make_store(NormaliseParams(dataset="d", recipe=options), [tmp_path / "0"], tmp_path / "s")
    store = Store.open(tmp_path / "s")
    assert [list(spacing) for spacing in store.rows["spacing_mm"]] == [[2.0] * 3] * 2
    assert np.isnan(store.rows["scale"]).all()  # no one line leads back from CLAHE
    index = read_converted([tmp_path / "0"])[0]
    for box, shape in zip(store.rows["box"], index["shape"], strict=True):
        assert (np.reshape(box, (3, 2)) >= 0).all()
        assert (np.reshape(box, (3, 2))[:, 1] <= shape).all()
    assert store.facts["recipe"]["spacing_mm"] == 2.0


# --- foreground -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(48, 40), (24, 30, 28)])
def test_the_foreground_is_the_largest_part_without_holes(shape):
    image = head(shape)
    mask = foreground_mask(image, ct=False)
    axes = np.indices(shape)
    away = sum(((a - n / 2) / (n / 3)) ** 2 for a, n in zip(axes, shape, strict=True))
    np.testing.assert_array_equal(mask, away < 1)
    # The same threshold and parts by SimpleITK.
    other = sitk.OtsuThreshold(sitk.GetImageFromArray(image), 0, 1, 256)
    other = sitk.RelabelComponent(sitk.ConnectedComponent(other)) == 1
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.BinaryFillhole(other)), mask)


@pytest.mark.parametrize("shape", [(30, 34), (12, 14, 13)])
@pytest.mark.parametrize("seed", range(6))
def test_holes_are_filled_as_scipy_does(shape, seed):
    body = np.random.default_rng(seed).uniform(size=shape) < 0.35 + 0.1 * seed
    np.testing.assert_array_equal(_filled(body), ndimage.binary_fill_holes(body))


def test_more_parts_than_two_bytes_count():
    away = np.zeros((600, 600), bool)
    away[::2, ::2] = True
    assert _labelled(away)[1] == 90_000
    away[0] = True
    image = np.where(away, 9.0, 0.0)
    mask = foreground_mask(image, ct=False)
    assert mask[0].all()
    assert not mask[2:].any()


def test_a_hot_pixel_and_padding_below_air_do_not_move_the_threshold():
    image = head(noise=0.5)
    expected = foreground_mask(image, ct=False)
    hot = image.copy()
    hot[0, 0] = 1e6
    np.testing.assert_array_equal(foreground_mask(hot, ct=False), expected)
    hu = np.where(image > 50, 40.0, -1000.0) + image / 100
    hu[:, :4] = hu[:, -4:] = -3024
    np.testing.assert_array_equal(foreground_mask(hu, ct=True), ndimage.binary_fill_holes(expected))
    assert foreground_mask(np.full((4, 4), 3.0), ct=True).all()


def test_a_box_has_a_margin_and_stays_in_the_image():
    mask = np.zeros((20, 30), bool)
    mask[1:11, 10:20] = True
    assert box_of(mask, 0) == ((1, 11), (10, 20))
    assert box_of(mask, 0.15) == ((0, 13), (8, 22))


def test_cropping_to_the_foreground_is_cropping_by_hand():
    image = head()[None]
    made = normalise_scan(
        image, (2.0, 1.0), recipe(foreground=True, margin=0.1, normalise="minmax")
    )
    (top, bottom), (left, right) = made.box
    by_hand = normalise_scan(
        image[:, top:bottom, left:right], (2.0, 1.0), recipe(normalise="minmax")
    )
    np.testing.assert_array_equal(made.x, by_hand.x)
    assert made.spacing_mm == by_hand.spacing_mm
    assert (bottom - top, right - left) < image.shape[1:]


@pytest.mark.parametrize("rule", ["zscore", "percentile", "minmax"])
def test_within_the_foreground_air_does_not_count(rule):
    image = head()
    inside = image[foreground_mask(image, ct=False)]
    _, _, (low, high), box = normalise_scan(
        image[None], (), recipe(normalise=rule, within="foreground")
    )
    expected = {
        "zscore": (inside.mean() - 3 * inside.std(), inside.mean() + 3 * inside.std()),
        "percentile": tuple(np.percentile(inside, (0.5, 99.5))),
        "minmax": (inside.min(), inside.max()),
    }[rule]
    assert (low, high) == pytest.approx(expected)
    assert box is None
    wide = np.pad(image, 30)
    assert normalise_scan(
        wide[None], (), recipe(normalise=rule, within="foreground")
    ).bounds == pytest.approx((low, high))


def test_a_shape_of_one_value_keeps_its_contrast_within_its_foreground():
    x = normalise_scan(
        ball((16, 16), (1, 1), 5.0), (), recipe(within="foreground", normalise="zscore")
    ).x
    assert x[0, 8, 8] > x[0, 0, 0] + 0.1


def test_the_body_of_real_ct_slices_is_found(shared_data):
    paths = sorted((shared_data("dicom_series_quirks") / "ct_ge_tilt_uneven").glob("*.dcm"))
    assert len(paths) == 6
    for path in paths:
        image = read(path).physical()[0]
        mask = foreground_mask(image, ct=True)
        brain = ndimage.binary_erosion((image > 10) & (image < 60), iterations=3)
        assert mask[brain].mean() > 0.99
        # Air is dark on all sides of the head; the box leaves it out.
        assert not mask[[0, 0, -1, -1], [0, -1, 0, -1]].any()
        sides = [behind - first for first, behind in box_of(mask, 0)]
        assert 200 < min(sides) < max(sides) < 500
