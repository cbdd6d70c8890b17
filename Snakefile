# fewscans: from raw scans and a few labels to results/ablation_table.csv.
# Targets: all (default), results/ablation_table.csv, results/report.html, data (stop before any training), exports
# (converted scans for a viewer), shareable (what may leave the house).

from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")


report: "report/workflow.rst"


# A config named with --configfile stands alone; the demo's is not mixed into it. Without one it is the working
# directory's own, else (--directory elsewhere) the demo's.
if not workflow.overwrite_configfiles:
    own = Path("config/config.yaml")

    configfile: str(own if own.exists() else Path(str(workflow.current_basedir)) / own)


include: "rules/common.smk"
include: "rules/run.smk"
include: "rules/inputs.smk"
include: "rules/training_inputs.smk"
include: "rules/convert.smk"
include: "rules/audit.smk"
include: "rules/normalise.smk"
include: "rules/split.smk"
include: "rules/tune.smk"
include: "rules/pretrain.smk"
include: "rules/finetune.smk"
include: "rules/aggregate.smk"
include: "rules/shareable.smk"


rule all:
    default_target: True
    input:
        TABLE,
        REPORT,
        audit_pages,


rule data:
    # Converted, audited, normalised and split; no training. Look at the audit before you pay for GPUs.
    input:
        [PATHS.store(*one) for one in PLAN.stores()],
        [PATHS.dataset(d, "budgets.parquet") for d in PLAN.evaluated],
        audit_pages,


rule exports:
    # Converted scans as NIfTI and 16-bit PNG.
    input:
        [PATHS.dataset(d, "export") for d in CONFIG.datasets],
