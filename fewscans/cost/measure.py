"""Measuring for a calibration: processes that run the steps of jobs, as many at once as jobs will be.

Jobs that run side by side slow each other: they share memory and, on most processors, halves of cores. So each step is
measured in as many processes as fit the machine, in step with each other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from fewscans.config.models import ComputeSettings
from fewscans.config.stages import (
    AuditParams,
    ConvertParams,
    NormaliseParams,
    PhantomParams,
)
from fewscans.cost.calibration import Rate, Step
from fewscans.cost.work import Work
from fewscans.errors import UserError
from fewscans.plan import Plan
from fewscans.rawdata import resolve

ROOT = Path(__file__).resolve().parents[2]
# More processes than this tell nothing new.
MOST = 8
# What scripts without torch import before they work.
PLAIN = "import pandas, pyarrow.parquet, pydantic, fewscans.contracts, fewscans.cli, fewscans.config.stages"
# Scans that conversion is measured on.
SAMPLE = 150
# What a training job does besides its steps: tables, store and cache read and written, first steps that are slower; as
# a share of its imports, with which it grows on slow machines and slow disks.
AROUND = 0.2


@dataclass(frozen=True)
class Wanted:
    """A step to measure, at two numbers of images."""

    step: Step
    images: tuple[int, int]
    encoder: dict[str, Any]
    """Settings of the method, for pretraining."""


def wanted(plan: Plan, only: Iterable[str] = ()) -> list[Wanted]:
    """Every kind of step that the plan's trainings take, once."""
    work, chosen = Work(plan), set(only)
    found: dict[Step, Wanted] = {}
    for name, recipe in plan.pairs:
        encoder = plan.encoders[name]
        if chosen and name not in chosen:
            continue
        protocols = plan.protocols(name)
        if protocols == ["prior"]:
            continue
        made: list[tuple[Step, int, dict[str, Any]]] = [(work.step("embed", name, recipe), 256, {})]
        if "finetune" in protocols:
            batch = plan.config.protocol_settings.finetune.batch_size
            made.append((work.step("finetune", name, recipe), batch, {}))
        if encoder.pretrained:
            batch = max(work.schedule(name, dataset)[1] for dataset in plan.evaluated)
            batch //= getattr(encoder.settings, "ranks", 1)
            settings = encoder.settings.model_dump(mode="json") | {"ranks": 1}
            known = type(encoder.settings).model_fields
            kept = {key: value for key, value in settings.items() if key in known}
            made.append((work.step("pretrain", name, recipe), batch, kept))
        for step, images, settings in made:
            found.setdefault(step, Wanted(step, (max(2, images // 2), max(4, images)), settings))
    return list(found.values())


class Workers:
    """Processes of ``scripts/calibrate.py``, asked together; a context."""

    def __init__(self, compute: ComputeSettings, at_once: int) -> None:
        self.compute, self.at_once = compute, at_once
        self.about: dict[str, Any] = {}
        self.started_s = 0.0

    def __enter__(self) -> Self:
        command = [sys.executable, str(ROOT / "scripts" / "calibrate.py"), "--compute"]
        command.append(self.compute.model_dump_json())
        began = time.perf_counter()
        # Files, since nobody reads while they work: a full pipe would hold them up for ever.
        self.said = [tempfile.TemporaryFile("w+") for _ in range(self.at_once)]  # noqa: SIM115
        self.processes = [
            subprocess.Popen(
                command, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=said, text=True,
            )
            for said in self.said
        ]  # fmt: skip
        try:
            answers = self._answers()
        except UserError as error:
            self.__exit__(error)
            raise
        self.about = answers[0]
        # Its own seconds where others have slowed it down.
        own = sum(answer["cpu_s"] for answer in answers) / len(answers)
        self.started_s = min(time.perf_counter() - began, own)
        return self

    def __exit__(self, *raised: object) -> None:
        for process in self.processes:
            process.kill() if any(raised) else process.stdin.close()  # type: ignore[union-attr]
        for process, said in zip(self.processes, self.said, strict=True):
            process.wait()
            said.close()

    def rate(self, one: Wanted, seconds: float) -> Rate:
        """Measure a step.

        Raises
        ------
        UserError
            It cannot be run.
        """
        request = {
            "step": asdict(one.step),
            "images": one.images,
            "encoder": one.encoder,
            "seconds": seconds,
        }
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        answers = [answer["seconds"] for answer in self._answers()]
        few, many = (sum(values) / len(values) for values in zip(*answers, strict=True))
        slope = max(0.0, (many - few) / (one.images[1] - one.images[0]))
        slope = min(slope, many / one.images[1])  # a base is not negative
        return Rate(many - slope * one.images[1], slope)

    def _answers(self) -> list[dict[str, Any]]:
        answers = []
        for process, file in zip(self.processes, self.said, strict=True):
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                code = process.wait()
                file.seek(0)
                said = file.read().strip().removeprefix("error: ")
                raise UserError(said or f"scripts/calibrate.py was ended (code {code}).")
            answers.append(json.loads(line))
        for answer in answers:
            if "error" in answer:
                raise UserError(answer["error"])
        return answers


def plain_start(at_once: int) -> float:
    """Seconds until a script without torch begins its work."""
    command = [sys.executable, "-c", PLAIN]
    _together(command, at_once)  # files into memory
    return sum(seconds for seconds, _ in _together(command, at_once)) / at_once


def _together(command: Sequence[str], at_once: int) -> list[tuple[float, int]]:
    """(seconds, exit code) of commands side by side; seconds of their own where others slow them down."""
    began = time.perf_counter()
    running = [
        subprocess.Popen(
            command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(at_once)
    ]
    made = []
    for process in running:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        own = used.ru_utime + used.ru_stime
        made.append((min(time.perf_counter() - began, own), process.returncode))
    return made


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


# -- data ------------------------------------------------------------------------------------------


def data_rates(plan: Plan, name: str, plain: float) -> dict[str, float]:
    """Seconds per scan of the data rules, on a sample of the data set `name`; what cannot be run is left out."""
    with tempfile.TemporaryDirectory() as folder:
        return _Sample(plan, name, Path(folder), plain).rates()


class _Sample:
    """The first stages of the workflow on a part of a data set, in a folder that is thrown away."""

    def __init__(self, plan: Plan, name: str, folder: Path, plain: float) -> None:
        self.plan, self.name, self.folder, self.plain = plan, name, folder, plain
        self.dataset = plan.config.datasets[name]

    def rates(self) -> dict[str, float]:
        """By rule."""
        made: dict[str, float] = {}
        raw, converted = self.folder / "raw", self.folder / "converted"
        place = resolve(self.plan.config, self.name)
        root, table, npz, n = place.root, place.table, place.npz, None
        if self.dataset.phantom is not None:
            cohort = self.dataset.phantom.model_copy(update={"n_patients": 60})
            seconds = self._run("phantom", PhantomParams(cohort=cohort), "--out", raw)
            if seconds is None:
                return made
            root, table = str(raw), str(raw / "labels.csv")
            with open(table, encoding="utf-8") as handle:
                n = sum(1 for _ in handle) - 1
            made["phantom"] = seconds / max(1, n)
        counts = Work(self.plan).counts(self.name)
        chunks = 1 if n else max(1, (counts.scans if counts else SAMPLE) // SAMPLE)
        convert = ConvertParams(
            dataset=self.name, root=root, table=table, npz=npz, path_column=self.dataset.columns.path,
            exclude=self.dataset.exclude, ndim=self.plan.config.ndim, slices=self.dataset.slices,
            mask_column=self.dataset.columns.mask, chunks=chunks,
        )  # fmt: skip
        seconds = self._run("convert", convert, "--out", converted)
        if seconds is None:
            return made
        n = self._scans(converted)
        made["convert"] = seconds / n
        made |= self._others(converted, n, root, table, npz)
        return made

    def _others(
        self, converted: Path, n: int, root: str | None, table: str | None, npz: str | None
    ) -> dict[str, float]:
        made = {}
        recipe = max(self.plan.recipes.values(), key=lambda one: one.size)
        if recipe.is_fitted:  # a rate is of reading each scan once
            recipe = recipe.model_copy(update={"normalise": "percentile"})
        params = NormaliseParams(dataset=self.name, recipe=recipe)
        given = ["--converted", converted, "--out"]
        seconds = self._run("normalise", params, *given, self.folder / "store")
        if seconds is not None:
            made["normalise"] = seconds / n
        audit = AuditParams(
            dataset=self.name, root=root, table=table, npz=npz, columns=self.dataset.columns,
            attributes=self.dataset.attributes, split_names=self.dataset.split_names, pool=True,
        )  # fmt: skip
        labels = self.folder / "labels.parquet"
        given = ["--converted", converted, "--labels", labels, "--out", self.folder / "audit"]
        seconds = self._run("audit", audit, *given)
        if seconds is not None:
            made["audit"] = seconds / n
        return made

    def _run(self, script: str, params: Any, *arguments: Any) -> float | None:
        """Seconds of a script beyond its start; None where it failed."""
        command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), "--params"]
        command += [params.model_dump_json(), *map(str, arguments)]
        [(seconds, code)] = _together(command, 1)
        return max(seconds - self.plain, 0.0) if code == 0 else None

    @staticmethod
    def _scans(converted: Path) -> int:
        import pyarrow.parquet as pq

        return max(1, pq.read_metadata(converted / "index.parquet").num_rows)
