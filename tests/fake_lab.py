"""Slurm commands for tests that need none: each writes down that it was called and prints what a test says."""

from __future__ import annotations

from pathlib import Path

COMMANDS = (
    "sbatch",
    "squeue",
    "sacct",
    "scancel",
    "scontrol",
    "sinfo",
    "sacctmgr",
    "sshare",
    "srun",
)

CONFIG = """Configuration data as of 2026-11-23T20:22:11
AccountingStorageEnforce = associations,limits,qos
AccountingStorageType   = accounting_storage/slurmdbd
ClusterName             = lab
JobRequeue              = 1
KillWait                = 30 sec
MinJobAge               = 300 sec
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
SLURM_VERSION           = 23.11.4
"""
PARTITION = (
    "PartitionName={name} AllowGroups=ALL AllowAccounts={accounts} AllowQos=ALL Default={default} MaxTime={time} "
    "PriorityTier={tier} RootOnly=NO ReqResv=NO PreemptMode={preempt} State={state} MaxCPUsPerNode=UNLIMITED "
    "MaxMemPerNode={memory} Nodes=x[1-9]"
)


def partition(name: str, **changed: object) -> str:
    """A line of ``scontrol -o show partition``."""
    usual = {"accounts": "ALL", "default": "NO", "time": "2-00:00:00", "tier": 10}
    usual |= {"preempt": "OFF", "state": "UP", "memory": "UNLIMITED"}
    return PARTITION.format(**{**usual, "name": name, **changed})


def nodes(*rows: tuple[str, int, int, str]) -> str:
    """Lines of sinfo: partition, CPUs, MB, GRES."""
    return "".join("\x1f".join(map(str, row)) + "\n" for row in rows)


# A usual lab: a default partition without GPUs, one of mixed GPUs, a preemptible one of everything, one that is shut.
LAB = {
    "scontrol show config": CONFIG,
    "scontrol -o show partition": "\n".join(
        [
            partition("std", default="YES", time="1-00:00:00", memory=180000),
            partition("gpu"),
            partition("scavenge", tier=1, preempt="REQUEUE", time="UNLIMITED"),
            partition("old", state="DOWN"),
            partition("theirs", accounts="physics"),
        ]
    ),
    "sinfo --version": "slurm 23.11.4\n",
    "sinfo --noheader": nodes(
        ("std", 64, 256000, "(null)"),
        ("std", 64, 192000, "(null)"),
        ("gpu", 32, 512000, "gpu:a100:4(S:0-1)"),
        ("gpu", 32, 384000, "gpu:v100:2(S:0),shard:8"),
        ("gpu", 32, 512000, "gpu:a100:4(S:0-1)"),
        ("scavenge", 32, 512000, "gpu:a100:4(S:0-1)"),
        ("old", 8, 8000, "(null)"),
        ("theirs", 8, 8000, "(null)"),
    ),
    "sacctmgr --noheader --parsable2 show user": "biology|chemistry|normal|40\nchemistry|chemistry|high,normal|\n",
    "sacctmgr --noheader --parsable2 show qos": "normal|60\nhigh|2\n",
    "sacctmgr -nP show assoc": "biology\nchemistry\n",
}


def install(folder: Path, answers: dict[str, str] | None = None, fail: str = "") -> Path:
    """Write the commands to ``folder/bin``; the file ``folder/calls`` gets a line for each call.

    Parameters
    ----------
    answers
        Beginning of a command line -> what it prints; any other call prints nothing.
    fail
        What sbatch says when it refuses everything.
    """
    bin_folder = folder / "bin"
    bin_folder.mkdir(parents=True)
    (folder / "calls").touch()
    for command in COMMANDS:
        lines = ["#!/bin/sh", f'echo "{command} $*" >> "{folder}/calls"', 'case "$0 $*" in']
        for at, (start, text) in enumerate((answers or {}).items()):
            if start.split()[0] == command:
                (folder / f"{command}.{at}").write_text(text)
                lines.append(f'*"/{start}"*) cat "{folder}/{command}.{at}";;')
        lines.append("esac")
        if command == "sbatch" and fail:
            lines += [f'echo "{fail}" >&2', "exit 1"]
        (bin_folder / command).write_text("\n".join(lines) + "\n")
        (bin_folder / command).chmod(0o755)
    return bin_folder


def calls(folder: Path) -> list[str]:
    """Command lines so far."""
    return (folder / "calls").read_text().splitlines()
