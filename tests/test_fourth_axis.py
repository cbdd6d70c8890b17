"""Files of several volumes (4D): each volume is what it would be alone, and what else has four axes or more."""

from __future__ import annotations

import gzip
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from fourth_axis_factory import (
    AFFINE,
    ITK,
    LISTS,
    NIFTI,
    body,
    save,
    save_itk,
    save_list,
    save_nifti,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from fewscans.convert import Unreadable, count_volumes, parts, read

KINDS = (*NIFTI, *ITK, *LISTS, "a.npy")


def reason(path, *args) -> str:
    with pytest.raises(Unreadable) as refused:
        read(path, 3, *args)
    return f"{refused.value.status}: {refused.value.reason}"


def assert_same(one, other) -> None:
    np.testing.assert_array_equal(one.array, other.array)
    assert one.array.dtype == other.array.dtype
    np.testing.assert_allclose(one.spacing_mm, other.spacing_mm)
    assert (one.affine is None) == (other.affine is None)
    if one.affine is not None:
        np.testing.assert_allclose(one.affine, other.affine)
    for name in ("format", "mode", "bits", "scale", "intercept"):
        assert getattr(one.meta, name) == getattr(other.meta, name)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(KINDS), dtype=st.sampled_from(["<i2", ">i2", "|u1", "<f4", ">f4", "<f8"]),
    count=st.integers(2, 5), shape=st.tuples(*[st.integers(2, 5)] * 3), packed=st.booleans(), data=st.data(),
)  # fmt: skip
def test_a_volume_of_several_is_what_it_would_be_alone(
    tmp_path_factory, name, dtype, count, shape, packed, data
):
    if name == "a.npy":
        shape = (*shape[:2], 6)  # a last axis of 3 is colours, the shortest one is no axis of space
    if name in ITK:
        dtype = dtype.replace(">", "<")  # as SimpleITK writes
    folder = tmp_path_factory.mktemp("one")
    volumes = body(count, dtype, shape)
    path = save(folder / name, volumes, packed)
    assert count_volumes(path) == count
    for number in data.draw(st.permutations(range(count))):
        found = read(path, 3, number)
        assert found.meta.notes[0].startswith(f"volume {number + 1} of {count}, along its ")
        if name in LISTS:  # an NRRD of one volume has no list
            alone = save_itk(folder / "alone.nrrd", volumes[number].astype(dtype.replace(">", "<")))
            head, _, voxels = alone.read_bytes().partition(b"\n\n")
            lines = [
                b"space directions: (1,0,0) (0,2,0) (0,0,-3)" if line.startswith(b"space dir")
                else b"space origin: (7,8,9)" if line.startswith(b"space ori") else line
                for line in head.split(b"\n")
            ]  # fmt: skip
            alone.write_bytes(b"\n".join(lines) + b"\n\n" + voxels)
        else:
            alone = save(folder / f"alone{path.name[1:]}", volumes[number], packed)
        assert_same(found, read(alone, 3))


def test_voxels_are_those_of_nibabel_and_simpleitk(tmp_path):
    volumes = body(3)
    image = nib.as_closest_canonical(nib.load(save_nifti(tmp_path / "a.nii.gz", volumes, slope=0.5)))  # fmt: skip
    path = save_itk(tmp_path / "a.mha", volumes, packed=True)
    whole = sitk.ReadImage(str(path))
    for number in range(3):
        scan = read(tmp_path / "a.nii.gz", 3, number)
        wanted = np.asarray(image.dataobj[..., number], np.float32)
        np.testing.assert_array_equal(scan.physical()[0].T, wanted)
        np.testing.assert_allclose(scan.affine, image.affine)
        other = read(path, 3, number)
        turned = sitk.GetArrayFromImage(sitk.DICOMOrient(whole[:, :, :, number], "RAS"))
        np.testing.assert_array_equal(other.array[0], turned)


def test_a_fourth_axis_of_one_is_no_axis(tmp_path):
    for name in (*NIFTI, *ITK):
        path = save(tmp_path / name, body(1))
        assert count_volumes(path) == 1
        scan = read(path, 3)
        assert scan.array.shape[1:] == read(save(tmp_path / f"b{name}", body(1)[0]), 3).array.shape[1:]  # fmt: skip
        assert not any("volume" in note for note in scan.meta.notes)
    long = np.moveaxis(body(3), 0, -1).T[..., None].transpose(1, 2, 3, 0, 4)
    nib.save(nib.Nifti1Image(np.ascontiguousarray(long), AFFINE), tmp_path / "c.nii")
    assert count_volumes(tmp_path / "c.nii") == 3  # x, y, z, 3, 1


def test_what_has_several_numbers_per_voxel_is_refused(tmp_path):
    vector = nib.Nifti1Image(np.zeros((4, 5, 6, 1, 3), np.float32), AFFINE)
    vector.header.set_intent("vector")
    nib.save(vector, tmp_path / "v.nii")
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6, 2, 3), np.float32), AFFINE), tmp_path / "w.nii")
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6, 2), np.complex64), AFFINE), tmp_path / "c.nii")
    for name, said in (("v", "5 axes"), ("w", "5 axes"), ("c", "complex numbers")):
        with pytest.raises(Unreadable, match=said) as refused:
            count_volumes(tmp_path / f"{name}.nii")
        assert refused.value.status == "set-aside"
    path = save_list(tmp_path / "first.nrrd", body(6))
    made = tmp_path / "vector.nrrd"
    made.write_bytes(path.read_bytes().replace(b"kinds: list", b"kinds: vector"))
    with pytest.raises(Unreadable, match="6 numbers per voxel"):
        count_volumes(made)
    middle = path.read_bytes().replace(b"list domain", b"domain list")
    middle = middle.replace(b"none (1,0,0)", b"(1,0,0) none")
    (tmp_path / "m.nrrd").write_bytes(middle)
    with pytest.raises(Unreadable, match="between axes of space"):
        count_volumes(tmp_path / "m.nrrd")


def test_three_of_a_list_are_volumes_and_three_colours_are_one(tmp_path):
    path = save_list(tmp_path / "first.nrrd", body(3, "|u1"))
    assert count_volumes(path) == 3
    assert reason(path).startswith("set-aside: 3 volumes (3 x 5 x 4 x 3); one is read here, as PATH#1")  # fmt: skip
    colours = tmp_path / "rgb.nrrd"
    colours.write_bytes(path.read_bytes().replace(b"kinds: list", b"kinds: RGB-color"))
    assert count_volumes(colours) == 1
    assert read(colours, 3).meta.mode == "RGB"
    rgb = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(rgb, AFFINE), tmp_path / "rgb.nii")
    assert count_volumes(tmp_path / "rgb.nii") == 1
    assert read(tmp_path / "rgb.nii", 3).array.shape[1:] == (6, 4, 5)
    two = np.stack([rgb, rgb], -1)
    two["G"][..., 1] = 7
    nib.save(nib.Nifti1Image(two, AFFINE), tmp_path / "two.nii")
    assert read(tmp_path / "two.nii", 3, 1).array[:, 0, 0, 0].tolist() == [0, 7, 0]


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((6, 6, 6, 3), 1), ((6, 6, 6, 1), 1), ((20, 4, 5, 6), 20), ((3, 6, 6, 6), 3),
        ((9, 6, 6, 5), "the last axis is the shortest"),
    ],
)  # fmt: skip
def test_which_axis_of_an_array_counts_volumes(tmp_path, shape, said):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(shape, np.uint8))
    if isinstance(said, int):
        assert count_volumes(path) == said
        return
    with pytest.raises(Unreadable, match=said):
        count_volumes(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.nrrd", "packed.nrrd", "a.npy"])
def test_a_file_that_is_cut_short_is_refused_before_any_volume(tmp_path, name):
    path = save(tmp_path / name, body(4, "<i2", (4, 5, 6)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Unreadable, match="cut short"):
        count_volumes(path)
    with pytest.raises(Unreadable, match="cut short"):
        read(path, 3, 0)


def test_damage_behind_a_volume_is_seen_with_the_first_one(tmp_path):
    noise = np.random.default_rng(0).integers(0, 999, (4, 9, 8, 7), np.int16)
    path = save_nifti(tmp_path / "a.nii.gz", noise)
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # of the checksum
    path.write_bytes(data)
    with pytest.raises(Unreadable, match="damaged"):
        read(path, 3, 0)


def test_headers_that_promise_too_much(tmp_path):
    assert "no such volume; it holds 3 volumes" in reason(save(tmp_path / "a.nii", body(3)), 3)
    image = nib.Nifti1Image(np.zeros((2, 2, 2, 10_001), np.uint8), AFFINE)
    nib.save(image, tmp_path / "many.nii")
    with pytest.raises(Unreadable, match="10001 volumes: more than the 10000"):
        count_volumes(tmp_path / "many.nii")
    image.header.set_data_shape((1000, 500, 200, 9000))
    (tmp_path / "huge.nii.gz").write_bytes(gzip.compress(image.header.binaryblock + bytes(9)))
    with pytest.raises(Unreadable, match="more than the 2147 million"):
        count_volumes(tmp_path / "huge.nii.gz")


def test_a_file_that_changes_is_read_anew(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", body(3))
    before = read(path, 3, 1)
    save_nifti(path, body(3) + 1)
    np.testing.assert_array_equal(read(path, 3, 1).array, before.array + 1)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "packed.mha", "packed.nrrd", "a.npy"])
def test_one_volume_is_in_memory_and_packed_data_are_unpacked_twice(tmp_path, name, monkeypatch):
    volumes = np.random.default_rng(0).integers(0, 99, (20, 60, 61, 62), np.int16)
    path = save(tmp_path / name, volumes, packed=True)  # .npy: n is the innermost axis
    unpacked = []
    blocks_of = parts.blocks_of

    def counted(handle):
        for block in blocks_of(handle):
            unpacked.append(len(block))
            yield block

    monkeypatch.setattr(parts, "blocks_of", counted)
    monkeypatch.setattr(parts, "_TOGETHER", 3 * volumes[0].nbytes)
    parts._open.cache_clear()
    read(save(tmp_path / "warm.nii", body(2)), 3, 0)
    tracemalloc.start()
    try:
        for number in range(count_volumes(path)):
            read(path, 3, number)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * volumes[0].nbytes + 2**22 < volumes.nbytes
    # Beside the look at the whole file; volumes that are woven into each other come three in one go.
    passes = {"packed.nrrd": 7, "packed.mha": 1, "a.nii.gz": 1}.get(name, 0)
    assert sum(unpacked) <= passes * (volumes.nbytes + 2**21)
