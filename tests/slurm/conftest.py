"""One cluster for each process of pytest: `cluster`. Everything in this folder is marked `slurm`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, missing
from tests.slurm.runs import Toy

HERE = Path(__file__).parent
# Set where a test that is left out would hide a fault (.ci/run).
REQUIRED = "FEWSCANS_REQUIRE_SLURM"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def slurm_installed() -> None:
    """Skips where Slurm is not installed, and fails there if FEWSCANS_REQUIRE_SLURM is 1."""
    absent = missing()
    if absent:
        text = f"a test cluster needs: apt install --no-install-recommends {' '.join(absent)}"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(text, pytrace=False)
        pytest.skip(text)


@pytest.fixture(scope="session")
def cluster(slurm_installed: None) -> Iterator[Cluster]:
    """A running cluster; see the head of cluster.py for how to use it. Leave no job in its queue."""
    # A time limit around the tests ends them by SIGTERM, which alone would leave the daemons behind.
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))
    try:
        with Cluster() as made:
            yield made
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def toy(cluster: Cluster, tmp_path: Path) -> Iterator[Toy]:
    """The toy workflow; its runs end with the test."""
    with Toy(cluster, tmp_path / "run") as made:
        yield made
