# Few labels: all protocols, budgets and draws of one encoder, fold and seed in one process.


rule finetune:
    # Everything after this reads predictions and embeddings, never a model.
    input:
        store=lambda w: store(w.dataset, w.recipe, w.fold),
        labels=f"{W}/{{dataset}}/labels.parquet",
        folds=f"{W}/{{dataset}}/folds.parquet",
        budgets=f"{W}/{{dataset}}/budgets.parquet",
        encoder=finetune_encoder,
        tuned=tuned_values,
    output:
        predictions=f"{W}/predictions/{{encoder}}/{{recipe}}/{{dataset}}/{{fold}}/{{seed}}/predictions.parquet",
        embeddings=f"{W}/embeddings/{{encoder}}/{{recipe}}/{{dataset}}/{{fold}}/{{seed}}/embeddings.npy",
        rows=f"{W}/embeddings/{{encoder}}/{{recipe}}/{{dataset}}/{{fold}}/{{seed}}/embeddings.parquet",
    log:
        "logs/finetune/{encoder}.{recipe}.{dataset}.{fold}.{seed}.log",
    benchmark:
        f"{W}/benchmarks/finetune/{{encoder}}.{{recipe}}.{{dataset}}.{{fold}}.{{seed}}.tsv"
    retries: COST.retries("finetune")
    conda:
        "../envs/fewscans.yaml"
    threads: CONFIG.compute.threads
    resources:
        **cost("finetune"),
    params:
        cfg=lambda w: training_settings(finetune_params, w),
        code=finetune_code,
        store=lambda w: str(Path(store(w.dataset, w.recipe, w.fold)).parent),
        encoder=lambda w, input: (
            ["--encoder", str(Path(input.encoder[0]).parent)] if input.get("encoder") else []
        ),
        tuned=lambda w, input: ["--tuned", *input.tuned] if input.get("tuned") else [],
        embeddings=lambda w, output: str(Path(output.rows).parent),
    shell:
        'python "$SCRIPTS/finetune.py" --params {params.cfg:q} --store {params.store:q} --labels {input.labels:q}'
        " --folds {input.folds:q} --budgets {input.budgets:q} {params.encoder:q} {params.tuned:q}"
        " --predictions {output.predictions:q} --embeddings {params.embeddings:q}"
        f" --cache {shlex.quote(W)}/cache &> {{log:q}}"
