"""The slowly varying shading of MR, by N4 (Tustison et al. 2010) as SimpleITK has it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

# Pixels that an axis keeps when it is shrunk: four levels of a cubic spline need some.
_LEAST = 8


def correct_bias(
    image: npt.NDArray[np.generic],
    gray: npt.NDArray[Any],
    mask: npt.NDArray[np.bool_],
    shrink: int,
) -> npt.NDArray[np.generic]:
    """[C, *axes] as float32, divided by the bias field of `gray` [*axes], which is estimated within `mask`.

    The field is found on an image shrunk by `shrink` (short axes less), and applied at full resolution. Without
    positive values of different size in `mask` the image stays as it is.
    """
    inside = mask & (gray > 0)
    if not inside.any() or gray[inside].min() == gray[inside].max():
        return image
    field = _log_field(gray, inside, shrink)
    del inside
    made = np.empty(image.shape, np.float32)
    # A part at a time: as float64 a scan would be several times itself.
    for number, part in enumerate(_at_full_size(field, gray.shape)):
        for channel, into in zip(image, made, strict=True):
            into[number] = channel[number] / np.exp(part)
    return made


def _log_field(
    gray: npt.NDArray[Any], inside: npt.NDArray[np.bool_], shrink: int
) -> npt.NDArray[np.float64]:
    """Logarithm of the bias field at the knots of its splines and three places between two of them."""
    import SimpleITK as sitk  # noqa: N813

    with one_thread():
        # Shrunk as it is stored: as real numbers it would be twice as large.
        whole = sitk.GetImageFromArray(gray)
        factors = [max(1, min(shrink, n // _LEAST)) for n in whole.GetSize()]
        small = sitk.Cast(sitk.Shrink(whole, factors), sitk.sitkFloat32)
        del whole
        within = sitk.Shrink(sitk.GetImageFromArray(inside.view(np.uint8)), factors)
        corrector = sitk.N4BiasFieldCorrectionImageFilter()
        corrector.Execute(small, within)
        levels = len(corrector.GetMaximumNumberOfIterations())
        # Each level has twice the spans of the one before; cubic splines have three points more than spans.
        spans = (corrector.GetNumberOfControlPoints()[0] - 3) * 2 ** (levels - 1)
        knots = sitk.Image([4 * spans + 1] * gray.ndim, sitk.sitkFloat32)
        return sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(knots)).astype(np.float64)


def _at_full_size(
    field: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> Iterator[npt.NDArray[np.float64]]:
    """`field` at `shape`, a part of the first axis at a time.

    The cubic spline through its values is the field itself, so this is ITK's `GetLogBiasFieldAsImage`, which would have
    all of it at once, and more than once. As there, first and last pixels lie on each other.
    """
    from scipy.interpolate import BSpline, make_interp_spline

    matrices = []
    for axis, (m, n) in enumerate(zip(field.shape, shape, strict=True)):
        spline = make_interp_spline(np.arange(m), field, k=3, axis=axis)
        field = np.moveaxis(spline.c, 0, axis)
        at = np.arange(n) * (m - 1) / max(1, n - 1)
        matrices.append(BSpline.design_matrix(at, spline.t, 3))
    first, *others = matrices
    for number in range(shape[0]):
        # Sparse products add in a fixed order: the same bytes whatever the number of threads.
        part = (first[[number]] @ field.reshape(field.shape[0], -1)).reshape(field.shape[1:])
        for axis, matrix in enumerate(others):
            lines = np.moveaxis(part, axis, 0)
            done = matrix @ lines.reshape(lines.shape[0], -1)
            part = np.moveaxis(done.reshape(-1, *lines.shape[1:]), 0, axis)
        yield part


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order: the same bytes whatever the number of processors."""
    import SimpleITK as sitk  # noqa: N813

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
