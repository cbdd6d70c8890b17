"""A cluster as a person wants to see it."""

from __future__ import annotations

from fewscans.cluster.look import Look
from fewscans.cluster.site import Partition, Site


def show(look: Look, site: Site) -> str:
    """What was found (`look`), and what the classes of jobs get (`site`, with the user's own wishes)."""
    facts = look.site.cluster
    accounts = ", ".join(look.accounts)
    lines = [
        f"Slurm {facts.slurm_version}, cluster {facts.name}",
        f"  finished jobs    {'from the accounts (sacct)' if facts.accounting else 'from the queue (squeue)'}, "
        f"queue remembers them {facts.min_job_age_s} s",
        f"  requeue          {'as a rule' if facts.job_requeue else 'only where asked for (the profile asks)'}",
        f"  jobs in queue    {f'at most {facts.max_submit_jobs}' if facts.max_submit_jobs else 'no limit found'}",
        f"  your accounts    {accounts or 'none found: jobs name none'}",
        "",
    ]
    table = [
        ["partition", "longest", "nodes", "CPUs", "memory", "GPUs", "of models", "if preempted"]
    ]
    for name, one in look.site.partitions.items():
        table.append([name + ("*" if one.default else ""), *_cells(one)])
    lines += _aligned(table)
    lines += [f"{name}: left out, {reason}" for name, reason in look.left_out.items()]
    lines += ["", "Jobs go to"]
    rows = []
    for kind, what in (("light", "seconds"), ("cpu", "data"), ("gpu", "training")):
        wishes = site.job_class(kind)  # type: ignore[arg-type]
        said = wishes.model_dump(exclude_defaults=True, exclude={"partition"})
        others = ", ".join(f"{key} {value}" for key, value in said.items())
        rows.append(["", kind, f"({what})", wishes.partition or "the default partition", others])
    return "\n".join(lines + _aligned(rows))


def duration(minutes: int | None) -> str:
    """Minutes as people say them."""
    if minutes is None:
        return "no limit"
    if minutes % 1440 == 0:
        return f"{minutes // 1440} d"
    return f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"


def _cells(one: Partition) -> list[str]:
    memory = "" if one.max_mem_mb is None else f"{one.max_mem_mb / 1000:.0f} GB"
    gpus = f"{one.total_gpu} ({one.max_gpu} a node)" if one.total_gpu else "-"
    return [
        duration(one.max_runtime),
        str(one.nodes),
        str(one.max_threads or ""),
        memory,
        gpus,
        ", ".join(one.gpu_models) or "-",
        "-" if one.preempt == "off" else one.preempt,
    ]


def _aligned(table: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
