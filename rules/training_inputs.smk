# What rules of training are given: settings of each (params) and its input files, by wildcards. No rules here.

from functools import lru_cache

from fewscans.config.augment import of_modality
from fewscans.config.stages import FinetuneParams, PretrainParams
from fewscans.config.values import VALUES
from fewscans.tune.cost import TuneResources
from fewscans.tune.searches import BEST, arm_of, searches, tune_params

# -- pretrain --------------------------------------------------------------------------------------


def pretrain_sources(wildcards):
    """The data set and its pools, whose tables a method needs that asks whose scans they are."""
    if not PLAN.encoders[wildcards.encoder].settings.wants():
        return []
    return [wildcards.dataset, *dataset_settings(wildcards.dataset).pools]


def pretrain_labels(wildcards):
    return [PATHS.dataset(name, "labels.parquet") for name in pretrain_sources(wildcards)]


@lru_cache(None)
def pretrain_tables(name, dataset):
    """Tables of values that an encoder wants: data set -> name -> table, for the data set and its pools."""
    encoder = PLAN.encoders[name].settings
    if VALUES not in encoder.wants():
        return {}
    wanted = encoder.tables or list(dataset_settings(dataset).values)
    found = {}
    for owner in [dataset, *dataset_settings(dataset).pools]:
        tables = resolve_values(CONFIG, owner)
        if own := {table: tables[table] for table in wanted if table in tables}:
            found[owner] = own
    return found


def pretrain_values(wildcards):
    """Their files."""
    tables = pretrain_tables(wildcards.encoder, wildcards.dataset)
    return [given.table for own in tables.values() for given in own.values()]


def pretrain_values_flag(wildcards, input):
    tables = pretrain_tables(wildcards.encoder, wildcards.dataset)
    keys = [f"{owner}/{table}" for owner, own in tables.items() for table in own]
    return flag("--values", keys, input.get("values", []))


def pretrain_start(wildcards):
    """Where the weights of this encoder start: an encoder of this run, a file, or the folder of an earlier one."""
    start = PLAN.start_of(wildcards.encoder)
    if start is not None:
        run = planning.Run(
            wildcards.dataset, start, wildcards.recipe, wildcards.fold, wildcards.seed
        )
        return [PATHS.encoder(PLAN.encoder_key(run), "encoder.json")]  # written last
    settings = PLAN.encoders[wildcards.encoder].settings
    if not settings.starts_from_file:
        return []
    folder = Path(settings.start)
    return [str(folder / "encoder.json" if folder.is_dir() else folder)]


def pretrain_start_flag(wildcards, input):
    """A folder is named by its encoder.json."""
    if not input.get("start"):
        return []
    start = Path(input.start[0])
    return ["--start", str(start.parent if start.name == "encoder.json" else start)]


PRETRAINED = [name for name, encoder in PLAN.encoders.items() if encoder.pretrained]
# Those that several processes make; a rule of their own asks for them.
SHARED = [name for name in PRETRAINED if PLAN.encoders[name].settings.ranks > 1]
FROM_FILE = [name for name, e in PLAN.encoders.items() if e.settings.source == "weights"]


def training_settings(make, wildcards):
    """Text for --params: what `make` says of encoder, recipe and data set, with this fold and seed."""
    shared = make(wildcards.encoder, wildcards.recipe, wildcards.dataset)
    job = {"fold": wildcards.fold, "seed": int(wildcards.seed)}
    return json.dumps({**shared, **job}, sort_keys=True)


@lru_cache(None)
def pretrain_params(name, recipe, dataset):
    """Settings that all folds and seeds share."""
    shared = PretrainParams(
        encoder=name,
        settings=of_modality(PLAN.encoders[name].settings, dataset_settings(dataset).modality),
        recipe=PLAN.recipes[recipe],
        dataset=dataset,
        values=pretrain_tables(name, dataset),
        fold="",
        seed=0,
        base_seed=CONFIG.seed,
        compute=CONFIG.compute,
    )
    return shared.model_dump(mode="json")


# -- finetune --------------------------------------------------------------------------------------

RUNS = {run.key: run for run in PLAN.runs()}
ALL_RUNS = list(RUNS.values())


def finetune_run(wildcards):
    return RUNS[
        f"{wildcards.encoder}/{wildcards.recipe}/{wildcards.dataset}/{wildcards.fold}/{wildcards.seed}"
    ]


@lru_cache(None)
def finetune_params(name, recipe, dataset):
    """Settings that all folds and seeds share."""
    encoder = PLAN.encoders[name]
    protocols = PLAN.protocols(name)
    extra = []
    if encoder.method == "scratch-long" and encoder.settings.extra_steps is None:
        network = (encoder.settings.backbone, encoder.settings.patch_size)
        extra = PLAN.pretrainings(*network, recipe)
    modality = dataset_settings(dataset).modality
    # Settings of a protocol that is not run rerun nothing.
    used = {
        name: of_modality(value, modality)
        for name, value in CONFIG.protocol_settings
        if name in protocols
    }
    shared = FinetuneParams(
        encoder=name,
        settings=of_modality(encoder.settings, modality),
        extra=extra,
        recipe=PLAN.recipes[recipe],
        recipe_name=recipe,
        protocols=protocols,
        protocol_settings=used,
        dataset=dataset,
        classes=dataset_settings(dataset).classes or [],
        fold="",
        seed=0,
        base_seed=CONFIG.seed,
        # Of no use to fine-tuning, so it reruns none.
        compute=CONFIG.compute.model_copy(update={"resume_elsewhere": False}),
    )
    return shared.model_dump(mode="json")


def finetune_encoder(wildcards):
    """Files of the encoder; none where training starts without any."""
    key = PLAN.encoder_key(finetune_run(wildcards))
    return [] if key is None else [PATHS.encoder(key, "encoder.json")]  # written last


def finetune_code(wildcards):
    return code_digest("scripts.finetune", protocols=PLAN.protocols(wildcards.encoder))


# -- tune ------------------------------------------------------------------------------------------

SEARCHES = list(searches(PLAN))
TUNED = {(one.encoder, one.recipe, one.dataset, one.fold) for one in SEARCHES}
TUNE_COST = TuneResources(COST)
# On a cluster the rule only waits; here its trials are its own processes.
TUNE_THREADS = 1
if CONFIG.tune is not None and TUNE_COST.site is None:
    TUNE_THREADS = CONFIG.tune.parallel * CONFIG.compute.threads


def tuned_targets(wildcards):
    """The results of all searches."""
    if CONFIG.tune is None:
        raise WorkflowError(
            "the config has no `tune`: say there what is to be searched, see docs/tune.md"
        )
    return [f"{W}/tune/{one.key}/{BEST}" for one in SEARCHES]


def tuned_values(wildcards):
    """What the search of this encoder and fold has found, where the config uses it."""
    if CONFIG.tune is None or not CONFIG.tune.use:
        return []
    key = (wildcards.encoder, wildcards.recipe, wildcards.dataset, wildcards.fold)
    return [f"{W}/tune/{'/'.join(key)}/{BEST}"] if key in TUNED else []


def tune_settings(wildcards):
    shared = tune_params(PLAN, wildcards.encoder, wildcards.recipe, wildcards.dataset)
    return settings(shared.model_copy(update={"fold": wildcards.fold}))


def tune_code(wildcards):
    encoder = PLAN.encoders[wildcards.encoder]
    return code_digest(
        "scripts.tune",
        methods=[encoder.settings.module],
        protocols=[arm_of(PLAN, wildcards.encoder).protocol],
    )


def tune_weights(wildcards):
    """Weights from outside, where the encoder starts from them."""
    if PLAN.encoders[wildcards.encoder].settings.source != "weights":
        return []
    return [PATHS.encoder(f"{wildcards.encoder}/{wildcards.recipe}/all/all/all", "encoder.json")]
