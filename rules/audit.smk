# What is wrong with a data set, before anything is split: duplicates, groups, contradictions, shortcuts.


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
    conda:
        "../envs/fewscans.yaml"
    threads: 1
    resources:
        **cost("audit"),
    params:
        cfg=lambda w: settings(audit_params(w)),
        code=code_digest("scripts.audit"),
        folders=converted_folders,
        out=lambda w, output: str(Path(output.tables[0]).parent),
    shell:
        'python "$SCRIPTS/audit.py" --params {params.cfg:q} --converted {params.folders:q}'
        " --labels {output.labels:q} --out {params.out:q} &> {log:q}"
