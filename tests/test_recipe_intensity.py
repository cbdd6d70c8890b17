"""Recipes: windows by name, bias field, local contrast, and all steps together."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from recipe_factory import head, recipe
from skimage import exposure

from fewscans.config import load
from fewscans.config.recipe import WINDOWS_HU, RecipeSettings
from fewscans.config.stages import NormaliseParams
from fewscans.errors import UserError
from fewscans.normalise import make_store, match_channels, normalise_scan
from fewscans.normalise.bias import correct_bias, one_thread
from fewscans.normalise.foreground import foreground_mask
from fewscans.plan import expand
from fewscans.store import Store

# --- windows --------------------------------------------------------------------------------------


def test_windows_by_name_are_those_of_the_literature_and_imply_the_rule():
    levels = {name: ((low + high) / 2, high - low) for name, (low, high) in WINDOWS_HU.items()}
    assert levels == {
        "lung": (-600, 1500), "soft-tissue": (50, 400), "brain": (40, 80), "bone": (400, 1800),
    }  # fmt: skip
    named = recipe(windows="brain")
    assert (named.normalise, named.windows) == ("window", ["brain"])
    hu = np.linspace(-50, 120, 256).reshape(1, 16, 16)
    x = normalise_scan(hu, (), named)
    np.testing.assert_allclose(x.x, np.clip(hu / 80, 0, 1))
    assert x.bounds == (0, 80)


def test_several_windows_are_channels():
    hu = np.random.default_rng(0).uniform(-1200, 1500, (1, 30, 20))
    names = ["lung", "soft-tissue", "bone"]
    made = normalise_scan(hu, (), recipe(windows=names, channels=3))
    assert made.x.shape == (3, 16, 16)
    for channel, name in zip(made.x, names, strict=True):
        alone = normalise_scan(hu, (), recipe(windows=name)).x
        np.testing.assert_array_equal(channel, alone[0])
    assert np.isnan(made.bounds).all()


@pytest.mark.parametrize(
    ("given", "place", "says"),
    [
        (
            {"windows": ["lung", "bone"]},
            "windows",
            "2 windows and 1 channel(s): give one window, or three",
        ),
        ({"windows": "lung", "normalise": "zscore"}, "windows", "are of `normalise: window`"),
        ({"windows": "lungs"}, "windows", "Did you mean 'lung'?"),
        ({"spacing_mm": [1, 1, 1]}, "spacing_mm", "3 numbers for 2 axes"),
        ({"spacing_mm": 1, "fit": "stretch"}, "spacing_mm", "leave `fit` out, or `spacing_mm`"),
        ({"spacing_mm": 0}, "spacing_mm", "must be above 0"),
        ({"clahe": 2}, "clahe", "must be at most 1"),
    ],
)
def test_mistakes_are_told_by_their_key(given, place, says):
    with pytest.raises(UserError) as caught:
        load({"datasets": {"d": {"root": "x"}}, "recipes": {"a": given}}, "config")
    assert f"recipes.a.{place}" in str(caught.value)
    assert says in str(caught.value)


def test_steps_are_axes_of_an_ablation():
    axes = {
        "windows": ["lung", "bone"],
        "clahe": [0.01],
        "foreground": [False, True],
        "fit": ["crop"],
        "n4": [2, 4],
    }
    plan = expand(load({
        "datasets": {"d": {"root": "x"}}, "encoders": {"simclr": {"method": "simclr"}},
        "recipes": {"a": {"normalise": "window"}}, "ablations": {"steps": {"of": "simclr", **axes}},
    }, "config"))  # fmt: skip
    made = {name: settings for name, settings in plan.recipes.items() if name != "a"}
    assert len(made) == 8
    found = made["a-windows-bone-clahe0.01-foregroundtrue-fit-crop-n42"]
    assert found == RecipeSettings(
        windows=["bone"], clahe=0.01, foreground=True, fit="crop", normalise="window", n4=2
    )
    # Each has arms, and so a store, of its own.
    assert {arm.recipe for arm in plan.arms.values()} == {"a", *made}
    assert {settings.n4 for settings in made.values()} == {2, 4}


def test_windows_in_hu_are_refused_for_pictures_and_warned_of_where_nobody_says(
    scan_folder, make_store, caplog
):
    with pytest.raises(UserError, match=r"6 scans are not in HU\. Take `percentile`") as caught:
        make_store(scan_folder(6, kinds=["png"], name="png"), windows="lung")
    assert ".png" in str(caught.value)
    make_store(scan_folder(4, kinds=["png16"], name="deep"), windows="lung")
    assert "4 scans do not say that they are in HU: the windows lung take" in caplog.text
    caplog.clear()
    make_store(scan_folder(4, kinds=["png"], name="eight"), normalise="window", window_hu=(0, 255))
    assert "`window_hu` 0 to 255 is taken in their stored values" in caplog.text


# --- bias field -----------------------------------------------------------------------------------


def shaded(shape) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(image, field, mask): two tissues under a smooth field that doubles from one end to the other."""
    along = np.indices(shape)[0] / (shape[0] - 1)
    field = np.exp(np.log(2) * (along - 0.5))
    away = sum(
        ((a - n / 2) / (n / 2.4)) ** 2 for a, n in zip(np.indices(shape), shape, strict=True)
    )
    tissue = np.where(away < 0.4, 300.0, 200.0) * (away < 1)
    noise = np.random.default_rng(0).normal(size=shape) * 2
    return (tissue * field + (away < 1) * noise)[None], field, away < 1


@pytest.mark.parametrize("shape", [(96, 80), (40, 36, 32)])
def test_n4_finds_the_field_that_was_put_on(shape):
    image, field, mask = shaded(shape)
    made = correct_bias(image, image[0], mask, 2)
    found = np.log(image[0][mask] / made[0][mask])
    assert np.corrcoef(found, np.log(field[mask]))[0, 1] > 0.95
    spread = lambda x: x[mask & (image[0] / field > 250)].std() / x[mask].mean()  # noqa: E731
    assert spread(made[0]) < 0.5 * spread(image[0])


@pytest.mark.parametrize("shape", [(96, 81), (40, 37, 6), (48, 48, 48)])
def test_n4_divides_by_the_field_that_itk_has_at_full_size(shape):
    image, _, mask = shaded(shape)
    gray = (image[0] * 10).astype(np.int16)
    inside = mask & (gray > 0)
    made = correct_bias(gray[None], gray, mask, 4)[0]
    whole, within = (
        sitk.GetImageFromArray(gray.astype(np.float32)),
        sitk.GetImageFromArray(inside.astype(np.uint8)),
    )
    factors = [max(1, min(4, n // 8)) for n in whole.GetSize()]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    with one_thread():
        n4.Execute(sitk.Shrink(whole, factors), sitk.Shrink(within, factors))
    log_field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(whole))
    np.testing.assert_allclose(np.log(gray[inside] / made[inside]), log_field[inside], atol=5e-5)
    assert np.ptp(log_field[inside]) > 0.3


def test_n4_gives_the_same_bytes_with_any_number_of_threads():
    image, _, mask = shaded((64, 60))
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    made = []
    try:
        for threads in (1, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            made.append(correct_bias(image, image[0], mask, 4))
            assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    np.testing.assert_array_equal(*made)


def test_n4_leaves_alone_what_has_no_field():
    flat = np.full((1, 16, 16), 3.0)
    np.testing.assert_array_equal(correct_bias(flat, flat[0], np.ones((16, 16), bool), 4), flat)
    dark = -np.ones((1, 16, 16))
    np.testing.assert_array_equal(correct_bias(dark, dark[0], np.ones((16, 16), bool), 4), dark)


def test_n4_of_ct_is_refused(scan_folder, make_store):
    assert len(Store.open(make_store(scan_folder(4, kinds=["png16"], name="deep"), n4=2))) == 4
    root = scan_folder(4, kinds=["dicom"], name="ct")
    with pytest.raises(UserError, match="4 scans are CT, which has no bias field"):
        make_store(root, n4=2)


def test_n4_on_real_mr_volumes_is_a_smooth_factor(shared_data):
    path = sorted((shared_data("hippocampus_nifti")).rglob("hippocampus_*.nii.gz"))[0]
    volume = np.asarray(nib.load(path).dataobj, dtype=float).T
    mask = foreground_mask(volume, ct=False)
    made = correct_bias(volume[None], volume, mask, 2)[0]
    inside = mask & (volume > 0)
    field = np.log(volume[inside] / made[inside])
    assert np.isfinite(field).all()
    assert 0 < field.std() < 0.5


# --- local contrast -------------------------------------------------------------------------------


def test_clahe_is_that_of_scikit_image_gray_and_coloured():
    rng = np.random.default_rng(0)
    gray = rng.uniform(size=(1, 32, 32)) ** 2
    options = recipe(size=32, normalise="minmax")
    scaled = normalise_scan(gray, (), options).x
    made = normalise_scan(gray, (), options.model_copy(update={"clahe": 0.02})).x
    np.testing.assert_allclose(
        made[0], exposure.equalize_adapthist(scaled[0], clip_limit=0.02), atol=1e-12
    )
    colour = rng.uniform(size=(3, 32, 32))
    options = recipe(size=32, normalise="minmax", channels=3)
    scaled = normalise_scan(colour, (), options).x
    made = normalise_scan(colour, (), options.model_copy(update={"clahe": 0.02})).x
    expected = exposure.equalize_adapthist(np.moveaxis(scaled, 0, -1), clip_limit=0.02)
    np.testing.assert_allclose(made, np.moveaxis(expected, -1, 0), atol=1e-6)


def test_clahe_lifts_what_is_faint_beside_what_is_bright():
    image = np.zeros((1, 64, 64))
    image[0, :, 32:] = 1000
    faint = np.random.default_rng(0).uniform(0, 20, (64, 16))
    image[0, :, :16] = faint
    plain = normalise_scan(image, (), recipe(size=64, normalise="minmax")).x
    made = normalise_scan(image, (), recipe(size=64, normalise="minmax", clahe=0.05)).x
    assert made[0, :, :16].std() > 3 * plain[0, :, :16].std()


@pytest.mark.parametrize("width", [3, 4, 20])
def test_clahe_takes_volumes_of_any_width_and_pads_afterwards(width):
    volume = np.random.default_rng(0).uniform(100, 200, (1, 20, 20, width))
    x = normalise_scan(volume, (1.0,) * 3, recipe(size=20, ndim=3, clahe=0.01)).x
    assert x.shape == (1, 20, 20, 20)
    assert x.min() == 0
    if width < 20:
        first = (20 - width) // 2
        assert (x[..., :first] == 0).all()
        assert x[..., first : first + width].std() > 0.1
    flat = normalise_scan(
        np.full((1, 8, 8, width), 5.0), (), recipe(ndim=3, clahe=0.01, windows="brain")
    ).x
    np.testing.assert_allclose(flat.max(), 5 / 80)


def test_clahe_of_several_windows_is_one_by_one():
    hu = np.random.default_rng(0).uniform(-1200, 1500, (1, 30, 20))
    made = normalise_scan(
        hu, (), recipe(windows=["lung", "soft-tissue", "bone"], channels=3, clahe=0.01)
    ).x
    alone = normalise_scan(hu, (), recipe(windows="soft-tissue", clahe=0.01)).x
    np.testing.assert_array_equal(made[1], alone[0])


# --- all together ---------------------------------------------------------------------------------


def test_the_same_steps_give_the_same_bytes(scan_folder, make_converted, tmp_path):
    converted = make_converted(scan_folder(4, kinds=["png16"]))
    options = recipe(foreground=True, within="foreground", n4=2, clahe=0.02, fit="crop", channels=3)
    params = NormaliseParams(dataset="d", recipe=options)
    for name in ("one", "two"):
        make_store(params, [converted], tmp_path / name)
    for name in ("voxels.npy", "rows.parquet", "store.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert json.loads((tmp_path / "one" / "store.json").read_text())["recipe"]["fit"] == "crop"


def test_colour_goes_through_every_step():
    colour = np.stack([head() * factor for factor in (1.0, 0.8, 0.5)])
    options = {"foreground": True, "n4": 2, "within": "foreground", "clahe": 0.01}
    x = normalise_scan(colour, (), recipe(channels=3, **options)).x
    assert x.shape == (3, 16, 16)
    assert x[0].mean() > x[2].mean()
    gray = normalise_scan(match_channels(colour, 1), (), recipe(**options)).x
    assert gray.shape == (1, 16, 16)
