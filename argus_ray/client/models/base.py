"""The base of all answers: a frozen dataclass made of a JSON document, which it keeps.

Each class becomes a dataclass when it is first used: sixty of them at each start of the command would cost more
than all else that it imports.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Self, Union, dataclass_transform, get_args, get_origin, get_type_hints

from argus_ray.client.errors import BadAnswer

_Convert = Callable[[Any], Any]


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=True)
class Model:
    """A document of the API. Keyword arguments only; `of` makes one from JSON.

    A field with `_` at its end has its name in JSON without it, which Python has for itself (`from`).
    """

    #: Fields that no repr shows.
    SECRET: ClassVar[frozenset[str]] = frozenset()
    #: The names of its schema in the OpenAPI document.
    SCHEMAS: ClassVar[tuple[str, ...]] = ()
    _made: ClassVar[dict[str, tuple[_Convert, Any]]]

    def __init__(self, **values: Any) -> None:
        for name, (_, default) in _shape(type(self)).items():
            if name not in values and default is dataclasses.MISSING:
                raise TypeError(f"{type(self).__name__} needs {name!r}")
            object.__setattr__(self, name, values.pop(name, default))
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(values))}")
        object.__setattr__(self, "_document", None)

    @classmethod
    def of(cls, document: Any) -> Self:
        """From a JSON object. Raises BadAnswer if it lacks a field, or one is of another type."""
        if not isinstance(document, Mapping):
            raise BadAnswer(f"the server's answer is no JSON object where {cls.__name__} is expected")
        made = cls.__new__(cls)
        for name, (convert, default) in _shape(cls).items():
            key = name.removesuffix("_")
            if key in document:
                try:
                    value = convert(document[key])
                except (TypeError, ValueError, AttributeError, KeyError):
                    # Without the value: it may be one that must not be shown.
                    raise BadAnswer(f"{name} of {cls.__name__} in the server's answer is not understood") from None
            elif default is not dataclasses.MISSING:
                value = default
            else:
                raise BadAnswer(f"the server's answer lacks {name} of {cls.__name__}")
            object.__setattr__(made, name, value)
        object.__setattr__(made, "_document", document)
        return made

    @property
    def raw(self) -> dict[str, Any]:
        """The API's own document; that of one that was made by hand is empty."""
        found: dict[str, Any] | None = self.__dict__["_document"]
        return found if found is not None else {}

    @property
    def extra_fields(self) -> dict[str, Any]:
        """What this client does not know of it, as from a newer server."""
        known = {name.removesuffix("_") for name in _shape(type(self))}
        return {name: value for name, value in self.raw.items() if name not in known}

    def __setattr__(self, name: str, value: Any) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to {name!r}")

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete {name!r}")

    def __repr__(self) -> str:
        # Also of one that is only half made, in a traceback.
        values = vars(self)
        shown = (f"{name}={values.get(name)!r}" for name in _shape(type(self)) if name not in self.SECRET)
        return f"{type(self).__name__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in _shape(type(self)))


def fields(cls: type[Model]) -> dict[str, Any]:
    """Name -> type, resolved."""
    hints = get_type_hints(cls)
    return {name: hints[name] for name in _shape(cls)}


def _shape(cls: type[Model]) -> dict[str, tuple[_Convert, Any]]:
    """Name -> how its JSON becomes its value, and what it is without."""
    found: dict[str, tuple[_Convert, Any]] | None = cls.__dict__.get("_made")
    if found is None:
        found = _make(cls)
        cls._made = found
    return found


def _make(cls: type[Model]) -> dict[str, tuple[_Convert, Any]]:
    for base in cls.__mro__[1:]:
        if issubclass(base, Model):
            _shape(base)
    dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
    hints = get_type_hints(cls)
    return {field.name: (_converter(hints[field.name]), field.default) for field in dataclasses.fields(cls)}  # type: ignore[arg-type]


def _same(value: Any) -> Any:
    return value


def _time(value: str) -> datetime:
    return datetime.fromisoformat(value)


def _checked(kind: type) -> _Convert:
    accepted: tuple[type, ...] = (int, float) if kind is float else (kind,)

    def convert(value: Any) -> Any:
        if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
            raise TypeError
        return value

    return convert


def _converter(hint: Any) -> _Convert:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        (inner,) = (_converter(each) for each in args if each is not type(None))
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        item = _converter(args[0])
        return lambda value: tuple(map(item, _list(value)))
    if origin is not None and issubclass(origin, Mapping):
        item = _converter(args[1])
        return item if item is _same else lambda value: {name: item(each) for name, each in value.items()}
    if hint is datetime:
        return _time
    if isinstance(hint, type) and issubclass(hint, Model):
        return hint.of
    return _checked(hint) if hint in (str, int, float, bool) else _same


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value
