"""What the plan should know of your place: prices, power, a budget, and what a job costs besides its work.

A file (``config/plan.yaml`` in the working directory, or as ``FEWSCANS_PLAN`` names it), apart from the config: a new
price must not make anything run again.
"""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from pydantic import Field

from fewscans.config.base import Settings
from fewscans.config.load import parse
from fewscans.errors import UserError

VARIABLE = "FEWSCANS_PLAN"
PLACE = "config/plan.yaml"


class Rates(Settings):
    """Prices and power; what is not given is not counted."""

    currency: str = "EUR"
    """Name of the money."""
    gpu_hour: float | None = Field(default=None, ge=0)
    """Price of a GPU for an hour."""
    cpu_hour: float | None = Field(default=None, ge=0)
    """Price of a CPU core for an hour; cores beside a GPU are counted too."""
    kwh: float | None = Field(default=None, ge=0)
    """Price of a kilowatt-hour, where you pay for power rather than for hours."""
    gpu_watts: float = Field(default=300.0, ge=0)
    """Power of a busy GPU."""
    cpu_watts: float = Field(default=10.0, ge=0)
    """Power of a busy CPU core."""
    overhead: float = Field(default=1.4, ge=1)
    """Power of the whole computing centre over that of its computers (PUE)."""
    co2_g_per_kwh: float | None = Field(default=None, ge=0)
    """Grams of CO2 per kilowatt-hour of your grid."""


class Budget(Settings):
    """What may not be exceeded; None: no bound."""

    gpu_hours: float | None = Field(default=None, ge=0)
    """GPU-hours."""
    cpu_hours: float | None = Field(default=None, ge=0)
    """CPU-hours."""
    wall_hours: float | None = Field(default=None, ge=0)
    """Hours until the last job is done, queueing apart."""
    money: float | None = Field(default=None, ge=0)
    """In the currency of the rates."""
    co2_kg: float | None = Field(default=None, ge=0)
    """Kilograms of CO2."""
    disk_gb: float | None = Field(default=None, ge=0)
    """Space that the outputs take."""


class Terms(Settings):
    """Seconds that come on top of the work; measured as docs/plan.md says."""

    local_start_s: float = Field(default=3.0, ge=0)
    """Once, on one machine: Snakemake reads the workflow and builds the graph."""
    local_job_s: float = Field(default=0.1, ge=0)
    """Per job on one machine: choosing, starting, checking outputs."""
    cluster_start_s: float = Field(default=2.0, ge=0)
    """Once, on a cluster: the same, and the first submission."""
    in_job_s: float = Field(default=5.5, ge=0)
    """Per submission: two starts of Snakemake inside the job; paid for like work."""
    notice_s: float = Field(default=30.0, ge=0)
    """Per job on a cluster: from its end until Snakemake has asked and knows."""


class PlanSettings(Settings):
    """The whole of ``config/plan.yaml``."""

    rates: Rates = Rates()
    """Prices and power."""
    budget: Budget = Budget()
    """Bounds; `fewscans plan` exits 2 beyond them."""
    terms: Terms = Terms()
    """What jobs cost besides their work."""


def read_plan_settings(
    path: str | os.PathLike[str] | None = None, directory: str = "."
) -> PlanSettings:
    """Settings from `path`, else from where they usually stand in the working `directory`, else the defaults.

    Raises
    ------
    UserError
        A file that was named is not there, or one holds what is no setting.
    """
    named = path or os.environ.get(VARIABLE)
    usual = Path(directory, PLACE)
    if not named and not usual.exists():
        return PlanSettings()
    file = Path(named or usual)
    try:
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}).") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML ({error}).") from None
    return parse(PlanSettings, raw or {}, str(file))


def money_and_co2(rates: Rates, gpu_hours: float, cpu_hours: float) -> dict[str, float | None]:
    """Price, kilowatt-hours and kilograms of CO2; None where no rate is given."""
    kwh = (gpu_hours * rates.gpu_watts + cpu_hours * rates.cpu_watts) / 1000 * rates.overhead
    priced = [
        amount * price
        for amount, price in (
            (gpu_hours, rates.gpu_hour), (cpu_hours, rates.cpu_hour), (kwh, rates.kwh),
        )
        if price is not None
    ]  # fmt: skip
    known = bool(priced) or rates.co2_g_per_kwh is not None
    return {
        "money": sum(priced) if priced else None,
        "energy_kwh": kwh if known else None,
        "co2_kg": None if rates.co2_g_per_kwh is None else kwh * rates.co2_g_per_kwh / 1000,
    }
