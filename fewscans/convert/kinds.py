"""Kinds of files that are read, and how their names usually end. Standard library only.

What a file is, is found from its content (`fewscans.convert.sniff`); names only tell which files a layout lists.
"""

from __future__ import annotations

ENDINGS: dict[str, tuple[str, ...]] = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "DICOM": (".dcm",),
    "NIfTI": (".nii.gz", ".nii"),
    "Analyze": (".hdr",),
    "NRRD": (".nrrd", ".nhdr"),
    "MHA": (".mha", ".mhd"),
    "npy": (".npy",),
}
KINDS = ", ".join(ENDINGS)


def endings(*kinds: str) -> tuple[str, ...]:
    """How names of these kinds end, the longer of two that fit first."""
    return tuple(end for kind in kinds for end in ENDINGS[kind])
