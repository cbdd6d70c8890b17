"""What must stay together, and which labels cannot both be right."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fewscans.files import digest


def cluster_duplicates(n: int, pairs: pd.DataFrame) -> npt.NDArray[np.int64]:
    """[n] cluster of each scan: scans that duplicates connect share a number (single linkage)."""
    return _components(n, pairs["a"].to_numpy(), pairs["b"].to_numpy())


def make_groups(
    dataset: str,
    patients: pd.Series,
    clusters: npt.NDArray[np.int64],
    content: pd.Series | None = None,
) -> list[str]:
    """Group of each scan: patients that a cluster of duplicates connects are one group.

    Its name is a hash of the first of its patients by name: it holds no foreign text, and no label
    moves it. With `content`, a digest of each scan's pixels or file ("": none), it is a hash of the smallest of these:
    where patients have keyed pseudonyms, names of groups, and so folds, then don't hang on the key.
    """
    codes, names = pd.factorize(patients, sort=True)
    n = len(patients)
    # Patients and clusters are the nodes, and every scan is an edge between its two.
    parts = _components(len(names) + n, codes.astype(np.int64), clusters + len(names))[: len(names)]
    first: dict[int, str] = {}
    for part, name in zip(
        parts, names, strict=True
    ):  # names are sorted, so the first seen is the smallest
        first.setdefault(int(part), str(name))
    called = {part: digest([dataset, "group", name]) for part, name in first.items()}
    groups = [int(parts[code]) for code in codes]
    if content is not None:
        seen = pd.DataFrame({"part": groups, "content": content.to_numpy(object)})
        seen = seen[seen["content"] != ""]
        # Two empty scans, or two broken files, may be equal and of two groups: such content names none.
        alone = seen.groupby("content")["part"].transform("nunique") == 1
        first_of = seen[alone].groupby("part")["content"].min()
        called |= {int(part): digest([dataset, "content", made]) for part, made in first_of.items()}
    return [called[part] for part in groups]


def _components(
    n: int, a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def group_table(scans: pd.DataFrame) -> pd.DataFrame:
    """A row per group, the largest first: `group, n_patients, n_scans, patients` (a JSON list)."""
    n_scans = scans["group"].value_counts()
    patients: dict[str, list[str]] = {}
    told = scans[["group", "patient"]].drop_duplicates().sort_values(["group", "patient"])
    for group, patient in zip(told["group"], told["patient"], strict=True):
        patients.setdefault(group, []).append(patient)
    rows = [
        {
            "group": group,
            "n_patients": len(names),
            "n_scans": int(n_scans[group]),
            "patients": json.dumps(names, ensure_ascii=False),
        }
        for group, names in patients.items()
    ]
    table = pd.DataFrame(rows, columns=["group", "n_patients", "n_scans", "patients"])
    return table.sort_values(
        ["n_patients", "n_scans", "group"], ascending=[False, False, True], ignore_index=True
    )


def find_contradictions(scans: pd.DataFrame, clusters: npt.NDArray[np.int64]) -> pd.Series:
    """What contradicts each scan's label, in words; "" where nothing does.

    A contradiction is two labels in one cluster of duplicates, or of one patient. All labels of the
    cluster or of the patient are in doubt, since nothing says which is right. Slices that have labels of their own may
    differ within a patient.
    """
    ok = (scans["status"] == "ok") & (scans["target"] != "")
    words = pd.Series("", index=scans.index, dtype=object)
    by_patient = scans["patient"].where(ok & ~scans["own_label"].astype(bool))
    by_cluster = pd.Series(clusters, index=scans.index).where(ok)
    # Duplicates last: where both are true, the picture says more than the table.
    for unit, what in ((by_patient, "patient"), (by_cluster, "duplicate")):
        kinds = scans["target"].where(ok).groupby(unit).transform("nunique")
        for _, members in scans[ok & (kinds > 1)].groupby(unit, sort=True):
            first = members.iloc[0]
            second = members[members["target"] != first["target"]].iloc[0]
            for i, target in members["target"].items():
                other = first if first["target"] != target else second
                said = f"its duplicate {other['path']}"
                if what == "patient":
                    said = f"{other['path']} of the same patient"
                words[i] = f"labelled '{target}', but {said} is labelled '{other['target']}'"
    return words


def find_twins(scans: pd.DataFrame, clusters: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """[n] whether a scan is of the official test part and has a duplicate in train or val."""
    part = scans["split"].to_numpy(str)
    trained = set(clusters[np.isin(part, ["train", "val"])])
    return (part == "test") & np.isin(clusters, sorted(trained))
