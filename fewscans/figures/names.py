"""Names that a reader understands: of encoders, arms, budgets, metrics. The plan's own stay in the CSV files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from fewscans.plan import TITLES

METRICS = {
    "auroc": "AUROC", "average_precision": "average precision", "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy", "f1": "F1", "precision": "precision", "recall": "recall",
}  # fmt: skip
PROTOCOLS = {
    "linear": "linear probe",
    "knn": "k-NN",
    "finetune": "fine-tuned",
    "prior": "class frequencies",
}
NBSP = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"


def metric(name: str) -> str:
    """``AUROC`` for ``auroc``."""
    return METRICS.get(name, name.replace("_", " "))


def protocol(name: str) -> str:
    """``linear probe`` for ``linear``."""
    return PROTOCOLS.get(name, name)


def method(name: str) -> str:
    """``SimCLR`` for ``simclr``."""
    return TITLES.get(name, name)


def number(value: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """``0.75``, ``+0.03``, with a true minus sign; an en dash where there is none."""
    if value is None or value != value:
        return "\N{EN DASH}"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = f"{0:.{digits}f}"
    return text.replace("-", MINUS)


def budget(name: str) -> str:
    """``12``, ``30 %``, ``all``."""
    return name.replace("%", f"{NBSP}%")


def labelled(name: str, n_patients: float | None = None) -> str:
    """``12 patients``, ``30 % (29 patients)``, ``all (98 patients)``."""
    if name.isdigit() or n_patients is None or n_patients != n_patients:
        return f"{budget(name)} patients"
    return f"{budget(name)} ({n_patients:.0f} patients)"


def with_labels(name: str, n_patients: float | None = None) -> str:
    """``12 labelled patients``, ``30 % of the labelled patients (29)``, ``all labelled patients (98)``."""
    if name.isdigit():
        return f"{name} labelled patients"
    text = "all labelled patients" if name == "all" else f"{budget(name)} of the labelled patients"
    known = n_patients is not None and n_patients == n_patients
    return f"{text} ({n_patients:.0f})" if known else text


def count(n: int, one: str, several: str = "") -> str:
    """``1 seed``, ``3 seeds``."""
    return f"{n} {one if n == 1 else several or one + 's'}"


def budget_order(name: str) -> tuple[int, float]:
    """Sort key where no counts are known: numbers, then shares, then all."""
    if name.isdigit():
        return 0, float(name)
    return (1, float(name.rstrip("%"))) if name.endswith("%") else (2, 0.0)


class Names:
    """Names of a plan's encoders and arms; what goes without saying (the only network, recipe) is not said."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.plan = plan
        self.arms = {arm["arm"]: arm for arm in plan["arms"]}
        self.config = plan.get("config") or {}
        used = dict.fromkeys((arm["encoder"], arm["recipe"]) for arm in plan["arms"])
        self._backbones: dict[str, set[tuple[Any, Any]]] = {}
        for encoder, _ in used:
            entry = plan["encoders"][encoder]
            network = entry.get("backbone"), (entry.get("settings") or {}).get("patch_size")
            self._backbones.setdefault(entry["method"], set()).add(network)
        titles = {pair: self._pair(*pair) for pair in used}
        counts = Counter(titles.values())
        # Two never share a name: where they would, the plan's own are used.
        self._pairs = {
            pair: title if counts[title] == 1 else " @ ".join(pair)
            for pair, title in titles.items()
        }

    def pair(self, encoder: str, recipe: str) -> str:
        """``SimCLR``, ``random, frozen (test_vit)``, ``SimCLR, epochs 50, size 64``."""
        return self._pairs.get((encoder, recipe), f"{encoder} @ {recipe}")

    def arm(self, arm: str) -> str:
        """``SimCLR · linear probe``."""
        if arm not in self.arms:
            return arm
        found = self.arms[arm]
        name = self.pair(found["encoder"], found["recipe"])
        return name if found["protocol"] == "prior" else f"{name} · {protocol(found['protocol'])}"

    def _pair(self, encoder: str, recipe: str) -> str:
        entry = self.plan["encoders"][encoder]
        settings = entry.get("settings") or {}
        text = method(entry["method"])
        if entry.get("ablation"):
            text = ", ".join([text, *self._changes(entry, settings)])
        elif entry.get("source") == "pretrain" and encoder != entry["method"]:
            text = encoder  # as the user calls it
        if entry["method"] == "majority":
            return text
        text = ", ".join([text, *self._recipe(recipe)])
        if len(self._backbones[entry["method"]]) > 1:
            patch = settings.get("patch_size")
            text += f" ({entry['backbone']}, patch {patch})" if patch else f" ({entry['backbone']})"
        return f"{text}, transductive" if settings.get("transductive") else text

    def _changes(self, entry: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
        """Settings of an ablated encoder that differ from those of the encoder it was made from."""
        axes = self.config.get("ablations", {}).get(entry["ablation"]) or {}
        base = (self.plan["encoders"].get(axes.get("of", "")) or {}).get("settings") or {}
        said_elsewhere = {"method", "backbone", "patch_size", "transductive"}
        return _differences(
            {k: v for k, v in settings.items() if k in axes and k not in said_elsewhere}, base
        )

    def _recipe(self, recipe: str) -> list[str]:
        """Nothing for the only recipe of a config, the name of one among several, the changes of an ablated one."""
        given = self.config.get("recipes") or {}
        if recipe in given or not given:
            return [recipe] if len(given) > 1 else []
        bases = [name for name in given if recipe.startswith(f"{name}-")] or list(given)
        base = max(bases, key=len)
        name = [base] if len(given) > 1 else []
        return [*name, *_differences(self.plan["recipes"][recipe], given[base])]


def _differences(settings: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    return [
        f"{key.replace('_', ' ')}{NBSP}{_plain(value)}"
        for key, value in settings.items()
        if value != base.get(key)
    ]


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " to ".join(map(str, value)) if isinstance(value, list) else str(value)
