"""A cohort in memory: patients, their slices in HU, their label table, and the faults planted among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fewscans.phantom.anatomy import SITES, Canvas, add_noise, paint_chest, sample_anatomy
from fewscans.phantom.lesion import field_centre, neighbour, paint_lesion, sample_lesion
from fewscans.phantom.settings import CLASSES, PhantomSettings

MIN_HU, MAX_HU = -1024, 3071  # what 12 bits hold at the usual intercept of -1024
IMAGES_PER_PATIENT = (0.20, 0.35, 0.30, 0.15)  # one, two, three, four
BLOCK = 20  # patients among whom the share of malignant ones is kept
# First words of the keys of random streams: none depends on how many patients or images others have.
_LABEL, _PATIENT, _SLICE = range(3)


@dataclass(frozen=True, eq=False)
class Image:
    """One slice and its row of the label table.

    Attributes
    ----------
    path : str
        Relative to the cohort's folder.
    hu : [H, W] int16
        What a right reader makes of the file.
    label : str
        As the table says: a class, or empty.
    target : int
        The truth: 0 benign, 1 malignant.
    storage : str
        ``dicom``, ``png``, or the faults ``monochrome1`` and ``rescale-slope`` (DICOM too).
    lesion_mask : [H, W] float32
        Share of each pixel that the lesion covers.
    lesion_mean_hu : float
        Of the lesion's matter, before its border mixes with lung.
    truncated : bool
        Only the first part of the file is written.
    """

    path: str
    patient: str
    label: str
    target: int
    site: str
    spacing_mm: float
    storage: str
    hu: npt.NDArray[np.int16]
    lesion_mask: npt.NDArray[np.float32]
    lesion_mean_hu: float
    truncated: bool = False


@dataclass(frozen=True)
class Fault:
    """Something planted that an audit must find; `other` is the path that a copy was made from."""

    path: str
    fault: str
    other: str
    detail: str


@dataclass(frozen=True)
class Cohort:
    """All images, in the order of the table, and all faults."""

    settings: PhantomSettings
    images: tuple[Image, ...]
    faults: tuple[Fault, ...]


def make_cohort(settings: PhantomSettings) -> Cohort:
    """Build the cohort of `settings` in memory; nothing is read or written."""
    from fewscans.phantom.faults import plant  # which needs the classes above

    patients = range(settings.n_patients)
    images = [image for index in patients for image in make_patient(settings, index)]
    return Cohort(settings, *plant(images, settings))


def make_patient(settings: PhantomSettings, index: int) -> list[Image]:
    """Images of patient `index`, the same whatever other patients there are."""
    target = _target(settings, index)
    rng = np.random.default_rng((_PATIENT, settings.seed, index))
    site = SITES[int(rng.choice(len(SITES), p=[s.share for s in SITES]))]
    storage = "png" if rng.uniform() < site.png_share else "dicom"
    n_images = 1 + int(rng.choice(4, p=IMAGES_PER_PATIENT))
    anatomy = sample_anatomy(rng)
    lesion = sample_lesion(rng, anatomy, target)
    centre = field_centre(anatomy, lesion)
    size = round(settings.size_px * site.matrix)
    # Four digits, so that text files and headers hold the same number.
    spacing = round(anatomy.field_mm / size, 4)
    name = f"P{index:04d}"
    suffix = "png" if storage == "png" else "dcm"
    images = []
    for number in range(n_images):
        rng = np.random.default_rng((_SLICE, settings.seed, index, number))
        canvas = Canvas(size, spacing, centre, anatomy.tilt)
        paint_chest(canvas, anatomy, rng.uniform(-1, 1), rng)
        cut = neighbour(lesion, rng)
        mask = paint_lesion(canvas, cut)
        images.append(
            Image(
                path=f"images/{name}-{number + 1}.{suffix}",
                patient=name,
                label=CLASSES[target],
                target=target,
                site=site.name,
                spacing_mm=spacing,
                storage=storage,
                hu=to_hu(add_noise(canvas.hu, site, rng)),
                lesion_mask=mask,
                lesion_mean_hu=cut.mean_hu,
            )
        )
    return images


def to_hu(values: npt.NDArray[np.floating]) -> npt.NDArray[np.int16]:
    """Whole HU within what 12 bits hold."""
    return np.clip(np.rint(values), MIN_HU, MAX_HU).astype(np.int16)


def _target(settings: PhantomSettings, index: int) -> int:
    """Class of patient `index`: the wanted share in every block of 20, in an order drawn per block.

    Independent draws would leave some seeds far from the wanted share.
    """
    block, place = divmod(index, BLOCK)
    order = np.random.default_rng((_LABEL, settings.seed, block)).permutation(BLOCK)
    return int(order[place] < round(BLOCK * settings.malignant_share))
