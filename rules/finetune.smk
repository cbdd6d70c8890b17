# Few labels: all protocols, budgets and draws of one encoder, fold and seed in one process.

from fewscans.config.stages import FinetuneParams

RUNS = {run.key: run for run in PLAN.runs()}


def finetune_run(wildcards):
    return RUNS[
        f"{wildcards.encoder}/{wildcards.recipe}/{wildcards.dataset}/{wildcards.fold}/{wildcards.seed}"
    ]


def finetune_params(wildcards):
    encoder = PLAN.encoders[wildcards.encoder]
    protocols = PLAN.protocols(wildcards.encoder)
    extra_epochs, extra_batch_size = (0, 1)
    if encoder.method == "scratch-long" and encoder.settings.extra_steps is None:
        network = (encoder.settings.backbone, encoder.settings.patch_size)
        extra_epochs, extra_batch_size = PLAN.longest_pretraining(*network, wildcards.recipe)
    # Settings of a protocol that is not run rerun nothing.
    used = {
        name: value
        for name, value in CONFIG.protocol_settings.model_dump().items()
        if name in protocols
    }
    return FinetuneParams(
        encoder=wildcards.encoder,
        settings=encoder.settings,
        extra_epochs=extra_epochs,
        extra_batch_size=extra_batch_size,
        recipe=PLAN.recipes[wildcards.recipe],
        recipe_name=wildcards.recipe,
        protocols=protocols,
        protocol_settings=used,
        dataset=wildcards.dataset,
        classes=dataset_settings(wildcards.dataset).classes or [],
        fold=wildcards.fold,
        seed=int(wildcards.seed),
        base_seed=CONFIG.seed,
        compute=CONFIG.compute,
    )


def finetune_encoder(wildcards):
    """Files of the encoder; none where training starts without any."""
    key = PLAN.encoder_key(finetune_run(wildcards))
    return (
        []
        if key is None
        else [PATHS.encoder(key, name) for name in ("encoder.json", "encoder.safetensors")]
    )


def finetune_code(wildcards):
    encoder = PLAN.encoders[wildcards.encoder]
    return code_digest("scripts.finetune", protocols=PLAN.protocols(wildcards.encoder))


def finetune_outputs(*kinds):
    key = "{encoder}/{recipe}/{dataset}/{fold}/{seed}"
    return [f"{W}/{kind.format(key=key)}" for kind in kinds]


rule finetune:
    # Everything after this reads predictions and embeddings, never a model.
    input:
        store=lambda w: store(w.dataset, w.recipe),
        labels=f"{W}/{{dataset}}/labels.parquet",
        folds=f"{W}/{{dataset}}/folds.parquet",
        budgets=f"{W}/{{dataset}}/budgets.parquet",
        encoder=finetune_encoder,
    output:
        predictions=f"{W}/predictions/{{encoder}}/{{recipe}}/{{dataset}}/{{fold}}/{{seed}}/predictions.parquet",
        embeddings=f"{W}/embeddings/{{encoder}}/{{recipe}}/{{dataset}}/{{fold}}/{{seed}}/embeddings.npy",
        rows=f"{W}/embeddings/{{encoder}}/{{recipe}}/{{dataset}}/{{fold}}/{{seed}}/embeddings.parquet",
    log:
        "logs/finetune/{encoder}.{recipe}.{dataset}.{fold}.{seed}.log",
    benchmark:
        f"{W}/benchmarks/finetune/{{encoder}}.{{recipe}}.{{dataset}}.{{fold}}.{{seed}}.tsv"
    threads: CONFIG.compute.threads
    resources:
        **cost("gpu"),
    params:
        cfg=lambda w: settings(finetune_params(w)),
        code=finetune_code,
        store=lambda w: str(Path(store(w.dataset, w.recipe)[0]).parent),
        encoder=lambda w, input: (
            ["--encoder", str(Path(input.encoder[0]).parent)] if input.get("encoder") else []
        ),
        embeddings=lambda w, output: str(Path(output.rows).parent),
    shell:
        'python "$SCRIPTS/finetune.py" --params {params.cfg:q} --store {params.store:q} --labels {input.labels:q}'
        " --folds {input.folds:q} --budgets {input.budgets:q} {params.encoder:q}"
        " --predictions {output.predictions:q} --embeddings {params.embeddings:q}"
        f" --cache {shlex.quote(W)}/cache &> {{log:q}}"
