"""What cannot work on this cluster, said before anything is submitted.

When the workflow is parsed, also for a dry-run, from the site file alone (`check_parse`); when a run starts, with a few
Slurm commands (`check_start`).
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
from pathlib import Path
from typing import Any

from fewscans.cluster import slurm
from fewscans.cluster.check import check_jobs, check_profile, check_site, check_versions
from fewscans.cluster.container import IMAGE
from fewscans.cluster.site import VARIABLE, ClusterFacts, Site, current_site
from fewscans.cluster.slurm import SlurmError
from fewscans.cluster.submit import real_sbatch
from fewscans.errors import Problems, did_you_mean

TITLE = "This cluster cannot run it as it is"


def check_parse(site: Site | None = None) -> None:
    """What the site file alone can tell; nothing on a machine of its own.

    Raises
    ------
    UserError
        All problems at once.
    """
    site = site or current_site()
    if site is None:
        return
    problems = Problems(os.environ.get(VARIABLE, TITLE))
    check_site(site, problems)
    problems.raise_if_any()


def check_start(workflow: Any, site: Site | None = None) -> None:
    """All that can be known before the first submission; nothing for a local run.

    Parameters
    ----------
    workflow
        Snakemake's, as it is in ``onstart``.

    Raises
    ------
    UserError
        All problems at once.
    """
    plugin = getattr(workflow, "executor_plugin", None)
    if getattr(plugin, "name", None) != "slurm":
        return
    site = site or current_site()
    problems = Problems(TITLE)
    check_versions(problems)
    if check_commands(site, problems):
        site = site or Site(cluster=_facts(problems))
        check_account(site, problems)
    if site is not None:
        check_site(site, problems)
        check_profile(settings_of(workflow), site, problems)
        check_jobs(workflow.dag.needrun_jobs(), site, problems)
    problems.raise_if_any()


def settings_of(workflow: Any) -> dict[str, Any]:
    """The settings of a run that can make it wait for ever, under their names in a profile."""
    executor = workflow.executor_settings
    return {
        "jobs": workflow.resource_settings.nodes,
        "slurm-array-jobs": executor.array_jobs,
        "slurm-status-command": executor.status_command,
        "slurm-init-seconds-before-status-checks": executor.init_seconds_before_status_checks,
        "slurm-requeue": executor.requeue,
    }


def check_commands(site: Site | None, problems: Problems) -> bool:
    """Whether the commands are there that submit and follow jobs."""
    if real_sbatch() is None:
        problems.add(
            "sbatch",
            "is not in PATH: start this on a login node, or load the module that has Slurm.",
        )
    missing = [name for name in ("squeue", "scancel", "scontrol") if not slurm.available(name)]
    # The executor asks for accounts with it, whatever it follows jobs with.
    missing += [] if slurm.available("sacct") else ["sacct"]
    for name in missing:
        problems.add(name, "is not in PATH.")
    image = os.environ.get(IMAGE)
    if image and not (shutil.which("apptainer") or shutil.which("singularity")):
        problems.add(
            "apptainer", "is not in PATH. Load its module, or take --profile profiles/slurm."
        )
    if image and image.startswith("/") and not Path(image).exists():
        problems.add("container.image", f"{image}: no such file. envs/Apptainer.def builds one.")
    return not missing


def check_account(site: Site, problems: Problems) -> None:
    """Whether the account exists for this user, and there is one where one is needed."""
    if not site.cluster.accounting:
        return
    me = getpass.getuser()
    try:
        text = slurm.run(
            ["sacctmgr", "-nP", "show", "assoc", f"user={me}", "format=account"], timeout_s=20
        )
        enforced = (
            "associations"
            in slurm.run(["scontrol", "show", "config"])
            .partition("AccountingStorageEnforce")[2]
            .partition("\n")[0]
        )
    except SlurmError:
        return  # many sites do not let users ask
    accounts = {line.strip() for line in text.splitlines() if line.strip()}
    # Slurm keeps names of accounts in small letters.
    if site.account and accounts and site.account.lower() not in accounts:
        problems.add(
            "account", f"'{site.account}' is none of yours.{did_you_mean(site.account, accounts)}"
        )
    if not accounts and enforced:
        problems.add(
            "account", f"the user {me} has none on this cluster. Ask its administrators for one."
        )


def _facts(problems: Problems) -> ClusterFacts:
    """Without a site file: only what decides how jobs are followed."""
    try:
        text = slurm.run(["scontrol", "show", "config"])
    except SlurmError as error:
        problems.add("scontrol", f"{error.text or 'fails'}")
        return ClusterFacts()
    found = dict(re.findall(r"^(\w+) *= *(.*)$", text, re.MULTILINE))
    age = re.match(r"\d+", found.get("MinJobAge", ""))
    return ClusterFacts(
        name=found.get("ClusterName", "unnamed"),
        accounting=found.get("AccountingStorageType", "").endswith("slurmdbd"),
        min_job_age_s=int(age[0]) if age else 300,
    )
