"""The lesion: shape and texture tell the diagnosis; area, mean and place are drawn without knowing it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fewscans.phantom.anatomy import Anatomy, Canvas, Floats

# Mean over the patients of a class, and spread between patients, of two signs on a scale from 0 to 1. The spread is
# what keeps the best possible reader short of an AUROC of 1.
SPICULATION = {0: (0.18, 0.15), 1: (0.72, 0.18)}
HETEROGENEITY = {0: (0.18, 0.15), 1: (0.72, 0.18)}
TEXTURE_HU = 200.0  # standard deviation inside a lesion whose heterogeneity is 1
N_ANGLES = 256
GRID = 9  # cells of the texture across the patch: blobs of about 0.4 radii


@dataclass(frozen=True)
class Lesion:
    """One patient's lesion. Lengths in mm, in the patient's frame."""

    x: float
    y: float
    area_mm2: float
    mean_hu: float
    """of the lesion's matter, before its border mixes with lung in a pixel"""
    spiculation: float
    heterogeneity: float
    oval: tuple[float, float]
    lobes: npt.NDArray[np.float64]
    """[2, 4] amplitude and phase of the outline's waves of order 3 to 6"""
    spikes: npt.NDArray[np.float64]
    """[3, n] direction, length (in radii) and concentration"""
    texture: npt.NDArray[np.float64]
    """[GRID, GRID]"""


def sample_lesion(rng: np.random.Generator, patient: Anatomy, target: int) -> Lesion:
    """Draw a lesion for a patient of class `target` (0 benign, 1 malignant).

    Everything that must not tell the class is drawn first and from the same numbers in both classes.
    """
    lung = patient.lungs[patient.side]
    radius = rng.uniform(24, 31)
    turn, far = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform())
    x = lung.x + far * np.cos(turn) * max(0.0, lung.a - radius)
    y = lung.y + far * np.sin(turn) * max(0.0, lung.b - 1.2 * radius)
    mean_hu = rng.normal(0, 55)
    signs = rng.standard_normal(2)
    n_spikes = int(rng.integers(8, 14))
    oval = (rng.uniform(0.0, 0.16), rng.uniform(0, 2 * np.pi))
    lobes = np.stack([rng.uniform(0.4, 1.0, 4), rng.uniform(0, 2 * np.pi, 4)])
    direction = 2 * np.pi * (np.arange(n_spikes) + rng.uniform(-0.3, 0.3, n_spikes)) / n_spikes
    spikes = np.stack([direction, rng.uniform(0.5, 1.0, n_spikes), rng.uniform(30, 90, n_spikes)])
    texture = rng.standard_normal((GRID, GRID))
    spiculation = SPICULATION[target][0] + SPICULATION[target][1] * signs[0]
    heterogeneity = HETEROGENEITY[target][0] + HETEROGENEITY[target][1] * signs[1]
    return Lesion(
        x=float(x), y=float(y), area_mm2=float(np.pi * radius**2), mean_hu=float(mean_hu),
        spiculation=float(np.clip(spiculation, 0, 1)), heterogeneity=float(np.clip(heterogeneity, 0, 1)),
        oval=oval, lobes=lobes, spikes=spikes, texture=texture,
    )  # fmt: skip


def field_centre(patient: Anatomy, lesion: Lesion) -> tuple[float, float]:
    """Where the image is centred (mm, patient's frame): between lung and lesion, and a little off."""
    lung = patient.lungs[patient.side]
    x = lung.x + 0.6 * (lesion.x - lung.x) + patient.shift_mm[0]
    y = lung.y + 0.6 * (lesion.y - lung.y) + patient.shift_mm[1]
    return x, y


def neighbour(lesion: Lesion, rng: np.random.Generator) -> Lesion:
    """The same lesion in another slice: a little larger or smaller, other spikes, related texture."""
    lobes, spikes = lesion.lobes.copy(), lesion.spikes.copy()
    lobes[1] += 0.35 * rng.standard_normal(4)
    spikes[0] += 0.12 * rng.standard_normal(spikes.shape[1])
    spikes[1] *= rng.uniform(0.75, 1.25, spikes.shape[1])
    dx, dy = rng.normal(0, 1.5, 2)
    return replace(
        lesion, x=lesion.x + dx, y=lesion.y + dy, area_mm2=lesion.area_mm2 * rng.uniform(0.88, 1.12),
        lobes=lobes, spikes=spikes, texture=0.75 * lesion.texture + 0.66 * rng.standard_normal((GRID, GRID)),
    )  # fmt: skip


def outline(lesion: Lesion) -> npt.NDArray[np.float64]:
    """[N_ANGLES] distance of the border from the centre (mm) by direction, enclosing `area_mm2`."""
    angle = np.linspace(0, 2 * np.pi, N_ANGLES, endpoint=False)
    order = np.arange(3, 7)
    radius = 1 + lesion.oval[0] * np.cos(2 * (angle - lesion.oval[1]))
    amplitude = (0.015 + 0.075 * lesion.spiculation) * lesion.lobes[0]
    radius = radius + (
        amplitude[:, None] * np.cos(order[:, None] * angle + lesion.lobes[1][:, None])
    ).sum(0)
    direction, length, concentration = lesion.spikes[:, :, None]
    spike = length * np.exp(concentration * (np.cos(angle - direction) - 1))
    radius = radius + 0.75 * lesion.spiculation * spike.max(0)
    return radius * np.sqrt(lesion.area_mm2 / (np.pi * np.mean(radius**2)))


def paint_lesion(canvas: Canvas, lesion: Lesion) -> Floats:
    """Paint `lesion` and return the share of each pixel that it covers, [H, W] float32."""
    border = outline(lesion)
    row, column = canvas.to_px(lesion.x, lesion.y)
    reach = float(border.max()) / canvas.spacing_mm + 1.5
    rows = slice(max(0, int(row - reach)), min(canvas.size_px, int(row + reach) + 2))
    columns = slice(max(0, int(column - reach)), min(canvas.size_px, int(column + reach) + 2))
    # Three by three points a pixel: spikes are thinner than pixels.
    up = 3
    i = (np.arange((rows.stop - rows.start) * up) - (up - 1) / 2) / up + rows.start - row
    j = (
        (np.arange((columns.stop - columns.start) * up) - (up - 1) / 2) / up
        + columns.start
        - column
    )
    y = (i * canvas.spacing_mm).astype(np.float32)[:, None]
    x = (j * canvas.spacing_mm).astype(np.float32)[None, :]
    turn = np.arctan2(y, x) * np.float32(N_ANGLES / (2 * np.pi))
    limit = border.astype(np.float32)[np.rint(turn).astype(np.int16) % N_ANGLES]
    # Thin spikes fall between points, so the area is set by the points themselves: the k nearest, in units of the
    # outline, where k points make up the area.
    relative = np.sqrt(x * x + y * y) / limit
    n_points = round(lesion.area_mm2 * (up / canvas.spacing_mm) ** 2)
    n_points = min(n_points, relative.size - 1)
    edge = np.partition(relative, n_points, axis=None)[n_points]
    inside = (relative < edge).astype(np.float32)
    matter = lesion.heterogeneity * TEXTURE_HU * _texture(lesion, y[:, 0], x[0])
    matter += np.float32(lesion.mean_hu) - (matter * inside).sum() / inside.sum()
    cover, inner = _mean_of_blocks(inside, up), _mean_of_blocks(inside * matter, up)
    under = canvas.hu[rows, columns]
    under += inner - cover * under
    mask = np.zeros_like(canvas.hu)
    mask[rows, columns] = cover
    return mask


def _texture(lesion: Lesion, y: Floats, x: Floats) -> Floats:
    """[len(y), len(x)] smooth random field with unit variance over the grid."""
    radius = np.sqrt(lesion.area_mm2 / np.pi)
    cell = 3.4 * radius / GRID
    knots = (np.arange(GRID) - (GRID - 1) / 2) * cell
    weigh_y, weigh_x = (np.exp(-0.5 * ((v[:, None] - knots) / (0.5 * cell)) ** 2) for v in (y, x))
    # Each row to unit length: the sum of independent cells then has unit variance everywhere.
    weigh_y /= np.sqrt((weigh_y**2).sum(1, keepdims=True))
    weigh_x /= np.sqrt((weigh_x**2).sum(1, keepdims=True))
    return (weigh_y @ lesion.texture @ weigh_x.T).astype(np.float32)


def _mean_of_blocks(values: Floats, block: int) -> Floats:
    """[h, w] means of [h * block, w * block]; sums of strides are faster than a mean over axes."""
    rows = values[::block].copy()
    for k in range(1, block):
        rows += values[k::block]
    means = rows[:, ::block].copy()
    for k in range(1, block):
        means += rows[:, k::block]
    return means * np.float32(1 / block**2)
