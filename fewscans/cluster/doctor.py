"""The state of a work folder: who runs, what was left behind, what waits, what is on disk; each with what to do."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from fewscans.cluster import filesystems, leftovers, orphans, reasons, slurm
from fewscans.cluster.site import Site
from fewscans.plan import RULES
from fewscans.runrecord import RunRecord, describe, end_command

Level = Literal["ok", "note", "problem"]
PACKAGES = ("snakemake", "snakemake-executor-plugin-slurm", "torch", "timm", "pydantic")
# Less than this is soon used up by stores and encoders.
LOW_BYTES = 5e9


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    level: Level
    area: str
    text: str
    todo: str = ""


def examine(
    work: str | os.PathLike[str], results: str | os.PathLike[str], site: Site | None
) -> Iterator[Finding]:
    """All findings of the run in the working directory, in the order of the page."""
    record = RunRecord(work)
    other = record.read()
    lives = other is not None and record.lives(other)
    yield from _run(record, other, lives)
    yield from _queue(other if lives else None)
    yield from _trainings(work)
    yield from _disk(work)
    yield from _filesystems([Path.cwd(), Path(work), Path(results)], site)
    yield from _versions()


def _run(record: RunRecord, other: dict[str, Any] | None, lives: bool) -> Iterator[Finding]:
    if other is None:
        yield Finding("ok", "run", f"nobody runs here ({record.path} is not there)")
    elif lives:
        text = f"{describe(other)}, started as: {other.get('command')}"
        yield Finding("note", "run", text, f"to end it in order: {end_command(other)}")
    else:
        yield Finding(
            "problem",
            "run",
            f"a run is gone without a word ({describe(other)})",
            "start again with the same command: it takes the folder over and settles its jobs",
        )


def _queue(living: dict[str, Any] | None) -> Iterator[Finding]:
    """Jobs of this folder: of the run that lives, and those of nobody."""
    if not slurm.available("squeue"):
        yield Finding("ok", "jobs", "no Slurm here")
        return
    own = (living or {}).get("run_id")
    try:
        left = orphans.find(Path.cwd(), rules(), own)
        mine = slurm.jobs(name=own) if own else []
    except slurm.SlurmError as error:
        yield Finding(
            "problem", "jobs", f"Slurm gives no answer: {last_line(error)}", "look again later"
        )
        return
    if mine:
        states = ", ".join(f"{n} {s}" for s, n in Counter(job.state for job in mine).items())
        yield Finding("note", "jobs", f"{len(mine)} job(s) of the run: {states}")
    for job in [*mine, *left]:
        if job.state == "PENDING" and reasons.kind(job.reason) != "passes":
            text = f"job {job.id} ({job.comment}) {reasons.words(job.reason, job.id)}"
            yield Finding("problem", "jobs", text, f"if it is not wanted: scancel {job.id}")
    if left:
        text = "\n".join(
            [f"{len(left)} job(s) of a run that is gone, still in the queue:", *orphans.lines(left)]
        )
        ids = " ".join(job.id for job in left[:50])
        todo = f"the next start waits for them (or cancels: `orphans`); by hand: scancel {ids}"
        yield Finding("problem", "jobs", text, todo)
    elif not mine:
        yield Finding("ok", "jobs", "none of this folder in the queue")


def rules() -> Collection[str]:
    """Names of the rules whose jobs are looked for."""
    return RULES


def _trainings(work: str | os.PathLike[str]) -> Iterator[Finding]:
    found = list(leftovers.trainings(work))
    for one in found:
        state = (
            "nothing saved yet"
            if one.saved_s is None
            else f"step {one.step if one.step is not None else '?'} saved {age(one.saved_s)} ago"
        )
        owner = one.owner
        if owner is None:
            text, level, todo = f"{state}; nobody works on it", "note", "the next start goes on"
        else:
            host = str(owner.get("host") or "?").split()[0]
            who = f"{host}, process {owner.get('pid')}, job {owner.get('job_id') or '-'}"
            text = f"{state}; held by {who}, last sign of life {age(one.beat_s or 0)} ago"
            level, todo = "note", ""
            if one.owner_is_gone:
                level, todo = "problem", "its owner is gone; the next start takes it over"
            elif (one.beat_s or 0) > 600:
                level, todo = "problem", "its owner seems gone; the next start takes it over"
        yield Finding(level, "training", f"{one.digest}: {text}", todo)  # type: ignore[arg-type]
    if not found:
        yield Finding("ok", "training", "none unfinished")


def _disk(work: str | os.PathLike[str]) -> Iterator[Finding]:
    place = Path(work)
    if not place.is_dir():
        yield Finding("ok", "disk", f"{place}: nothing there yet")
        return
    used, files = leftovers.size_of(place)
    cached, _ = leftovers.size_of(place / "cache")
    free = shutil.disk_usage(place).free
    text = f"{place}: {size(used)} in {files} files, {size(cached)} of it cache; {size(free)} free"
    low = free < LOW_BYTES
    todo = f"{place}/cache may be removed; what is needed of it is made again" if low else ""
    yield Finding("problem" if low else "ok", "disk", text, todo)
    half = leftovers.half_written(place)
    if half:
        text = f"{len(half)} half-written file(s) of processes that are gone, e.g. {half[0]}"
        yield Finding("note", "disk", text, "may be removed: fewscans doctor --clean")


def _filesystems(places: list[Path], site: Site | None) -> Iterator[Finding]:
    cluster = site is not None or slurm.available("sbatch")
    kinds: dict[str, list[Path]] = {}
    for place in places:
        kinds.setdefault(filesystems.kind_of(place), []).append(place)
    for kind, there in kinds.items():
        names = ", ".join(dict.fromkeys(str(place) for place in there))
        sharing = filesystems.sharing(kind)
        if cluster and sharing in ("own", "passing"):
            text = f"{names}: on {kind}, which nodes are not likely to see"
            yield Finding("problem", "files", text, "make sure: fewscans doctor --probe")
        else:
            yield Finding("ok", "files", f"{names}: on {kind or 'an unknown file system'}")


def _versions() -> Iterator[Finding]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} -")
    if slurm.available("sinfo"):
        try:
            found.append(slurm.run(["sinfo", "--version"]).strip())
        except slurm.SlurmError:
            found.append("slurm does not answer")
    yield Finding("ok", "versions", ", ".join(found))


def last_line(error: slurm.SlurmError) -> str:
    """The end of what a command said: there it says why."""
    return (error.text.splitlines() or [str(error)])[-1]


def size(n: float) -> str:
    """Bytes in the unit that reads best."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def age(seconds: float) -> str:
    """A length of time in the unit that reads best."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
