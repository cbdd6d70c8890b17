"""Files of several volumes (4D) in every kind that is read, and each volume of them as a file of its own."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813

# Axes of the voxels in RAS, turned and mirrored, in mm: x leads to the front, y to the left.
AFFINE = np.array([[0, -1.5, 0, 5], [0.5, 0, 0, 6], [0, 0.1, 3, 7], [0, 0, 0, 1.0]])
NIFTI = ("a.nii", "a.nii.gz", "a.hdr")
ITK = ("a.mha", "a.mhd", "a.nrrd", "a.nhdr")
LISTS = ("first.nrrd", "last.nrrd", "packed.nrrd")


def body(count: int, dtype: str = "<i2", shape: tuple[int, ...] = (4, 5, 3)) -> np.ndarray:
    """[volume, z, y, x]; every voxel has a number of its own, as far as the type has so many."""
    n = count * int(np.prod(shape))
    most = 250 if dtype[1:] == "u1" else n
    return (np.arange(n) % most).astype(dtype).reshape(count, *shape)


def save_nifti(path: Path, volumes: np.ndarray, slope: float = 1.0) -> Path:
    """[volume, z, y, x], or one volume, as NIfTI by nibabel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = nib.Nifti1Pair if path.suffix == ".hdr" else nib.Nifti1Image
    image = kind(volumes.T, AFFINE, kind.header_class(endianness=volumes.dtype.str[0].replace("|", "<")))  # fmt: skip
    image.set_data_dtype(volumes.dtype)
    image.header.set_slope_inter(slope, 0)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)
    return path


def save_itk(path: Path, volumes: np.ndarray, packed: bool = False) -> Path:
    """The same as NRRD or MetaImage by SimpleITK."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(volumes), isVector=False)
    lengths = np.linalg.norm(AFFINE[:3, :3], axis=0)
    n = image.GetDimension()
    turn = np.eye(n)
    turn[:3, :3] = np.linalg.qr(np.diag([-1, -1, 1]) @ AFFINE[:3, :3] / lengths)[0]
    image.SetSpacing([*lengths, 2.0][:n])
    image.SetDirection(turn.ravel())
    image.SetOrigin([5.0, 6.0, 7.0, 0.0][:n])
    sitk.WriteImage(image, str(path), packed)
    return path


def save_list(path: Path, volumes: np.ndarray) -> Path:
    """The same as an NRRD with a list of volumes, before the axes of space or behind them."""
    first = path.name != "last.nrrd"
    data = np.moveaxis(volumes, 0, -1) if first else volumes
    sizes, space = list(data.shape[::-1]), ["(1,0,0)", "(0,2,0)", "(0,0,-3)"]
    kinds = ["domain"] * 3
    for one, said in ((kinds, "list"), (space, "none")):
        one.insert(0 if first else 3, said)
    packed = path.name == "packed.nrrd"
    big = "big" if volumes.dtype.str[0] == ">" else "little"
    type_of = {"i2": "int16", "u1": "uint8", "f4": "float", "u2": "uint16", "f8": "double"}
    head = (
        f"NRRD0005\ntype: {type_of[volumes.dtype.str[1:]]}\ndimension: 4\nspace: left-posterior-superior\n"
        f"sizes: {' '.join(map(str, sizes))}\nspace directions: {' '.join(space)}\nkinds: {' '.join(kinds)}\n"
        f"endian: {big}\nencoding: {'gzip' if packed else 'raw'}\nspace origin: (7,8,9)\n\n"
    )
    voxels = np.ascontiguousarray(data).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head.encode() + (gzip.compress(voxels) if packed else voxels))
    return path


def save(path: Path, volumes: np.ndarray, packed: bool = False) -> Path:
    """A file of the kind that its name says."""
    if path.name in LISTS:
        return save_list(path, volumes)
    if path.name.endswith((".nii", ".nii.gz", ".hdr")):
        return save_nifti(path, volumes)
    if path.suffix == ".npy":
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.asfortranarray(volumes) if packed else volumes)
        return path
    return save_itk(path, volumes, packed)
