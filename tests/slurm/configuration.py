"""The files a private Slurm reads: slurm.conf, slurmdbd.conf, gres.conf, and wrappers of its commands."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

COMMANDS = [
    "sacct", "sacctmgr", "salloc", "sattach", "sbatch", "scancel", "scontrol", "sdiag", "sinfo",
    "sprio", "squeue", "srun", "sshare", "sstat",
]  # fmt: skip

# cred_expire: a requeued job waits so long before it starts again (120 s if nothing is said).
# OverMemoryKill: the memory limit without cgroups, looked at each second.
# Every daemon listens on the loopback address alone.
CONF = """\
ClusterName=fewscans
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={state}/munge.socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={state}/ctld
SlurmdSpoolDir={state}/spool/%n
SlurmctldPidFile={state}/ctld/pid
SlurmdPidFile={state}/spool/%n.pid
SlurmctldLogFile={state}/log/slurmctld.log
SlurmdLogFile={state}/log/%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
DefMemPerCPU=100
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1,bf_continue
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=2
OverTimeLimit=0
MinJobAge=300
InactiveLimit=0
SlurmctldTimeout=30
SlurmdTimeout=300
MessageTimeout=10
ReturnToService=2
GresTypes=gpu
"""

ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd_port}
AccountingStoragePass={state}/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
"""

DBD_CONF = """\
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd_port}
SlurmUser={user}
AuthType=auth/munge
AuthInfo=socket={state}/munge.socket
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StorageLoc=slurm
LogFile={state}/log/slurmdbd.log
PidFile={state}/slurmdbd.pid
"""


@dataclass(frozen=True)
class Layout:
    """Who and where: everything the files are filled with."""

    state: Path
    user: str
    port: int
    """First of len(all_nodes) + 2 free ports."""
    nodes: int
    """Ordinary nodes n1..nN, beside one for preemption and one that tests take down."""
    cpus: int
    """CPUs of a node as Slurm sees it; may be more than there are."""
    mem_mb: int
    accounting: bool
    gpu_nodes: int = 2
    """Ordinary nodes with GPUs, the last ones."""

    @property
    def ordinary(self) -> list[str]:
        return [f"n{i + 1}" for i in range(self.nodes)]

    @property
    def gpu(self) -> list[str]:
        """Ordinary nodes with two fake GPUs each."""
        return self.ordinary[-self.gpu_nodes :]

    @property
    def with_gpu(self) -> list[str]:
        """Nodes of a training: those and the one for preemption."""
        return [*self.gpu, "pre"]

    @property
    def all_nodes(self) -> list[str]:
        return [*self.ordinary, "pre", "frail"]

    @property
    def dbd_port(self) -> int:
        return self.port + 1 + len(self.all_nodes)

    def partitions(self) -> dict[str, dict[str, object]]:
        """Name -> nodes and limits; preemption has a node of its own, so that it hits no other test's jobs."""
        hour = {"MaxTime": 60, "PriorityTier": 10, "PreemptMode": "OFF"}
        return {
            "cpu": {"Nodes": self.ordinary, "Default": "YES", **hour},
            "gpu": {"Nodes": self.gpu, **hour},
            "short": {"Nodes": self.ordinary, **hour, "MaxTime": 1, "DefaultTime": 1},
            "preempt": {"Nodes": ["pre"], **hour, "PriorityTier": 1, "PreemptMode": "REQUEUE"},
            "cancel": {"Nodes": ["pre"], **hour, "PriorityTier": 1, "PreemptMode": "CANCEL"},
            "urgent": {"Nodes": ["pre"], **hour},
            "frail": {"Nodes": ["frail"], **hour},
        }

    def node_line(self, index: int, name: str) -> str:
        kind = "Gres=gpu:fake:2 Feature=gpu" if name in self.with_gpu else "Feature=cpu"
        return (
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={self.port + 1 + index}"
            f" CPUs={self.cpus} RealMemory={self.mem_mb} State=UNKNOWN {kind}\n"
        )


def write_configuration(layout: Layout) -> Path:
    """Write the files and folders below the state directory; path of slurm.conf."""
    state = layout.state
    values = {
        "state": state, "user": layout.user, "port": layout.port, "dbd_port": layout.dbd_port,
        "host": socket.gethostname().partition(".")[0],
    }  # fmt: skip
    for name in ["log", "ctld", "spool", "bin", *(f"spool/{node}" for node in layout.all_nodes)]:
        (state / name).mkdir()
    text = CONF.format(**values)
    if layout.accounting:
        text += ACCOUNTING.format(**values)
        # slurmdbd refuses a file that others can read
        (state / "slurmdbd.conf").touch(mode=0o600)
        (state / "slurmdbd.conf").write_text(DBD_CONF.format(**values))
    text += "".join(layout.node_line(i, name) for i, name in enumerate(layout.all_nodes))
    for name, settings in layout.partitions().items():
        words = [f"{k}={','.join(v) if isinstance(v, list) else v}" for k, v in settings.items()]
        text += f"PartitionName={name} {' '.join(words)}\n"
    conf = state / "slurm.conf"
    conf.write_text(text)
    (state / "cgroup.conf").touch()
    # A GPU must be a device; two harmless ones stand for GPUs 0 and 1.
    (state / "gres.conf").write_text(
        "".join(
            f"NodeName={node} Name=gpu Type=fake File=/dev/{device}\n"
            for node in layout.with_gpu
            for device in ("null", "zero")
        )
    )
    _write_wrappers(state / "bin", conf)
    return conf


def _write_wrappers(folder: Path, conf: Path) -> None:
    """Commands that find this cluster also where SLURM_CONF was removed from the environment.

    Snakemake's slurm-jobstep plugin removes it in every job.
    """
    for name in COMMANDS:
        path = folder / name
        path.write_text(
            f'#!/bin/sh\nSLURM_CONF={conf}\nexport SLURM_CONF\nexec /usr/bin/{name} "$@"\n'
        )
        path.chmod(0o755)
