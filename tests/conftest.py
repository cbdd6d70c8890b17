"""What all tests share: one thread a process, and hypothesis without a clock."""

from __future__ import annotations

import os

# Before numpy or torch are imported, here and in the processes that tests start: tests run two at a time, and the
# bytes of a result depend on the number of threads.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "agg")

from hypothesis import HealthCheck, settings  # noqa: E402 - after the lines above

# A slow machine is no bug, and a test that failed once must fail again.
settings.register_profile(
    "fewscans", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fewscans")
