"""What goes wrong in real folders, planted where the list of faults says.

==================  ================================================================================
``exact-duplicate``  a patient has another patient's image, pixel for pixel
``near-duplicate``   the same with noise, moved by half a pixel, or with HU stretched
``monochrome1``      a DICOM file whose low values are white, without rescale (as a film scanner
                     writes it); turned over within its 12 bits, it is HU + 1024 like the PNGs
``rescale-slope``    a DICOM file with slope 0.5, intercept -1000 and signed values
``truncated``        a file that ends too early and cannot be read
``no-label``         an image without label, among them all of some patients
``two-labels``       a patient whose images disagree about the diagnosis
==================  ================================================================================

No patient has two kinds of fault. A copy goes to a patient of the same class: it may leak, it does not contradict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fewscans.phantom.cohort import Fault, Image, to_hu
from fewscans.phantom.settings import CLASSES, PhantomSettings

_FAULT = 3  # first word of the key; cohort.py has 0 to 2
MANY = 60  # patients from which each fault is planted as often as `_TIMES` says; below, once
_TIMES = {"exact": 2, "near": 3, "monochrome1": 3, "rescale-slope": 3, "truncated": 2}


def plant(
    images: list[Image], settings: PhantomSettings
) -> tuple[tuple[Image, ...], tuple[Fault, ...]]:
    """Return the images, sorted by path, with faults among them, and the list of the faults."""
    planter = _Planter(images, settings)
    for _ in range(round(settings.n_patients * settings.unlabelled_share)):
        planter.unlabel(planter.take(lambda own: True))
    if settings.faults:
        planter.plant_all(settings.n_patients)
    made = sorted(planter.all_images(), key=lambda image: image.path)
    return tuple(made), tuple(sorted(planter.faults, key=lambda fault: (fault.path, fault.fault)))


class _Planter:
    """Takes patients in a drawn order, each once."""

    def __init__(self, images: list[Image], settings: PhantomSettings) -> None:
        self.rng = np.random.default_rng((_FAULT, settings.seed))
        self.patients: dict[str, list[Image]] = {}
        for image in images:
            self.patients.setdefault(image.patient, []).append(image)
        names = list(self.patients)
        self.free = [names[i] for i in self.rng.permutation(len(names))]
        self.faults: list[Fault] = []

    def all_images(self) -> list[Image]:
        """Images of all patients."""
        return [image for own in self.patients.values() for image in own]

    def take(self, fits: Callable[[list[Image]], bool]) -> str:
        """The next free patient whose images fit."""
        for name in self.free:
            if fits(self.patients[name]):
                self.free.remove(name)
                return name
        raise ValueError("too few patients for all faults: take more of them or another seed")

    def take_stored(self, storage: str, at_least: int = 1) -> str:
        """The next free patient whose images are stored so."""
        return self.take(lambda own: own[0].storage == storage and len(own) >= at_least)

    def plant_all(self, n_patients: int) -> None:
        """Each kind as often as it is due; those that need most of a patient first."""
        times = _TIMES if n_patients >= MANY else dict.fromkeys(_TIMES, 1)
        self.two_labels(self.take(lambda own: len(own) > 1))
        self.unlabel_one(self.take(lambda own: len(own) > 1))
        for turn in range(times["truncated"]):
            storage = ("dicom", "png")[turn % 2]
            self.truncate(self.take_stored(storage, at_least=2))
        for fault in ("monochrome1", "rescale-slope"):
            for _ in range(times[fault]):
                self.store(self.take_stored("dicom"), fault)
        for turn in range(times["exact"]):
            storage = ("dicom", "png")[turn % 2]
            self.copy(self.take_stored(storage), "exact-duplicate", 0)
        for turn in range(times["near"]):
            self.copy(self.take(lambda own: True), "near-duplicate", turn)

    def unlabel(self, name: str) -> None:
        """Take all labels of a patient away."""
        self.patients[name] = [replace(image, label="") for image in self.patients[name]]
        self.faults += [
            Fault(image.path, "no-label", "", "no image of this patient has one")
            for image in self.patients[name]
        ]

    def unlabel_one(self, name: str) -> None:
        """Take the label of the last image of a patient away."""
        self._change(name, -1, "no-label", "other images of this patient have one", label="")

    def two_labels(self, name: str) -> None:
        """Give the last image of a patient the other label."""
        image = self.patients[name][-1]
        other = CLASSES[1 - image.target]
        detail = f"{other} here, {image.label} in the patient's other images"
        self._change(name, -1, "two-labels", detail, label=other)

    def truncate(self, name: str) -> None:
        """Cut the file of the last image."""
        self._change(name, -1, "truncated", "the file ends too early", truncated=True)

    def store(self, name: str, fault: str) -> None:
        """Write the first image in an unusual way."""
        details = {
            "monochrome1": "value = 4095 - (HU + 1024), no rescale",
            "rescale-slope": "slope 0.5, intercept -1000, signed",
        }
        self._change(name, 0, fault, details[fault], storage=fault)

    def copy(self, name: str, fault: str, way: int) -> None:
        """Add the first image of a patient, changed in one of three ways or not, to another of the same class."""
        source = self.patients[name][0]
        to = self.take(lambda own: own[0].target == source.target)
        own = self.patients[to]
        hu, detail = source.hu, "same pixels, header of its own"
        if fault == "near-duplicate":
            hu, detail = self._alter(source, way)
        suffix = "png" if source.storage == "png" else "dcm"
        path = f"images/{to}-{len(own) + 1}.{suffix}"
        copied = replace(source, path=path, patient=to, label=own[0].label, site=own[0].site, hu=hu)
        self.patients[to] = [*own, copied]
        self.faults.append(Fault(path, fault, source.path, detail))

    def _alter(self, image: Image, way: int) -> tuple[np.ndarray, str]:
        hu = image.hu.astype(np.float32)
        if way % 3 == 0:
            return to_hu(hu + 15 * self.rng.standard_normal(hu.shape)), "noise of 15 HU added"
        if way % 3 == 1:
            moved = np.pad(hu, ((0, 0), (1, 0)), mode="edge")
            return to_hu((moved[:, 1:] + moved[:, :-1]) / 2), "moved by half a pixel"
        return to_hu(1.05 * hu + 40), "HU times 1.05 plus 40"

    def _change(self, name: str, at: int, fault: str, detail: str, **what: Any) -> None:
        image = replace(self.patients[name][at], **what)
        self.patients[name][at] = image
        self.faults.append(Fault(image.path, fault, "", detail))
