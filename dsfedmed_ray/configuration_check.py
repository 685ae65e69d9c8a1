"""Settings against the types that their dataclasses declare, before any of them is built.

A dataclass checks its ranges and takes for granted that a number is a number. Here a word in the
place of a number is found, and the message names its key.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dsfedmed_ray.errors import ConfigurationError

_NAMES = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text",
    NoneType: "null",
    list: "a list",
    dict: "a mapping",
}


def check_settings(path: str, node: Mapping[str, Any]) -> None:
    """Checks a node whose ``_target_`` is a dataclass, and every such node inside it.

    Args:
        path: the node's key, for messages.
        node: plain values.

    Raises:
        ConfigurationError: a setting does not exist or is of another kind.
    """
    from hydra.utils import get_class

    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigurationError(
            f"{path} is {node!r}; choose a file of conf/{path.replace('.', '/')}/"
        )
    target = get_class(node["_target_"])
    if not is_dataclass(target):
        return
    hints = get_type_hints(target)
    names = [field.name for field in fields(target) if field.init]
    for name, value in node.items():
        if name == "_target_":
            continue
        if name not in names:
            raise ConfigurationError(f"{path}.{name} is not a key; {path} has: {', '.join(names)}")
        if isinstance(value, Mapping) and "_target_" in value:
            check_settings(f"{path}.{name}", value)
        else:
            check_value(f"{path}.{name}", value, hints[name])


def check_value(key: str, value: Any, hint: Any) -> None:
    """Checks one value against a type hint; hints beyond plain values accept everything.

    Raises:
        ConfigurationError: the value is of another kind.
    """
    if not _accepts(hint, value):
        raise ConfigurationError(f"{key} is {value!r}; expected {' or '.join(_names(hint))}")


def _accepts(hint: Any, value: Any) -> bool:
    options = _options(hint)
    if len(options) > 1:
        return any(_accepts(option, value) for option in options)
    kind = _kind(hint)
    if get_origin(hint) is Literal:
        return isinstance(value, str)  # the dataclass says which words
    if kind in (bool, str, NoneType, dict):
        return isinstance(value, kind)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is list:
        inner = (get_args(hint) or (Any,))[0]
        return isinstance(value, list) and all(_accepts(inner, item) for item in value)
    return True


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _kind(hint: Any) -> Any:
    origin = get_origin(hint) or hint
    if isinstance(origin, type) and origin is not str and issubclass(origin, Sequence):
        return list
    return dict if isinstance(origin, type) and issubclass(origin, Mapping) else origin


def _names(hint: Any) -> list[str]:
    return [
        " | ".join(map(str, get_args(option)))
        if get_origin(option) is Literal
        else _NAMES.get(_kind(option), str(option))
        for option in _options(hint)
    ]
