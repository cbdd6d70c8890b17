"""``partitions.yaml`` as text: wishes above a line, what was found below it, each setting with its meaning.

A second look renews what stands below the line; what people wrote above it stays as they wrote it.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable
from typing import Any

import yaml

from fewscans.cluster.look import Look
from fewscans.cluster.site import ClusterFacts, JobClass, Partition, Site

LINE = "# ---- Found by `fewscans cluster-setup`; a second look renews it. Write above, not below. "
FOUND = ("cluster", "partitions")
HEAD = """\
# What this cluster offers and what you want of it; profiles/slurm and the plan read it. Written by
# `fewscans cluster-setup`, to be edited by you. Settings that are commented out show what else there is.
"""
# Values that a commented setting shows, where its default says nothing.
EXAMPLES = {
    "account": "my_project",
    "reservation": "my_reservation",
    "modules": "[cuda/12.6]",
    "container": "{image: /shared/fewscans.sif, binds: [/data]}",
    "scratch": "$TMPDIR",
    "notify": "mail -s 'fewscans' me@example.org < /dev/null",
}
WIDTH = 100


def first_text(look: Look) -> str:
    """The file for a cluster that has none yet."""
    parts = [HEAD]
    for name, field in Site.model_fields.items():
        if name in FOUND:
            continue
        meaning = field.description or ""
        if name == "account" and len(look.accounts) > 1:
            meaning += f" You may charge: {', '.join(look.accounts)}."
        value = getattr(look.site, name)
        if name == "classes":
            parts.append(_comment(meaning) + _classes(look))
        elif value != field.get_default():
            parts.append(_comment(meaning) + f"{name}: {flow(value)}\n")
        else:
            shown = EXAMPLES.get(name) or flow(value)
            parts.append(_comment(meaning) + f"# {name}: {shown}\n")
    return "\n".join(parts) + "\n" + found_text(look.site)


def renewed_text(old: str, look: Look) -> str:
    """The file with its wishes as they are and the facts of `look`."""
    head, line, _ = old.partition(LINE[:40])
    if not line:  # written by hand
        head = _without_facts(old)
    return head.rstrip() + "\n\n" + found_text(look.site)


def found_text(site: Site) -> str:
    """The lower part: the cluster and its partitions."""
    text = LINE.ljust(WIDTH, "-") + "\ncluster:\n"
    for name, field in ClusterFacts.model_fields.items():
        text += f"  {f'{name}: {flow(getattr(site.cluster, name))}':<28}  # {field.description}\n"
    text += "\n# Limits of each partition, per job or per node; null: no limit known.\n"
    for name, field in Partition.model_fields.items():
        text += f"#   {name:<12}  {(field.description or '').replace('`', '')}\n"
    rows = {flow(name): one.model_dump() for name, one in site.partitions.items()}
    cells = {
        name: [f"{key}: {flow(value)}" for key, value in row.items()] for name, row in rows.items()
    }
    widths = [max(map(len, column)) for column in zip(*cells.values(), strict=True)]
    longest = max(map(len, cells), default=0)
    text += "partitions:\n" if rows else "partitions: {}\n"
    for name, row in cells.items():
        padded = "".join(
            f"{f'{cell},':<{width + 2}}" for cell, width in zip(row[:-1], widths, strict=False)
        )
        text += f"  {f'{name}:':<{longest + 1}} {{{padded}{row[-1]}}}\n"
    return text


def flow(value: Any) -> str:
    """A value on one line of YAML."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(exclude_defaults=True)
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _classes(look: Look) -> str:
    text = _comment("Of each class you may set:")
    for name, field in JobClass.model_fields.items():
        text += f"#   {name:<12}  {field.description}\n"
    text += "classes:\n" if look.site.classes else "classes: {}\n"
    for kind, wishes in look.site.classes.items():
        line = f"  {f'{kind}:':<6} {flow(wishes)}"
        models = look.models.get(wishes.partition or "", Counter())
        if kind == "gpu" and len(models) > 1:
            found = ", ".join(f"{model or 'untyped'} ({n})" for model, n in models.items())
            line = f"{line}  # GPUs there: {found}"
        text += f"{line}\n"
    return text


def _comment(text: str) -> str:
    lines: Iterable[str] = textwrap.wrap(text, WIDTH - 2) if text else []
    return "".join(f"# {line}\n" for line in lines)


def _without_facts(old: str) -> str:
    """A hand-written file without its top-level blocks of facts."""
    kept = []
    inside = False
    for line in old.splitlines(keepends=True):
        if line[:1] not in (" ", "#", "\n", "-"):
            inside = line.startswith(tuple(f"{name}:" for name in FOUND))
        if not inside:
            kept.append(line)
    return "".join(kept)
