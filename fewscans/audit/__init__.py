"""What is wrong with a data set, found before any split; and its groups."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fewscans.audit.duplicates import find_duplicates
from fewscans.audit.findings import (
    Findings,
    note_across,
    note_balance,
    note_classes,
    note_files,
    note_pairs,
    note_patients,
    note_shortcuts,
)
from fewscans.audit.groups import (
    cluster_duplicates,
    find_contradictions,
    find_twins,
    group_table,
    make_groups,
)
from fewscans.audit.looks import note_identity, note_looks
from fewscans.audit.scans import attribute_values, join_table, parts_across
from fewscans.audit.shortcut import METHOD, shortcut_test
from fewscans.audit.thumbnails import make_thumbnails
from fewscans.config.stages import AuditParams
from fewscans.contracts import COLUMNS

__all__ = ["METHOD", "Audit", "audit"]

log = logging.getLogger("fewscans")

FEW_GROUPS = 10  # of a class


@dataclass(frozen=True)
class Audit:
    """Four tables of the contracts, and what a score must say with it.

    Attributes
    ----------
    labels, duplicates, groups, findings
        As in `fewscans.contracts`. Beside them `labels` has `twin` (a test scan with a duplicate in
        the training part), `pixel_sha256` and `attributes` (JSON: name -> value), of private data sets `day` and
        `place` (`fewscans.privacy.labels`); `findings` has
        `attribute` and `p` of the shortcut test.
    classes
        In order; with two, the last is the positive one.
    flags
        Among `no-patient-ids`, `few-groups`.
    """

    labels: pd.DataFrame
    duplicates: pd.DataFrame
    groups: pd.DataFrame
    findings: pd.DataFrame
    classes: list[str]
    flags: list[str]


def audit(
    index: pd.DataFrame,
    table: pd.DataFrame,
    read_pixels: Callable[[pd.Series], np.ndarray],
    params: AuditParams,
) -> Audit:
    """Everything that is wrong with a data set, and its labels as they may be used.

    Parameters
    ----------
    index
        Scans found (contract `index`).
    table
        What the user says: `path, label, patient, split, site` and attributes, all text, checked.
    read_pixels
        Row of `index` -> [C, H, W] float32 in physical units.
    params
        Settings.
    """
    scans = join_table(index, table, params)
    thumbnails = make_thumbnails(scans, read_pixels)
    found = Findings()
    note_files(found, scans, thumbnails.blank, thumbnails.constant)
    pairs = find_duplicates(scans, thumbnails, params.near_duplicate)
    if "volume" in scans:  # neighbours in a volume look alike, and stay together anyway
        volume = scans["volume"].to_numpy(object)
        pairs = pairs[volume[pairs["a"]] != volume[pairs["b"]]].reset_index(drop=True)
    clusters = cluster_duplicates(len(scans), pairs)
    scans["group"] = make_groups(params.dataset, scans["patient"], clusters, scans.get("content"))
    scans["twin"] = find_twins(scans, clusters)
    groups = group_table(scans)
    duplicates = _duplicate_table(scans, pairs)
    note_patients(found, scans, groups)
    note_pairs(found, duplicates, params.split == "official")
    known = scans["patient"].where(scans["known_patient"], "")
    note_across(found, "patient", parts_across(scans, known))
    note_across(found, "origin", parts_across(scans, _origins(scans, params)))
    _settle_contradictions(found, scans, clusters, params)
    note_classes(found, scans)
    note_balance(found, scans)
    note_identity(found, scans, thumbnails.looks)
    note_looks(found, scans, thumbnails.looks, thumbnails.constant)
    usable = scans[(scans["status"] == "ok") & (scans["target"] != "")]
    told = attribute_values(usable, thumbnails.looks.loc[usable.index], params.attributes)
    note_shortcuts(found, shortcut_test(usable, told))
    present = sorted(set(usable["target"]))
    findings = found.frame()
    log.info(
        "audit: %d scans, %d groups, %d pairs of duplicates, %d warnings",
        len(scans),
        len(groups),
        len(pairs),
        int((findings["severity"] != "info").sum()),
    )
    return Audit(
        _label_table(scans, params),
        duplicates,
        groups,
        findings,
        params.classes or present,
        _flags(scans, usable),
    )


def _origins(scans: pd.DataFrame, params: AuditParams) -> pd.Series:
    """[n] paper or study of each scan; "" where nobody says."""
    at = params.attributes.index(params.origin) if params.origin in params.attributes else None
    values = [_text(row[at]) if at is not None else "" for row in scans["attributes"]]
    return pd.Series(values, index=scans.index, dtype=object)


def _settle_contradictions(
    found: Findings, scans: pd.DataFrame, clusters: np.ndarray, params: AuditParams
) -> None:
    """Take doubtful labels out of `scans`, in place; those of an official test part stay."""
    words = find_contradictions(scans, clusters)
    doubtful = (words != "").to_numpy(bool)
    official, exclude = params.split == "official", params.contradictions == "exclude"
    published = (scans["split"] == "test").to_numpy(bool) & official
    meets = scans["group"].isin(set(scans.loc[published, "group"])).to_numpy(bool)
    out = doubtful & ~published & exclude
    for chosen, action in (
        (out & ~meets, "label taken out; the picture may join pretraining"),
        (out & meets, "label taken out; its group meets the official test part and leaves"),
        (doubtful & ~out & exclude, "kept: the official test set stays as published"),
        (doubtful & ~out & (not exclude), "kept, as `contradictions: keep` says"),
    ):
        found.each(scans[chosen], "contradiction", "warning", words[chosen], action)
    scans.loc[out, "target"] = ""
    scans.loc[out, "reason"] = "contradiction: " + words[out]


def _duplicate_table(scans: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """`pairs` of positions with what stands at them."""
    columns = {}
    for column in ("scan", "path", "patient", "target", "split"):
        values = scans[column].to_numpy(object)
        for side in ("a", "b"):
            columns[f"{column}_{side}"] = values[pairs[side].to_numpy(np.int64)]
    return pd.DataFrame({**columns, "kind": pairs["kind"], "correlation": pairs["correlation"]})


def _label_table(scans: pd.DataFrame, params: AuditParams) -> pd.DataFrame:
    columns = [*COLUMNS["labels"], "twin", "pixel_sha256"]
    columns += [name for name in ("day", "place") if name in scans]  # of private data sets
    labels = scans[columns].copy()
    for column in ("reason", "pixel_sha256"):
        labels[column] = labels[column].fillna("")
    # One column of JSON: names of attributes come from outside, so they are values and not columns.
    labels["attributes"] = [
        json.dumps(
            {name: _text(value) for name, value in zip(params.attributes, row, strict=True)},
            ensure_ascii=False,
        )
        for row in scans["attributes"]
    ]
    return labels


def _text(value: object) -> str:
    return (
        "" if value is None or value != value else str(value)
    )  # NaN is the one value that differs from itself


def _flags(scans: pd.DataFrame, usable: pd.DataFrame) -> list[str]:
    flags = []
    if not scans["known_patient"].any():
        flags.append("no-patient-ids")
    if len(usable) and usable.groupby("target")["group"].nunique().min() < FEW_GROUPS:
        flags.append("few-groups")
    return flags
