# What rules are given: settings of each stage (params) and its input files, by wildcards. No rules here; those of
# training are in training_inputs.smk.

from fewscans.config.stages import (
    AggregateParams,
    AuditPageParams,
    AuditParams,
    BudgetsParams,
    ConvertParams,
    ExportParams,
    FoldsParams,
    NormaliseParams,
    PhantomParams,
    ReportParams,
    ShareableParams,
)
from fewscans.files import digest


def caption(name):
    return str(ROOT / "report" / f"{name}.rst")


# -- convert ---------------------------------------------------------------------------------------


def private_place(name):
    """Where names of a data set are kept, and the key of their pseudonyms; nothing where they may be shown."""
    if not dataset_settings(name).is_private:
        return {}
    return {"private": f"{W}/private", "key": CONFIG.pseudonym_key}


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
        ndim=CONFIG.ndim,
        slices=dataset.slices,
        mask_column=dataset.columns.mask,
        chunk=int(wildcards.chunk),
        chunks=chunks_of(CONFIG, wildcards.dataset),
        **private_place(wildcards.dataset),
    )


def converted(wildcards):
    """The finished chunks of a data set."""
    chunks = range(chunks_of(CONFIG, wildcards.dataset))
    return [
        PATHS.dataset(wildcards.dataset, "converted", str(chunk), "index.parquet")
        for chunk in chunks
    ]


def converted_folders(wildcards):
    return [str(Path(index).parent) for index in converted(wildcards)]


def raw_table(wildcards):
    """The label table: its labels are none of convert's business, so it is ancient there; its paths are in `params`."""
    dataset = dataset_settings(wildcards.dataset)
    if dataset.phantom:
        return PATHS.dataset(wildcards.dataset, "raw", "labels.csv")
    table = resolve(CONFIG, wildcards.dataset).table
    return ancient(table) if table else []


# -- audit -----------------------------------------------------------------------------------------


def audit_params(wildcards):
    dataset = dataset_settings(wildcards.dataset)
    place = resolve(CONFIG, wildcards.dataset)
    return AuditParams(
        dataset=wildcards.dataset,
        root=place.root,
        table=place.table,
        npz=place.npz,
        columns=dataset.columns,
        attributes=dataset.attributes,
        origin=dataset.origin,
        classes=dataset.classes,
        split_names=dataset.split_names,
        split=dataset.split,
        contradictions=dataset.contradictions,
        near_duplicate=dataset.near_duplicate,
        pool=wildcards.dataset not in PLAN.evaluated,
        **private_place(wildcards.dataset),
    )


def audit_page_params(wildcards):
    dataset = dataset_settings(wildcards.dataset)
    return AuditPageParams(
        dataset=wildcards.dataset,
        modality=dataset.modality,
        source=dataset.source,
        datasheet=dataset.datasheet,
        exclude=dataset.exclude,
        private=dataset.is_private,
        split=dataset.split,
        contradictions=dataset.contradictions,
        near_duplicate=dataset.near_duplicate,
    )


def audit_pages(wildcards):
    """The pages and data sheets of all data sets."""
    kinds = [f"{R}/audit/{{}}.html", f"{R}/datasheet/{{}}.md"]
    return [kind.format(name) for name in CONFIG.datasets for kind in kinds]


def audit_table(wildcards):
    dataset = dataset_settings(wildcards.dataset)
    if dataset.phantom:
        return PATHS.dataset(wildcards.dataset, "raw", "labels.csv")
    return resolve(CONFIG, wildcards.dataset).table or []


# -- normalise -------------------------------------------------------------------------------------


def store(dataset, recipe, fold):
    """The seal of the store that a job of this fold reads."""
    return PATHS.store(dataset, recipe, fold if PLAN.by_fold(dataset, recipe) else None)


def pool_stores(wildcards):
    """Those of the data set's pools, in their order."""
    return [store(p, wildcards.recipe, None) for p in dataset_settings(wildcards.dataset).pools]


def pools_flag(wildcards):
    folders = [Path(seal).parent for seal in pool_stores(wildcards)]
    return flag("--pool", dataset_settings(wildcards.dataset).pools, folders)


# Recipes that are fitted on training scans: a store for each fold.
FITTED = [name for name, recipe in PLAN.recipes.items() if recipe.is_fitted]


def normalise_params(wildcards):
    return NormaliseParams(
        dataset=wildcards.dataset,
        recipe=PLAN.recipes[wildcards.recipe],
        fold=wildcards.get("fold"),
    )


def fitted_folds(wildcards):
    """Of a pool, the folds that it joins: a copy of a test scan must not be fitted on."""
    if wildcards.recipe not in FITTED:
        return []
    return [
        PATHS.dataset(name, "folds.parquet")
        for name in PLAN.evaluated
        if wildcards.dataset in dataset_settings(name).pools
    ]


# -- split -----------------------------------------------------------------------------------------


def folds_params(wildcards):
    dataset = dataset_settings(wildcards.dataset)
    return FoldsParams(
        dataset=wildcards.dataset,
        split=dataset.split,
        folds=CONFIG.validation.folds,
        seed=CONFIG.seed,
    )


def pool_labels(wildcards):
    return [
        PATHS.dataset(pool, "labels.parquet") for pool in dataset_settings(wildcards.dataset).pools
    ]


# -- aggregate -------------------------------------------------------------------------------------


def shareable_params():
    places = [resolve(CONFIG, name) for name in CONFIG.datasets]
    named = [path for place in places for path in (place.root, place.table, place.npz) if path]
    # Folders of the clone itself are no secret (a cohort lies in `work`); whoever's home they are in is one.
    far = [path for path in named if os.path.isabs(path)]
    return ShareableParams(
        datasets=list(CONFIG.datasets),
        hidden=[name for name in CONFIG.datasets if dataset_settings(name).is_private],
        private=f"{W}/private",
        key=CONFIG.pseudonym_key,
        places=sorted({*far, os.path.expanduser("~"), os.getcwd()}),
    )


def figure(dataset, name):
    return [f"{R}/figures/{dataset}/{name}.{ending}" for ending in ("png", "pdf", "csv")]
