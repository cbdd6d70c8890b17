# Hyper-parameters: a search per encoder, recipe, data set and fold; its trials are no jobs of the DAG.


rule tuned:
    # Every search of the config's `tune`, and nothing else.
    input:
        tuned_targets,


if CONFIG.tune is not None:

    rule tune:
        # Waits for its trials: jobs that it submits, or processes here. Their state lies beside the outputs, by digest.
        input:
            store=lambda w: store(w.dataset, w.recipe, w.fold),
            labels=f"{W}/{{dataset}}/labels.parquet",
            folds=f"{W}/{{dataset}}/folds.parquet",
            budgets=f"{W}/{{dataset}}/budgets.parquet",
            pools=pool_stores,
            encoder=tune_weights,
        output:
            best=f"{W}/tune/{{encoder}}/{{recipe}}/{{dataset}}/{{fold}}/best.json",
            trials=f"{W}/tune/{{encoder}}/{{recipe}}/{{dataset}}/{{fold}}/trials.parquet",
        log:
            "logs/tune/{encoder}.{recipe}.{dataset}.{fold}.log",
        benchmark:
            f"{W}/benchmarks/tune/{{encoder}}.{{recipe}}.{{dataset}}.{{fold}}.tsv"
        conda:
            "../envs/fewscans.yaml"
        threads: TUNE_THREADS
        resources:
            **TUNE_COST.of(),
        params:
            cfg=lambda w: tune_settings(w),
            code=lambda w: tune_code(w),
            store=lambda w: str(Path(store(w.dataset, w.recipe, w.fold)).parent),
            pools=pools_flag,
            encoder=lambda w, input: (
                ["--encoder", str(Path(input.encoder[0]).parent)] if input.get("encoder") else []
            ),
            out=lambda w, output: str(Path(output.best).parent),
        shell:
            'python "$SCRIPTS/tune.py" --params {params.cfg:q} --store {params.store:q} --labels {input.labels:q}'
            " --folds {input.folds:q} --budgets {input.budgets:q} {params.pools:q} {params.encoder:q}"
            " --out {params.out:q} --cores {threads} --minutes {resources.trial_minutes}"
            " --mem-mb {resources.trial_mem_mb} &> {log:q}"
