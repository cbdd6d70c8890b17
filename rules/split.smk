# Who may see what. Two rules: pretraining depends on folds, never on budgets.


rule folds:
    # Groups on one side of every split.
    input:
        labels=f"{W}/{{dataset}}/labels.parquet",
        pools=pool_labels,
    output:
        f"{W}/{{dataset}}/folds.parquet",
    log:
        "logs/folds/{dataset}.log",
    benchmark:
        f"{W}/benchmarks/folds/{{dataset}}.tsv"
    conda:
        "../envs/fewscans.yaml"
    threads: 1
    resources:
        **cost("folds"),
    params:
        cfg=lambda w: settings(folds_params(w)),
        code=code_digest("fewscans.split.folds"),
        pools=lambda w, input: flag("--pool-labels", dataset_settings(w.dataset).pools, input.pools),
    shell:
        'python "$SCRIPTS/split.py" folds --params {params.cfg:q} --labels {input.labels:q}'
        " {params.pools:q} --out {output:q} &> {log:q}"


rule budgets:
    # Nested random subsets of the labelled training patients, the same for every arm.
    input:
        labels=f"{W}/{{dataset}}/labels.parquet",
        folds=f"{W}/{{dataset}}/folds.parquet",
    output:
        f"{W}/{{dataset}}/budgets.parquet",
    log:
        "logs/budgets/{dataset}.log",
    benchmark:
        f"{W}/benchmarks/budgets/{{dataset}}.tsv"
    conda:
        "../envs/fewscans.yaml"
    threads: 1
    resources:
        **cost("budgets"),
    params:
        cfg=lambda w: settings(
            BudgetsParams(
                dataset=w.dataset,
                budgets=CONFIG.budgets,
                draws=CONFIG.validation.draws,
                seed=CONFIG.seed,
            )
        ),
        code=code_digest("fewscans.split.budgets"),
    shell:
        'python "$SCRIPTS/split.py" budgets --params {params.cfg:q} --labels {input.labels:q}'
        " --folds {input.folds:q} --out {output:q} &> {log:q}"
