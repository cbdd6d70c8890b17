"""Tests against a real Slurm that they start and stop themselves: `make test-slurm`."""
