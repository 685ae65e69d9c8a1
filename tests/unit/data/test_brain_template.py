"""The template: orientation, tissue fractions, ventricles."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dsfedmed_ray.data import brain_template as module
from dsfedmed_ray.data.brain_template import (
    FIELD_OF_VIEW_MM,
    SLICE_RANGE_MM,
    STRUCTURES,
    brain_template,
    check_template,
)
from dsfedmed_ray.errors import DataError


def test_the_brain_is_centred_in_the_field_of_view() -> None:
    """145 x 181 mm of brain leave a margin of 13 mm in front and behind, and 31 at the sides."""
    brain = (brain_template().t1 > 0).any(axis=0)

    rows, columns = np.flatnonzero(brain.any(1)), np.flatnonzero(brain.any(0))
    assert brain.shape == (FIELD_OF_VIEW_MM, FIELD_OF_VIEW_MM)
    assert abs(rows[0] + rows[-1] - FIELD_OF_VIEW_MM) < 12
    assert abs(columns[0] + columns[-1] - FIELD_OF_VIEW_MM) < 6
    assert rows[0] > 8
    assert columns[0] > 25


def test_the_front_is_up() -> None:
    """The cerebellum is behind: low in the brain there is more tissue in the lower half."""
    lowest = brain_template().t1[0] > 0

    assert lowest[FIELD_OF_VIEW_MM // 2 :].sum() > lowest[: FIELD_OF_VIEW_MM // 2].sum()


def test_fractions_fill_the_brain_and_no_more() -> None:
    template = brain_template()
    total = template.tissues.astype(int).sum(axis=0)

    inside = template.t1 > 0
    assert total[inside].min() >= 254
    assert total.max() <= 256


def test_tissues_have_their_t1_intensities() -> None:
    """In T1, fluid is dark, grey matter grey, white matter bright."""
    template = brain_template()
    grey, white, fluid = (template.t1[tissue > 230].mean() for tissue in template.tissues)

    assert 60 < fluid < 90
    assert 155 < grey < 175
    assert 210 < white < 230


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_structure_is_visible_in_all_of_its_range(structure: module.Structure) -> None:
    """Ventricles cover at least 150 of the slice's mm2, white and grey matter a tenth of it."""
    low, high = SLICE_RANGE_MM[structure]
    least = 150 if structure == "ventricles" else 4000

    areas = [
        (brain_template().slab([structure], level, 1.0)[4] >= 0.5).sum()
        for level in np.linspace(low, high, 9)
    ]

    assert min(areas) > least


def test_ventricles_are_compact_central_and_on_both_sides() -> None:
    ventricles = brain_template().ventricles > 127
    middle = FIELD_OF_VIEW_MM // 2

    left, right = ventricles[..., :middle].sum(), ventricles[..., middle:].sum()
    assert 0.9 < left / right < 1.1
    assert 10_000 < ventricles.sum() < 25_000  # mm3; healthy adults have 10 to 40 ml
    assert not ventricles[..., : middle - 40].any()
    assert not ventricles[..., middle + 40 :].any()


def test_a_thick_slice_is_the_mean_of_thin_ones() -> None:
    template = brain_template()

    thick = template.slab(["white_matter"], 10.0, 2.0)
    thin = [template.slab(["white_matter"], level, 1.0) for level in (9.5, 10.5)]

    assert thick.dtype == np.float32
    np.testing.assert_allclose(thick, np.mean(thin, axis=0), atol=1e-6)


def test_a_nilearn_without_the_maps_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(module, "find_spec", lambda _: empty)
    with pytest.raises(DataError, match=r"nilearn has no mni_icbm152_t1_\S+; reinstall it: pip"):
        check_template()

    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(DataError, match="brain_sites needs the package nilearn; install it: pip"):
        check_template()
