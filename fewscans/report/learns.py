"""The page "Does it learn": which methods beat an untrained network, where, and with what runs that was found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fewscans.config.encoders import ENCODERS

HEAD = """# Does it learn

<!-- made by `make learns`, do not edit -->

Every method here against an untrained network of its kind: frozen features by a linear probe, or all weights
fine-tuned, at small label budgets. All pretrainings of a data set have the same number of steps. Differences are those
of probes from a probe of the untrained network, and of fine-tuned networks from training from scratch. Intervals take
patients and trainings into account ([how](table.md)), each in two widths: for the method by itself, and wider, so that
those of all arms of a budget hold together. Bold ones lie above zero. The first table sums up: *probe* is whether
frozen features beat those of the untrained network, which says that a method **learns**; *fine-tuned* whether going on
from its weights beats starting from scratch, which says that it **helps**. It says **above** where at some budget the
interval that holds together lies above zero, *above by itself* where only the method's own does (which of forty methods
that do nothing one does by luck at each budget), and *below* where they lie below zero at all budgets. The cohort is
the demo's, whose parameters were fixed before any method was tried on it; nothing here was tuned on these results. The
learning rate of the small image networks was found without labels on another generated cohort
(`benchmarks/learning_rates.py`).

Gauges of pretraining: loss of the first epoch and the last; embeddings at the end, their spread and how many directions
they take; alignment, the squared distance of two augmented views of a scan (0: the encoder does not see what the
augmentation changes); uniformity, how evenly scans spread (about -4 at best); kNN, the balanced accuracy of neighbours
among labelled training scans of other patients. Of alignment and kNN: the first look and the last.

"""
ABOVE, BY_ITSELF = "**above**", "above by itself"
# Protocol -> (column of the first table, what an arm is held against).
QUESTIONS = {"linear": ("probe", "above_random"), "finetune": ("fine-tuned", "above_scratch")}


def page(parts: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of all parts (`fewscans.learns.learns`), in the order given."""
    data = [(part, name, one) for part in parts for name, one in part["datasets"].items()]
    sections = [_section(part, name, one) for part, name, one in data]
    return HEAD + _overview(data) + "".join(sections)


def _overview(data: Sequence[tuple[Mapping[str, Any], str, Mapping[str, Any]]]) -> str:
    """A row per method and network of a data set, two columns per data set; then those that beat nothing.

    Images and volumes have other networks: the first of a method in each data set share its first row, and so on.
    """
    found: dict[tuple[str, int], dict[tuple[str, str], str]] = {}
    networks: dict[tuple[str, int], dict[str, None]] = {}
    for _, name, one in data:
        seen: dict[str, list[str]] = {}
        for (method, backbone), protocol, rows in _pretrained(one):
            against = QUESTIONS[protocol][1]
            above = [row[against] for row in rows if against in row]
            if above:
                own = seen.setdefault(method, [])
                own += [] if backbone in own else [backbone]
                key = method, own.index(backbone)
                networks.setdefault(key, {})[f"`{backbone}`"] = None
                found.setdefault(key, {})[name, protocol] = _word(above)
    columns = [(name, protocol) for _, name, _ in data for protocol in QUESTIONS]
    heads = [f"{name}: {QUESTIONS[protocol][0]}" for name, protocol in columns]
    lines = [
        "| method | network | " + " | ".join(heads) + " |",
        "| --- " * (len(columns) + 2) + "|",
    ]
    for key, cells in found.items():
        shown = " | ".join(cells.get(column, "not run") for column in columns)
        lines.append(f"| {_title(key[0])} | {', '.join(networks[key])} | {shown} |")
    some = {m for (m, _), cells in found.items() if {ABOVE, BY_ITSELF} & set(cells.values())}
    none = sorted({m for m, _ in found} - some)
    text = "\n".join(lines) + "\n\n"
    if none:
        titles = ", ".join(_title(method) for method in none)
        text += (
            f"**No gain shown anywhere: {titles}.** What was checked for each: its loss against a slow transcription of"
            " the paper's equations (`tests/test_losses*.py`, `tests/test_pretext.py`, `tests/test_contig.py`), the"
            " contract that all methods meet (`tests/test_contract.py`, `tests/test_methods.py`), and in the gauges"
            " below that its loss falls, that embeddings do not collapse, and whether views of a scan come together."
            " `benchmarks/invariance.py` asks whether an encoder finds an unseen scan again in another view of it,"
            " among all others (its results stand in `benchmarks/README.md`): one that does has learnt what its"
            " augmentation leaves as it is, which then is not what these classes differ in; one that hardly does so"
            " more often than an untrained one had too few steps. More steps, scans or test"
            " patients may show what these runs cannot.\n\n"
        )
    return text


def _word(above: Iterable[Sequence[float]]) -> str:
    """What the (difference, low and high by itself, low and high together) of all budgets say."""
    parts = list(above)
    if any(low > 0 for *_, low, _ in parts):
        return ABOVE
    if any(low > 0 for _, low, *_ in parts):
        return BY_ITSELF
    if all(high < 0 for *_, high in parts):
        return "below"
    return "cannot tell"


def _pretrained(
    one: Mapping[str, Any],
) -> Iterator[tuple[tuple[str, str], str, list[Mapping[str, Any]]]]:
    """((method, network), protocol, rows of all budgets) of pretrained encoders."""
    found: dict[tuple[tuple[str, str], str], list[Mapping[str, Any]]] = {}
    for row in one["rows"]:
        if row["encoder"] in one["trainings"] and row["protocol"] in QUESTIONS:
            network = (row["method"], row["backbone"])
            found.setdefault((network, row["protocol"]), []).append(row)
    for (network, protocol), rows in found.items():
        yield network, protocol, rows


def _section(part: Mapping[str, Any], name: str, one: Mapping[str, Any]) -> str:
    validation = part["validation"]
    steps = sorted({round(training["steps"]) for training in one["trainings"].values()})
    head = (
        f"## {name}\n\n{one['n_patients']} patients, {one['n_scans']} scans; {_parts(one['folds'])}, "
        f"{_several(validation['seeds'], 'seed')}, {_several(validation['draws'], 'draw')} of labels; "
        f"{' to '.join(str(s) for s in dict.fromkeys([steps[0], steps[-1]]))} steps of pretraining. "
        f"{part['metric'].upper()} per {one['unit']}, with {part['confidence']:.0%} intervals.\n\n"
        if steps
        else f"## {name}\n\n"
    )
    tables = "".join(_budget(one, budget) for budget in one["budgets"])
    return head + tables + _gauges(one) + _provenance(one)


def _parts(folds: int) -> str:
    return "one fixed split" if folds == 1 else _several(folds, "fold")


def _several(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _budget(one: Mapping[str, Any], budget: str) -> str:
    rows = [row for row in one["rows"] if row["budget"] == budget]
    lines = [
        f"### {name_of(budget)}\n",
        "| method | network | protocol | score | difference | by itself | together |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        score = f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
        against = " | ".join(_difference(row.get("above_random", row.get("above_scratch"))))
        lines.append(
            f"| {_title(row['method'])} | `{row['backbone']}` | {row['protocol']} | {score} | {against} |"
        )
    return "\n".join(lines) + "\n\n"


def name_of(budget: str) -> str:
    """A budget as a heading."""
    if budget == "all":
        return "All labelled patients"
    return (
        f"{budget} of labelled patients" if budget.endswith("%") else f"{budget} labelled patients"
    )


def _difference(values: Sequence[float] | None) -> list[str]:
    """Cells of a difference and its two intervals."""
    if not values:
        return ["", "", ""]
    point, *ends = values
    return [f"{point:+.3f}", *(_interval(*ends[i : i + 2]) for i in (0, 2))]


def _interval(low: float, high: float) -> str:
    shown = f"{low:+.3f} to {high:+.3f}"
    return f"**{shown}**" if low > 0 else shown


def _gauges(one: Mapping[str, Any]) -> str:
    lines = [
        "### Gauges of pretraining\n",
        "| encoder | loss | spread | effective rank | alignment | uniformity | kNN | seconds | flags |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, training in one["trainings"].items():
        cells = [
            f"{training['loss_first']:.3g} to {training['loss_last']:.3g}",
            _number(training.get("embedding_std")),
            _number(training.get("effective_rank"), 0),
            _course(training, "alignment"),
            _number(training.get("uniformity")),
            _course(training, "knn_balanced_accuracy"),
            f"{training['seconds']:.0f}",
            " ".join(training["flags"]),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n"


def _course(training: Mapping[str, Any], name: str) -> str:
    """A gauge at the first look and at the last."""
    shown = [_number(training.get(key)) for key in (f"{name}_first", name)]
    return " to ".join(one for one in dict.fromkeys(shown) if one)


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None or value != value else f"{value:.{digits}f}"


def _provenance(one: Mapping[str, Any]) -> str:
    trainings = list(one["trainings"].values())
    devices = ", ".join(sorted({device for t in trainings for device in t["devices"]}))
    versions = (
        ", ".join(f"{k} {v}" for k, v in trainings[0]["versions"].items()) if trainings else ""
    )
    digests = ", ".join(f"{name} `{value}`" for name, value in one["digests"].items())
    return (
        f"Runs: {sum(t['trainings'] for t in trainings)} pretrainings, {one['device_seconds'] / 3600:.1f} device-hours"
        f" in all, on {devices}; {versions}. Digests: {digests}.\n\n"
    )


def _title(method: str) -> str:
    model = ENCODERS.get(method)
    return model.title if model is not None else method
