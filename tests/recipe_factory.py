"""Recipes, and bodies that recipes are tried on."""

from __future__ import annotations

import numpy as np
from hypothesis import settings

from fewscans.config.recipe import RecipeSettings

SMALL = settings(max_examples=30, deadline=None)


def recipe(**given) -> RecipeSettings:
    return RecipeSettings(**{"size": 16, **given})


def ball(shape, spacing, radius_mm, middle=(0.5, 0.5, 0.5)) -> np.ndarray:
    """[1, *shape]: 100 in a ball (a disc) around `middle`, a share of each axis; 0 elsewhere."""
    axes = np.indices(shape).astype(float)
    away = [
        (axis + 0.5 - n * at) * step
        for axis, n, step, at in zip(axes, shape, spacing, middle, strict=False)
    ]
    return 100.0 * (sum(one**2 for one in away) <= radius_mm**2)[None]


def head(shape=(48, 40), noise=3.0) -> np.ndarray:
    """[*shape]: a bright ellipse with a dark hole, on a dark noisy ground, and a bright speck apart."""
    axes = np.indices(shape).astype(float)
    away = sum(((a - n / 2) / (n / 3)) ** 2 for a, n in zip(axes, shape, strict=True))
    made = np.where(away < 1, 100.0, 0.0)
    made[away < 0.1] = 5
    made[tuple(slice(1, 3) for _ in shape)] = 100
    return made + np.random.default_rng(0).normal(size=shape) * noise
