# One geometry and one intensity per recipe: work/DATASET/RECIPE/store, or work/DATASET/RECIPE/FOLD/store where a recipe is
# fitted on training scans.


rule normalise:
    # A store is decided by pixels alone: labels never change it.
    input:
        converted,
        folds=fitted_folds,
    output:
        meta=f"{W}/{{dataset}}/{{recipe}}/store/store.json",
        voxels=f"{W}/{{dataset}}/{{recipe}}/store/voxels.npy",
        rows=f"{W}/{{dataset}}/{{recipe}}/store/rows.parquet",
    log:
        "logs/normalise/{dataset}.{recipe}.log",
    benchmark:
        f"{W}/benchmarks/normalise/{{dataset}}.{{recipe}}.tsv"
    conda:
        "../envs/fewscans.yaml"
    # Processes, which change no byte: `--set-threads normalise=8` for more.
    threads: 1
    resources:
        **cost("normalise"),
    params:
        cfg=lambda w: settings(normalise_params(w)),
        code=code_digest("scripts.normalise"),
        folders=converted_folders,
        folds=lambda w, input: ["--folds", *input.folds] if input.get("folds") else [],
        out=lambda w, output: str(Path(output.meta).parent),
    shell:
        'python "$SCRIPTS/normalise.py" --params {params.cfg:q} --converted {params.folders:q}'
        " {params.folds:q} --out {params.out:q} --workers {threads} &> {log:q}"


if FITTED:

    use rule normalise as normalise_fold with:
        # Fitted on the training scans of one fold, whatever their labels.
        input:
            converted,
            folds=[f"{W}/{{dataset}}/folds.parquet"],
        output:
            meta=f"{W}/{{dataset}}/{{recipe}}/{{fold}}/store/store.json",
            voxels=f"{W}/{{dataset}}/{{recipe}}/{{fold}}/store/voxels.npy",
            rows=f"{W}/{{dataset}}/{{recipe}}/{{fold}}/store/rows.parquet",
        log:
            "logs/normalise_fold/{dataset}.{recipe}.{fold}.log",
        benchmark:
            f"{W}/benchmarks/normalise_fold/{{dataset}}.{{recipe}}.{{fold}}.tsv"
        wildcard_constraints:
            dataset=names(PLAN.evaluated),
            recipe=names(FITTED),
        resources:
            **cost("normalise_fold"),
