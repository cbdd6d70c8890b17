"""What a phantom cohort may look like. Pydantic only, so that a Snakefile may import it."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

CLASSES = ("benign", "malignant")
# A dozen patients carry faults or give their images to a duplicate; the others must still be a cohort.
MIN_PATIENTS_WITH_FAULTS = 40


class PhantomSettings(BaseModel):
    """A generated cohort; the same settings give the same bytes of every file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_patients: int = Field(150, ge=4, le=100_000, description="patients, one to four images each")
    seed: int = Field(0, ge=0, lt=2**63, description="another seed is another cohort of the same kind")
    size_px: int = Field(
        96, ge=48, le=512, description="rows and columns of a slice; one of the three sites uses 7/6 of it"
    )
    malignant_share: float = Field(
        0.45, ge=0.1, le=0.9, description="patients that are malignant, kept in every 20 in a row"
    )
    n_unlabelled: int = Field(
        5, ge=0, description="patients without any label, who can join pretraining only"
    )
    faults: bool = Field(
        True, description="plant what goes wrong in real folders; every fault is listed in faults.csv"
    )

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.faults and self.n_patients < MIN_PATIENTS_WITH_FAULTS:
            raise ValueError(
                f"n_patients: {self.n_patients} are too few to plant faults among; take "
                f"{MIN_PATIENTS_WITH_FAULTS} or more, or set faults to false"
            )
        if self.n_unlabelled > self.n_patients // 2:
            raise ValueError(
                f"n_unlabelled: {self.n_unlabelled} of {self.n_patients} patients is more than half"
            )
        return self
