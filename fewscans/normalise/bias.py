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
    import SimpleITK as sitk  # noqa: N813

    inside = mask & (gray > 0)
    if not inside.any() or gray[inside].min() == gray[inside].max():
        return image
    whole = sitk.GetImageFromArray(gray.astype(np.float32))
    within = sitk.GetImageFromArray(inside.astype(np.uint8))
    factors = [max(1, min(shrink, n // _LEAST)) for n in whole.GetSize()]
    with _one_thread():
        corrector = sitk.N4BiasFieldCorrectionImageFilter()
        corrector.Execute(sitk.Shrink(whole, factors), sitk.Shrink(within, factors))
        field = corrector.GetLogBiasFieldAsImage(whole)
    del whole, within  # each is as large as the scan
    made = np.empty(image.shape, np.float32)
    # A part at a time: as float64 a scan would be several times itself.
    for channel, into in zip(image, made, strict=True):
        for number, part in enumerate(sitk.GetArrayViewFromImage(field)):
            into[number] = channel[number] / np.exp(part.astype(np.float64))
    return made


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order: the same bytes whatever the number of processors."""
    import SimpleITK as sitk  # noqa: N813

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
