"""What of a folder of code a run does not import, for its name: pure.

A run finds the standard library first, then its `code_path`, then what is installed. What Ray's own processes need to
start is found where it is installed (payload/argus_code_path.py)."""

from __future__ import annotations

import sys
from collections.abc import Iterable

#: The same names as in payload/argus_code_path.py, which travels alone.
RESERVED = frozenset(
    """
    aiohappyeyeballs aiohttp aiosignal annotated_types attr attrs certifi chardet charset_normalizer click colorama
    colorful filelock frozenlist google idna jsonschema jsonschema_specifications msgpack multidict numpy packaging
    propcache psutil pydantic pydantic_core ray referencing requests rpds setproctitle sitecustomize tqdm
    typing_extensions typing_inspection urllib3 usercustomize uvloop wcwidth yaml yarl
    """.split()  # noqa: SIM905  # one a word
)
_ENDINGS = (".py", ".pyc", ".so")
_SHOWN = 5


def module_of(name: str) -> str:
    """The module that a file or folder of this name is, as long as it can be one; else no name."""
    module, dot, _ = name.partition(".")
    return module if not dot or name.endswith(_ENDINGS) else ""


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder with an `__init__.py`, of this name is not what an import of its name finds."""
    module = module_of(name)
    return module in RESERVED or module in sys.stdlib_module_names


def words(names: Iterable[str]) -> str:
    """What to tell of the hidden ones among these; nothing where there are none."""
    hidden = sorted(filter(is_hidden, names))
    if not hidden:
        return ""
    more = f" and {len(hidden) - _SHOWN} more" if len(hidden) > _SHOWN else ""
    return (
        f"holds {', '.join(hidden[:_SHOWN])}{more}, which a run does not import: Python's standard library, and what"
        " Ray needs to start, are found first. Rename them if they are meant to be imported"
    )
