"""Runs that leave out one site after the other share each client's tuned generator."""

from pathlib import Path

import pytest

from dsfedmed_ray.data.splits import LeaveOneSiteOut, SplitFederation
from dsfedmed_ray.learning.segmentation_training import SegmentationTraining
from dsfedmed_ray.methods.dsfedmed import tune_generators
from dsfedmed_ray.models.generator import EmbeddedGeneratorConfig
from dsfedmed_ray.run_directory import read_json_lines
from dsfedmed_ray.runtime.engine import RuntimeConfig
from dsfedmed_ray.runtime.local_training import LocalTraining
from tests.integration.conftest import OpenContext

pytestmark = pytest.mark.slow


def test_each_client_is_tuned_once(
    tmp_path: Path,
    toy_split: SplitFederation,
    toy_generator: EmbeddedGeneratorConfig,
    open_context: OpenContext,
) -> None:
    """Six sites; first number 5 is left out, then number 4.

    The second run tunes site 5 alone, as its client 4, a number that site 4 had before. Bytes of
    the other four uploads are those of the first run, and so are their lines of the ledger.
    """
    generator = toy_generator.for_tuning()
    local = LocalTraining(training=SegmentationTraining())
    uploads, tuned, sent = {}, {}, {}
    for unseen in ("site_000005", "site_000004"):
        split = LeaveOneSiteOut(unseen_site=unseen).apply(toy_split.federation)
        folder, run = tmp_path / f"{unseen}-uploads", tmp_path / unseen
        folder.mkdir()
        run.mkdir()
        (run / "store").symlink_to(tmp_path)
        with open_context(
            run, RuntimeConfig(clients="serial"), split, generator=toy_generator
        ) as context:
            tune_generators.tune_generators(context, local, generator, folder)
            lines = read_json_lines(context.directory.rounds)
            sent[unseen] = {
                (line["client"], line["what"]): line["num_bytes"]
                for line in read_json_lines(context.directory.transfers)
            }
        tuned[unseen] = [split.client_name(line["index"]) for line in lines if line["seconds"] > 0]
        uploads[unseen] = {path.stem: path.read_bytes() for path in folder.iterdir()}
    first, second = uploads["site_000005"], uploads["site_000004"]
    both = {f"site_{number:06d}" for number in range(4)}
    assert sorted(tuned["site_000005"]) == sorted([*both, "site_000004"])
    assert tuned["site_000004"] == ["site_000005"]
    assert set(second) == {*both, "site_000005"}
    assert all(first[name] == second[name] for name in both)
    lines_of = [{key: num for key, num in part.items() if key[0] in both} for part in sent.values()]
    assert lines_of[0] == lines_of[1]
    assert len(lines_of[0]) >= 4 * 3
