"""From a site to the settings of a Snakemake profile; called by the templates in ``profiles/``.

A profile is read before anything else, also by ``snakemake -n`` and where no cluster is near: only files are read here,
no Slurm command runs.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

from fewscans.cluster.container import ARGUMENTS, IMAGE, arguments_of, binds
from fewscans.cluster.site import VARIABLE, Kind, Site, read_site
from fewscans.errors import UserError
from fewscans.plan import RULES

FILE = "partitions.yaml"
# For the wrapper of sbatch: the Python of the main process, and how GPUs are asked for here.
PYTHON = "FEWSCANS_PYTHON"
GPU_REQUEST = "FEWSCANS_GPU_REQUEST"
# Jobs in the queue at once, where the cluster allows as many.
JOBS = 200
# Jobs that have it run one after the other within a group.
SERIES = "series"
# Seconds before the first look at new jobs. Later looks lie further apart, up to LONGEST_LOOK_S.
FIRST_LOOK_S = 40
LONGEST_LOOK_S = 180
# What a second start of a job writes is appended to its log; a requeued job would wipe it.
EXTRA = "--open-mode=append"


def read(folder: str | os.PathLike[str], *, container: bool = False) -> dict[str, Any]:
    """`prepare`, for a template: a mistake ends here in words, which Snakemake would bury under its usage."""
    try:
        return prepare(folder, container=container)
    except UserError as error:
        sys.exit(f"error: {error}")


def prepare(folder: str | os.PathLike[str], *, container: bool = False) -> dict[str, Any]:
    """Settings of the profile in `folder`, and the variables that jobs and the wrapper of sbatch read.

    Parameters
    ----------
    folder
        Where the profile stands; ``partitions.yaml`` is read there or in ``slurm`` beside it, unless the variable
        FEWSCANS_SITE names another file. Without any, nothing is known about the cluster.
    container
        Jobs run in the image of the site.

    Raises
    ------
    UserError
        The file has mistakes, or no image is named.
    """
    folder = Path(folder).resolve()
    path = _site_file(folder)
    site = Site() if path is None else read_site(path)
    if path is not None:
        os.environ[VARIABLE] = str(path)
    wrappers = [str(folder.parent / "slurm" / part) for part in ("bin", "bin/accounting")]
    others = [part for part in os.environ.get("PATH", "").split(os.pathsep) if part not in wrappers]
    if shutil.which("sacct", path=os.pathsep.join(others)) is None:  # its absence says something
        wrappers.pop()
    os.environ["PATH"] = os.pathsep.join([*wrappers, *others])
    os.environ[PYTHON] = sys.executable
    os.environ[GPU_REQUEST] = site.gpu_request
    made = settings(site)
    if container:
        if site.container is None:
            raise UserError(
                f"{path or folder / FILE}: this profile needs an image for jobs: write\n"
                "  container: {image: /shared/fewscans.sif}\n(envs/Apptainer.def builds one), "
                "or take --profile profiles/slurm."
            )
        os.environ[IMAGE] = site.container.image
        os.environ[ARGUMENTS] = arguments_of([*binds(sys.argv), *site.container.binds])
        made |= {
            "software-deployment-method": "apptainer",
            "apptainer-args": os.environ[ARGUMENTS],
            # An image by another name is no reason to compute again: code and settings are, and they are compared.
            "rerun-triggers": ["mtime", "params", "input", "code"],
        }
    return made


def settings(site: Site) -> dict[str, Any]:
    """What of a profile depends on the site; keys and values as in the profile's YAML."""
    made: dict[str, Any] = {
        "jobs": min(JOBS, site.cluster.max_submit_jobs or JOBS),
        "default-resources": _defaults(site),
    }
    # Snakemake takes no empty mapping.
    if by_rule := {rule: found for rule, kind in RULES.items() if (found := _of(site, kind))}:
        made["set-resources"] = by_rule
    if site.reservation:
        made["slurm-reservation"] = site.reservation
    if site.cluster.name:  # found out, not assumed
        made["slurm-status-command"] = "sacct" if site.cluster.accounting else "squeue"
        made["slurm-init-seconds-before-status-checks"] = first_look_s(site)
    if site.pack > 1:
        made["groups"] = {"finetune": "finetune"}
        made["group-components"] = {"finetune": site.pack}
        # Members go one after the other and share one GPU, by a resource of their own of which a job has one. Without
        # it Snakemake asks for the GPUs of all and the time of one; a limit of `gpu` would starve jobs of several.
        made.setdefault("set-resources", {}).setdefault("finetune", {})[SERIES] = 1
        made["resources"] = {SERIES: 1}
        made["set-resource-scopes"] = {SERIES: "local"}
    return made


def first_look_s(site: Site) -> int:
    """Seconds before jobs are looked at: without accounts the executor asks for a third of MinJobAge at most."""
    if site.cluster.accounting:
        return FIRST_LOOK_S
    return max(1, min(FIRST_LOOK_S, site.cluster.min_job_age_s // 3))


def _site_file(folder: Path) -> Path | None:
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).resolve()
    candidates = [folder / FILE, folder.parent / "slurm" / FILE]
    return next((path for path in candidates if path.exists()), None)


def _defaults(site: Site) -> dict[str, Any]:
    """Resources of all rules, also of those that are not ours."""
    found: dict[str, Any] = {"mem_mb": 1000, "runtime": 60, "slurm_extra": _text(EXTRA)}
    return found | ({"slurm_account": _text(site.account)} if site.account else {})


def _of(site: Site, kind: Kind) -> dict[str, Any]:
    """Resources of the rules of a class, beside those that the cost model gives."""
    wishes = site.job_class(kind)
    found = {
        "slurm_partition": wishes.partition,
        "gpu_model": wishes.gpu_model if kind == "gpu" else None,
        "qos": wishes.qos,
        "constraint": wishes.constraint,
        "slurm_extra": f"{EXTRA} {wishes.extra}" if wishes.extra else None,
    }
    return {key: _text(value) for key, value in found.items() if value}


def _text(value: str) -> str:
    """Quoted, since Snakemake evaluates resources: a partition may be called `input`, an account `007`."""
    return repr(value)


def prelude(site: Site | None) -> str:
    """Shell code at the head of each rule's command: modules of the site, in its jobs only; empty without any.

    In an image there are none: load what apptainer needs before Snakemake is started.

    Modules come before the PATH of the workflow, so that no module's Python takes the place of its own.
    """
    if site is None or not site.modules or IMAGE in os.environ:
        return ""
    names = " ".join(map(shlex.quote, site.modules))
    # `module` is a function of login shells, and its code does not bear `set -u`.
    return (
        'if [ -n "${SLURM_JOB_ID:-}" ]; then set +u; '
        "command -v module > /dev/null || "
        'for init in "${LMOD_PKG:-/usr/share/lmod/lmod}/init/bash" '
        '"${MODULESHOME:-/usr/share/modules}/init/bash" /etc/profile.d/modules.sh /etc/profile.d/lmod.sh; '
        'do if [ -r "$init" ]; then . "$init"; break; fi; done; '
        f"module load {names} >&2; set -u; fi; "
    )
