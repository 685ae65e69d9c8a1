"""Lazy site names: like tuples, at any length."""

import pickle
import sys

import pytest

from dsfedmed_ray.data.site_names import NamesWithout, NumberedNames


def test_numbered_names_act_like_a_tuple_of_names() -> None:
    names = NumberedNames("site_", 3)

    assert list(names) == ["site_000000", "site_000001", "site_000002"]
    assert names[-1] == "site_000002"
    assert names[1:] == ["site_000001", "site_000002"]
    assert names.index("site_000001") == 1


@pytest.mark.parametrize("name", ["site_000003", "site_1", "site_-00001", "000001", "", 7])
def test_numbered_names_hold_only_their_names(name: object) -> None:
    assert name not in NumberedNames("site_", 3)


def test_positions_outside_are_index_errors() -> None:
    with pytest.raises(IndexError):
        NumberedNames("site_", 3)[3]
    with pytest.raises(IndexError):
        NamesWithout(("a", "b"), "a")[1]
    with pytest.raises(ValueError, match="not in the sequence"):
        NumberedNames("site_", 3).index("site_000003")


def test_a_million_names_cost_nothing() -> None:
    names = NumberedNames("site_", 10**6)

    assert len(names) == 10**6
    assert names[999_999] == "site_999999"
    assert "site_999999" in names
    assert len(pickle.dumps(names)) < 200
    assert sys.getsizeof(names) < 200


@pytest.mark.parametrize("left_out", ["a", "b", "c"])
def test_one_name_is_left_out(left_out: str) -> None:
    names = NamesWithout(("a", "b", "c"), left_out)

    expected = [name for name in "abc" if name != left_out]
    assert list(names) == expected
    assert len(names) == 2
    assert left_out not in names
    assert names[:] == expected
