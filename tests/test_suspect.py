"""Burned-in text and faces: suspected where they are, and not everywhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from audit_factory import Cohort, found, picture
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from series_factory import converted

from fewscans.audit.thumbnails import to_gray
from fewscans.privacy.header import Header, read_header
from fewscans.privacy.suspect import has_text, is_head, says_burned_in, says_face, volume_has_text

DATA = Path(__file__).parents[2] / "shared/data"
RNG = np.random.default_rng(0)
# Of 120 pictures that `random.Random(1)` draws from BUSI, those in which a human sees words, by row and column of 12.
SEEN = [(1, 1), (1, 4), (2, 6), (2, 9), (2, 11), (4, 4), (4, 5), (4, 12), (5, 2), (6, 5), (6, 7), (7, 3), (8, 1),
        (9, 12), (10, 3), (10, 8)]  # fmt: skip


def tissue(size: int, grain: float = 3) -> np.ndarray:
    """Speckle as an ultrasound has it."""
    smooth = ndimage.gaussian_filter(RNG.normal(size=(size, size)), grain)
    return (90 + 130 * grain * smooth + 6 * RNG.normal(size=(size, size))).clip(0, 255)


def written(pixels: np.ndarray, text: str, height: int, at: tuple[int, int] = (4, 4)) -> np.ndarray:
    image = Image.fromarray(pixels.astype(np.uint8))
    ImageDraw.Draw(image).text(at, text, fill=255, font=ImageFont.load_default(height))
    return np.asarray(image, dtype=np.float32)


@pytest.mark.parametrize(
    ("size", "height"), [(128, 10), (256, 10), (256, 20), (512, 14), (512, 20)]
)
@pytest.mark.parametrize("ground", [lambda size: np.zeros((size, size)), tissue])
def test_a_name_in_a_corner_is_suspected(size, height, ground) -> None:
    assert has_text(written(ground(size), "MEIER UTE 12.06.1957", height))


def test_a_picture_without_letters_is_not() -> None:
    assert not any(
        has_text(tissue(256, grain).astype(np.float32)) for grain in (3, 6) for _ in range(5)
    )
    assert not any(has_text(picture(seed)[0]) for seed in range(20))
    assert not has_text(np.zeros((64, 64), np.float32))
    bars = np.zeros((128, 128), np.float32)
    bars[5:123, 10:12] = bars[60:62] = 255
    assert not has_text(bars)


def body(width_mm: float, depth_mm: float, length_mm: float, edge: bool = False) -> np.ndarray:
    """[D, H, W] of 3 mm: an ellipse of 40 HU in air, 300 mm wide; at the `edge` it leaves the picture."""
    h, w = np.mgrid[:100, :100] * 3.0
    middle = 40.0 if edge else 150.0
    inside = ((h - 150) / (depth_mm / 2)) ** 2 + ((w - middle) / (width_mm / 2)) ** 2 <= 1
    return np.where(inside, 40.0, -1000.0)[None].repeat(round(length_mm / 3), 0).astype(np.float32)


def test_a_head_is_told_by_its_size_and_the_air_around_it() -> None:
    step = (3.0, 3.0, 3.0)
    assert is_head(body(155, 190, 150), step, "HU")
    assert is_head(body(155, 190, 150) + 1000, step, "")  # MR: any unit
    assert not is_head(body(290, 220, 150), step, "HU")  # a chest
    assert not is_head(body(155, 190, 150, edge=True), step, "HU")
    assert not is_head(body(155, 190, 30), step, "HU")  # a few slices
    assert not is_head(body(60, 50, 150), step, "HU")  # an arm
    assert not is_head(np.full((50, 60, 60), -1000, np.float32), step, "HU")


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("spacing", "slices"), [(5.0, 24), (1.0, 24), (5.0, 1)])
def test_a_name_in_the_planes_of_a_volume_is_suspected(axis, spacing, slices) -> None:
    """Whichever way it was sliced, turned over as RAS does; on one slice of many alone it is not."""
    planes = np.stack([tissue(128) for _ in range(slices)]).astype(np.float32)
    sizes = [1.0, 1.0, 1.0]
    sizes[axis] = spacing

    def suspected() -> bool:
        return volume_has_text(np.moveaxis(planes, 0, axis), tuple(sizes))

    assert not suspected()
    for number, plane in enumerate(planes):
        plane[:] = written(plane, "MEIER UTE 12.06.1957", 12)[::-1, ::-1]
        assert suspected() == (
            number > 5 or slices == 1
        )  # the sixth is the second that is looked at


def test_real_volumes_have_no_text(shared_data) -> None:
    found = {}
    for name in ("hippocampus_nifti", "dicom_series_quirks"):
        for path, scan in converted(shared_data(name)).items():
            if not isinstance(scan, str):
                array = np.asarray(scan.array, dtype=np.float32)
                found[path] = volume_has_text(to_gray(array), scan.spacing_mm or ())
    assert len(found) > 140
    assert not [path for path, text in found.items() if text]


def test_what_a_header_says() -> None:
    assert says_burned_in(Header(burned_in="YES")) == "its header says so"
    assert says_burned_in(Header(classes=("1.2.840.10008.5.1.4.1.1.7.2",))) == "a secondary capture"
    assert says_burned_in(Header(modality="US")) == "an ultrasound object"
    assert says_burned_in(Header(modality="CT", burned_in="NO")) == ""
    assert says_face(Header(modality="MR", body="Neuro^brain"))
    assert not says_face(Header(modality="MR", body="Femoral head"))
    assert not says_face(Header(modality="US", body="head"))


def test_the_audit_tells(tmp_path) -> None:
    cohort = Cohort()
    cohort.fill(24)
    cohort.add("named.png", written(tissue(128), "MEIER UTE 1957", 10)[None], "a", "n")
    cohort.add("capture.dcm", picture(7), "a", "c", burned_in="a secondary capture")
    volume = body(155, 190, 150)
    cohort.add(
        "head.nii",
        volume[None],
        "b",
        "h",
        shape=list(volume.shape),
        spacing_mm=[3.0] * 3,
        unit="HU",
    )
    planes = np.stack([written(tissue(128), "MEIER UTE 1957", 10) for _ in range(5)])
    cohort.add("named.nii", planes[None], "b", "v", shape=[5, 128, 128], spacing_mm=[4.0, 1.0, 1.0])
    made = cohort.audit()
    text = found(made, "burned-in").set_index("path")["message"].to_dict()
    assert text == {
        "named.png": "strokes like letters at the border",
        "named.nii": "strokes like letters at the border",
        "capture.dcm": "a secondary capture",
    }
    assert found(made, "face")["path"].tolist() == ["head.nii"]
    assert set(found(made, "face")["severity"]) == {"warning"}


def test_breast_ultrasound_as_seen_by_eye() -> None:
    """Words of 3 to 5 pixels, made smaller with their pictures: few are found, and nothing else is."""
    import random

    root = DATA / "busi_128"
    if not root.is_dir():
        pytest.skip("BUSI is not at hand")
    # Sampled as it was looked at: the list of files, in order.
    drawn = random.Random(1).sample(sorted(root.glob("*/*.png")), 120)
    seen = {12 * (row - 1) + column - 1 for row, column in SEEN}
    told = {
        i
        for i, path in enumerate(drawn)
        if has_text(np.asarray(Image.open(path).convert("L"), np.float32))
    }
    assert len(told & seen) >= 4
    assert len(told - seen) <= 1


def test_dicom_of_all_kinds_is_read_for_its_flags() -> None:
    root = DATA / "dicom_2d_quirks"
    if not root.is_dir():
        pytest.skip("the DICOM files are not at hand")
    headers = [read_header(path) for path in sorted(root.rglob("*")) if path.is_file()]
    said = pd.Series([says_burned_in(header) for header in headers])
    assert said.value_counts()["an ultrasound object"] > 0
    assert all(header.modality in ("", "other") or header.modality.isalnum() for header in headers)
