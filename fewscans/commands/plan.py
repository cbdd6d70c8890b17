"""What a run would do and cost, before it is started: jobs, hours, GPUs, disk, and what will not fit."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewscans.commands import run_config
from fewscans.errors import UserError
from fewscans.forecast import actual, diff, export
from fewscans.forecast.jobs import Job
from fewscans.forecast.listen import place_of, read_jobs
from fewscans.forecast.place import Place
from fewscans.forecast.rates import Budget, PlanSettings
from fewscans.forecast.text import plan_text
from fewscans.forecast.totals import build

HELP = "what a run would do and cost, and what will not fit"
ROOT = Path(__file__).resolve().parents[2]
JOBS_FILE = "FEWSCANS_PLAN_JOBS"  # the logger plugin's name for it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Targets, how Snakemake is started, what is written."""
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="files or rules; without: all")
    how = parser.add_argument_group("the run, as it would be given to snakemake")
    how.add_argument("--profile", help="e.g. profiles/slurm; without: this machine")
    run_config.add_arguments(how)
    how.add_argument("--snakefile", "-s", help="without: that of this folder, else fewscans' own")
    how.add_argument("--directory", "-d", help="folder of work and results; without: this one")
    how.add_argument("--cores", help="as if so many cores were there")
    how.add_argument("--forceall", "-F", action="store_true", help="as if nothing had been done")
    out = parser.add_argument_group("what is shown and written")
    out.add_argument("--json", metavar="FILE", help="the whole plan")
    out.add_argument("--csv", metavar="FILE", help="a line per rule")
    out.add_argument("--gantt", metavar="FILE.png", help="picture: which rule when")
    out.add_argument("--gpus", type=_positive, metavar="N", help="also with N GPUs (and drawn so)")
    out.add_argument("--diff", metavar="OLD.json", help="what has changed since an earlier plan")
    out.add_argument("--actual", action="store_true", help="after a run: asked, expected, used")
    place = parser.add_argument_group("rates and bounds (beyond a bound the exit code is 2)")
    place.add_argument("--settings", metavar="FILE", help="without: config/plan.yaml, if there")
    for name, field in Budget.model_fields.items():
        place.add_argument(
            f"--budget-{name.replace('_', '-')}",
            type=_amount,
            metavar="N",
            help=str(field.description).rstrip("."),
        )


def run(arguments: argparse.Namespace) -> int:
    """Exit code: 0; 2 where the run cannot work or is over a budget."""
    old = export.read_json(arguments.diff) if arguments.diff else None
    _check_files(arguments)
    jobs, place, settings = dry_run(arguments)
    if arguments.actual:
        folder = Path(arguments.directory or ".")
        record = actual.read_record(folder / (place.facts.work or "work"))
        _say(actual.actual_text(actual.compare(record, folder)))
        return 0
    plan = build(jobs, place, settings, arguments.gpus)
    _write(plan, jobs, place, arguments)
    _say(plan_text(plan, full=True))
    if old is not None:
        _say("\n" + diff.diff_text(old, plan, arguments.diff))
    return 2 if plan["over_budget"] or any(found["stops"] for found in plan["problems"]) else 0


def _say(text: str) -> None:
    """Print; a reader who has seen enough (``| head``) is no mistake."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100_000:
        raise argparse.ArgumentTypeError(f"{text}: a number of GPUs is 1 or more")
    return number


def _amount(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: a bound is 0 or more")
    return number


def _check_files(arguments: argparse.Namespace) -> None:
    """What cannot be read or written is said before the work, not after it."""
    for path in (arguments.json, arguments.csv, arguments.gantt):
        if path and not Path(path).absolute().parent.is_dir():
            raise UserError(f"{path}: its folder is not there.")
    for path in (*arguments.configfile, *filter(None, [arguments.snakefile, arguments.settings])):
        if not Path(path).is_file():
            raise UserError(f"{path}: no such file.")
    if arguments.gantt and not arguments.gantt.endswith(".png"):
        raise UserError(f"{arguments.gantt}: the picture is a PNG; give a name that ends in .png.")


def dry_run(arguments: argparse.Namespace) -> tuple[list[Job], Place, PlanSettings]:
    """Jobs of a dry-run in a process of its own, and where they would run.

    Raises
    ------
    UserError
        Snakemake could not plan: its own words follow.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "jobs.json")
        done = subprocess.run(
            command(arguments),
            env={**os.environ, "PYTHONPATH": _python_path(), JOBS_FILE: str(file)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode or not file.exists():
            raise UserError(f"Snakemake cannot plan this run:\n{_last_words(done.stdout)}")
        jobs, facts = read_jobs(file)
    place, settings = place_of(facts, arguments.settings)
    bounds = {
        name: value
        for name in Budget.model_fields
        if (value := getattr(arguments, f"budget_{name}")) is not None
    }
    budget = settings.budget.model_copy(update=bounds)
    return jobs, place, settings.model_copy(update={"budget": budget})


def command(arguments: argparse.Namespace) -> list[str]:
    """The dry-run's command line."""
    snakefile = arguments.snakefile
    if snakefile is None and not (
        Path("Snakefile").exists() or Path("workflow/Snakefile").exists()
    ):
        snakefile = str(ROOT / "Snakefile")
        if not Path(snakefile).exists():
            raise UserError(
                "no Snakefile here. Name one: fewscans plan --snakefile CLONE/Snakefile"
            )
    words = [sys.executable, "-m", "snakemake", "-n", "--nocolor", "--logger", "fewscans"]
    words += ["--quiet", "rules"]
    for flag in ("profile", "directory", "cores"):
        if value := getattr(arguments, flag):
            words += [f"--{flag}", value]
    if snakefile:
        words += ["--snakefile", snakefile]
    words += run_config.as_words(arguments)
    if arguments.forceall:
        words.append("--forceall")
    return [*words, "--", *arguments.targets] if arguments.targets else words


def _python_path() -> str:
    """Snakemake looks for plugins on it."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def _last_words(text: str) -> str:
    """What Snakemake said about the mistake, without what it says before each run."""
    usual = ("Using profile", "Using workflow", "Assuming unrestricted", "Building DAG", "no plan:")
    said = text.rpartition("Config MD5:")[2].partition("\n")[2] or text
    if "Traceback (most recent call last)" in said:
        said = said.strip().splitlines()[-1]
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith(usual)]
    return "\n".join(f"  {line}" for line in lines[-15:])


def _write(
    plan: dict[str, Any], jobs: Sequence[Job], place: Place, arguments: argparse.Namespace
) -> None:
    if arguments.json:
        export.save_json(plan, arguments.json)
    if arguments.csv:
        export.save_csv(plan, arguments.csv)
    if arguments.gantt:
        from fewscans.forecast.gantt import draw

        draw(jobs, place, arguments.gantt, arguments.gpus)
