"""What verl's settings come to for a submission: resolved here, so that the state actor only stores it."""

from __future__ import annotations

import functools
from operator import attrgetter

from argus_ray.core.taskspec import TaskSpec
from argus_ray.core.verl import layers
from argus_ray.core.verl.layers import Recipes

#: Texts of some KiB. A sweep submits the same again and again; each resolution costs more than the rest of the parsing.
_KEPT = 512
#: All that a resolution may look at.
_looked_at = attrgetter(*(name for name in TaskSpec.model_fields if name != "submission_id"))


class _Asked:
    """A TaskSpec that equals each other one with the same fields."""

    __slots__ = ("_key", "spec")

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self._key = _looked_at(spec)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self._key == other._key


class RecipeBook:
    """Of one configuration."""

    def __init__(self, recipes: Recipes) -> None:
        self._recipes = recipes
        self._text = functools.lru_cache(maxsize=_KEPT)(self._resolve)

    def text(self, spec: TaskSpec, user_id: str, presets: tuple[str, ...]) -> str:
        """The settings of this submission, as they are stored. Raises InvalidSpec."""
        return self._text(_Asked(spec), user_id, presets)

    def _resolve(self, asked: _Asked, user_id: str, presets: tuple[str, ...]) -> str:
        return layers.encode(layers.resolve(asked.spec, user_id=user_id, recipes=self._recipes, chosen=presets))
