"""One short job per partition, which says what a node sees of this folder, Python, torch, data, srun and its GPU.

``python -m fewscans.cluster.probe`` is what runs there. What goes wrong before Python starts is told by the job's exit
code, which Slurm knows even where the node and this machine share no file.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shlex
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fewscans.cluster import reasons, slurm
from fewscans.cluster.look import minutes
from fewscans.cluster.profile import prelude
from fewscans.cluster.site import Site

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 2.0
# Time limit of a job; importing torch from a slow file system for the first time may take a minute.
MINUTES = 5
# A network file system may show a new file late.
LATE_S = 10.0
NO_FOLDER, OTHER_FILES, NO_PYTHON, NO_SRUN, NO_PACKAGE = 61, 62, 63, 64, 65
SAID = {
    NO_FOLDER: (
        "folder",
        "the node does not have it. Put clone, work and results on storage that all nodes mount",
    ),
    OTHER_FILES: (
        "same files",
        "the node has a folder of that name with other files: it is not shared",
    ),
    NO_PYTHON: (
        "python",
        "{python} is not there on the node. Put the environment on shared storage",
    ),
    NO_SRUN: (
        "srun",
        "does not start a step inside a job. See the job's log; jobs of the workflow need it",
    ),
    NO_PACKAGE: (
        "python",
        "does not start with fewscans there. See the job's log; libraries may be missing",
    ),
}


@dataclass
class Check:
    """One thing looked at on a node."""

    name: str
    ok: bool
    text: str = ""


@dataclass
class Answer:
    """What one partition said."""

    partition: str
    node: str = ""
    job: str = ""
    seconds: float | None = None
    """From submission to the end."""
    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether jobs of the workflow would run there."""
        return bool(self.checks) and all(check.ok for check in self.checks)


# -- on the node -----------------------------------------------------------------------------------


def look(folder: Path, data: Sequence[str], gpu: bool) -> list[Check]:
    """All checks that need Python."""
    found = [Check("folder", True, str(folder)), Check("same files", True), Check("srun", True)]
    found.append(_try("writable", lambda: _write(folder)))
    found.append(Check("python", True, f"{sys.version.split()[0]} {sys.executable}"))
    found.append(_try("torch", lambda: str(importlib.import_module("torch").__version__)))
    found += [_try(f"data {path}", lambda path=path: _read(Path(path))) for path in data]  # type: ignore[misc]
    if gpu:
        found.append(_try("gpu", _gpu))
    return found


def _try(name: str, what: Callable[[], str]) -> Check:
    try:
        return Check(name, True, what())
    except Exception as error:  # told in the table, whatever it is
        return Check(name, False, f"{type(error).__name__}: {error}")


def _write(folder: Path) -> str:
    path = folder / f".probe-{uuid.uuid4().hex}"
    path.write_text("probe")
    path.unlink()
    return ""


def _read(path: Path) -> str:
    """Reads a little of the first file, so that rights are tried too."""
    if path.is_file():
        path.open("rb").read(1)
        return "readable"
    names = sorted(os.listdir(path))
    for name in names[:20]:
        if (path / name).is_file():
            (path / name).open("rb").read(1)
            return f"{len(names)} entries, readable"
    return f"{len(names)} entries"


def _gpu() -> str:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    torch = importlib.import_module("torch")
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
    what = f"CUDA_VISIBLE_DEVICES={given}" if given else "Slurm set no CUDA_VISIBLE_DEVICES"
    raise OSError(
        f"torch {torch.__version__} sees no GPU ({what}); a CPU build of torch, or no driver"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Look, and write what was found."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--folder", type=Path, required=True)
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--data", nargs="*", default=[])
    made.add_argument("--gpu", action="store_true")
    given = made.parse_args(argv)
    checks = look(given.folder, given.data, given.gpu)
    text = json.dumps([check.__dict__ for check in checks])
    temporary = given.out.with_suffix(".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.rename(given.out)
    print(text)
    return 0


# -- here ------------------------------------------------------------------------------------------


def script(
    folder: Path,
    token: Path,
    out: Path,
    data: Sequence[str],
    gpu: bool,
    modules: str = "",
) -> str:
    """Text of the job: what Python cannot tell is told by exit codes. `modules` loads them as jobs do."""
    here, python = shlex.quote(str(folder)), shlex.quote(sys.executable)
    text = shlex.quote(token.read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "fewscans.cluster.probe", "--folder", str(folder)]
    command += ["--out", str(out), *(["--gpu"] if gpu else [])]
    command += ["--data", *data] if data else []
    lines = [
        "#!/bin/bash",
        *(["set -e", modules, "set +eu"] if modules else []),
        f"[ -d {here} ] || exit {NO_FOLDER}",
        f'[ "$(cat {shlex.quote(str(token))} 2>/dev/null)" = {text} ] || exit {OTHER_FILES}',
        f"[ -x {python} ] || exit {NO_PYTHON}",
        f"srun -n 1 true || exit {NO_SRUN}",
        f"cd {here}; export PYTHONPATH={shlex.quote(str(ROOT))}",
        f"{python} -c 'import fewscans' || exit {NO_PACKAGE}",
        f"srun -n 1 {shlex.join(command)}",
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Target:
    """A partition to ask."""

    gpu: bool
    """Whether jobs there are to see a GPU."""
    minutes: int = MINUTES
    """Time limit of the job."""


def targets(site: Site | None) -> dict[str, Target]:
    """Partitions to ask: those of the site's classes, else all that it names, else all that there are."""
    if site is None or not site.partitions:
        return _all_partitions()
    wishes = {kind: one.partition for kind, one in site.classes.items()}
    default = site.default_partition
    used = {name or default for name in wishes.values()}
    chosen = [name for name in site.partitions if name in used] or list(site.partitions)
    found = {}
    for name in chosen:
        limits = site.partitions[name]
        gpu = (wishes["gpu"] or default) == name if "gpu" in wishes else limits.max_gpu > 0
        found[name] = Target(gpu, min(MINUTES, limits.max_runtime or MINUTES))
    return found


def _all_partitions() -> dict[str, Target]:
    """By sinfo; a partition has a line for each kind of its nodes."""
    found: dict[str, Target] = {}
    for line in slurm.run(["sinfo", "--noheader", "--format=%R|%G|%l"]).splitlines():
        name, gres, limit = (part.strip() for part in line.split("|"))
        longest = minutes(limit)
        gpu = "gpu" in gres or (name in found and found[name].gpu)
        found[name] = Target(gpu, MINUTES if longest is None else max(1, min(MINUTES, longest)))
    return found


def probe(
    work: Path,
    data: Sequence[str],
    site: Site | None,
    say: Callable[[str], None],
    *,
    patience_s: float = 300.0,
    poll_s: float = POLL_S,
) -> list[Answer]:
    """Submit to each partition and wait for the answers, at most `patience_s`; then cancel what has not ended."""
    work.mkdir(parents=True, exist_ok=True)
    place = work.resolve() / f"probe-{uuid.uuid4().hex[:8]}"
    place.mkdir()
    token = place / "token"
    token.write_text(uuid.uuid4().hex, encoding="utf-8")
    began = time.monotonic()
    answers = [
        _submit(place, token, name, target, data, site) for name, target in targets(site).items()
    ]
    waiting = {answer.job: answer for answer in answers if answer.job}
    say(f"{len(waiting)} job(s) submitted: {' '.join(waiting)}; waiting up to {patience_s:.0f} s")
    try:
        while waiting and time.monotonic() - began < patience_s:
            time.sleep(poll_s)
            queue = {job.id: job for job in slurm.jobs(waiting)}
            for answer in [one for one in waiting.values() if one.job not in queue]:
                answer.seconds = round(time.monotonic() - began, 1)
                _collect(answer, place)
                del waiting[answer.job]
            if waiting and all(_never(queue.get(one)) for one in waiting):
                break
        for job_id, answer in waiting.items():
            job = next(iter(slurm.jobs([job_id])), None)
            waited = f"{time.monotonic() - began:.0f} s"
            text = f"did not end in {waited}"
            if job is not None and job.state == "PENDING":
                text = f"did not start in {waited}: {reasons.words(job.reason, job.id)}"
            answer.checks.append(Check("job", False, text))
    finally:
        slurm.cancel(waiting)
        if all(answer.ok for answer in answers):
            shutil.rmtree(place, ignore_errors=True)
        else:
            say(f"logs of the jobs: {place}")
    return answers


def _submit(
    place: Path, token: Path, name: str, target: Target, data: Sequence[str], site: Site | None
) -> Answer:
    path = place / f"{name}.sh"
    out = place / f"{name}.json"
    path.write_text(
        script(Path.cwd(), token, out, data, target.gpu, prelude(site)), encoding="utf-8"
    )
    command = [
        "sbatch",
        "--parsable",
        "--job-name=fewscans-probe",
        f"--partition={name}",
        f"--time={target.minutes}",
    ]
    command += ["--ntasks=1", "--cpus-per-task=1", "--mem=2000", f"--output={place}/{name}-%j.log"]
    command += ["--gres=" + _gres(site, name)] if target.gpu else []
    if site is not None:
        command += [f"--account={site.account}"] if site.account else []
        command += [f"--reservation={site.reservation}"] if site.reservation else []
        used = [one for one in site.classes.values() if one.partition == name]
        for one in used[:1]:
            command += [f"--qos={one.qos}"] if one.qos else []
            command += [f"--constraint={one.constraint}"] if one.constraint else []
    try:
        said = slurm.run([*command, str(path)])
    except slurm.SlurmError as error:
        return Answer(name, checks=[Check("sbatch", False, error.text.splitlines()[-1])])
    found = re.search(r"\d+", said)
    return Answer(name, job=found.group() if found else "")


def _never(job: slurm.Job | None) -> bool:
    return job is not None and job.state == "PENDING" and reasons.kind(job.reason) == "never"


def _gres(site: Site | None, name: str) -> str:
    models = site.partitions[name].gpu_models if site is not None else []
    wanted = (
        [one.gpu_model for one in site.classes.values() if one.partition == name] if site else []
    )
    model = next(filter(None, wanted), None) or (models[0] if len(models) > 1 else None)
    return f"gpu:{model}:1" if model else "gpu:1"


def _collect(answer: Answer, place: Path) -> None:
    shown = slurm.show(answer.job)
    answer.node = shown.get("NodeList", "")
    code = int(shown.get("ExitCode", "0:0").partition(":")[0])
    report = place / f"{answer.partition}.json"
    end = time.monotonic() + (LATE_S if code == 0 else 0)
    while not report.exists() and time.monotonic() < end:
        time.sleep(0.5)
    if report.exists():
        answer.checks = [Check(**one) for one in json.loads(report.read_text(encoding="utf-8"))]
        return
    log = place / f"{answer.partition}-{answer.job}.log"
    if code in SAID:
        name, text = SAID[code]
        answer.checks.append(Check(name, False, text.format(python=sys.executable)))
    elif code == 0:
        text = f"the job ended well and its file did not appear here: {place} is not the same folder there"
        answer.checks.append(Check("same files", False, text))
    else:
        state = shown.get("JobState", "ended")
        answer.checks.append(Check("job", False, f"{state}, exit code {code}; log {log}"))


if __name__ == "__main__":
    raise SystemExit(main())
