"""Composing and building a configuration: what is refused, and in which words."""

from pathlib import Path

import pytest

from dsfedmed_ray.configuration import build_experiment, compose, conf_dir
from dsfedmed_ray.errors import ConfigurationError

METHODS = sorted(path.stem for path in (conf_dir() / "method").glob("*.yaml"))
EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))


def test_the_checkout_has_the_methods_and_experiments_of_the_documentation() -> None:
    assert set(METHODS) >= {"centralized", "dsfedmed", "fedavg"}
    assert set(EXPERIMENTS) >= {"embedded", "quickstart", "smoke"}


@pytest.mark.parametrize("size", ["full", "toy"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_with_every_method(
    experiment: str, method: str, size: str
) -> None:
    overrides = [f"experiment={experiment}", f"method={method}", f"size={size}"]
    needed = ["data.root=sites"] if experiment == "nuclei" else []
    built = build_experiment(compose([*overrides, *needed]))
    assert built.method.name == method


@pytest.mark.parametrize("group", ["foundation", "lightweight", "runtime", "generator"])
def test_every_file_of_a_group_builds(group: str) -> None:
    for path in sorted((conf_dir() / group).glob("*.yaml")):
        build_experiment(compose([f"{group}={path.stem}"]))


def test_the_resolved_configuration_is_the_same_for_a_resumed_run() -> None:
    first = build_experiment(compose(["seed=4", "run.dir=here"]))
    again = build_experiment(compose(["seed=4", "run.dir=here", "resume=true"]))
    assert first.resolved == again.resolved
    assert (first.resume, again.resume) == (False, True)
    assert "${" not in first.resolved


def test_the_split_follows_seed_and_data() -> None:
    built = build_experiment(compose(["seed=4", "data.max_train_pairs=7"]))
    assert built.split.seed == 4
    assert built.split.max_train_pairs == 7
    assert built.split.unseen_site == "t2_a"


def test_the_number_of_workers_is_one_key() -> None:
    built = build_experiment(compose(["foundation.num_workers=2"]))
    assert built.method.adaptation.num_workers == 2  # type: ignore[attr-defined]
    assert built.runtime.foundation_workers == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["method.adaptation.num_workers=2"],
            "method.adaptation.num_workers is 2 and foundation.num_workers 1; set foundation",
        ),
        (
            ["runtime.foundation_workers=2"],
            "runtime.foundation_workers is 2 and foundation.num_workers 1; set foundation",
        ),
        (
            ["method=fedavg", "foundation.num_workers=2"],
            "foundation.num_workers is 2, but method=fedavg adapts no foundation model; leave it",
        ),
    ],
)
def test_workers_of_stage_4_that_contradict_each_other(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_experiment(compose(overrides))


def test_the_experiment_on_real_images_asks_for_their_folder() -> None:
    with pytest.raises(ConfigurationError, match=r"data\.root is required; set data\.root=VALUE"):
        build_experiment(compose(["experiment=nuclei"]))
    built = build_experiment(compose(["experiment=nuclei", "data.root=sites"]))
    assert built.split.max_train_pairs == 60


def test_numbers_of_the_toy_size() -> None:
    built = build_experiment(compose(["experiment=embedded", "size=toy", "schedule.rounds=3"]))
    assert built.method.federated.rounds == 3  # type: ignore[attr-defined]
    assert built.data.image_size == 64


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment=smok"], r"experiment/smok.* embedded nuclei paper quickstart .* smoke$"),
        (["data=nowhere"], r"data/nowhere.* brain_sites folder npy$"),
        (["speed=1"], r"^speed is not a key; the configuration has: data, foundation, .*, store$"),
        (["method.speed.x=1"], r"^method\.speed\.x is not a key; method has: adaptation, .*"),
        (["method=fedavg", "method.selection.ratio=1"], r"method has: federated, name$"),
        (["lightweight=nnunet", "lightweight.norm=batch"], r"; lightweight has: base_channels, "),
        (["seed.x=1"], r"^seed\.x is not a key; seed has: $"),
        (["data=3"], r"^data=3: .*string"),
    ],
)
def test_what_does_not_compose_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        compose(overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=folder"], r"^data\.root is required; set data\.root=VALUE on the command line$"),
        (["method.selection.ratio=0"], r"^method\.selection\.ratio is 0; allowed: above 0 up to 1"),
        (["method.selection.ratio=1.5"], r"^method\.selection\.ratio is 1\.5; allowed: above 0"),
        (["method.selection.ratio=all"], r"^method\.selection\.ratio is 'all'; expected a number$"),
        (["schedule.rounds=many"], r"^method\.federated\.rounds is 'many'; expected an integer$"),
        (["seed=1.5"], r"^seed is 1\.5; expected an integer$"),
        (["resume=perhaps"], r"^resume is 'perhaps'; expected true or false$"),
        (
            ["data.pairs_per_site=x"],
            r"^data\.pairs_per_site is 'x'; expected an integer or a list$",
        ),
        (["lightweight.channels=3"], r"^lightweight\.channels is 3; expected a list$"),
        (["runtime.clients=some"], r"runtime\.clients is 'some'; allowed: serial, actors, pool"),
        (
            ["runtime.precision=fp16"],
            r"runtime\.precision is 'fp16'; allowed: auto, fp32, bf16 .* underflow in float16",
        ),
        (
            ["foundation.num_workers=3"],
            r"batch_size is 2, which foundation\.num_workers=3 cannot share evenly; make it",
        ),
        (
            ["foundation.num_workers=2", "runtime.clients=serial"],
            r"num_workers is 2, but runtime\.clients=serial runs without Ray; use pool or actors",
        ),
        (["method=fedavg", "foundation.num_workers=0"], r"^foundation\.num_workers is 0; at least"),
        (["method.federated.rounds=0"], r"method\.federated\.rounds is 0; at least 1"),
        (["method.federated.max_validation_clients=0"], r"max_validation_clients is 0; at least 1"),
        (["method.distillation.patience=0"], r"distillation\.patience is 0; at least 1, or null"),
        (
            ["method.distillation.lightweight_learning_rate=-1"],
            r"rate is -1.*must be positive",
        ),
        (
            ["method=centralized", "method.centralized.patience=0"],
            r"ized\.patience is 0; at",
        ),
        (["method=centralized", "method.centralized.tolerance=2"], r"tolerance is 2.*allowed: 0"),
        (["method=centralized", "method.centralized.rate_decay=0"], r"rate_decay is 0; allowed:"),
        (["+method.federated.speed=1"], r"method\.federated\.speed is not a key; .* has: rounds, "),
        (["run.dir=${nothing}"], "nothing"),
        (["store.remote=3"], r"^store\.remote is 3; expected a text or null$"),
        (["store.remote=runs/store"], r"^store\.remote is 'runs/store'; allowed: s3://BUCKET"),
        (["run.publish=ftp://host/runs"], r"^run\.publish is 'ftp://host/runs'; allowed: s3://"),
    ],
)
def test_what_cannot_be_built_is_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        build_experiment(compose(overrides))
    assert "\n" not in str(caught.value)


def test_no_checkout_and_no_package_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dsfedmed_ray import configuration

    monkeypatch.setattr(configuration, "__file__", str(tmp_path / "a" / "b.py"))
    with pytest.raises(ConfigurationError, match=r"no conf/config.yaml .* install again"):
        conf_dir()
