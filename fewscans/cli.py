"""The frame every script shares: arguments, settings, logging, exit codes, and a side-car. No torch here.

Exit codes: 0 done, 2 a user's mistake (said in words), 1 a fault of ours (traceback), 130 interrupted, 75 to be
continued: nothing failed, what is done is kept, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fewscans import __version__
from fewscans.cluster import deadline, rundigests
from fewscans.config.load import parse, read_config_file
from fewscans.errors import UserError
from fewscans.files import write_json

log = logging.getLogger("fewscans")


def parser(description: str, params: type[BaseModel] | None = None) -> argparse.ArgumentParser:
    """Parser with `--params` (JSON, or @file.yaml) where the script has settings."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if params is not None:
        made.add_argument(
            "--params",
            default="{}",
            help=f"settings as JSON, or @FILE.yaml ({params.__name__}, see docs/settings.md)",
        )
    return made


def read_params(text: str, model: type[BaseModel]) -> Any:
    """`model` from the text of ``--params``."""
    if text.startswith("@"):
        return parse(model, read_config_file(text[1:]), text[1:])
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"--params: not valid JSON ({error}). Quote it for the shell, or give @FILE.yaml."
        ) from None
    return parse(model, raw, "--params")


def run(
    made: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace, Any], dict[str, Any] | None],
    argv: Sequence[str] | None = None,
    params: type[BaseModel] | None = None,
) -> int:
    """Parse, do the work, and turn what happens into an exit code.

    `work(arguments, settings)` may return facts for the side-car, which is written to
    ``<arguments.sidecar>`` where the script has that flag.
    """
    arguments = made.parse_args(argv)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr
    )
    began = time.perf_counter()
    try:
        script = f"scripts.{Path(sys.argv[0]).stem}"
        rundigests.check(script, arguments.params if params is not None else None)
        settings = read_params(arguments.params, params) if params is not None else None
        date_now(vars(arguments).values())
        facts = work(arguments, settings) or {}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except deadline.ToBeContinuedError as stop:
        return deadline.finish(stop)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    sidecar = getattr(arguments, "sidecar", None)
    if sidecar:
        shown = settings.model_dump(mode="json") if settings is not None else {}
        seconds = round(time.perf_counter() - began, 3)
        write_json(
            Path(sidecar), {"fewscans": __version__, "params": shown, "seconds": seconds, **facts}
        )
    return 0


def date_now(values: Iterable[Any]) -> list[Path]:
    """Date files from the future now, those named by arguments (`PATH`, `KEY=PATH`) and in folders so named.

    The clocks of two nodes may differ, and Snakemake fails a job whose output is older than an input of it, at each
    attempt, until the input's date has come.
    """
    ahead = []
    for value in _flat(values):
        path = Path(str(value).rpartition("=")[2])
        with contextlib.suppress(OSError, ValueError):  # no path at all, or not ours to touch
            for one in [path, *(path.iterdir() if path.is_dir() else [])]:
                if one.stat().st_mtime > time.time() + 1:
                    os.utime(one)
                    ahead.append(one)
    if ahead:
        log.warning(
            "%d input(s) were dated in the future, e.g. %s; now dated now", len(ahead), ahead[0]
        )
    return ahead


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        elif isinstance(value, str | Path):
            yield value
