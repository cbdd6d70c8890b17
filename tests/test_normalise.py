"""Geometry, intensity, and the store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fewscans import geometry
from fewscans.config.models import RecipeSettings
from fewscans.config.stages import ConvertParams, NormaliseParams
from fewscans.convert.chunks import read_converted, write_chunk
from fewscans.errors import UserError
from fewscans.normalise import intensity_range, make_store, match_channels, normalise_scan
from fewscans.shape import Shape
from fewscans.store import Store, voxel_digest

SIDE = st.integers(1, 40)
SMALL = settings(max_examples=30, deadline=None)


def texture(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, *shape)) * 300 - 500


def recipe(**given) -> RecipeSettings:
    return RecipeSettings(**{"size": 16, **given})


# --- geometry -------------------------------------------------------------------------------------


@SMALL
@given(SIDE, SIDE, SIDE, SIDE, st.integers(0, 99))
def test_resizing_is_the_one_of_pillow(h, w, new_h, new_w, seed):
    image = np.random.default_rng(seed).uniform(size=(h, w)).astype(np.float32)
    expected = Image.fromarray(image, mode="F").resize((new_w, new_h), Image.Resampling.BILINEAR)
    made = geometry.resize(image[None], (new_h, new_w))[0]
    np.testing.assert_allclose(made, np.asarray(expected), atol=2e-5)


@SMALL
@given(SIDE, SIDE, SIDE, SIDE)
def test_resizing_keeps_constants_range_and_mirror(h, w, new_h, new_w):
    image = texture(h, w)
    made = geometry.resize(image, (new_h, new_w))
    assert made.min() >= image.min() - 1e-9
    assert made.max() <= image.max() + 1e-9
    mirrored = geometry.resize(image[:, ::-1, ::-1], (new_h, new_w))
    np.testing.assert_allclose(mirrored[:, ::-1, ::-1], made, atol=1e-9)
    np.testing.assert_allclose(geometry.resize(np.full((1, h, w), 7.0), (new_h, new_w)), 7.0)


def test_shrinking_counts_every_pixel_and_moves_nothing():
    image = np.zeros((1, 64, 64))
    image[0, 20:24, 40:44] = 1
    small = geometry.resize(image, (8, 8))[0]
    # What leaves a pixel's square reaches its neighbours: the sum stays, away from the border.
    assert small.sum() * 64 == pytest.approx(image.sum())
    y, x = np.mgrid[0:8, 0:8]
    centre = np.array([(small * (y + 0.5)).sum(), (small * (x + 0.5)).sum()]) / small.sum() * 8
    np.testing.assert_allclose(centre, [22, 42], atol=1.5)


def test_a_stripe_finer_than_the_new_pixels_becomes_gray_not_a_moire():
    stripes = np.tile([0.0, 1.0], 48)[None, None].repeat(96, axis=1)
    inner = geometry.resize(stripes, (13, 13))[0, 2:-2, 2:-2]
    np.testing.assert_allclose(inner, 0.5, atol=0.03)


def test_three_axes_are_resized_by_the_same_code():
    volume = np.random.default_rng(0).uniform(size=(1, 6, 8, 10))
    made = geometry.resize(volume, (3, 4, 5))
    by_hand = np.stack([geometry.resize(volume[:, z], (4, 5)) for z in range(6)], axis=1)
    weights = geometry.resampling_weights(6, 3).toarray()
    np.testing.assert_allclose(made, np.einsum("ij,cjhw->cihw", weights, by_hand))


@pytest.mark.parametrize(
    ("shape", "spacing", "fit", "expected", "spacing_after"),
    [
        ((20, 40), (1, 1), "pad", (8, 16), (2.5, 2.5)),
        ((20, 40), (2, 1), "pad", (16, 16), (2.5, 2.5)),
        ((20, 40), (), "pad", (8, 16), ()),
        ((20, 40), (1, 1), "stretch", (16, 16), (1.25, 2.5)),
        ((400, 1), (1, 1), "pad", (16, 1), (25, 1)),
    ],
)
def test_fitting_respects_aspect_and_carries_spacing(shape, spacing, fit, expected, spacing_after):
    fitted = geometry.fitted_shape(shape, spacing, 16, fit)
    assert fitted == expected
    np.testing.assert_allclose(geometry.fitted_spacing(shape, spacing, fitted), spacing_after)


def test_padding_is_around_the_middle():
    made = geometry.pad_to_shape(np.ones((1, 2, 5)), (5, 5), -3)
    np.testing.assert_array_equal(made[0, :, 0], [-3, 1, 1, -3, -3])


# --- intensity ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["percentile", "minmax", "zscore"])
@pytest.mark.parametrize("factor", [0.01, 5])
def test_rules_of_one_scan_do_not_see_its_unit(rule, factor):
    image, options = texture(30, 20), recipe(normalise=rule)
    one = normalise_scan(image, (), options)[0]
    other = normalise_scan(image * factor + 77, (), options)[0]
    np.testing.assert_allclose(one, other, atol=1e-9)
    assert one.min() >= 0
    assert one.max() <= 1


def test_a_window_means_the_same_in_every_scan():
    hu = np.array([[[-1000.0, -300.0, 400.0, 3000.0]]])
    options = recipe(normalise="window", window_hu=(-1000, 400), size=16, fit="stretch")
    assert intensity_range(hu, options) == (-1000, 400)
    flat = np.full((1, 16, 16), -300.0)
    flat[0, 0, 0] = 3000
    x = normalise_scan(flat, (), options)[0]
    assert x[0, 8, 8] == 0.5
    assert x[0, 0, 0] == 1


def test_percentiles_are_those_of_the_scan():
    image = np.arange(1000.0).reshape(1, 40, 25)
    low, high = intensity_range(image, recipe(percentiles=(10, 90)))
    assert (low, high) == pytest.approx((99.9, 899.1))


def test_zscore_puts_mean_and_deviation_where_the_recipe_says():
    image = texture(16, 16)
    x = normalise_scan(image, (), recipe(normalise="zscore"))[0]
    inside = (x > 0) & (x < 1)
    z = (image - image.mean()) / image.std()
    np.testing.assert_allclose(x[inside], (0.5 + z / 6)[inside])


@pytest.mark.parametrize(
    ("rule", "expected"), [("percentile", 0), ("minmax", 0), ("zscore", 0.5), ("window", 0.5)]
)
def test_a_constant_image_is_no_division_by_zero(rule, expected):
    image = np.full((1, 9, 5), -300.0)
    x = normalise_scan(image, (), recipe(normalise=rule)).x
    np.testing.assert_array_equal(x, expected)


def test_a_nearly_empty_image_keeps_its_spot():
    image = np.zeros((1, 64, 64))
    image[0, 30, 30] = 5
    x, _, bounds, _ = normalise_scan(image, (), recipe(size=64))
    assert bounds == (0, 5)
    assert x[0, 30, 30] == 1


def test_padding_is_as_dark_as_the_darkest_pixel_and_does_not_count():
    image = np.linspace(100, 200, 64 * 16).reshape(1, 64, 16)
    x, _, bounds, _ = normalise_scan(image, (), recipe(normalise="minmax"))
    assert bounds == (100, 200)
    np.testing.assert_array_equal(x[0, :, :6], 0)
    bright = normalise_scan(image, (), recipe(normalise="window", window_hu=(0, 200))).x
    np.testing.assert_array_equal(bright[0, :, :6], 0.5)


def test_gray_from_colour_is_luma_and_colour_from_gray_is_repeated():
    colour = np.array([200.0, 100.0, 50.0]).reshape(3, 1, 1) * np.ones((3, 4, 4))
    np.testing.assert_allclose(match_channels(colour, 1), 0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert match_channels(texture(4, 4), 3).shape == (3, 4, 4)
    np.testing.assert_array_equal(match_channels(colour, 3), colour)
    image = Image.fromarray(np.moveaxis(colour, 0, -1).astype(np.uint8)).convert("L")
    np.testing.assert_allclose(match_channels(colour, 1)[0], np.asarray(image), atol=0.51)


# --- the store ------------------------------------------------------------------------------------


def test_8_bit_sources_make_an_8_bit_store_and_others_16(scan_folder, make_store):
    eight = Store.open(make_store(scan_folder(6, kinds=["png"], name="eight"), dataset="eight"))
    mixed = Store.open(
        make_store(scan_folder(8, kinds=["png", "dicom"], name="mix"), dataset="mix")
    )
    deep = Store.open(make_store(scan_folder(6, kinds=["png16"], name="deep"), dataset="deep"))
    assert [s.voxels.dtype.name for s in (eight, mixed, deep)] == ["uint8", "int16", "int16"]
    for store in (eight, mixed, deep):
        x = store.read(store.scans)
        assert x.shape == (len(store), 1, 16, 16)
        assert x.min() >= 0
        assert 0.9 < x.max() <= 1 + 1e-6


@pytest.mark.parametrize("rule", ["percentile", "minmax", "window", "zscore"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_row_of_the_store_is_its_scan_normalised(
    scan_folder, make_converted, tmp_path, rule, channels
):
    converted = make_converted(scan_folder(6))
    options = recipe(normalise=rule, channels=channels)
    make_store(NormaliseParams(dataset="d", recipe=options), [converted], tmp_path / "store")
    store = Store.open(tmp_path / "store")
    assert store.shape == Shape(16, channels)
    index, read_pixels = read_converted([converted])
    for row in index.to_dict("records"):
        x, spacing, (low, high), _ = normalise_scan(read_pixels(row), row["spacing_mm"], options)
        made = store.read([row["scan"]])[0]
        np.testing.assert_allclose(made, x, atol=0.51 / 32767 + 1e-6)
        about = store.rows.iloc[store.row_of(row["scan"])]
        np.testing.assert_allclose(about["spacing_mm"], spacing)
        inside = (x > 0.01) & (x < 0.99)
        physical = made[inside] * about["scale"] + about["intercept"]
        np.testing.assert_allclose(physical, (x * (high - low) + low)[inside], atol=0.1)


def test_rows_are_by_path_whatever_the_chunks(scan_folder, tmp_path):
    root = scan_folder(12)
    params = {"dataset": "d", "root": str(root), "table": str(root / "labels.csv")}
    for chunk in range(2):
        write_chunk(ConvertParams(**params, chunk=chunk, chunks=2), tmp_path / f"c{chunk}")
    write_chunk(ConvertParams(**params), tmp_path / "whole")
    options = NormaliseParams(dataset="d", recipe=recipe())
    one = make_store(options, [tmp_path / "c1", tmp_path / "c0"], tmp_path / "one")
    two = make_store(options, [tmp_path / "whole"], tmp_path / "two")
    assert one == two
    for name in ("voxels.npy", "rows.parquet", "store.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_unreadable_scans_are_not_in_the_store(scan_folder, make_store):
    root = scan_folder(6, kinds=["png"])
    bad = sorted((root / "images").iterdir())[0]
    bad.write_bytes(b"")
    store = Store.open(make_store(root))
    assert len(store) == 5
    assert "nobody" not in store
    with pytest.raises(KeyError):
        store.row_of("nobody")


def test_digests_are_of_the_voxels_and_follow_the_order_asked_for(scan_folder, make_store):
    store = Store.open(make_store(scan_folder(6)))
    asked = store.scans[::-1][:3]
    assert store.digests(asked) == [voxel_digest(store.voxels[store.row_of(s)]) for s in asked]
    assert len(set(store.digests(store.scans))) == len(store)


def test_the_digest_of_a_store_changes_with_pixels_alone(scan_folder, make_store):
    root = scan_folder(6, kinds=["png"])
    first = Store.open(make_store(root)).digest
    table = pd.read_csv(root / "labels.csv")
    table.assign(label="benign").to_csv(root / "labels.csv", index=False)
    assert Store.open(make_store(root)).digest == first
    path = root / table["path"][0]
    image = np.array(Image.open(path))
    image[3:12, 3:12] += 60
    Image.fromarray(image).save(path)
    assert Store.open(make_store(root)).digest != first


def cut(path: Path) -> None:
    with open(path, "r+b") as handle:
        handle.truncate(path.stat().st_size - 100)


def edit(path: Path, **facts) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: cut(f / "voxels.npy"), "cut short"),
        (lambda f: (f / "voxels.npy").unlink(), "is missing"),
        (lambda f: (f / "voxels.npy").write_bytes(b"no array"), "damaged"),
        (lambda f: (f / "store.json").unlink(), "interrupted"),
        (lambda f: (f / "store.json").write_text("{"), "cannot be read"),
        (lambda f: edit(f / "store.json", n=5), "store.json says"),
        (lambda f: edit(f / "store.json", dtype="uint8"), "store.json says"),
        (lambda f: (f / "rows.parquet").write_bytes(b""), "cannot be read"),
    ],
)
def test_a_store_that_is_not_whole_is_refused_with_a_way_out(scan_folder, make_store, damage, says):
    folder = make_store(scan_folder(6))
    damage(folder)
    with pytest.raises(UserError, match=says) as caught:
        Store.open(folder)
    assert "run normalise again" in str(caught.value)


def test_pickled_voxels_are_never_loaded(scan_folder, make_store):
    folder = make_store(scan_folder(4))
    np.save(folder / "voxels.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="damaged"):
        Store.open(folder)


def test_a_store_of_nothing_is_refused(scan_folder, make_converted, tmp_path):
    root = scan_folder(4, kinds=["png"])
    params = {"dataset": "d", "root": str(root), "table": str(root / "labels.csv")}
    for path in (root / "images").iterdir():
        path.write_text("no image")
    # With several chunks, one of them may well hold unreadable files only.
    for chunk in range(2):
        write_chunk(ConvertParams(**params, chunk=chunk, chunks=2), tmp_path / str(chunk))
    with pytest.raises(UserError, match="no readable scan"):
        make_store(
            NormaliseParams(dataset="d", recipe=recipe()),
            [tmp_path / "0", tmp_path / "1"],
            tmp_path / "s",
        )


def test_the_script_writes_a_store_and_a_side_car(scan_folder, make_converted, tmp_path, script):
    converted = make_converted(scan_folder(4))
    params = NormaliseParams(dataset="d", recipe=recipe()).model_dump_json()
    arguments = ["--params", params, "--converted", str(converted), "--out", str(tmp_path / "s")]
    assert script("normalise").main([*arguments, "--sidecar", str(tmp_path / "side.json")]) == 0
    assert json.loads((tmp_path / "side.json").read_text())["n"] == 4
    assert len(Store.open(tmp_path / "s")) == 4
    assert script("normalise").main([*arguments[:3], str(tmp_path), *arguments[4:]]) == 2


def test_all_of_covid_ct_makes_a_store(tmp_path, shared_data):
    root = shared_data("covid_ct")
    params = ConvertParams(dataset="covid", root=str(root), table=str(root / "labels.csv"))
    write_chunk(params, tmp_path / "0")
    make_store(
        NormaliseParams(dataset="covid", recipe=recipe(size=48)), [tmp_path / "0"], tmp_path / "s"
    )
    store = Store.open(tmp_path / "s")
    assert store.voxels.shape == (746, 1, 48, 48)
    assert store.voxels.dtype == np.uint8
    x = store.read(store.scans)
    assert (x.reshape(746, -1).std(axis=1) > 0.05).all()
