# Raw scans -> work/DATASET/converted/CHUNK: native resolution, physical units, one index.

from fewscans.config.stages import ConvertParams, PhantomParams


def convert_params(wildcards):
    dataset = dataset_settings(wildcards.dataset)
    place = resolve(CONFIG, wildcards.dataset)
    return ConvertParams(
        dataset=wildcards.dataset,
        root=place.root,
        table=place.table,
        npz=place.npz,
        path_column=dataset.columns.path,
        exclude=dataset.exclude,
        on_unreadable=dataset.on_unreadable,
        chunk=int(wildcards.chunk),
        chunks=dataset.chunks,
    )


def converted(wildcards):
    """The finished chunks of a data set."""
    chunks = range(dataset_settings(wildcards.dataset).chunks)
    return [
        PATHS.dataset(wildcards.dataset, "converted", str(chunk), "index.parquet")
        for chunk in chunks
    ]


def converted_folders(wildcards):
    return [str(Path(index).parent) for index in converted(wildcards)]


if any(dataset.phantom for dataset in CONFIG.datasets.values()):

    rule phantom:
        # A generated cohort in place of real scans.
        output:
            table=f"{W}/{{dataset}}/raw/labels.csv",
            faults=f"{W}/{{dataset}}/raw/faults.csv",
        log:
            "logs/phantom/{dataset}.log",
        benchmark:
            f"{W}/benchmarks/phantom/{{dataset}}.tsv"
        wildcard_constraints:
            dataset=names(n for n, d in CONFIG.datasets.items() if d.phantom),
        threads: 1
        resources:
            **cost("light"),
        params:
            cfg=lambda w: settings(PhantomParams(cohort=dataset_settings(w.dataset).phantom)),
            code=code_digest("scripts.phantom"),
            out=lambda w, output: str(Path(output.table).parent),
        shell:
            'python "$SCRIPTS/phantom.py" --params {params.cfg:q} --out {params.out:q} &> {log:q}'


def raw_table(wildcards):
    """The label table: its labels are none of convert's business, so it is ancient there; its paths are in `params`."""
    dataset = dataset_settings(wildcards.dataset)
    if dataset.phantom:
        return PATHS.dataset(wildcards.dataset, "raw", "labels.csv")
    table = resolve(CONFIG, wildcards.dataset).table
    return ancient(table) if table else []


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
    threads: 1
    resources:
        **cost("cpu"),
    params:
        cfg=lambda w: settings(convert_params(w)),
        scans=lambda w: fingerprint(CONFIG, w.dataset),
        code=code_digest("scripts.convert"),
        out=lambda w, output: str(Path(output.index).parent),
    shell:
        'python "$SCRIPTS/convert.py" --params {params.cfg:q} --out {params.out:q} &> {log:q}'
