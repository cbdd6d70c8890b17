"""What happens to each of 128 peculiar DICOM files: a table as expectation, and the set's own word for every one."""

from __future__ import annotations

import csv
import hashlib

import numpy as np
import pytest
from quirks_table import EXPECTED, labels, outcomes

from fewscans.convert.decoding import decode
from fewscans.convert.headers import read_header, read_pixels

# The set was tried with other decoders. JPEG with errors in its own header is read by GDCM all the same, and what has
# no transfer syntax as uncompressed.
READ_ALL_THE_SAME = {"files/JPEG-lossy.dcm", "files/RG2_JPLY.dcm", "files/OT-PAL-8-face.dcm"}
# Lossy JPEG of 12 bits: its cosines are rounded by each decoder in its own way.
ROUNDED = {"files/JPGExtended.dcm"}


@pytest.fixture(scope="module")
def expected():
    return list(csv.DictReader(EXPECTED.read_text(encoding="utf-8").splitlines()))


@pytest.fixture
def root(shared_data):
    return shared_data("dicom_2d_quirks")


def test_what_happens_to_each_file(root, expected):
    assert list(outcomes(root)) == expected
    assert len(expected) == 128


def test_the_table_and_that_of_the_set_agree(root, expected):
    """Where a file is read: size, bits and colours; and it is read where others read it."""
    for row, label in zip(expected, labels(root), strict=True):
        assert row["path"].partition("#")[0] == label["path"]
        is_read = row["status"] == "ok"
        assert is_read == (label["decodable"] == "yes" or label["path"] in READ_ALL_THE_SAME), row
        if is_read:
            size = row["shape"].split("x")
            assert size[1:] == [label["rows"], label["cols"]], row
            colour = label["photometric"] not in ("MONOCHROME1", "MONOCHROME2")
            assert size[0] == ("3" if colour else "1"), row
            assert row["mode"] == label["photometric"], row
            assert label["bits_stored"] in ("", row["bits"]), row


@pytest.mark.filterwarnings("ignore")
def test_pixels_are_those_of_other_decoders(root):
    """`pixel_hash` is over little-endian numbers and shape, by pydicom with libjpeg, openjpeg, rle and GDCM.

    It is before padding and rescale; GDCM as we call it rescales. Palettes have their own test.
    """
    same, others = 0, set()
    for label in labels(root):
        if not label["pixel_hash"] or label["photometric"] == "PALETTE COLOR":
            continue
        path = root / label["path"]
        header = read_header(path)
        decoded = decode(path, header, read_pixels(path, header))
        planes = decoded.planes
        if decoded.rescaled:
            planes = (planes - (header.get("RescaleIntercept") or 0)) / (
                header.get("RescaleSlope") or 1
            )
        frames = np.moveaxis(planes, 1, -1) if planes.shape[1] == 3 else planes[:, 0]
        array = frames if label["frames"].isdigit() and int(label["frames"]) > 1 else frames[0]
        assert "x".join(map(str, array.shape)) == label["decoded_shape"]
        numbers = array.astype(np.dtype(label["decoded_dtype"]).newbyteorder("<")).tobytes()
        made = hashlib.sha1(numbers + str(array.shape).encode(), usedforsecurity=False).hexdigest()
        if made[:16] == label["pixel_hash"]:
            same += 1
        else:
            others.add(label["path"])
    assert others == ROUNDED
    assert same == 98
