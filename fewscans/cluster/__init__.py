"""Living with a batch system: what a site offers, what happened to a job, who runs here, what to do about it.

Only this package and ``profiles/`` know words of Slurm. Light: standard library and settings.
"""
