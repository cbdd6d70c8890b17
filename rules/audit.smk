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
        layout=lambda w: layout(CONFIG, w.dataset),
        folders=converted_folders,
        out=lambda w, output: str(Path(output.tables[0]).parent),
    shell:
        'python "$SCRIPTS/audit.py" --params {params.cfg:q} --converted {params.folders:q}'
        " --labels {output.labels:q} --out {params.out:q} &> {log:q}"


rule audit_page:
    # What was found, with pictures; a data sheet. What stands in results names no file and no patient.
    input:
        converted=converted,
        labels=rules.audit.output.labels,
        tables=rules.audit.output.tables,
    output:
        page=f"{W}/{{dataset}}/audit/audit.html",
        shown=report(
            f"{R}/audit/{{dataset}}.html",
            caption=caption("audit"),
            category="Audit",
            subcategory="{dataset}",
        ),
        sheet=f"{R}/datasheet/{{dataset}}.md",
        facts=f"{R}/datasheet/{{dataset}}.json",
        claim=f"{R}/datasheet/{{dataset}}.claim.md",
    log:
        "logs/audit_page/{dataset}.log",
    benchmark:
        f"{W}/benchmarks/audit_page/{{dataset}}.tsv"
    conda:
        "../envs/fewscans.yaml"
    threads: 1
    resources:
        **cost("audit_page"),
    params:
        cfg=lambda w: settings(audit_page_params(w)),
        code=code_digest("scripts.audit_page"),
        folders=converted_folders,
        tables=lambda w, output: str(Path(output.page).parent),
        sheet=lambda w, output: output.sheet.removesuffix(".md"),
    shell:
        'python "$SCRIPTS/audit_page.py" --params {params.cfg:q} --converted {params.folders:q}'
        " --labels {input.labels:q} --audit {params.tables:q} --page {output.page:q} --shown {output.shown:q}"
        " --sheet {params.sheet:q} &> {log:q}"
