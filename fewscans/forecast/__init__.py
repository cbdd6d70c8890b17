"""What a run will cost and whether it fits: the plan that a dry-run ends with. Light."""
