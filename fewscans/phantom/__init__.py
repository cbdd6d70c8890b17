"""The generated cohort of the demo: a seeded, CT-like set of chest slices with everything that real folders have.

Some 150 patients with one to four axial slices each, 96 or 112 pixels square, as DICOM in HU and as 16-bit PNG. Each
shows one lung with a mass. Benign masses are round, smooth and even; malignant ones are spiculated and uneven. That is
the whole diagnosis: area and mean of the mass, its place, the patient's anatomy, site, scanner, file type and spacing
are drawn without knowing it. Faults are planted and listed (`fewscans.phantom.faults`). Beside the images stand
laboratory values of most patients, which tell a little (`fewscans.phantom.labs`).
"""

from fewscans.phantom.cohort import Cohort, Fault, Image, make_cohort
from fewscans.phantom.files import write_cohort
from fewscans.phantom.settings import CLASSES, PhantomSettings

__all__ = [
    "CLASSES",
    "Cohort",
    "Fault",
    "Image",
    "PhantomSettings",
    "make_cohort",
    "write_cohort",
]
