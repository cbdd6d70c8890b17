"""MICLe (Azizi et al. 2021): SimCLR whose two views are of two images of one patient.

"Big Self-Supervised Models Advance Medical Image Classification", arXiv 2101.05224, section 3.2 and algorithm 1. It
goes on from a network that SimCLR has trained (`start`).

The paper draws patients, so a batch has one pair of each and no patient is a negative of its own. Here an epoch goes
over scans: each of them is a first view, its second is another scan of the patient, drawn anew in each epoch, and the
patient's other scans in the batch are spared. Both agree where patients have one or two scans; beyond, a patient of
ours weighs as much as it has scans. A patient with one scan has two augmentations of it, as in the paper.
"""

from __future__ import annotations

from fewscans.methods.simclr import SimCLR


class MICLe(SimCLR):
    """SimCLR with `positives: patient` and `spare_patient: true`."""


METHOD = MICLe
