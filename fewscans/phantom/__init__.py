from fewscans.phantom.cohort import Cohort, Image, make_cohort
from fewscans.phantom.settings import PhantomSettings
