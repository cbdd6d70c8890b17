"""Who may see what: folds by group, and nested budgets of labelled patients."""

from fewscans.split.budgets import make_budgets
from fewscans.split.folds import make_folds

__all__ = ["make_budgets", "make_folds"]
