"""Random numbers by key, not by turn: each follows from (seed, epoch, scan, view, index) alone.

A shared stream would make a scan's augmentation depend on who was drawn before it, so on the order of jobs, on the
batch size and on where a killed job went on. Here every number is a hash of its own address. The mixing is splitmix64
(Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators", section 4.2); one finaliser per
part of the address, so that addresses that differ in one part share nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_TO_UNIT = 2.0**-53
# Index of the view that `permutation` uses: no augmentation is drawn there.
_ORDER_VIEW = -1


def key_of(*parts: str | int) -> int:
    """64-bit key of a name: SHA-256 over the parts with their lengths, so that ("ab", "c") is not ("a", "bc")."""
    text = hashlib.sha256()
    for part in parts:
        raw = f"{type(part).__name__}:{part}".encode()
        text.update(len(raw).to_bytes(8, "big"))
        text.update(raw)
    return int.from_bytes(text.digest()[:8], "big")


def scan_keys(scans: Sequence[str]) -> NDArray[np.uint64]:
    """Keys [N] of scans: their 16 hex digits as a number; of any other name the `key_of` it."""
    return np.array([_scan_key(str(scan)) for scan in scans], dtype=np.uint64)


def _scan_key(scan: str) -> int:
    if len(scan) == 16:
        try:
            return int(scan, 16)
        except ValueError:
            pass
    return key_of(scan)


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser: a bijection of 64 bits in which every input bit moves every output bit."""
    state = (state ^ (state >> _S30)) * _FIRST
    state = (state ^ (state >> _S27)) * _SECOND
    return state ^ (state >> _S31)


def _as_uint64(value: int | NDArray[np.integer]) -> NDArray[np.uint64]:
    """Any integers, negative ones too, modulo 2**64; at least 1-d, since NumPy warns of overflow in scalars."""
    if isinstance(value, int):
        return np.array([value % 2**64], dtype=np.uint64)
    return np.atleast_1d(np.asarray(value)).astype(np.uint64)


def uniform(
    seed_key: int, epoch: int | NDArray[np.integer], scans: NDArray[np.uint64], view: int, n: int
) -> NDArray[np.float64]:
    """Uniform numbers [B, n] in [0, 1), 53 bits each; a row depends on its own scan and epoch alone.

    Parameters
    ----------
    seed_key
        From `key_of`; different purposes take different keys.
    epoch
        One for all rows, or one per row [B].
    scans
        Keys [B] of `scan_keys`.
    view
        Which view of the scan; other uses of the same scan and epoch take other numbers.
    n
        Numbers per row; asking for more changes none of the first.
    """
    state = _mix(_as_uint64(seed_key) + _GOLDEN)
    state = _mix(state + (_as_uint64(epoch) + np.uint64(1)) * _GOLDEN)
    state = _mix(state ^ _mix(_as_uint64(scans) + _GOLDEN))
    state = _mix(state + _as_uint64(view + 1) * _GOLDEN)
    counters = np.arange(1, n + 1, dtype=np.uint64) * _GOLDEN
    return (_mix(state[:, None] + counters[None, :]) >> _S11).astype(np.float64) * _TO_UNIT


def permutation(seed_key: int, epoch: int, scans: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Order [N] that sorts keyed numbers: which scan follows which does not depend on how they were listed.

    Listing the scans otherwise gives the same sequence of scans; leaving one out leaves the others in order.
    """
    numbers = uniform(seed_key, epoch, scans, _ORDER_VIEW, 1)[:, 0]
    return np.lexsort((scans, numbers)).astype(np.int64)
