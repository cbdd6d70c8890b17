# One geometry and one intensity per recipe: work/DATASET/RECIPE/store.


rule normalise:
    # A store is decided by pixels alone: labels never change it.
    input:
        converted,
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
    threads: 1
    resources:
        **cost("normalise"),
    params:
        cfg=lambda w: settings(NormaliseParams(dataset=w.dataset, recipe=PLAN.recipes[w.recipe])),
        code=code_digest("scripts.normalise"),
        folders=converted_folders,
        out=lambda w, output: str(Path(output.meta).parent),
    shell:
        'python "$SCRIPTS/normalise.py" --params {params.cfg:q} --converted {params.folders:q}'
        " --out {params.out:q} &> {log:q}"
