"""Methods of other packages, found by their entry points.

In the other package's pyproject.toml::

    [project.entry-points."fewscans.methods"]
    toy = "toy.settings:Toy"

``Toy`` is a class of settings like those here, without torch; its ``module`` names the one with the method.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import EntryPoint, entry_points

from fewscans.config.encoders.base import PretrainSettings

GROUP = "fewscans.methods"
# Name -> why it cannot be used; said to who asks for it, and in nobody else's way.
FAULTY: dict[str, str] = {}


def from_outside(taken: Collection[str]) -> dict[str, type[PretrainSettings]]:
    """Name -> settings of each method that an installed package brings; the others are noted in `FAULTY`."""
    found: dict[str, type[PretrainSettings]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        fault = _load(point, {*taken, *found}, found)
        if fault is not None:
            package = point.dist.name if point.dist is not None else point.value
            FAULTY[point.name] = f"{package}: {fault}"
    return found


def _load(
    point: EntryPoint, taken: Collection[str], found: dict[str, type[PretrainSettings]]
) -> str | None:
    """Put the class of `point` into `found`; what is wrong, where something is."""
    try:
        model = point.load()
    except Exception as error:  # whatever a stranger's code raises
        return f"{point.value} cannot be imported: {type(error).__name__}: {error}"
    if not (isinstance(model, type) and issubclass(model, PretrainSettings)):
        return f"{point.value} is no class derived from fewscans.config.encoders.PretrainSettings"
    if "method" not in model.model_fields or model.name() != point.name:
        return f'{point.value} needs `method: Literal["{point.name}"] = "{point.name}"`'
    missing = [name for name in ("title", "module") if not getattr(model, name, "")]
    if missing:
        return f"{point.value} lacks {' and '.join(missing)}"
    if point.name in taken:
        return f"{point.value}: there is a method '{point.name}' already"
    found[point.name] = model
    return None
