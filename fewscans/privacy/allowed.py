"""The allow-list: what of a scan's file is passed on by `convert`, each item checked; nothing else is.

`PASSED_ON` is the whole list. Numbers are numbers; words are of a fixed list, or of our own. Whatever a file says
besides is read by the decoder, or searched for what must not leak (`fewscans.privacy.header`), and goes no further.
"""

from __future__ import annotations

from typing import Any

from fewscans.privacy.words import own_words

# Column of the index -> what it is, and how it is checked.
PASSED_ON: dict[str, str] = {
    "scan": "pseudonym of data set and path",
    "path": "the same",
    "source": "pseudonym of the path in the table",
    "format": "kind of file, found from its content",
    "mode": "colour mode: a term of PS3.3 C.7.6.3.1.2 or of the decoder, else `other`",
    "shape": "numbers: rows, columns, slices",
    "spacing_mm": "numbers: pixel spacing and distance of slices",
    "affine": "numbers: where the volume lies in the scanner, in mm",
    "channels": "a number",
    "bits": "a number",
    "dtype": "type of the numbers, ours",
    "offset": "a number, ours",
    "scale": "a number: rescale slope",
    "intercept": "a number: rescale intercept",
    "unit": "rescale type or units: a term of PS3.3 C.11.1.1.2 or C.8.9.1.1.3, else `other`",
    "mean": "a number, of the pixels",
    "pixel_sha256": "digest of the pixels; no metadata is in it",
    "status": "a word of ours",
    "reason": "words of ours and numbers of up to 6 digits",
    "note": "the same",
    "volume": "pseudonym of the volume that a slice is of",
    "whole": "pseudonym of the file or folder that a slice is in",
    "mask_offset": "a number, ours",
    "mask_dtype": "type of the mask's numbers, ours",
    "mask_labels": "a number: pixels of the mask that are not 0",
    "modality": "a term of PS3.3 C.7.3.1.1.1, else `other`",
    "manufacturer": "one of a list of makers, else nothing",
    "burned_in": "why burned-in text is suspected, in words of ours",
    "face": "why a face is suspected, in words of ours",
}


def _listed_words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODALITIES = _listed_words(
    "AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DMS DG DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT IVUS"
    " KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG"
    " RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA"
    " XA XAPROTOCOL XC"
)
_UNITS = _listed_words(
    "HU OD MGML Z_EFF ED EDW HU_MOD PCT CNTS NONE CM2 CM2ML PCNT CPS BQML MGMINML UMOLMINML MLMING MLG 1CM UMOLML"
    " PROPCNTS PROPCPS MLMINML MLML GML STDDEV"
)
_MODES = _listed_words(
    "MONOCHROME1 MONOCHROME2 PALETTE|COLOR RGB HSV ARGB CMYK YBR_FULL YBR_FULL_422 YBR_PARTIAL_422 YBR_PARTIAL_420"
    " YBR_ICT YBR_RCT XYB unknown 1 L LA P PA RGBA RGBX YCbCr LAB I F"
)
_MAKERS = (
    "siemens", "ge", "philips", "canon", "toshiba", "hitachi", "fujifilm", "fuji", "agfa", "carestream", "kodak",
    "hologic", "samsung", "mindray", "esaote", "shimadzu", "konica", "united imaging", "neusoft", "varian", "elekta",
    "zeiss", "heidelberg", "topcon", "olympus", "bruker", "planmeca", "lunar",
)  # fmt: skip


def modality_of(text: str) -> str:
    """The modality as the standard names it; ``other`` for anything else, empty for nothing."""
    return _listed(text.strip().upper(), MODALITIES)


def maker_of(text: str) -> str:
    """Which of the makers the text begins with, in small letters; empty where it is none of them."""
    words = " ".join(text.lower().replace("_", " ").split())
    return next((m for m in _MAKERS if words == m or words.startswith(f"{m} ")), "")


def _listed(text: str, known: frozenset[str]) -> str:
    return text if not text or text in known else "other"


def _mode(text: str) -> str:
    # The decoder's own modes have a ';' and bits behind the letters.
    base = text.partition(";")[0]
    return text if base.replace(" ", "|") in _MODES and len(text) <= 16 else "other"


def passed_on(row: dict[str, Any]) -> dict[str, Any]:
    """`row` of the index with every word checked; names are replaced elsewhere (`fewscans.privacy.converted`)."""
    kept = {name: value for name, value in row.items() if name in PASSED_ON}
    kept["sha256"] = ""  # of the file as the hospital has it; the private table has it
    kept["mode"] = _mode(row["mode"]) if row["mode"] else ""
    kept["unit"] = _listed(row["unit"], _UNITS)
    kept["reason"], kept["note"] = own_words(row["reason"]), own_words(row["note"])
    return kept
