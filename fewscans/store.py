"""A store: the voxels of one recipe on disk, a row per scan, read as they are asked for.

``voxels.npy`` [N, C, (D,) H, W]; x = voxels * scale + intercept lies in [0, 1]. In ``rows.parquet``, a
row's own `scale` and `intercept` lead back to physical values: x * scale + intercept (clipped ones
are lost). `shape` holds the spatial axes, `spacing_mm` belongs to them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fewscans.contracts import read_table
from fewscans.errors import UserError
from fewscans.shape import Shape

VOXELS, ROWS, SEAL = "voxels.npy", "rows.parquet", "store.json"


def voxel_digest(voxels: npt.NDArray[np.generic]) -> str:
    """SHA-256 of a row of the store: shape, type and bytes, which is what training reads."""
    made = hashlib.sha256(f"{voxels.shape} {voxels.dtype.name}".encode())
    made.update(np.ascontiguousarray(voxels).data)
    return made.hexdigest()


class Store:
    """Voxels and rows of one recipe; open it with `Store.open`.

    Attributes
    ----------
    folder : Path
        Where it lies.
    voxels : [N, C, (D,) H, W] uint8 or int16
        Memory-mapped, read only.
    rows : DataFrame
        As in the contract, row i is ``voxels[i]``.
    scans : list of str
        Key of each row.
    facts : dict
        Of ``store.json``.
    """

    def __init__(
        self,
        folder: Path,
        voxels: npt.NDArray[np.generic],
        rows: pd.DataFrame,
        facts: dict[str, Any],
    ) -> None:
        self.folder = folder
        self.voxels = voxels
        self.rows = rows
        self.facts = facts
        self.scans: list[str] = rows["scan"].tolist()
        self._row_of = {scan: row for row, scan in enumerate(self.scans)}

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Store:
        """Open the store in `folder` and check that its files belong together.

        Raises
        ------
        UserError
            It is not there, not whole, or its files don't match; the message says what to do.
        """
        folder = Path(folder)
        again = "Remove the folder and run normalise again."
        try:
            facts = json.loads((folder / SEAL).read_text(encoding="utf-8"))
            shape = (facts["n"], *Shape.of(facts).full)
            dtype = np.dtype(facts["dtype"])
        except FileNotFoundError:
            raise UserError(
                f"{folder}: no {SEAL}: not a store, or normalise was interrupted. {again}"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder / SEAL}: cannot be read ({error}). {again}") from None
        voxels = _open_voxels(folder / VOXELS, again)
        if voxels.shape != shape or voxels.dtype != dtype:
            raise UserError(
                f"{folder}: {VOXELS} is {voxels.dtype} {list(voxels.shape)}, but {SEAL} says "
                f"{dtype} {list(shape)}. {again}"
            )
        try:
            rows = read_table(folder / ROWS, "rows")
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / ROWS}: cannot be read ({error}). {again}") from None
        if rows["row"].tolist() != list(range(shape[0])) or rows["scan"].duplicated().any():
            raise UserError(
                f"{folder}: {ROWS} has not one row for each of {shape[0]} scans, in order. {again}"
            )
        return cls(folder, voxels, rows, facts)

    def __len__(self) -> int:
        return len(self.scans)

    @property
    def shape(self) -> Shape:
        """Of a scan."""
        return Shape.of(self.facts)

    @property
    def scale(self) -> float:
        """Factor: x = voxels * scale + intercept."""
        return float(self.facts["scale"])

    @property
    def intercept(self) -> float:
        """Summand: x = voxels * scale + intercept."""
        return float(self.facts["intercept"])

    @property
    def digest(self) -> str:
        """Changes when any voxel or the order of scans does."""
        return str(self.facts["digest"])

    def row_of(self, scan: str) -> int:
        """Row of `scan`; a KeyError where the store has none (unreadable, or of another set)."""
        return self._row_of[scan]

    def __contains__(self, scan: object) -> bool:
        return scan in self._row_of

    def digests(self, scans: Sequence[str]) -> list[str]:
        """SHA-256 of the voxels of each of `scans`, in their order."""
        column = self.rows["pixel_sha256"].tolist()
        return [column[self._row_of[scan]] for scan in scans]

    def read(self, scans: Sequence[str]) -> npt.NDArray[np.float32]:
        """[n, C, (D,) H, W] float32 in [0, 1] of `scans`, in their order."""
        rows = [self._row_of[scan] for scan in scans]
        made = self.voxels[rows].astype(np.float32)
        return made * np.float32(self.scale) + np.float32(self.intercept)


def _open_voxels(path: Path, again: str) -> npt.NDArray[np.generic]:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: is missing. {again}") from None
    except (ValueError, OSError, EOFError) as error:
        # numpy maps no file that is shorter than its header says.
        raise UserError(f"{path}: is cut short or damaged ({error}). {again}") from None
