# What is wrong with a data set, before anything is split: duplicates, groups, contradictions, shortcuts.

from fewscans.config.stages import AuditParams


def audit_params(wildcards):
    dataset = dataset_settings(wildcards.dataset)
    place = resolve(CONFIG, wildcards.dataset)
    return AuditParams(
        dataset=wildcards.dataset,
        root=place.root,
        table=place.table,
        npz=place.npz,
        columns=dataset.columns,
        attributes=dataset.attributes,
        classes=dataset.classes,
        split_names=dataset.split_names,
        split=dataset.split,
        contradictions=dataset.contradictions,
        near_duplicate=dataset.near_duplicate,
        pool=wildcards.dataset not in PLAN.evaluated,
    )


def audit_table(wildcards):
    dataset = dataset_settings(wildcards.dataset)
    if dataset.phantom:
        return PATHS.dataset(wildcards.dataset, "raw", "labels.csv")
    return resolve(CONFIG, wildcards.dataset).table or []


rule audit:
    # Labels, groups and findings of one data set.
    input:
        converted=converted,
        table=audit_table,
    output:
        labels=f"{W}/{{dataset}}/labels.parquet",
        tables=expand(
            f"{W}/{{{{dataset}}}}/audit/{{kind}}.parquet",
            kind=["duplicates", "groups", "findings"],
        ),
    log:
        "logs/audit/{dataset}.log",
    benchmark:
        f"{W}/benchmarks/audit/{{dataset}}.tsv"
    threads: 1
    resources:
        **cost("cpu"),
    params:
        cfg=lambda w: settings(audit_params(w)),
        code=code_digest("scripts.audit"),
        folders=converted_folders,
        out=lambda w, output: str(Path(output.tables[0]).parent),
    shell:
        'python "$SCRIPTS/audit.py" --params {params.cfg:q} --converted {params.folders:q}'
        " --labels {output.labels:q} --out {params.out:q} &> {log:q}"
