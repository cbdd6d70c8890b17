"""Scans found and what the label table says about them, side by side, before anything is judged."""

from __future__ import annotations

import pandas as pd

from fewscans.config.stages import AuditParams
from fewscans.convert.table import part_names

NO_PATIENT = "scan:"  # in front of the key of a scan that nobody knows the patient of


def join_table(index: pd.DataFrame, table: pd.DataFrame, params: AuditParams) -> pd.DataFrame:
    """Scans of `index` by path, with `patient, target, split, site, attributes` of `table`.

    Parameters
    ----------
    index
        Scans found (contract `index`).
    table
        A row per path: `path, label, patient, split, site` and attributes, all text, checked
        already (`fewscans.convert.table.read_labels`); `split` as the table calls it.
    params
        What the official parts are called; which attributes to keep, as a tuple per scan, since
        their names come from outside.

    Returns
    -------
    pandas.DataFrame
        `split` is train, val, test or "". A scan without a patient is one of its own, or of
        the folder that it was found in with others;
        `known_patient` says so. A scan that the table does not name gets the
        status `not-in-table`: whose it is, is not known, so it is left out. `own_label` says that the
        table names a slice itself, not its volume.
    """
    scans = index.sort_values("path", kind="stable", ignore_index=True)
    rows = table.set_index("path").reindex(scans["path"]).fillna("").astype(str)
    for column, source in (
        ("target", "label"),
        ("patient", "patient"),
        ("split", "split"),
        ("site", "site"),
    ):
        scans[column] = rows[source].to_numpy(object)
    parts = part_names(params.split_names)
    scans["split"] = [parts.get(name, "") for name in scans["split"]]
    lost = ~scans["path"].isin(table["path"]) & (scans["status"] == "ok")
    scans.loc[lost, "status"] = "not-in-table"
    scans.loc[lost, "reason"] = "the label table does not name this file"
    scans["known_patient"] = (scans["patient"] != "").to_numpy()
    # Volumes of one folder or file are one patient's, whoever that is, and so are slices.
    sources = scans.get("source", scans["path"])
    scans["own_label"] = False
    if "volume" in scans:
        scans["own_label"] = (scans["path"] != scans["volume"]) & (scans["path"] == sources)
    sources = scans.get("whole", sources)
    first = scans.groupby(sources.to_numpy(), sort=False)["scan"].transform("first")
    scans.loc[~scans["known_patient"], "patient"] = NO_PATIENT + first
    # Only a table has attributes: folders of classes and .npz files do not.
    blank = pd.Series("", index=rows.index, dtype=object)
    columns = [rows.get(name, blank).to_numpy(object) for name in params.attributes]
    scans["attributes"] = [tuple(column[i] for column in columns) for i in range(len(scans))]
    return scans


def parts_across(scans: pd.DataFrame, names: pd.Series) -> list[str]:
    """Those of `names` [n] (patients, papers) with a scan in the test part and one in train or val; sorted."""
    known = names != ""
    tested = set(names[known & (scans["split"] == "test")])
    trained = set(names[known & scans["split"].isin(["train", "val"])])
    return sorted(tested & trained)


def attribute_values(
    scans: pd.DataFrame, looks: pd.DataFrame, names: list[str]
) -> dict[str, list[object]]:
    """Name in words -> value per scan, of everything that should not tell the label.

    `looks` are the scans' own numbers, `names` the table's further columns. What no reader tells (a manufacturer, where
    files are pictures) is left out.
    """
    shapes = [list(shape) if shape is not None else [] for shape in scans["shape"]]
    height = [shape[-2] if len(shape) > 1 else None for shape in shapes]
    width = [shape[-1] if len(shape) > 1 else None for shape in shapes]
    aspect = [round(w / h, 3) if w and h else None for w, h in zip(width, height, strict=True)]
    spacing = [list(value) if value is not None else [] for value in scans["spacing_mm"]]
    values: dict[str, list[object]] = {
        "file type": list(scans["format"]),
        "colour mode": list(scans["mode"]),
        "bits": list(scans["bits"]),
        "width": width,
        "height": height,
        "aspect": aspect,
        "slices": [shape[0] if len(shape) > 2 else None for shape in shapes],
        "spacing": [value[-1] if value else None for value in spacing],
        "slice spacing": [value[0] if len(value) > 2 else None for value in spacing],
        "mean intensity": list(scans["mean"]),
        "border": list(looks["border"]),
        "site": list(scans["site"]),
    }
    if "manufacturer" in scans:
        values["manufacturer"] = list(scans["manufacturer"])
    for i, name in enumerate(names):
        # A column of the table called like one of ours is tested beside it, not in its place.
        values[name if name not in values and name != "all" else f"{name} (table)"] = [
            row[i] for row in scans["attributes"]
        ]
    return values
