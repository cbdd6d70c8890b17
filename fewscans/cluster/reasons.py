"""Why a job waits in the queue: reasons that pass by themselves, that somebody has to see to, that never end."""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["passes", "never", "requeued-held", "somebody"]

# Slurm's words (squeue, REASON) -> what to do. Limits per job do not pass while the request stays as it is.
NEVER = {
    "PartitionTimeLimit": "asks for more time than its partition allows",
    "PartitionConfig": "asks for more than its partition has (time, memory, CPUs or GPUs of a node)",
    "PartitionNodeLimit": "asks for more nodes than its partition has",
    "BadConstraints": "asks for features or resources that no node has together",
    "AccountNotAllowed": "its account may not use this partition",
    "QOSNotAllowed": "its QOS may not be used here",
    "InvalidAccount": "its account does not exist",
    "InvalidQOS": "its QOS does not exist",
    "DependencyNeverSatisfied": "waits for a job that failed",
    "MaxMemPerLimit": "asks for more memory per CPU or node than allowed",
}
SOMEBODY = {
    "JobHeldUser": "is held; release it: scontrol release {id}",
    "JobHeldAdmin": "is held by the administration; ask them",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition takes no jobs",
    "ReqNodeNotAvail": "the nodes that it may use are not available (down, drained or reserved)",
    "ReservationDeleted": "its reservation is over",
    "AssocGrpCPUMinutesLimit": "the account has used up its time",
    "AssocGrpBillingMinutes": "the account has used up its budget",
    "QOSGrpBillingMinutes": "the QOS has used up its budget",
}
PER_JOB = re.compile(r"^(Assoc|QOS)\w*(PerJob|MaxWall|Min)")


def kind(reason: str) -> Kind:
    """What sort of reason it is; an unknown one is taken to pass."""
    # A reason may carry a list of nodes behind it.
    word = reason.strip("() ").split(",")[0].split(":")[0].strip()
    if re.sub("[ _]", "", word).lower() == "launchfailedrequeuedheld":
        return "requeued-held"
    if word in NEVER or PER_JOB.match(word):
        return "never"
    return "somebody" if word in SOMEBODY or "held" in word.lower() else "passes"


def words(reason: str, job_id: str) -> str:
    """The reason in words, with Slurm's own behind."""
    word = reason.strip("() ").split(",")[0].split(":")[0].strip()
    if kind(reason) == "requeued-held":
        said = f"could not be started and is held; release it: scontrol release {job_id}"
    elif PER_JOB.match(word):
        said = "asks for more than one job may have"
    else:
        held = SOMEBODY["JobHeldUser"] if "held" in word.lower() else "waits"
        said = (NEVER | SOMEBODY).get(word, held).format(id=job_id)
    return f"{said} ({word})"
