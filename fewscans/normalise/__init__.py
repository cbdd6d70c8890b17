"""One geometry and one intensity scale for all scans: [0, 1], by rules that look at one scan at a time.

The steps, in this order; a recipe names those it wants:

1. channels: gray repeated, or colour as its luma;
2. `n4`: the bias field of MR is divided out;
3. `foreground`: crop to the box of the foreground;
4. intensity: the values that will be 0 and 1 are measured, over the pixels of the source (padding never counts);
5. geometry: resampled to `size`, or to `spacing_mm`;
6. what lies outside 0 and 1 is clipped;
7. `clahe`: histograms equalised locally;
8. padding, as dark as the scan's darkest pixel.
"""

from fewscans.normalise.intensity import intensity_range, match_channels
from fewscans.normalise.scan import Normalised, normalise_scan
from fewscans.normalise.write import make_store

__all__ = ["Normalised", "intensity_range", "make_store", "match_channels", "normalise_scan"]
