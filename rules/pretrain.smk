# Encoders without labels: weights from outside, or self-supervised pretraining on a training fold.


rule pretrain:
    # Training state lies in work/checkpoints, outside declared outputs; a finished encoder in work/cache.
    input:
        store=lambda w: store(w.dataset, w.recipe, w.fold),
        folds=f"{W}/{{dataset}}/folds.parquet",
        pools=pool_stores,
        tuned=tuned_values,
        labels=pretrain_labels,
        values=pretrain_values,
        start=pretrain_start,
    output:
        weights=f"{W}/encoders/{{encoder}}/{{recipe}}/{{dataset}}/{{fold}}/{{seed}}/encoder.safetensors",
        meta=f"{W}/encoders/{{encoder}}/{{recipe}}/{{dataset}}/{{fold}}/{{seed}}/encoder.json",
        history=f"{W}/encoders/{{encoder}}/{{recipe}}/{{dataset}}/{{fold}}/{{seed}}/history.parquet",
        views=f"{W}/encoders/{{encoder}}/{{recipe}}/{{dataset}}/{{fold}}/{{seed}}/views.npz",
        reconstructions=f"{W}/encoders/{{encoder}}/{{recipe}}/{{dataset}}/{{fold}}/{{seed}}/reconstructions.npz",
    log:
        "logs/pretrain/{encoder}.{recipe}.{dataset}.{fold}.{seed}.log",
    benchmark:
        f"{W}/benchmarks/pretrain/{{encoder}}.{{recipe}}.{{dataset}}.{{fold}}.{{seed}}.tsv"
    wildcard_constraints:
        encoder=names(name for name in PRETRAINED if name not in SHARED),
    retries: COST.retries("pretrain")
    conda:
        "../envs/fewscans.yaml"
    threads: CONFIG.compute.threads
    resources:
        **cost("pretrain"),
    params:
        cfg=lambda w: training_settings(pretrain_params, w),
        code=lambda w: code_digest(
            "scripts.pretrain", methods=[PLAN.encoders[w.encoder].settings.module]
        ),
        store=lambda w: str(Path(store(w.dataset, w.recipe, w.fold)).parent),
        pools=pools_flag,
        tuned=lambda w, input: ["--tuned", *input.tuned] if input.get("tuned") else [],
        labels=lambda w, input: flag("--labels", pretrain_sources(w), input.get("labels", [])),
        values=pretrain_values_flag,
        start=pretrain_start_flag,
        # No input, so that changed labels train no encoder again; the folds are made after it.
        gauge=f"{W}/{{dataset}}/labels.parquet",
        out=lambda w, output: str(Path(output.meta).parent),
    shell:
        'python "$SCRIPTS/pretrain.py" --params {params.cfg:q} --store {params.store:q} --folds {input.folds:q}'
        " {params.pools:q} {params.labels:q} {params.values:q} --gauge {params.gauge:q}"
        " {params.start:q} {params.tuned:q} --out {params.out:q}"
        f" --cache {shlex.quote(W)}/cache --checkpoints {shlex.quote(W)}/checkpoints &> {{log:q}}"


if SHARED:

    use rule pretrain as pretrain_ranks with:
        # By several processes, on several nodes perhaps: the script starts them, by srun in a Slurm job, else itself.
        wildcard_constraints:
            encoder=names(SHARED),
        threads: lambda w: CONFIG.compute.threads * PLAN.encoders[w.encoder].settings.ranks
        resources:
            **cost("pretrain_ranks"),


if FROM_FILE:

    localrules:
        weights,

    rule weights:
        # From a local file, or from the hub where there is internet; every other job runs offline.
        output:
            weights=f"{W}/encoders/{{encoder}}/{{recipe}}/all/all/all/encoder.safetensors",
            meta=f"{W}/encoders/{{encoder}}/{{recipe}}/all/all/all/encoder.json",
        log:
            "logs/weights/{encoder}.{recipe}.log",
        benchmark:
            f"{W}/benchmarks/weights/{{encoder}}.{{recipe}}.tsv"
        wildcard_constraints:
            encoder=names(FROM_FILE),
        conda:
            "../envs/fewscans.yaml"
        threads: 1
        resources:
            **cost("weights"),
        params:
            backbone=lambda w: PLAN.encoders[w.encoder].settings.backbone,
            weights=lambda w: PLAN.encoders[w.encoder].settings.weights or "hub",
            code=code_digest("scripts.weights"),
            out=lambda w, output: str(Path(output.meta).parent),
        shell:
            'python "$SCRIPTS/weights.py" --backbone {params.backbone:q} --weights {params.weights:q}'
            " --out {params.out:q} &> {log:q}"
