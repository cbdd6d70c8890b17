# Raw scans -> work/DATASET/converted/CHUNK: native resolution, physical units, one index.


if any(dataset.phantom for dataset in CONFIG.datasets.values()):

    rule phantom:
        # A generated cohort in place of real scans.
        output:
            table=f"{W}/{{dataset}}/raw/labels.csv",
            faults=f"{W}/{{dataset}}/raw/faults.csv",
            labs=f"{W}/{{dataset}}/raw/labs.csv",
        log:
            "logs/phantom/{dataset}.log",
        benchmark:
            f"{W}/benchmarks/phantom/{{dataset}}.tsv"
        wildcard_constraints:
            dataset=names(n for n, d in CONFIG.datasets.items() if d.phantom),
        conda:
            "../envs/fewscans.yaml"
        threads: 1
        resources:
            **cost("phantom"),
        params:
            cfg=lambda w: settings(PhantomParams(cohort=dataset_settings(w.dataset).phantom)),
            code=code_digest("scripts.phantom"),
            out=lambda w, output: str(Path(output.table).parent),
        shell:
            'python "$SCRIPTS/phantom.py" --params {params.cfg:q} --out {params.out:q} &> {log:q}'


rule convert:
    # Read what hospitals produce; keep its values and its geometry.
    input:
        raw_table,
    output:
        index=f"{W}/{{dataset}}/converted/{{chunk}}/index.parquet",
        pixels=f"{W}/{{dataset}}/converted/{{chunk}}/pixels.bin",
    log:
        "logs/convert/{dataset}.{chunk}.log",
    benchmark:
        f"{W}/benchmarks/convert/{{dataset}}.{{chunk}}.tsv"
    conda:
        "../envs/fewscans.yaml"
    threads: 1
    resources:
        **cost("convert"),
    params:
        cfg=lambda w: settings(convert_params(w)),
        scans=lambda w: fingerprint(CONFIG, w.dataset),
        code=code_digest("scripts.convert"),
        out=lambda w, output: str(Path(output.index).parent),
    shell:
        'python "$SCRIPTS/convert.py" --params {params.cfg:q} --out {params.out:q} &> {log:q}'


rule export:
    # For a viewer, where it is asked for: `snakemake exports`, or the folder of one data set.
    input:
        converted,
    output:
        directory(f"{W}/{{dataset}}/export"),
    log:
        "logs/export/{dataset}.log",
    benchmark:
        f"{W}/benchmarks/export/{{dataset}}.tsv"
    conda:
        "../envs/fewscans.yaml"
    threads: 1
    resources:
        **cost("export"),
    params:
        cfg=lambda w: settings(ExportParams(dataset=w.dataset)),
        code=code_digest("scripts.export"),
        folders=converted_folders,
    shell:
        'python "$SCRIPTS/export.py" --params {params.cfg:q} --converted {params.folders:q}'
        " --out {output:q} &> {log:q}"
