"""Leases: held by one, taken over from the dead, waited for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from fewscans.lease import Lease, LeaseLostError, lease


def test_lease_is_held_by_one(tmp_path):
    first, second = Lease(tmp_path / "x"), Lease(tmp_path / "x")
    assert first.take() is None
    assert f"process {os.getpid()}" in second.take()
    first.check()
    with pytest.raises(LeaseLostError):
        second.check()
    first.release()
    assert second.take() is None
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_lease_of_a_dead_process_is_taken_over(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    old = Lease(tmp_path)
    assert old.take() is None
    facts = json.loads(old.path.read_text())
    old.path.write_text(json.dumps({**facts, "pid": gone.pid}))
    new = Lease(tmp_path)
    assert new.take() is None
    with pytest.raises(LeaseLostError):
        old.check()
    old.release()  # not its own any more: left alone
    new.check()
    new.release()


def test_lease_of_another_host_dies_without_a_heartbeat(tmp_path):
    old = Lease(tmp_path)
    assert old.take() is None
    facts = json.loads(old.path.read_text())
    old.path.write_text(json.dumps({**facts, "host": "elsewhere", "token": "theirs"}))
    new = Lease(tmp_path, dead_after_s=60)
    assert "elsewhere" in new.take()
    os.utime(old.path, (time.time() - 61,) * 2)
    assert new.take() is None
    new.release()
    old.release()


def test_second_copy_waits_for_the_output(tmp_path):
    done = threading.Event()
    first = Lease(tmp_path / "x")
    assert first.take() is None
    found = []

    def wait():
        with lease(tmp_path / "x", done.is_set, poll_s=0.01) as held:
            found.append(held)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    assert thread.is_alive()
    assert not found
    done.set()
    thread.join(10)
    assert found == [None]
    first.release()
