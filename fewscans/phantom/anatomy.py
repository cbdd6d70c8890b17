"""A schematic axial slice through the chest, in HU, different in every patient.

Coordinates are millimetres from the centre of the image, x to the right of the image and y down (to the back of the
patient, who lies on a couch). Shapes are painted one over the other with a soft border one pixel wide, which is what
partial volume does. HU are textbook values, sizes those of adults. The field of view is that of a targeted
reconstruction: one lung, with chest wall, mediastinum and spine beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]

AIR_HU, FAT_HU, MUSCLE_HU, BONE_HU, MARROW_HU = -1000.0, -100.0, 50.0, 500.0, 180.0


@dataclass(frozen=True)
class Site:
    """A hospital: its share of the patients and its scanner. Independent of the diagnosis."""

    name: str
    share: float
    matrix: float
    """rows and columns, as a multiple of the cohort's"""
    noise_hu: float
    sharpness_px: float
    """standard deviation of the blur of the reconstruction kernel"""
    png_share: float


SITES = (
    Site("north", 0.40, 1.0, 26.0, 0.50, 0.30),
    Site("south", 0.35, 1.0, 38.0, 0.35, 0.50),
    Site("west", 0.25, 7 / 6, 32.0, 0.60, 0.40),
)


@dataclass(frozen=True)
class Ellipse:
    """Centre, half-axes (mm), tilt (rad) and squareness (0 is an ellipse) of one shape."""

    x: float
    y: float
    a: float
    b: float
    tilt: float = 0.0
    square: float = 0.0

    def moved(self, dx: float = 0.0, dy: float = 0.0, scale: float = 1.0) -> Ellipse:
        """The same shape elsewhere, or larger."""
        return Ellipse(
            self.x + dx, self.y + dy, self.a * scale, self.b * scale, self.tilt, self.square
        )


@dataclass(frozen=True)
class Anatomy:
    """What one patient's slices have in common. Lengths in mm."""

    field_mm: float
    side: int
    """lung (0 left in the image, 1 right) that is looked at"""
    shift_mm: tuple[float, float]
    """how far the field of view is off that lung"""
    tilt: float
    body: Ellipse
    fat_mm: float
    lungs: tuple[Ellipse, Ellipse]
    lung_hu: float
    gravity_hu: float
    """rise of lung density from front to back, over the height of the lung"""
    heart: Ellipse
    contrast_hu: float
    effusion: float | None
    """share of the height of the lung that is looked at which fluid fills"""
    spine_y: float
    spine_mm: float
    rib_phase: float
    n_ribs: int
    couch_mm: float | None
    vessel_seed: int


def sample_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw one patient. Nothing here knows the diagnosis."""
    u = rng.uniform
    a = u(118, 160)
    b = a * u(0.60, 0.84)
    body = Ellipse(0.0, 0.0, a, b, 0.0, u(0.0, 0.6))
    fat = u(5, 24)
    level = u(0.0, 1.0)  # from the aortic arch down to the dome of the liver
    chest_a, chest_b = a - fat - u(8, 16), b - fat - u(8, 14)
    gap = u(10, 24)  # half the mediastinum
    lungs = []
    for side in (-1.0, 1.0):
        half = (chest_a - gap) / 2 * u(0.92, 1.06)
        lungs.append(
            Ellipse(
                side * (gap + half), u(-0.10, 0.14) * chest_b, half, chest_b * u(0.74, 0.96),
                -side * u(0.0, 0.30), u(0.0, 0.5),
            )
        )  # fmt: skip
    heart_mm = u(22, 46) if level > 0.3 else u(10, 22)
    heart = Ellipse(
        u(2, 22), -chest_b * u(0.10, 0.42), heart_mm, heart_mm * u(0.66, 0.9), u(-0.7, -0.1)
    )
    return Anatomy(
        field_mm=u(132, 162),
        side=int(rng.integers(2)),
        shift_mm=(u(-8, 8), u(-8, 8)),
        tilt=u(-0.13, 0.13),
        body=body,
        fat_mm=fat,
        lungs=(lungs[0], lungs[1]),
        lung_hu=u(-890, -700),
        gravity_hu=u(0, 110),
        heart=heart,
        contrast_hu=u(0, 190) if u() < 0.6 else 0.0,
        effusion=u(0.12, 0.30) if u() < 0.16 else None,
        spine_y=chest_b * u(0.66, 0.86),
        spine_mm=u(13, 19),
        rib_phase=u(0, 2 * np.pi),
        n_ribs=int(rng.integers(9, 15)),
        couch_mm=u(4, 16) if u() < 0.7 else None,
        vessel_seed=int(rng.integers(2**62)),
    )


class Canvas:
    """A slice being painted.

    Attributes
    ----------
    hu : [H, W] float32
    spacing_mm : float
    """

    def __init__(
        self, size_px: int, spacing_mm: float, centre: tuple[float, float], tilt: float
    ) -> None:
        """Start with air; `centre` (mm, patient's frame) is in the middle and the patient turned by `tilt`."""
        axis = ((np.arange(size_px) - (size_px - 1) / 2) * spacing_mm).astype(np.float32)
        cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
        x, y = axis[None, :], axis[:, None]
        # In the patient's own frame, so that every shape turns with the patient.
        self.x: Floats = cos * x + sin * y + np.float32(centre[0])
        self.y: Floats = cos * y - sin * x + np.float32(centre[1])
        self._centre, self._cos, self._sin = centre, float(cos), float(sin)
        self.size_px, self.spacing_mm = size_px, spacing_mm
        self.hu: Floats = np.full((size_px, size_px), AIR_HU, dtype=np.float32)

    def to_px(self, x: Any, y: Any) -> tuple[Any, Any]:
        """(row, column), in pixels, of places in the patient's frame (mm): two numbers or two arrays."""
        x, y = x - self._centre[0], y - self._centre[1]
        middle = (self.size_px - 1) / 2
        row = (self._sin * x + self._cos * y) / self.spacing_mm + middle
        column = (self._cos * x - self._sin * y) / self.spacing_mm + middle
        return row, column

    def window(self, shape: Ellipse) -> tuple[slice, slice]:
        """Rows and columns that hold all of `shape`, perhaps none: painting there alone is much faster."""
        reach = max(shape.a, shape.b) / self.spacing_mm + 2
        row, column = self.to_px(shape.x, shape.y)
        return self._between(row, reach), self._between(column, reach)

    def _between(self, middle: float, reach: float) -> slice:
        first, last = int(middle - reach), int(middle + reach) + 2
        return slice(max(0, min(self.size_px, first)), max(0, min(self.size_px, last)))

    def cover(self, shape: Ellipse, window: tuple[slice, slice] | None = None) -> Floats:
        """Share of each pixel that `shape` covers, 0 to 1, in `window` (all of the image by default)."""
        part = window if window is not None else (slice(None), slice(None))
        x, y = self.x[part] - np.float32(shape.x), self.y[part] - np.float32(shape.y)
        if shape.tilt:
            cos, sin = np.float32(np.cos(shape.tilt)), np.float32(np.sin(shape.tilt))
            x, y = cos * x + sin * y, cos * y - sin * x
        x *= np.float32(1 / shape.a)
        y *= np.float32(1 / shape.b)
        x *= x
        y *= y
        q = x + y
        if shape.square:
            q -= np.float32(shape.square) * x * y
        # sqrt(q) is 1 on the border; its distance in mm is exact for a circle and near enough otherwise.
        np.maximum(q, 0, out=q)
        np.sqrt(q, out=q)
        q -= 1
        q *= np.float32(-np.sqrt(shape.a * shape.b) / self.spacing_mm)
        q += np.float32(0.5)
        return np.clip(q, 0, 1, out=q)

    def paint(self, shape: Ellipse, value_hu: float) -> None:
        """Put a uniform shape over what is there."""
        window = self.window(shape)
        under = self.hu[window]
        if under.size:
            under += self.cover(shape, window) * (np.float32(value_hu) - under)


def paint_chest(
    canvas: Canvas, patient: Anatomy, slice_shift: float, rng: np.random.Generator
) -> None:
    """Paint everything but the lesion and the noise; `slice_shift` (-1 to 1) is a neighbouring slice."""
    p, z = patient, slice_shift
    top = p.body.b + 2.0
    if p.couch_mm is not None and top < float(canvas.y.max()):
        radius = 420.0  # a shallow trough
        inner = canvas.cover(Ellipse(0.0, top - radius, radius, radius))
        outer = canvas.cover(Ellipse(0.0, top - radius, radius + p.couch_mm, radius + p.couch_mm))
        canvas.hu += (outer - inner) * np.float32(620)
    canvas.paint(p.body, FAT_HU)
    muscle = Ellipse(0.0, 0.0, p.body.a - p.fat_mm, p.body.b - p.fat_mm, 0.0, p.body.square)
    canvas.paint(muscle, MUSCLE_HU)
    _paint_lungs(canvas, p, z, rng)
    heart = p.heart.moved(1.5 * z, 2.0 * z, 1 + 0.06 * z)
    canvas.paint(heart, MUSCLE_HU + 0.5 * p.contrast_hu)
    canvas.paint(
        Ellipse(heart.x - 4, heart.y + 3, 0.55 * heart.a, 0.55 * heart.b), MUSCLE_HU + p.contrast_hu
    )
    canvas.paint(
        Ellipse(15.0, p.spine_y - 16, 11, 11), MUSCLE_HU - 5 + p.contrast_hu
    )  # descending aorta
    _paint_bones(canvas, p, z)


def _paint_lungs(canvas: Canvas, p: Anatomy, z: float, rng: np.random.Generator) -> None:
    for side, lung in enumerate(p.lungs):
        lung = lung.moved(0, 0, 1 + 0.035 * z)
        window = canvas.window(lung)
        if canvas.hu[window].size == 0:
            continue  # the other lung, out of view
        cover, y = canvas.cover(lung, window), canvas.y[window]
        depth = (y - np.float32(lung.y - lung.b)) * np.float32(0.5 / lung.b)
        value = np.float32(p.lung_hu) + np.float32(p.gravity_hu) * (depth - np.float32(0.5))
        value += _vessels(canvas, window, lung, p.vessel_seed + side, rng) * (
            np.float32(20) - value
        )
        if p.effusion is not None and p.side == side:
            level = 1 - p.effusion + 0.02 * z  # fluid lies at the back, with a level
            fluid = np.clip(
                (depth - np.float32(level)) * np.float32(2 * lung.b / canvas.spacing_mm), 0, 1
            )
            value += fluid * (np.float32(12) - value)
        under = canvas.hu[window]
        under += cover * (value - under)


def _vessels(
    canvas: Canvas, window: tuple[slice, slice], lung: Ellipse, seed: int, rng: np.random.Generator
) -> Floats:
    """Share of vessel in each pixel of `window`: branches that wander from the hilum and thin out."""
    tree = np.random.default_rng(
        seed
    )  # the tree is the patient's; a neighbouring slice cuts it a little elsewhere
    n, steps = 12, 80
    hilum = lung.x - np.sign(lung.x) * 0.75 * lung.a, lung.y + 0.1 * lung.b
    outward = np.pi if lung.x < 0 else 0.0
    angle = outward + tree.uniform(-1.5, 1.5, n)
    angle = angle + 0.07 * rng.standard_normal(n)
    bend = np.cumsum(tree.normal(0, 0.085, (n, steps)), axis=1)
    stride = 2 * lung.b / steps * tree.uniform(0.55, 1.0, (n, 1))
    x = hilum[0] + np.cumsum(stride * np.cos(angle[:, None] + bend), axis=1)
    y = hilum[1] + np.cumsum(stride * np.sin(angle[:, None] + bend), axis=1)
    calibre = tree.uniform(1.8, 4.6, (n, 1)) * np.linspace(1, 0.3, steps)  # mm
    row, column = canvas.to_px(x, y)
    # A margin of one pixel around the window takes what falls outside.
    rows, columns = window[0].stop - window[0].start + 2, window[1].stop - window[1].start + 2
    row = np.clip(row - window[0].start + 1, 0, rows - 1.001)
    column = np.clip(column - window[1].start + 1, 0, columns - 1.001)
    i, j = row.astype(int), column.astype(int)
    down, right = row - i, column - j
    volume = calibre**2 * stride / canvas.spacing_mm**3
    # Each point is shared among its four pixels, or vessels would be staircases.
    places = np.stack(
        [i * columns + j, i * columns + j + 1, (i + 1) * columns + j, (i + 1) * columns + j + 1]
    )
    parts = (
        np.stack([(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right])
        * volume
    )
    drawn = np.bincount(places.ravel(), weights=parts.ravel(), minlength=rows * columns)
    drawn = ndimage.gaussian_filter(
        drawn.reshape(rows, columns)[1:-1, 1:-1].astype(np.float32), 0.55, truncate=3.0
    )
    return np.minimum(drawn, 1, out=drawn)


def _paint_bones(canvas: Canvas, p: Anatomy, z: float) -> None:
    s = p.spine_mm
    canvas.paint(Ellipse(0.0, p.spine_y, s, 0.8 * s), BONE_HU)
    canvas.paint(Ellipse(0.0, p.spine_y, s - 3.5, 0.8 * s - 3.5), MARROW_HU)
    canvas.paint(Ellipse(0.0, p.spine_y + 1.25 * s, 0.8 * s, 0.45 * s), BONE_HU)
    canvas.paint(Ellipse(0.0, p.spine_y + 1.1 * s, 0.5 * s, 0.38 * s), 25.0)  # canal
    canvas.paint(Ellipse(0.0, -(p.body.b - p.fat_mm - 7), 15, 4.5), 0.8 * BONE_HU)  # sternum
    # Ribs run obliquely through the slice: short arcs on the cage, drifting as the slice moves.
    a, b = p.body.a - p.fat_mm - 6, p.body.b - p.fat_mm - 6
    for k in range(p.n_ribs):
        t = 2 * np.pi * k / p.n_ribs + p.rib_phase + 0.10 * z
        x, y = a * np.cos(t), b * np.sin(t)
        if abs(x) < 24:
            continue
        tangent = float(np.arctan2(b * np.cos(t), -a * np.sin(t)))
        length = 9 + 4 * np.sin(3.1 * k + p.rib_phase)
        canvas.paint(Ellipse(float(x), float(y), length, 3.8, tangent), BONE_HU)


def add_noise(hu: Floats, site: Site, rng: np.random.Generator) -> Floats:
    """Blur by the site's kernel and add noise with the spectrum of filtered back-projection.

    That spectrum rises with frequency and is cut by the kernel, so neighbours are correlated and large areas are
    nearly free of noise: a difference of two Gaussians.
    """
    sharp = ndimage.gaussian_filter(hu, site.sharpness_px, mode="nearest", truncate=3.0)
    white = rng.standard_normal(hu.shape, dtype=np.float32)
    fine = ndimage.gaussian_filter(white, 0.6, mode="wrap", truncate=3.0)
    noise = fine - ndimage.gaussian_filter(fine, 1.6, mode="wrap", truncate=2.5)
    return sharp + noise * np.float32(site.noise_hu / float(noise.std()))
