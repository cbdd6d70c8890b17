"""Keyed numbers: uniform, independent of neighbours and order, and frozen for ever."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fewscans import keyed

KEYS = keyed.scan_keys([f"{keyed.key_of('scan', i):016x}" for i in range(200)])


def test_golden_numbers():
    """A change here changes every result: views, orders, draws."""
    assert keyed.key_of("a", 1) == 7346951638850470332
    expected = [[0.6890359795462311, 0.6692529115502669]]
    found = keyed.uniform(7, 3, np.array([12345], dtype=np.uint64), 1, 2)
    np.testing.assert_array_equal(found, expected)


def test_key_of_keeps_parts_apart():
    keys = {
        keyed.key_of(*parts)
        for parts in [("ab", "c"), ("a", "bc"), ("abc",), ("a", "b", "c"), (1,), ("1",), (11,)]
    }
    assert len(keys) == 7
    assert all(0 <= key < 2**64 for key in keys)


def test_scan_keys_are_the_hex_digits_or_a_hash():
    found = keyed.scan_keys(["00000000000000ff", "not hex at all!!", "short"])
    assert found[0] == 255
    assert found[1] == keyed.key_of("not hex at all!!")
    assert found[2] == keyed.key_of("short")
    assert found.dtype == np.uint64


def _splitmix(state: int) -> int:
    """One finaliser, in Python's whole numbers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
    return state ^ (state >> 31)


def test_against_plain_transcription():
    golden = 0x9E3779B97F4A7C15
    seed, epoch, view, n = 99, 4, 2, 3
    expected = np.empty((5, n))
    for row, scan in enumerate(int(key) for key in KEYS[:5]):
        state = _splitmix((seed + golden) % 2**64)
        state = _splitmix((state + (epoch + 1) * golden) % 2**64)
        state = _splitmix(state ^ _splitmix((scan + golden) % 2**64))
        state = _splitmix((state + (view + 1) * golden) % 2**64)
        for i in range(n):
            expected[row, i] = (_splitmix((state + (i + 1) * golden) % 2**64) >> 11) / 2**53
    np.testing.assert_array_equal(keyed.uniform(seed, epoch, KEYS[:5], view, n), expected)


@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 10**6),
    st.lists(st.integers(0, 199), min_size=1, max_size=20),
)
@settings(max_examples=50, deadline=None)
def test_a_row_depends_on_its_own_scan_alone(seed, epoch, rows):
    whole = keyed.uniform(seed, epoch, KEYS, 0, 4)
    np.testing.assert_array_equal(keyed.uniform(seed, epoch, KEYS[rows], 0, 4), whole[rows])


def test_epochs_per_row_equal_epochs_one_by_one():
    epochs = np.arange(10)
    together = keyed.uniform(1, epochs, KEYS[:10], 0, 3)
    apart = [keyed.uniform(1, int(e), KEYS[i : i + 1], 0, 3)[0] for i, e in enumerate(epochs)]
    np.testing.assert_array_equal(together, apart)


def test_more_numbers_change_none_of_the_first():
    np.testing.assert_array_equal(
        keyed.uniform(1, 0, KEYS, 0, 9)[:, :4], keyed.uniform(1, 0, KEYS, 0, 4)
    )


@pytest.mark.parametrize("axis", ["index", "scan", "view", "epoch", "seed"])
def test_uniform_and_uncorrelated_along_each_part_of_the_address(axis):
    n = 20_000
    if axis == "index":
        values = keyed.uniform(0, 0, KEYS[:1], 0, n)[0]
    elif axis == "scan":
        values = keyed.uniform(0, 0, np.arange(n, dtype=np.uint64), 0, 1)[:, 0]
    elif axis == "epoch":
        values = keyed.uniform(0, np.arange(n), np.full(n, KEYS[0]), 0, 1)[:, 0]
    else:
        n = 2000
        address = {"view": lambda i: (0, i), "seed": lambda i: (i, 0)}[axis]
        values = np.array(
            [
                keyed.uniform(seed, 0, KEYS[:1], view, 1)[0, 0]
                for seed, view in map(address, range(n))
            ]
        )
    assert values.min() >= 0
    assert values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 5 / np.sqrt(n)


def test_permutation_does_not_depend_on_the_listing():
    order = keyed.permutation(5, 1, KEYS)
    assert sorted(order) == list(range(len(KEYS)))
    shuffled = np.random.default_rng(0).permutation(len(KEYS))
    np.testing.assert_array_equal(
        KEYS[shuffled][keyed.permutation(5, 1, KEYS[shuffled])], KEYS[order]
    )
    without = np.delete(KEYS, 17)
    np.testing.assert_array_equal(
        without[keyed.permutation(5, 1, without)], [k for k in KEYS[order] if k != KEYS[17]]
    )
    assert not np.array_equal(order, keyed.permutation(5, 2, KEYS))
