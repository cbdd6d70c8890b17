"""Write the expanded plan of a config: encoders, arms, runs and their files (results/plan.json)."""

from __future__ import annotations

import json

from fewscans import cli
from fewscans.config import Config, load
from fewscans.digest import code_digest
from fewscans.files import digest, write_text
from fewscans.plan import Paths, as_json, expand


def main(argv: list[str] | None = None) -> int:
    """Expand the config given as ``--params`` and write it."""
    made = cli.parser(__doc__ or "", Config)
    made.add_argument("--out", required=True, help="plan.json to write")

    def work(arguments, config):
        checked = load(config.model_dump(), "--params")
        digests = {"config": digest(checked.model_dump(mode="json", exclude={"report"}))}
        digests["code"] = code_digest(
            "scripts.convert",
            "scripts.audit",
            "scripts.normalise",
            "scripts.split",
            "scripts.pretrain",
            "scripts.finetune",
            "scripts.aggregate",
        )
        plan = as_json(expand(checked), Paths(checked.work, checked.results), digests)
        # Unsorted: encoders, arms and data sets stand in the order in which the user wrote them.
        write_text(arguments.out, json.dumps(plan, indent=1, allow_nan=False) + "\n")

    return cli.run(made, work, argv, Config)


if __name__ == "__main__":
    raise SystemExit(main())
