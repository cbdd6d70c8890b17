"""One look at a cluster: what Slurm's commands say, as a site.

Only ``fewscans cluster-setup`` looks; everything else reads the file that comes of it.
"""

from __future__ import annotations

import contextlib
import getpass
import grp
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from fewscans.cluster import slurm
from fewscans.cluster.site import ClusterFacts, JobClass, Kind, Partition, Site
from fewscans.cluster.slurm import SEPARATOR, SlurmError

Mode = Literal["off", "requeue", "cancel", "suspend"]
# Minutes that a job of data should have; a default partition with less is for trying out.
USEFUL_RUNTIME = 60


@dataclass
class Look:
    """What was found."""

    site: Site
    """Facts, and wishes proposed from them."""
    accounts: list[str] = field(default_factory=list)
    """Accounts that I may charge, the default one first."""
    models: dict[str, Counter[str]] = field(default_factory=dict)
    """Partition -> GPUs of each model; an empty model is an untyped GPU."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Partition -> why it cannot be used."""


def look() -> Look:
    """Ask Slurm about everything that a run depends on.

    Raises
    ------
    SlurmError
        A command is missing or fails; accounts are optional.
    """
    config = {
        key.strip(): value.strip()
        for key, _, value in (
            line.partition("=") for line in slurm.run(["scontrol", "show", "config"]).splitlines()
        )
    }
    accounting = config.get("AccountingStorageType", "").endswith("slurmdbd")
    accounts, limit = _accounts(config) if accounting else ([], None)
    facts = ClusterFacts(
        name=config.get("ClusterName", "unnamed"),
        slurm_version=slurm.run(["sinfo", "--version"]).split()[-1],
        accounting=accounting,
        min_job_age_s=_number(config.get("MinJobAge"), 300),
        job_requeue=config.get("JobRequeue") != "0",
        kill_wait_s=_number(config.get("KillWait"), 30),
        max_submit_jobs=limit,
    )
    found = Look(Site(cluster=facts), accounts)
    partitions = _partitions(config, found)
    account = accounts[0] if accounts else None
    found.site = Site(
        cluster=facts,
        account=account,
        partitions=partitions,
        classes=propose(partitions, found.models),
    )
    return found


def propose(
    partitions: dict[str, Partition], models: dict[str, Counter[str]]
) -> dict[Kind, JobClass]:
    """Partition of each class: data where jobs go by default, training where the GPUs are."""
    if not partitions:
        return {}

    def worth(name: str) -> tuple[bool, bool, float, float, int]:
        one = partitions[name]
        longest = one.max_runtime or float("inf")
        # Mostly GPUs is made for them, while the default partition often holds every node.
        density = one.total_gpu / one.nodes
        return one.preempt == "off", longest >= USEFUL_RUNTIME, density, longest, one.total_gpu

    plain = max(partitions, key=lambda name: (not partitions[name].max_gpu, worth(name)))
    default = next((name for name, one in partitions.items() if one.default), plain)
    if (partitions[default].max_runtime or USEFUL_RUNTIME) < USEFUL_RUNTIME:
        default = plain
    found: dict[Kind, JobClass] = {
        "light": JobClass(partition=default),
        "cpu": JobClass(partition=default),
        "gpu": JobClass(partition=default),
    }
    with_gpu = [name for name, one in partitions.items() if one.max_gpu]
    if with_gpu:
        best = max(with_gpu, key=worth)
        several = len(partitions[best].gpu_models) > 1
        model = models[best].most_common(1)[0][0] if several else None
        found["gpu"] = JobClass(partition=best, gpu_model=model or None)
    return found


def minutes(text: str) -> int | None:
    """Whole minutes of Slurm's ``[D-]HH:MM:SS``; None for no limit."""
    if text in ("UNLIMITED", "INFINITE", "infinite", "NONE", ""):
        return None
    days, dash, clock = text.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    # With days the hours come first, else the seconds come last.
    hours, mins = [*parts, 0, 0][:2] if dash or len(parts) == 3 else (0, parts[0])
    return int(days or 0) * 1440 + hours * 60 + mins


def gpus(gres: str) -> Counter[str]:
    """GPUs by model in a node's ``gpu:a100:4(S:0-1),gpu:2,shard:8``."""
    found: Counter[str] = Counter()
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):
        name, _, rest = part.partition(":")
        model, _, count = rest.rpartition(":")
        if name == "gpu":
            # `gpu` alone is one, `gpu:a100` is one of a model.
            found[model if count.isdigit() else count] += int(count) if count.isdigit() else 1
    return found


def _partitions(config: dict[str, str], found: Look) -> dict[str, Partition]:
    listed = slurm.run(["scontrol", "-o", "show", "partition"]).splitlines()
    described = [slurm.pairs(line) for line in listed if line.startswith("PartitionName=")]
    tiers = [_number(one.get("PriorityTier"), 1) for one in described]
    nodes = _nodes()
    made: dict[str, Partition] = {}
    for one in described:
        name = one["PartitionName"]
        reason = _closed(one, found.accounts)
        members = nodes.get(name, [])
        if reason or not members:
            found.left_out[name] = reason or "no nodes"
            continue
        models: Counter[str] = Counter()
        for _, _, gres in members:
            models += gpus(gres)
        found.models[name] = models
        cpus = [n for n in (_limit(one.get("MaxCPUsPerNode")), max(n for n, _, _ in members)) if n]
        memory = [m for m in (_limit(one.get("MaxMemPerNode")), max(m for _, m, _ in members)) if m]
        made[name] = Partition(
            max_runtime=minutes(one.get("MaxTime", "")),
            max_threads=min(cpus),
            max_mem_mb=min(memory),
            max_gpu=max(sum(gpus(gres).values()) for _, _, gres in members),
            gpu_models=sorted(model for model in models if model),
            nodes=len(members),
            total_gpu=sum(models.values()),
            preempt=_preempt(config, one, max(tiers)),
            default=one.get("Default") == "YES",
        )
    return made


def _nodes() -> dict[str, list[tuple[int, int, str]]]:
    """Partition -> (CPUs, MB, GRES) of each of its nodes, those that are down too: they come back."""
    columns = SEPARATOR.join(["%R", "%c", "%m", "%G"])
    found: dict[str, list[tuple[int, int, str]]] = {}
    for line in slurm.run(["sinfo", "--noheader", "--Node", f"--format={columns}"]).splitlines():
        partition, cpus, memory, gres = line.split(SEPARATOR)
        found.setdefault(partition.strip(), []).append((_number(cpus, 1), _number(memory, 1), gres))
    return found


def _closed(one: dict[str, str], accounts: Sequence[str]) -> str | None:
    """Why a partition takes no job of mine, as far as it says so itself."""
    if one.get("State", "UP") != "UP":
        return f"state {one['State']}"
    allowed = one.get("AllowAccounts", "ALL")
    if allowed != "ALL" and accounts and not set(allowed.split(",")) & set(accounts):
        return f"for the accounts {allowed} only"
    denied = set(one.get("DenyAccounts", "").split(","))
    if accounts and denied >= set(accounts):
        return "not for your accounts"
    groups = one.get("AllowGroups", "ALL")
    if groups != "ALL" and not set(groups.split(",")) & _my_groups():
        return f"for the groups {groups} only"
    if one.get("RootOnly") == "YES":
        return "for root only"
    return "needs a reservation" if one.get("ReqResv") == "YES" else None


def _my_groups() -> set[str]:
    found = set()
    for number in os.getgroups():
        with contextlib.suppress(KeyError):  # some have no name, e.g. those of AFS
            found.add(grp.getgrgid(number).gr_name)
    return found


def _preempt(config: dict[str, str], one: dict[str, str], highest: int) -> Mode:
    """What happens to a job of this partition that must make room."""
    kind = config.get("PreemptType", "preempt/none")
    # By partition, those of the highest tier are never pushed out.
    by_tier = kind == "preempt/partition_prio"
    if kind == "preempt/none" or (by_tier and _number(one.get("PriorityTier"), 1) >= highest):
        return "off"
    words = one.get("PreemptMode", config.get("PreemptMode", "OFF")).lower().split(",")
    modes: tuple[Mode, ...] = ("cancel", "requeue", "suspend")
    return next((mode for mode in modes if mode in words), "off")


def _accounts(config: dict[str, str]) -> tuple[list[str], int | None]:
    """My accounts, the default one first, and the smallest limit on my jobs in the queue."""
    me = getpass.getuser()
    try:
        rows = _table("user", me, "withassoc", "format=account,defaultaccount,qos,maxsubmit")
        limits = {row[0]: row[1] for row in _table("qos", "format=name,maxsubmitjobsperuser")}
    except SlurmError:
        return [], None
    names = [account for account, _, _, _ in rows]
    ordered = sorted(set(names), key=lambda name: (name not in {d for _, d, _, _ in rows}, name))
    if "limits" not in config.get("AccountingStorageEnforce", ""):
        return ordered, None
    used = [(limit, qos) for account, _, qos, limit in rows if account == ordered[0]]
    numbers = [limit for limit, _ in used]
    # Of several QOS the default one counts, which stands first in no list: the normal one, or the only one.
    for _, qos in used:
        words = qos.split(",")
        numbers.append(limits.get("normal" if "normal" in words else words[0], ""))
    known = [int(number) for number in numbers if number.isdigit() and int(number)]
    return ordered, min(known, default=None)


def _table(*words: str) -> list[list[str]]:
    what, *rest = words
    text = slurm.run(["sacctmgr", "--noheader", "--parsable2", "show", what, *rest])
    return [line.split("|") for line in text.splitlines() if line]


def _number(text: str | None, default: int) -> int:
    digits = re.match(r"\d+", text or "")
    return int(digits[0]) if digits else default


def _limit(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() and int(text) else None
