"""A dry-run ends with the plan; a real run leaves a note of each job. Switched on by ``logger: fewscans`` in a profile.

Snakemake imports this at each start, so all that it needs it imports late. It never breaks a run: what goes wrong in
here costs the plan, not the run.
"""

from __future__ import annotations

import os
import sys
from logging import LogRecord
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

# A file that gets the jobs as JSON; the plan is then not printed (`fewscans plan` reads it).
JOBS_FILE = "FEWSCANS_PLAN_JOBS"


class LogHandler(LogHandlerBase):
    """Listens; Snakemake's own output goes on as ever."""

    def __post_init__(self) -> None:
        self._sink: Any = None
        self._failed = False

    def emit(self, record: LogRecord) -> None:
        """Keep what a job's event says. Runs in a thread of its own."""
        if self._failed:
            return
        try:
            if self._sink is None:
                self._sink = self._make_sink()
            self._sink.take(getattr(record, "event", None), record)
        except Exception as error:
            self._fail(error)

    def close(self) -> None:
        """Print the plan; Snakemake calls this twice."""
        sink, self._sink = self._sink, None
        if sink is not None and not self._failed:
            try:
                sink.end()
            except Exception as error:
                self._fail(error)
        super().close()

    def _make_sink(self) -> Any:
        if self.common_settings.dryrun:
            from fewscans.forecast.listen import DryRun

            return DryRun(LogEvent, os.environ.get(JOBS_FILE))
        from fewscans.forecast.record import Recorder

        return Recorder(LogEvent)

    def _fail(self, error: Exception) -> None:
        self._failed = True
        if isinstance(error, BrokenPipeError):  # who reads (`| head`) has seen enough
            return
        if self.common_settings.dryrun or self.common_settings.verbose:
            print(f"no plan: {type(error).__name__}: {error}", file=sys.stderr)

    @property
    def writes_to_stream(self) -> bool:
        """False: Snakemake's own output stays, and the plan comes after it."""
        return False

    @property
    def writes_to_file(self) -> bool:
        """False."""
        return False

    @property
    def has_filter(self) -> bool:
        """True: everything is heard, also under ``--quiet``."""
        return True

    @property
    def has_formatter(self) -> bool:
        """True: nothing is formatted."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """False: it would cost time."""
        return False


def register() -> bool:
    """Make Snakemake know this plugin where its own search does not see it (``pip install -e``, a bare clone).

    Profiles call it, so that ``logger: fewscans`` works wherever fewscans can be imported.
    """
    from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry

    LoggerPluginRegistry().register_plugin(__name__, sys.modules[__name__])
    return True
