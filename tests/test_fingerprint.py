"""One digest for one set of pixels, whichever way they are stored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewscans.convert import fingerprint, to_physical
from fewscans.convert.fingerprint import digest_and_mean, pixel_digest

SHAPE = (1, 2, 3)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(fingerprint, "_BLOCK", 4)


def stored(numbers: list[int], dtype: str) -> np.ndarray:
    return np.array(numbers, np.int64).astype(dtype).reshape(SHAPE)


@given(
    numbers=st.one_of(
        *(
            st.lists(st.integers(low, high), min_size=6, max_size=6)
            for low, high in ((0, 255), (-(2**15), 2**15 - 1), (0, 2**16 - 1), (-(2**20), 2**20))
        )
    ),
    intercept=st.sampled_from([0, -1024, 1024, 7, 40_000, -40_000, 100_000]),
)
def test_the_same_numbers_have_one_digest_and_one_mean(numbers, intercept):
    physical = np.array(numbers, np.float32).reshape(SHAPE)
    expected, mean = digest_and_mean(physical, 1.0, 0.0)
    assert expected == pixel_digest(physical)
    assert mean == pytest.approx(np.mean(numbers), rel=1e-12, abs=1e-9)
    shifted = [number - intercept for number in numbers]
    tried = 0
    for dtype in ("uint8", "int8", "uint16", "int16", "int32", "float32", "float64"):
        kind = np.dtype(dtype)
        if kind.kind in "iu" and not all(
            np.iinfo(kind).min <= n <= np.iinfo(kind).max for n in shifted
        ):
            continue
        array = stored(shifted, dtype)
        assert digest_and_mean(array, 1.0, float(intercept)) == (expected, mean)
        assert digest_and_mean(-array.astype(np.int64), -1.0, float(intercept))[0] == expected
        tried += 1
    assert tried >= 3


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=6, max_size=6), st.integers(0, 5))
def test_another_number_has_another_digest(values, place):
    first = np.array(values, np.float32).reshape(SHAPE)
    second = first.copy()
    second.flat[place] = np.nextafter(second.flat[place], np.float32(np.inf))
    assert pixel_digest(first) != pixel_digest(second)
    assert pixel_digest(first) == pixel_digest(first.astype(np.float64).astype(np.float32))


def test_shape_counts_and_the_sign_of_zero_does_not():
    flat = np.zeros((1, 1, 6), np.float32)
    assert pixel_digest(flat) != pixel_digest(flat.reshape(SHAPE))
    assert pixel_digest(-flat) == pixel_digest(flat)
    halves = flat + np.float32(0.5)
    halves[0, 0, 0] = 0
    turned = halves.copy()
    turned[0, 0, 0] = -0.0
    assert pixel_digest(halves) == pixel_digest(turned)


@pytest.mark.parametrize("edges", [(0, 255), (-1, 255), (0, 32768), (-1, 32768), (0, 65536)])
def test_numbers_at_the_ends_of_a_type_are_not_wrapped_round(edges):
    low, high = edges
    array = np.array([[[low, high, 1, 2, 3, 4]]], np.int32)
    wrapped = np.array([[[low, high - 256, 1, 2, 3, 4]]], np.int32)
    both = {digest_and_mean(one, 1.0, 0.0)[0] for one in (array, wrapped)}
    both |= {pixel_digest(to_physical(one, 1.0, 0.0)) for one in (array, wrapped)}
    assert len(both) == 2
