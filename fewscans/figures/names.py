"""Names that a reader understands: of encoders, arms, budgets, metrics. The plan's own stay in the CSV files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from fewscans.plan import TITLES

METRICS = {
    "auroc": "AUROC", "average_precision": "average precision", "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy", "f1": "F1", "precision": "precision", "recall": "recall",
}  # fmt: skip
PROTOCOLS = {
    "linear": "linear probe", "knn": "nearest neighbours", "finetune": "fine-tuned", "prior": "class frequencies",
}  # fmt: skip
MINUS = "\N{MINUS SIGN}"


def metric(name: str) -> str:
    """``AUROC`` for ``auroc``."""
    return METRICS.get(name, name.replace("_", " "))


def protocol(name: str) -> str:
    """``linear probe`` for ``linear``."""
    return PROTOCOLS.get(name, name)


def number(value: float, digits: int = 2, *, sign: bool = False) -> str:
    """``0.75``, ``+0.03``, with a true minus sign; an en dash where there is none."""
    if value is None or value != value:
        return "\N{EN DASH}"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return text.replace("-", MINUS)


def budget(name: str, n_patients: float | None = None) -> str:
    """``12``, ``30 % (29)``, ``all (98)``: a budget and, where it does not say so, the patients it is."""
    text = name.replace("%", " %")
    if n_patients is None or n_patients != n_patients or name.isdigit():
        return text
    return f"{text} ({n_patients:.0f})"


def budget_order(name: str) -> tuple[int, float]:
    """Sort key where no counts are known: numbers, then shares, then all."""
    if name.isdigit():
        return 0, float(name)
    return (1, float(name.rstrip("%"))) if name.endswith("%") else (2, 0.0)


class Names:
    """Names of a plan's encoders and arms; a setting that all share (network, recipe) is not said."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.plan = plan
        self.arms = {arm["arm"]: arm for arm in plan["arms"]}
        self.recipes = list(dict.fromkeys(arm["recipe"] for arm in plan["arms"]))
        used = {arm["encoder"] for arm in plan["arms"]}
        real = {name: e for name, e in plan["encoders"].items() if name in used and e["method"] != "majority"}
        self.backbones = sorted({e["backbone"] for e in real.values()})
        self._encoders = self._distinct({name: self._encoder(name) for name in plan["encoders"]})

    def encoder(self, name: str) -> str:
        """``SimCLR``, ``scratch (test_vit)``, ``SimCLR, epochs 50``."""
        return self._encoders.get(name, name)

    def method(self, name: str) -> str:
        """``SimCLR`` for ``simclr``."""
        return TITLES.get(name, name)

    def pair(self, encoder: str, recipe: str) -> str:
        """Encoder, with the recipe where there are several."""
        lone = len(self.recipes) < 2 or self._method(encoder) == "majority"
        return self.encoder(encoder) if lone else f"{self.encoder(encoder)} @ {recipe}"

    def arm(self, arm: str) -> str:
        """``SimCLR · linear probe``."""
        if arm not in self.arms:
            return arm
        found = self.arms[arm]
        name = self.pair(found["encoder"], found["recipe"])
        return name if found["protocol"] == "prior" else f"{name} · {protocol(found['protocol'])}"

    def _method(self, encoder: str) -> str:
        return self.plan["encoders"].get(encoder, {}).get("method", "")

    def _encoder(self, name: str) -> str:
        found = self.plan["encoders"][name]
        method, backbone, settings = found["method"], found.get("backbone"), found.get("settings") or {}
        text = TITLES.get(method, method)
        if found.get("ablation"):
            text = ", ".join([text, *self._changes(found, settings)])
        elif found.get("source") == "pretrain" and name != method:
            text = name  # as the user calls it
        if method != "majority" and len(self.backbones) > 1:
            patch = settings.get("patch_size")
            text += f" ({backbone}, patch {patch})" if patch else f" ({backbone})"
        return f"{text}, transductive" if settings.get("transductive") else text

    def _changes(self, found: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
        """Settings of an ablated encoder that differ from those of the encoder it was made from."""
        axes = (self.plan.get("config") or {}).get("ablations", {}).get(found["ablation"]) or {}
        base = (self.plan["encoders"].get(axes.get("of", "")) or {}).get("settings") or {}
        skipped = {"method", "backbone", "patch_size", "transductive"}
        return [
            f"{re.sub('[_-]', ' ', key)} {_plain(settings[key])}"
            for key in settings
            if key in axes and key not in skipped and settings[key] != base.get(key)
        ]

    def _distinct(self, titles: dict[str, str]) -> dict[str, str]:
        """Two encoders never share a name: where they would, the plan's own is used."""
        counts = Counter(titles.values())
        return {name: title if counts[title] == 1 else name for name, title in titles.items()}


def _plain(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, "") if isinstance(value, bool) else str(value)
