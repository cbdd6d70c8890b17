"""NRRD, MetaImage, NIfTI pairs, Analyze and .npy: the voxels and the geometry of other readers, or a refusal."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from fewscans.config.stages import ConvertParams
from fewscans.convert import Scan, Unreadable, paths, read
from fewscans.convert.chunks import read_converted, write_chunk
from fewscans.rawdata import Place, _files

RNG = np.random.default_rng(0)
BODY = RNG.integers(-900, 900, (6, 5, 4)).astype(np.int16)  # [z, y, x]
# Turned by 90 degrees and a little more.
TURN = np.array([[0.02, -1, 0], [1, 0.02, 0.1], [-0.1, 0, 1]])
DIRECTION = np.linalg.qr(TURN)[0] * np.sign(np.diag(np.linalg.qr(TURN)[1]))
DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]


def picture(body: np.ndarray = BODY, colours: bool = False) -> sitk.Image:
    image = sitk.GetImageFromArray(body, isVector=colours)
    image.SetSpacing((0.7, 1.5, 3.0)[: image.GetDimension()])
    if image.GetDimension() == 3:
        image.SetDirection(DIRECTION.ravel().tolist())
        image.SetOrigin((-12.5, 40, 7))
    return image


def write(path: Path, image: sitk.Image, packed: bool = False) -> Path:
    sitk.WriteImage(image, str(path), useCompression=packed)
    return path


def reason(path: Path, ndim: int = 3) -> str:
    with pytest.raises(Unreadable) as caught:
        read(path, ndim)
    return f"{caught.value.status}: {caught.value.reason}"


def assert_same(one: Scan, other: Scan) -> None:
    np.testing.assert_array_equal(one.physical(), other.physical())
    assert one.array.dtype == other.array.dtype
    np.testing.assert_allclose(one.spacing_mm, other.spacing_mm, rtol=1e-6)


# --- the same volume in every file ----------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("end", [".mha", ".mhd", ".nrrd", ".nhdr", ".hdr"])
def test_a_volume_is_the_same_in_every_kind_of_file(tmp_path, end, packed):
    nifti = read(write(tmp_path / "a.nii", picture()), 3)
    scan = read(write(tmp_path / f"b{end}", picture(), packed), 3)
    assert_same(scan, nifti)
    assert scan.array.shape == nifti.array.shape != (1, *BODY.shape)
    assert [note for note in scan.meta.notes if "turned from" in note] == list(nifti.meta.notes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("end", [".mha", ".nrrd", ".img"])
def test_numbers_keep_their_type(tmp_path, dtype, end):
    body = BODY.astype(dtype)
    write(tmp_path / f"a{end}", picture(body))
    scan = read(tmp_path / f"a{end}", 3)
    assert scan.array.dtype == dtype
    assert_same(scan, read(write(tmp_path / "b.nii", picture(body)), 3))


@pytest.mark.parametrize("end", [".nrrd", ".mha"])
def test_big_endian_files_give_the_same_voxels(tmp_path, end):
    path = write(tmp_path / f"a{end}", picture())
    little, plain = path.read_bytes(), read(path, 3)
    head = little[: -BODY.nbytes]
    head = head.replace(b"endian: little", b"endian: big").replace(b"MSB = False", b"MSB = True")
    assert head != little[: -BODY.nbytes]
    path.write_bytes(head + BODY.astype(">i2").tobytes())
    assert_same(read(path, 3), plain)


@pytest.mark.parametrize("end", [".mha", ".nrrd", ".nii"])
def test_images_and_colours(tmp_path, end):
    gray = read(write(tmp_path / f"a{end}", picture(BODY[0])))
    np.testing.assert_array_equal(gray.array[0], BODY[0])
    np.testing.assert_allclose(gray.spacing_mm, (1.5, 0.7), rtol=1e-6)
    pixels = RNG.integers(0, 256, (5, 4, 3)).astype(np.uint8)
    if end != ".nii":
        colour = read(write(tmp_path / f"b{end}", picture(pixels, colours=True)))
        np.testing.assert_array_equal(colour.array, np.moveaxis(pixels, -1, 0))
        assert colour.meta.mode == "RGB"


def test_what_is_no_volume_or_no_image_is_set_aside(tmp_path):
    for end in (".mha", ".nrrd"):
        volume = write(tmp_path / f"v{end}", picture())
        assert reason(volume, 2).startswith("set-aside: a volume (4 x 5 x 6)")
        slice_ = write(tmp_path / f"s{end}", picture(BODY[:1]))
        assert reason(slice_).startswith("set-aside: a slice (4 x 5 x 1)")
        np.testing.assert_array_equal(read(slice_).array[0], BODY[0])
        two = write(tmp_path / f"t{end}", picture(np.stack([BODY] * 2, -1), colours=True))
        assert reason(two).startswith("set-aside: 2 numbers per voxel")
        waves = sitk.Cast(picture(BODY.astype(np.float32)), sitk.sitkComplexFloat32)
        said = reason(write(tmp_path / f"c{end}", waves))
        assert said.startswith(("set-aside: complex", "set-aside: 2 numbers per voxel"))
    series = write(tmp_path / "4d.mha", sitk.GetImageFromArray(np.stack([BODY] * 3), False))
    assert reason(series).startswith("set-aside: 3 volumes (4 x 5 x 6 x 3)")


# --- what headers do not say ----------------------------------------------------------------------


def test_spacing_and_orientation_are_not_guessed(tmp_path):
    head = "NRRD0004\ntype: int16\ndimension: 3\nsizes: 4 5 6\nendian: little\nencoding: raw\n"
    (tmp_path / "a").write_bytes(f"{head}\n".encode() + BODY.tobytes())
    scan = read(tmp_path / "a", 3)
    assert scan.spacing_mm == ()
    assert "no orientation" in scan.meta.notes[-1]
    np.testing.assert_array_equal(scan.array[0], BODY[:, ::-1, ::-1])
    units = 'spacings: 1 2 3\nspace units: "um" "um" "um"\nspace: LPS\n'
    for unit, spacing in (("um", (0.003, 0.002, 0.001)), ("s", ())):
        text = f"{head}{units}\n".replace('"um"', f'"{unit}"').replace("space: LPS\n", "")
        text = text.replace("space units", "space dimension: 3\nspace units")
        text = text.replace("spacings: 1 2 3", "space directions: (1,0,0) (0,2,0) (0,0,3)")
        (tmp_path / "b").write_bytes(_ordered(text).encode() + BODY.tobytes())
        assert read(tmp_path / "b", 3).spacing_mm == pytest.approx(spacing)


def _ordered(text: str) -> str:
    """NRRD wants the dimension of space before what is said in it."""
    lines = [line for line in text.splitlines() if line]
    first = [line for line in lines if line.startswith(("NRRD", "type", "dimension", "space dim"))]
    return "\n".join([*first, *(line for line in lines if line not in first)]) + "\n\n"


def test_the_slope_of_a_metaimage_counts(tmp_path):
    path = write(tmp_path / "a.mha", picture())
    said = b"ElementToIntensityFunctionSlope = 0.5\nElementToIntensityFunctionOffset = -3\nDimSize"
    path.write_bytes(path.read_bytes().replace(b"DimSize", said))
    scan = read(path, 3)
    assert (scan.meta.scale, scan.meta.intercept) == (0.5, -3.0)


# --- NIfTI pairs and Analyze ----------------------------------------------------------------------


def nifti(dtype: str = "int16", slope: float = 0.5) -> nib.Nifti1Image:
    image = nib.Nifti1Image(BODY.transpose(2, 1, 0).astype(dtype), np.diag([-2, 1.5, 3, 1]))
    image.header.set_slope_inter(slope, -100)
    return image


@pytest.mark.parametrize("named", ["b.hdr", "b.img"])
@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
def test_a_pair_is_what_the_single_file_is(tmp_path, kind, named):
    nib.save(nifti(), tmp_path / "a.nii")
    pair = kind(nifti().dataobj, nifti().affine, None)
    pair.header.set_slope_inter(0.5, -100)
    nib.save(pair, tmp_path / "b.hdr")
    assert_same(read(tmp_path / named, 3), read(tmp_path / "a.nii", 3))
    (tmp_path / "b.img.gz").write_bytes(gzip.compress((tmp_path / "b.img").read_bytes()))
    (tmp_path / "b.img").unlink()
    assert_same(read(tmp_path / "b.hdr", 3), read(tmp_path / "a.nii", 3))


@pytest.mark.parametrize("order", ["<", ">"])
def test_analyze_is_read_and_says_what_it_does_not_know(tmp_path, order):
    header = nib.AnalyzeHeader(endianness=order)
    image = nib.AnalyzeImage(BODY.transpose(2, 1, 0), np.diag([-2, 1.5, 3, 1]), header)
    image.header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "a.hdr")
    scan = read(tmp_path / "a.hdr", 3)
    assert scan.meta.format == "ANALYZE"
    assert "does not say where right and left are" in scan.meta.notes[0]
    assert scan.spacing_mm == (3.0, 1.5, 2.0)
    np.testing.assert_array_equal(scan.array[0], BODY[:, :, ::-1])
    with open(tmp_path / "a.hdr", "r+b") as handle:
        handle.seek(112)  # funused1, where SPM has its scale
        handle.write(np.array(0.25, f"{order}f4").tobytes())
    assert "SPM's scale (0.25)" in read(tmp_path / "a.hdr", 3).meta.notes[1]


def test_a_pair_without_its_voxels_is_refused(tmp_path):
    nib.save(nib.Nifti1Pair(BODY, np.eye(4)), tmp_path / "a.hdr")
    (tmp_path / "a.img").unlink()
    assert "the .img of the same name is missing" in reason(tmp_path / "a.hdr")


def test_a_pair_is_one_scan_and_both_files_count(tmp_path):
    folder = tmp_path / "raw/class"
    folder.mkdir(parents=True)
    for end in ("a.mhd", "b.nhdr", "c.hdr"):
        write(folder / end, picture())
    found = paths.walk_classes(tmp_path / "raw", 3)
    assert found == ["class/a.mhd", "class/b.nhdr", "class/c.hdr"]
    params = ConvertParams(dataset="d", root=str(tmp_path / "raw"), ndim=3)
    before = _files(Place(str(tmp_path / "raw")), "path", "mask")
    write_chunk(params, tmp_path / "out")
    index, _ = read_converted([tmp_path / "out"])
    assert index["status"].tolist() == ["ok"] * 3
    assert index["pixel_sha256"].nunique() == 1
    raw = folder / "a.raw"
    raw.write_bytes(raw.read_bytes()[::-1] + b"\0\0")
    _files.cache_clear()
    assert _files(Place(str(tmp_path / "raw")), "path", "mask") != before
    write_chunk(params, tmp_path / "again")
    again, _ = read_converted([tmp_path / "again"])
    assert (again["sha256"] != index["sha256"]).tolist() == [True, False, False]
    assert again["note"][0].startswith("2 bytes more than its header says")


# --- headers that lie -----------------------------------------------------------------------------


@pytest.mark.parametrize("end", [".mhd", ".nhdr"])
@pytest.mark.parametrize("named", ["../secret", "/etc/passwd", "LIST", "a%03d.raw 1 6 1", "", "b"])
def test_a_header_names_no_file_but_one_of_its_folder(tmp_path, end, named):
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(BODY.tobytes())
    (folder / "b").symlink_to(tmp_path / "secret")
    path = write(folder / f"a{end}", picture())
    path.write_text(path.read_text().replace("a.raw", named))
    said = reason(path)
    assert said.startswith("unreadable: ")
    assert any(word in said for word in ("own folder", "a file per slice", "behind a link"))


@pytest.mark.parametrize("end", [".mha", ".nrrd", ".mhd", ".nhdr", ".hdr", ".nii.gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_voxels_that_are_not_there_are_missed(tmp_path, end, packed):
    path = write(tmp_path / f"a{end}", picture(), packed)
    data = max((tmp_path / name for name in ("a.raw", "a.zraw", "a.raw.gz", "a.img", path.name)),
               key=lambda file: file.stat().st_mtime_ns if file.exists() and file != path else 0)  # fmt: skip
    data = data if data.exists() and data != path else path
    data.write_bytes(data.read_bytes()[:-9])
    assert "cut short" in reason(path)


def test_surplus_of_a_packed_file_is_told_and_a_bomb_refused(tmp_path):
    nib.save(nifti(), tmp_path / "a.nii")
    data = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(data + bytes(5)))
    assert read(tmp_path / "a.nii.gz", 3).meta.notes[0].startswith("5 bytes more")
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(data + bytes(2**25)))
    assert "far beyond what the header says" in reason(tmp_path / "b.nii.gz")
    # Two gzip streams, one behind the other, are one (RFC 1952, 2.2): bgzip and pigz write so.
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(data[:400]) + gzip.compress(data[400:]))
    assert_same(read(tmp_path / "c.nii.gz", 3), read(tmp_path / "a.nii", 3))
    wrong = bytearray(gzip.compress(data))
    wrong[-8] ^= 1
    (tmp_path / "d.nii.gz").write_bytes(wrong)
    assert "cannot be unpacked (incorrect checksum found)" in reason(tmp_path / "d.nii.gz")


@pytest.mark.parametrize(("old", "new", "said"), [
    ("encoding: raw", "encoding: hex", "voxels as 'hex'"),
    ("sizes: 4 5 6", "sizes: 40000 50000 60000", "more than the"),
    ("sizes: 4 5 6", "sizes: 4 5 7", "cut short (240 of 280 bytes)"),
    ("encoding: raw", "byte skip: 8\nencoding: raw", "'byte skip' in its header"),
    ("encoding: raw", "encoding: raw\nencoding: raw", "says 'encoding' twice"),
    ("\n\n", "\n", "no end"),
])  # fmt: skip
def test_nrrd_headers_that_are_refused(tmp_path, old, new, said):
    path = write(tmp_path / "a.nrrd", picture())
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode(), 1))
    assert said in reason(path)


# --- .npy -----------------------------------------------------------------------------------------


def test_npy_files_are_images_and_volumes_as_they_stand(tmp_path):
    np.save(tmp_path / "a.npy", BODY.astype(">i2"))
    np.testing.assert_array_equal(read(tmp_path / "a.npy", 3).array[0], BODY)
    np.save(tmp_path / "b.npy", np.asfortranarray(BODY[0]))
    np.testing.assert_array_equal(read(tmp_path / "b.npy").array[0], BODY[0])
    assert reason(tmp_path / "a.npy", 2).startswith("set-aside: shape [6, 5, 4]: [H, W] or")
    np.save(tmp_path / "c.npy", np.array([{}], dtype=object))
    assert "never loaded" in reason(tmp_path / "c.npy", 2)
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[:-1])
    assert "cut short (239 of 240 bytes)" in reason(tmp_path / "a.npy")
