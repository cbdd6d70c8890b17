"""The command ``fewscans``: one module per word, loaded when it is asked for.

A module has ``HELP`` (one line), ``add_arguments(parser)`` and ``run(arguments) -> int``.
"""

# word -> module in this package, in the order of the help
COMMANDS: dict[str, str] = {
    "cluster-setup": "cluster_setup",
    "plan": "plan",
    "calibrate": "calibrate",
    "tune-status": "tune_status",
    "fetch": "fetch",
    "methods": "methods",
    "doctor": "doctor",
    "who": "who",
}
