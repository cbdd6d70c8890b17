"""Laboratory values of a cohort's patients, weakly related to the diagnosis: for methods that contrast the two.

Of each four in five patients one row: C-reactive protein and lactate dehydrogenase, both log-normal, and whether the
patient smokes. In malignant patients the logarithms are half and 0.4 standard deviations higher, and 55 % smoke against
35 %: together they tell the classes with an AUROC of about 0.7. Nothing else is in them, and no image knows them. One
in twenty lactate dehydrogenases is missing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fewscans.phantom.cohort import Cohort

LAB_COLUMNS = ("patient", "crp_mg_l", "ldh_u_l", "smoker")
_LABS = 4  # first word of the key; cohort.py and faults.py have 0 to 3
ROW_SHARE, LDH_SHARE = 0.8, 0.95
SMOKERS = (0.35, 0.55)


def lab_rows(cohort: Cohort) -> Iterator[tuple[str, ...]]:
    """Rows of labs.csv, by patient; the same for a patient whatever other patients there are."""
    targets = {image.patient: image.target for image in cohort.images}
    for patient, target in sorted(targets.items()):
        rng = np.random.default_rng((_LABS, cohort.settings.seed, int(patient[1:])))
        has_row, has_ldh, smokes = rng.uniform(size=3)
        z = rng.normal(size=2)
        if has_row >= ROW_SHARE:
            continue
        crp = np.exp(1.6 + 0.9 * (z[0] + 0.5 * target))
        ldh = np.exp(5.3 + 0.25 * (z[1] + 0.4 * target))
        yield (
            patient,
            f"{crp:.1f}",
            f"{ldh:.0f}" if has_ldh < LDH_SHARE else "",
            "yes" if smokes < SMOKERS[target] else "no",
        )
