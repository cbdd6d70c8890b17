"""Stores on the node's own disk."""

from __future__ import annotations

import logging
import multiprocessing
import os
import time

import pytest

from fewscans.cluster import scratch, site


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "work/d/r/store"
    folder.mkdir(parents=True)
    (folder / "voxels.npy").write_bytes(os.urandom(10_000))
    (folder / "store.json").write_text("{}")
    return folder


@pytest.fixture
def in_job(tmp_path, monkeypatch):
    """A job on a node whose own disk is `tmp_path / "disk"`."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "site.yaml").write_text("scratch: $NODE_DISK\n")
    monkeypatch.setenv("NODE_DISK", str(tmp_path / "disk"))
    monkeypatch.setenv(site.VARIABLE, str(tmp_path / "site.yaml"))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    site.current_site.cache_clear()
    yield tmp_path / "disk"
    site.current_site.cache_clear()


def copies(disk):
    return [p for p in disk.glob("fewscans-*/*") if not p.name.startswith(".")]


def test_a_job_reads_a_copy_with_the_same_bytes(store, in_job):
    copy = scratch.near(store)
    assert in_job in copy.parents
    for path in store.iterdir():
        assert (copy / path.name).read_bytes() == path.read_bytes()


def test_the_second_job_on_a_node_finds_it(store, in_job):
    first = scratch.near(store)
    inode = (first / "voxels.npy").stat().st_ino
    assert scratch.near(store) == first
    assert (first / "voxels.npy").stat().st_ino == inode


def test_a_store_made_anew_is_copied_anew(store, in_job):
    first = scratch.near(store)
    (store / "voxels.npy").write_bytes(b"other")
    second = scratch.near(store)
    assert second != first
    assert (second / "voxels.npy").read_bytes() == b"other"


def test_outside_a_job_nothing_is_copied(store, in_job, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID")
    assert scratch.near(store) == store
    assert not copies(in_job)


def test_without_the_setting_nothing_is_copied(store, in_job, tmp_path):
    (tmp_path / "site.yaml").write_text("account: x\n")
    site.current_site.cache_clear()
    assert scratch.near(store) == store


def test_a_variable_that_is_not_set_is_said(store, in_job, monkeypatch, caplog):
    monkeypatch.delenv("NODE_DISK")
    with caplog.at_level(logging.WARNING, "fewscans"):
        assert scratch.near(store) == store
    assert "$NODE_DISK: not set on this node" in caplog.text


def test_no_room_costs_speed_only(store, in_job, monkeypatch, caplog):
    monkeypatch.setattr(scratch, "SPARE", 1.0)
    with caplog.at_level(logging.WARNING, "fewscans"):
        assert scratch.near(store) == store
    assert "do not fit" in caplog.text
    assert not copies(in_job)


def test_what_nobody_used_for_long_is_removed(store, in_job):
    first = scratch.near(store)
    old = time.time() - scratch.UNUSED_S - 60
    os.utime(first, (old, old))
    (store / "voxels.npy").write_bytes(b"other")
    second = scratch.near(store)
    assert copies(in_job) == [second]


def test_jobs_that_start_together_make_one_copy(store, in_job):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(scratch.near, [store] * 8)
    assert len(set(found)) == 1
    assert copies(in_job) == [found[0]]
