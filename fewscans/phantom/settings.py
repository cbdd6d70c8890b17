"""What a phantom cohort may look like."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

CLASSES = ("benign", "malignant")
MIN_PATIENTS_WITH_FAULTS = 20


class PhantomSettings(BaseModel):
    """A generated cohort; the same settings give the same bytes of every file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_patients: int = Field(150, ge=4, le=9999, description="patients, one to four images each")
    seed: int = Field(
        0, ge=0, lt=2**32, description="another seed is another cohort of the same kind"
    )
    size_px: int = Field(
        96, ge=48, le=512, description="rows and columns; one of the three sites has 7/6 of them"
    )
    malignant_share: float = Field(
        0.45, ge=0.1, le=0.9, description="malignant patients, kept among every 20 in a row"
    )
    unlabelled_share: float = Field(
        0.03, ge=0, le=0.5, description="patients without any label, who can join pretraining only"
    )
    faults: bool = Field(
        True, description="plant what goes wrong in real folders; faults.csv lists each"
    )

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.faults and self.n_patients < MIN_PATIENTS_WITH_FAULTS:
            raise ValueError(
                f"n_patients: {self.n_patients} are too few to plant faults among; "
                f"take {MIN_PATIENTS_WITH_FAULTS} or more, or set faults to false"
            )
        return self
