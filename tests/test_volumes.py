"""Volumes from NIfTI and .npz to a 3D store, an encoder trained on it, and what is refused in words."""

from __future__ import annotations

import gzip
import json

import nibabel as nib
import numpy as np
import pytest
from engine_factory import make_folds, make_params

from fewscans.audit.thumbnails import make_thumbnails
from fewscans.config import load
from fewscans.config.stages import ConvertParams, NormaliseParams
from fewscans.convert import Unreadable, read
from fewscans.convert.chunks import read_converted, write_chunk
from fewscans.errors import UserError
from fewscans.normalise import make_store
from fewscans.plan import expand
from fewscans.pretrain import pretrain
from fewscans.store import Store

# Right, anterior, superior: each voxel tells where it lies.
RAS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])


def save(path, array=RAS, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def test_volumes_come_in_one_orientation_with_their_spacing(tmp_path):
    plain = read(save(tmp_path / "a.nii.gz"), 3)
    assert plain.array.shape == (1, 6, 5, 4)
    assert plain.array[0, 5, 0, 3] == RAS[3, 0, 5]
    assert plain.spacing_mm == (3.0, 2.0, 1.0)
    assert plain.meta.notes == ()
    # The same body, stored from left to right and with axes in another order.
    turned = np.ascontiguousarray(RAS[::-1].transpose(2, 0, 1))
    affine = np.zeros((4, 4))
    affine[0, 1], affine[1, 2], affine[2, 0], affine[3, 3] = -1.0, 2.0, 3.0, 1.0
    other = read(save(tmp_path / "b.nii", turned, affine), 3)
    assert np.array_equal(other.array, plain.array)
    assert other.spacing_mm == plain.spacing_mm
    assert other.meta.notes == ("turned from SLA to RAS",)


def test_values_are_those_of_nibabel(tmp_path):
    image = nib.Nifti1Image(RAS, AFFINE)
    image.header.set_slope_inter(0.5, -100.0)
    nib.save(image, tmp_path / "a.nii")
    scan = read(tmp_path / "a.nii", 3)
    expected = nib.as_closest_canonical(nib.load(tmp_path / "a.nii")).get_fdata()
    np.testing.assert_allclose(scan.physical()[0], expected.transpose(2, 1, 0), rtol=0, atol=1e-4)


def test_the_name_may_lie_about_gzip(tmp_path):
    packed = gzip.compress(save(tmp_path / "a.nii").read_bytes())
    (tmp_path / "b.nii").write_bytes(packed)
    assert np.array_equal(read(tmp_path / "b.nii", 3).array, read(tmp_path / "a.nii", 3).array)


def test_what_is_no_volume_is_set_aside_in_words(tmp_path, write_dicom):
    cases = {
        "slice": (save(tmp_path / "s.nii", RAS[:, :, :1]), "a slice (4 x 5 x 1)"),
        "series": (save(tmp_path / "t.nii", np.zeros((4, 5, 6, 3), np.int16)), "3 volumes"),
    }
    for path, said in cases.values():
        with pytest.raises(Unreadable, match="read") as refused:
            read(path, 3)
        assert said in refused.value.reason
        assert refused.value.status == "set-aside"
    lies = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    dicom = write_dicom(tmp_path / "a.dcm", np.zeros((4, 4), np.int16), **lies)
    with pytest.raises(Unreadable, match="one slice; a volume has two at least"):
        read(dicom, 3)
    with pytest.raises(Unreadable, match="does not say where it lies in space"):
        read(write_dicom(tmp_path / "b.dcm", np.zeros((4, 4), np.int16)), 3)
    with pytest.raises(Unreadable, match="`ndim: 3`"):
        read(save(tmp_path / "v.nii"))
    short = tmp_path / "short.nii"
    short.write_bytes(save(tmp_path / "v.nii").read_bytes()[:-10])
    with pytest.raises(Unreadable, match="cut short"):
        read(short, 3)


def body(i: int, rng: np.random.Generator) -> np.ndarray:
    """An ellipsoid of its own size and place, with noise."""
    x, y, z = np.mgrid[:12, :16, :20] / np.array([12, 16, 20]).reshape(3, 1, 1, 1)
    inside = (x - 0.5) ** 2 + (y - 0.4 - i % 3 / 10) ** 2 + (z - 0.5) ** 2 < 0.06 + 0.01 * (i % 4)
    return (100 * inside + rng.normal(0, 5, inside.shape)).astype(np.int16)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volumes")
    rng = np.random.default_rng(0)
    (folder / "raw").mkdir()
    for i in range(10):
        save(folder / f"raw/p{i}.nii.gz", body(i, rng), np.diag([2.0, 1.5, 1.2, 1.0]))
    lines = ["path,label", *(f"p{i}.nii.gz,{i % 2}" for i in range(10))]
    (folder / "raw/labels.csv").write_text("\n".join(lines))
    params = ConvertParams(
        dataset="d", root=str(folder / "raw"), table=str(folder / "raw/labels.csv"), ndim=3
    )
    facts = write_chunk(params, folder / "converted")
    assert facts["scans"] == 10
    recipe = {"ndim": 3, "size": 16}
    made = NormaliseParams.model_validate({"dataset": "d", "recipe": recipe})
    make_store(made, [folder / "converted"], folder / "store")
    return folder


def test_a_store_has_cubes_in_physical_proportions(store):
    made = Store.open(store / "store")
    assert made.voxels.shape == (10, 1, 16, 16, 16)
    # 24 mm along every axis: nothing is padded.
    body_share = (made.voxels[0, 0] > 0.5 / made.scale).mean()
    assert 0.04 < body_share < 0.09  # a ball of a radius of a quarter of the side has 0.065


def test_thumbnails_tell_volumes_apart(store):
    index, pixels = read_converted([store / "converted"])
    made = make_thumbnails(index, pixels)
    assert made.pictures.shape == (10, 32, 32)
    assert not made.constant.any()
    assert len({picture.tobytes() for picture in made.pictures}) == 10
    # A thick slice of the mosaic is the mean of its boxes.
    whole = pixels(index.iloc[0])[0]
    assert made.pictures[0].mean() == pytest.approx(whole.mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("method", "backbone"), [("simclr", "monai-test-resnet"), ("mae", "monai-test-vit")]
)
def test_an_encoder_is_trained_on_it_and_shows_middle_slices(store, tmp_path, method, backbone):
    opened = Store.open(store / "store")
    folds = make_folds(tmp_path / "folds.parquet", opened.scans, n_test=2)
    params = make_params(method, backbone=backbone, patch_size=4).model_dump(mode="json")
    params["recipe"] = {"ndim": 3, "size": 16}
    pretrain(
        type(make_params()).model_validate(params), opened, folds, {}, tmp_path / "out",
        tmp_path / "cache", tmp_path / "checkpoints",
    )  # fmt: skip
    facts = json.loads((tmp_path / "out/encoder.json").read_text())
    assert facts["input"]["ndim"] == 3
    with np.load(tmp_path / "out/views.npz") as views:
        assert views["original"].shape[1:] == (1, 16, 16)
        assert views["views"].shape[2:] == (1, 16, 16)
    with np.load(tmp_path / "out/reconstructions.npz") as made:
        assert made["masked"].shape[1:] == (1, 16, 16)


def problems(**config):
    raw = {"datasets": {"d": {"root": "x", "table": "l.csv"}}, "recipes": {"r": {"ndim": 3}}}
    with pytest.raises(UserError) as refused:
        load({**raw, **config})
    return "\n".join(f"{place}: {said}" for place, said in refused.value.problems)


def test_networks_for_images_are_refused_for_volumes():
    said = problems(encoders={"a": {"method": "simclr"}, "b": {"method": "mae"}})
    assert "encoders.a.backbone: 'resnet18' takes images" in said
    assert "encoders.b.backbone: 'vit_tiny_patch16_224' takes images" in said
    assert "Take slices-resnet18, inflated-resnet18, one of MONAI's" in said
    assert "Take monai-vit-tiny" in said
    of = {"a": {"method": "simclr", "backbone": "monai-resnet18"}}
    axis = {"n": {"of": "a", "backbone": ["slices-resnet18", "resnet18"]}}
    assert "ablations.n.backbone: 'resnet18' takes images" in problems(encoders=of, ablations=axis)
    hidden = {"a": {"method": "simmim", "backbone": "slices-resnet18"}}
    assert "looks at slices one by one. Take an inflated- or a monai-" in problems(encoders=hidden)
    vit = {"a": {"method": "simclr", "backbone": "inflated-vit_tiny_patch16_224"}}
    assert "Take slices-vit_tiny_patch16_224" in problems(encoders=vit)
    with_monai = {"a": {"method": "mae", "backbone": "monai-vit-tiny"}}
    raw = {"datasets": {"d": {"root": "x", "table": "l.csv"}}, "recipes": {"r": {"ndim": 3}}}
    assert load({**raw, "encoders": with_monai}).ndim == 3
    lifted = {n: {"method": "simclr", "backbone": f"{n}-resnet18"} for n in ("slices", "inflated")}
    assert load({**raw, "encoders": lifted}).ndim == 3
    with pytest.raises(UserError) as refused:
        load({**raw, "recipes": {"r": {"ndim": 2}}, "encoders": lifted})
    assert "takes volumes, and the recipe makes images" in str(refused.value.problems)


def test_lifted_networks_take_the_file_of_their_image_network():
    names = ("slices-resnet18", "inflated-resnet18")
    made = expand(load({
        "datasets": {"d": {"root": "x", "table": "l.csv"}}, "recipes": {"r": {"ndim": 3}}, "baselines": ["imagenet"],
        "encoders": {name[:6]: {"method": "simclr", "backbone": name} for name in names},
        "imagenet_weights": {"resnet18": "/w.pth", "inflated-resnet18": "/other.pth"},
    }))  # fmt: skip
    found = [made.encoders[f"imagenet-{name}"].settings.weights for name in names]
    assert found == ["/w.pth", "/other.pth"]


def test_images_and_volumes_are_not_mixed():
    two = {"r": {"ndim": 3}, "s": {"ndim": 2}}
    assert "recipes: some have ndim 2, some 3" in problems(recipes=two)
    encoder = {"a": {"method": "simclr", "backbone": "monai-test-resnet"}}
    axis = {"both": {"of": "a", "ndim": [2, 3]}}
    assert "are not one ablation" in problems(encoders=encoder, ablations=axis)


def test_volumes_of_an_npz(tmp_path):
    volumes = np.random.default_rng(0).integers(0, 255, (4, 6, 5, 4), dtype=np.uint8)
    np.savez(tmp_path / "m.npz", train_images=volumes, train_labels=np.zeros((4, 1), np.uint8))
    params = ConvertParams(dataset="d", npz=str(tmp_path / "m.npz"), ndim=3)
    write_chunk(params, tmp_path / "out")
    index, pixels = read_converted([tmp_path / "out"])
    assert [list(shape) for shape in index["shape"]] == [[6, 5, 4]] * 4
    assert np.array_equal(pixels(index.iloc[2])[0], volumes[2])
