"""Chains of encoders, each starting from the one before: whether they make sense."""

from __future__ import annotations

from typing import Any

from fewscans.errors import Problems, did_you_mean

IMAGENET = "imagenet"


def check_starts(config: Any, problems: Problems) -> None:
    """Note starts that are not there, go in circles, or do not fit what starts from them."""
    trained = {n: e for n, e in config.encoders.items() if e.source == "pretrain"}
    used = {encoder.start for encoder in trained.values()}
    for name, encoder in trained.items():
        place = f"encoders.{name}"
        if encoder.stage and name not in used:
            problems.add(
                f"{place}.stage",
                "nothing starts from it, and it has no arm. Name it as another's `start`, or remove `stage`.",
            )
        if encoder.scans == "pools" and not any(d.pools for d in config.datasets.values()):
            problems.add(
                f"{place}.scans", "no data set has `pools`. Add some, or write `scans: own`."
            )
        start = encoder.start
        if start is None or encoder.starts_from_file or start == IMAGENET:
            continue
        parent = config.encoders.get(start)
        if parent is None:
            known = [*(other for other in config.encoders if other != name), IMAGENET]
            hint = did_you_mean(start, known)
            problems.add(
                f"{place}.start",
                f"'{start}' is no encoder of this config (a path has a `/`).{hint}",
            )
        elif _circle(name, trained):
            problems.add(
                f"{place}.start", "leads back to itself. One of them must start elsewhere."
            )
        else:
            _check_fit(f"{place}.start", encoder, start, parent, problems)


def _circle(name: str, trained: dict[str, Any]) -> bool:
    seen: set[str] = set()
    at: str | None = name
    while at in trained and at not in seen:
        seen.add(at)
        at = trained[at].start
    return at == name


def _check_fit(place: str, encoder: Any, start: str, parent: Any, problems: Problems) -> None:
    if parent.source == "none":
        problems.add(
            place, f"'{start}' ({parent.method}) has no trained weights. Remove `start`, or take another."
        )  # fmt: skip
        return
    if (encoder.backbone, encoder.patch_size) != (parent.backbone, parent.patch_size):
        problems.add(
            place,
            f"'{start}' is a {parent.backbone}, this a {encoder.backbone}. Give both the same `backbone` and"
            " `patch_size`.",
        )
    if parent.source == "pretrain" and parent.transductive != encoder.transductive:
        problems.add(
            place,
            f"of '{start}' and this one, only one is transductive. Say it of both, or of none.",
        )
