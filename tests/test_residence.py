"""Scans on the device, in memory, on disk: the same numbers, wherever there is room for them."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine_factory import make_params, make_store
from pretrain_factory import Place

from fewscans import engine, residence
from fewscans.residence import OnDisk, Residence
from fewscans.resident import Resident

CPU = torch.device("cpu")


@pytest.fixture
def short_of_memory(monkeypatch) -> None:
    monkeypatch.setattr(residence, "free_bytes", lambda: 0.0)


@pytest.mark.parametrize("dtype", ["uint8", "int16"])
def test_on_disk_the_numbers_are_the_same(tmp_path, monkeypatch, dtype):
    one = make_store(tmp_path / "one", n=9, dtype=dtype)
    two = make_store(tmp_path / "two", n=7, dataset="pool")

    def joined() -> Resident:
        return Resident.join([Resident(one, one.scans[::-1]), Resident(two, two.scans[2:])])

    held, index = joined(), np.array([13, 0, 5, 8, 9, 3, 3])
    assert held.residence.kind == "device"
    monkeypatch.setattr(residence, "free_bytes", lambda: 0.0)
    mapped = joined()
    assert mapped.residence.kind == "disk"
    assert torch.equal(held.batch(index), mapped.batch(index))
    assert held.identity() == mapped.identity()
    expected = np.concatenate([one.read(one.scans[::-1]), two.read(two.scans[2:])])[index]
    torch.testing.assert_close(mapped.batch(index), torch.from_numpy(expected))
    assert mapped.batch([]).shape == (0, 1, 16, 16)


def test_what_is_expected_is_read_beside(tmp_path, short_of_memory, monkeypatch):
    store = make_store(tmp_path / "store", n=12)
    threads = []
    read = OnDisk.read
    monkeypatch.setattr(
        OnDisk, "read", lambda self, index: threads.append(threading.current_thread().name) or read(self, index)
    )  # fmt: skip
    resident = Resident(store, store.scans)
    index, other = np.array([3, 1, 7]), np.array([2, 2])
    plain = resident.batch(index)
    assert threads == ["MainThread"]
    resident.expect(index)
    assert torch.equal(resident.batch(index), plain)
    assert len(threads) == 2
    assert threads[1].startswith("scans")
    # Something else than was expected, as a companion of a scan: read at once, and right.
    resident.expect(index)
    assert torch.equal(resident.batch(other)[0], resident.batch([2])[0])
    assert torch.equal(resident.batch(index), plain)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_training_from_disk_has_the_same_weights(tmp_path, monkeypatch, accumulate):
    place = Place(tmp_path)
    params = make_params("mae", epochs=3, accumulate=accumulate)
    fetched, states = [], []
    take = Residence.take

    def watched(self, index):
        ahead = self._ahead is not None and np.array_equal(self._ahead[0], index)
        fetched.append(ahead)
        return take(self, index)

    monkeypatch.setattr(Residence, "take", watched)
    for free in (None, 0.0):
        if free is not None:
            monkeypatch.setattr(residence, "free_bytes", lambda: 0.0)
            fetched.clear()
        job = place.job(params)
        training = engine.Training(job.make_method(), job.resident, job.schedule)
        training.run()
        states.append(training.method.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    # All but the first were under way before they were asked for.
    assert fetched == [False, *[True] * (job.schedule.n_steps * accumulate - 1)]


def test_the_place_follows_from_what_is_free(monkeypatch):
    monkeypatch.setattr(residence, "free_bytes", lambda: 100.0)
    assert residence.choose(50, CPU) == "device"
    assert residence.choose(51, CPU) == "disk"
    gpu = SimpleNamespace(type="cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (40, 80))
    assert [residence.choose(n, gpu) for n in (20, 21, 50, 51)] == [
        "device", "pinned", "pinned", "disk",
    ]  # fmt: skip


def test_the_limit_of_a_process_counts():
    code = (
        "import resource; from fewscans.residence import free_bytes; before = free_bytes(); "
        "resource.setrlimit(resource.RLIMIT_DATA, (2**31, 2**31)); "
        "assert 0 < free_bytes() < 2**31 <= before, (before, free_bytes())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_log_says_where_they_are(tmp_path, caplog):
    place = Place(tmp_path)
    with caplog.at_level("INFO", "fewscans"):
        place.run(make_params())
    assert "8 scans, 0 MB, on the processor, in memory" in caplog.text
