# What may leave the house, and nothing else; made where it is asked for: `snakemake shareable`.


rule shareable:
    # Searched for every name of the private tables; not made where one is found.
    input:
        plan=f"{R}/plan.json",
        table=TABLE,
        others=[
            f"{R}/{name}"
            for name in (
                "ablation_table.parquet",
                "ablation_table.md",
                "ablation_table.tex",
                "scores.parquet",
                "contrasts.parquet",
            )
        ],
        page=REPORT,
        figures=[f for d in PLAN.evaluated for name in FIGURES for f in figure(d, name)],
        sheets=[
            f"{R}/datasheet/{name}{end}"
            for name in CONFIG.datasets
            for end in (".md", ".json", ".claim.md")
        ],
        predictions=[PATHS.predictions(run) for run in ALL_RUNS],
    output:
        directory(f"{R}/shareable"),
    log:
        "logs/shareable.log",
    benchmark:
        f"{W}/benchmarks/shareable.tsv"
    conda:
        "../envs/fewscans.yaml"
    threads: 1
    resources:
        **cost("shareable"),
    params:
        cfg=settings(shareable_params()),
        code=code_digest("scripts.shareable"),
        results=lambda w, input: str(Path(input.plan).parent),
    shell:
        'python "$SCRIPTS/shareable.py" --params {params.cfg:q} --plan {input.plan:q} --results {params.results:q}'
        " --out {output:q} &> {log:q}"
