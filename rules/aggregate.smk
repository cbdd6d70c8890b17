# Predictions -> scores with intervals, the ablation table, figures and the page.


rule plan:
    # What the config means, written out: encoders, arms, runs, files.
    output:
        f"{R}/plan.json",
    log:
        "logs/plan.log",
    benchmark:
        f"{W}/benchmarks/plan.tsv"
    conda:
        "../envs/fewscans.yaml"
    threads: 1
    resources:
        **cost("plan"),
    params:
        # In the order written: it is the order of the table.
        cfg=json.dumps(CONFIG.model_dump(mode="json", exclude={"report"})),
        plan=digest(planning.as_json(PLAN, PATHS, {})),
        code=code_digest(
            "scripts.convert",
            "scripts.audit",
            "scripts.normalise",
            "scripts.split",
            "scripts.pretrain",
            "scripts.finetune",
            "scripts.aggregate",
        ),
    shell:
        'python "$SCRIPTS/plan.py" --params {params.cfg:q} --out {output:q} &> {log:q}'


rule aggregate:
    # Reads predictions and embeddings only, so tables rebuild on a laptop.
    input:
        plan=f"{R}/plan.json",
        predictions=[PATHS.predictions(run) for run in ALL_RUNS],
        labels=[PATHS.dataset(name, "labels.parquet") for name in PLAN.evaluated],
    output:
        table=report(TABLE, caption=caption("table"), category="Results"),
        tidy=f"{R}/ablation_table.parquet",
        markdown=f"{R}/ablation_table.md",
        latex=f"{R}/ablation_table.tex",
        scores=f"{R}/scores.parquet",
        contrasts=f"{R}/contrasts.parquet",
    log:
        "logs/aggregate.log",
    benchmark:
        f"{W}/benchmarks/aggregate.tsv"
    conda:
        "../envs/fewscans.yaml"
    threads: 1
    resources:
        **cost("aggregate"),
    params:
        cfg=settings(AggregateParams(compare=CONFIG.compare, score=CONFIG.score, seed=CONFIG.seed)),
        code=code_digest("scripts.aggregate"),
    shell:
        'python "$SCRIPTS/aggregate.py" --params {params.cfg:q} --plan {input.plan:q} --scores {output.scores:q}'
        " --contrasts {output.contrasts:q} --table {output.table:q} &> {log:q}"


rule learns:
    # Each method against an untrained network and scratch; `make learns` writes docs/learns.md from such files.
    input:
        plan=f"{R}/plan.json",
        table=TABLE,
    output:
        f"{R}/learns.json",
    log:
        "logs/learns.log",
    benchmark:
        f"{W}/benchmarks/learns.tsv"
    conda:
        "../envs/fewscans.yaml"
    threads: 1
    resources:
        **cost("learns"),
    params:
        cfg=settings(AggregateParams(compare=CONFIG.compare, score=CONFIG.score, seed=CONFIG.seed)),
        code=code_digest("scripts.learns"),
    shell:
        'python "$SCRIPTS/learns.py" --params {params.cfg:q} --plan {input.plan:q} --out {output:q} &> {log:q}'


rule report:
    # Looks only: a new colour draws again and computes nothing.
    input:
        plan=f"{R}/plan.json",
        table=TABLE,
        scores=f"{R}/scores.parquet",
        contrasts=f"{R}/contrasts.parquet",
        # Histories, views and embeddings come before the predictions, and so before the table.
        audits=[PATHS.dataset(name, "audit", "findings.parquet") for name in CONFIG.datasets],
    output:
        page=report(REPORT, caption=caption("report"), category="Results"),
        pictures=[
            report(
                figure(d, name)[0],
                caption=caption(f"figures/{name}"),
                category="Figures",
                subcategory=d,
                labels={"figure": name},
            )
            for d in PLAN.evaluated
            for name in FIGURES
        ],
        others=[f for d in PLAN.evaluated for name in FIGURES for f in figure(d, name)[1:]],
    log:
        "logs/report.log",
    benchmark:
        f"{W}/benchmarks/report.tsv"
    conda:
        "../envs/fewscans.yaml"
    threads: 1
    resources:
        **cost("report"),
    params:
        cfg=settings(ReportParams(report=CONFIG.report, compare=CONFIG.compare)),
        code=code_digest("scripts.report"),
        figures=lambda w, output: str(Path(output.pictures[0]).parents[1]),
    shell:
        'python "$SCRIPTS/report.py" --params {params.cfg:q} --plan {input.plan:q} --scores {input.scores:q}'
        " --contrasts {input.contrasts:q} --table {input.table:q} --figures {params.figures:q}"
        " --out {output.page:q} &> {log:q}"
