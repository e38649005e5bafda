"""A look at a model's folder: its configuration, the weights that transformers would take, its tokenizer. Some stats,
few opens, and a bounded part of each file."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from argus_ray.core.verl import files, models
from argus_ray.disk.looking import MAX_NAMES, Doubt, Wrong, names_in, plain_file, why_never

_MAX_CONFIG_BYTES = 1024 * 1024
_MAX_INDEX_BYTES = 16 * 1024 * 1024
#: Of a safetensors file; one of a thousand tensors has some 100 KiB.
_MAX_HEADER_BYTES = 1024 * 1024
#: Files of weights whose status is asked for; and that are opened: large ones, and ones so small that they may be
#: pointers.
_MAX_STATS, _MAX_OPENS, _MAX_SMALL_OPENS = 256, 8, 32

_TORCH_RULE = (
    "has its weights as *.bin only: transformers reads these with torch 2.6 or newer alone (CVE-2025-32434); "
    "safetensors have no such bound"
)

#: The rule that a path breaks which a link leads out of what may be read; None if none does.
LeadsOut = Callable[[str], str | None]


def check_model_folder(path: str, leads_out: LeadsOut, doubt: Doubt) -> None:
    """Raises Wrong for what would fail the run for certain, and OSError where the disk does not say."""
    names = names_in(path)
    if len(names) >= MAX_NAMES:
        doubt(f"holds {MAX_NAMES} names or more: it was not looked at")
        return
    if models.CONFIG not in names:
        adapter = f": it {models.ADAPTER_RULE}" if models.is_adapter(names.keys()) else ""
        raise Wrong(f"holds no {models.CONFIG}{adapter}")
    look = _Look(path, names, leads_out, doubt)
    config = look.config()
    look.check_weights(config.weights)
    look.check_tokenizer()


@dataclass
class _Look:
    path: str
    names: Mapping[str, bool]
    leads_out: LeadsOut
    doubt: Doubt
    _opened: int = 0

    def config(self) -> models.Config:
        raw = self._read(models.CONFIG, _MAX_CONFIG_BYTES)
        if raw is None:
            return models.Config()
        config = models.read_config(raw)
        if config.error:
            raise Wrong(config.error)
        for words in config.doubts:
            self.doubt(words)
        return config

    def check_weights(self, explicit: str | None) -> None:
        wanted = [explicit] if explicit else [name for name in models.WEIGHTS if name in self.names]
        broken = ""
        for name in wanted:
            try:
                self._size(name)
            except Wrong as wrong:
                broken = broken or wrong.rule
                continue
            if broken:  # as transformers does
                self.doubt(f"{broken}: {name} is taken in its place")
            self._check_chosen(name)
            return
        if broken:
            raise Wrong(broken)
        others = models.other_weights(self.names.keys())
        if not others:
            raise Wrong(models.rule_without_weights(self.names.keys()))
        named = f"{models.clip(others)}; it takes {' or '.join(models.WEIGHTS)}"
        self.doubt(f"has weights under names that transformers does not look for ({named})")

    def check_tokenizer(self) -> None:
        found = models.tokenizers_in(self.names.keys())
        if not found:
            named = "tokenizer.json, tokenizer.model, vocab.json or the like"
            self.doubt(f"holds no tokenizer ({named}): transformers may make up an empty one")
        for name in sorted(found | ({models.TOKENIZER_CONFIG} & self.names.keys())):
            try:
                self._check_small(name)
            except Wrong as wrong:
                if name in (models.TOKENIZER, models.TOKENIZER_CONFIG) and models.POINTER_RULE in wrong.rule:
                    raise
                self.doubt(wrong.rule)

    def _check_chosen(self, name: str) -> None:
        if name.endswith(".index.json"):
            weights, total = self._indexed(name)
        else:
            weights, total = [name], None
        size = sum(self._check_file(weight) for weight in weights[:_MAX_STATS])
        if total is not None and len(weights) <= _MAX_STATS and size < total:
            self.doubt(f"has weights of {size} bytes together, and {name} says {total}: is its download whole?")
        if weights and all(weight.endswith(".bin") for weight in weights):
            self.doubt(_TORCH_RULE)

    def _indexed(self, index_name: str) -> tuple[list[str], int | None]:
        raw = self._read(index_name, _MAX_INDEX_BYTES)
        if raw is None:
            return [], None
        index = models.read_index(raw)
        if index is None:
            why = f": it {models.POINTER_RULE}" if models.is_pointer(raw) else ""
            raise Wrong(f"has an index that cannot be read: {index_name}{why}")
        if not index.has_metadata:
            self.doubt(f"has an index without metadata, which transformers 5 reads: {index_name}")
        weights = sorted(index.files)
        elsewhere = [name for name in weights if "/" in name]
        if missing := [name for name in weights if "/" not in name and name not in self.names]:
            raise Wrong(f"lacks weights that {index_name} names: {models.clip(missing)}")
        if elsewhere:
            self.doubt(f"has weights in other folders, by {index_name}: {models.clip(elsewhere)}")
        return weights, index.total_size

    def _check_file(self, name: str) -> int:
        """Of weights: its size in bytes."""
        size = self._size(name)
        if self._opened < (_MAX_OPENS if size > models.MAX_POINTER_BYTES else _MAX_SMALL_OPENS):
            self._opened += 1
            self._look_into(name)
        return size

    def _look_into(self, name: str) -> None:
        with self._file(name) as (fd, size):
            beginning = os.pread(fd, models.MAX_POINTER_BYTES, 0)
            rule = models.rule_of_beginning(name, size, beginning)
            if not rule and name.endswith(".safetensors"):
                length = models.length_of_header(beginning)
                if length <= _MAX_HEADER_BYTES:
                    rule = models.rule_of_header(size, os.pread(fd, length, models.LENGTH_BYTES))
            elif not rule and models.is_zip(beginning):
                end = os.pread(fd, files.END_BYTES, max(0, size - files.END_BYTES))
                if not files.is_whole_archive(beginning[: files.HEAD_BYTES], end):
                    rule = "is cut short: it does not end as a file of torch.save does"
        if rule:
            raise Wrong(f"has a {name} that {rule}")
        if name.endswith(".bin") and not models.is_torch_file(beginning):
            self.doubt(f"has a {name} that does not begin as a file of torch.save does")

    def _check_small(self, name: str) -> None:
        """A file that should not be empty, nor a pointer."""
        if self._size(name) > models.MAX_POINTER_BYTES:
            return
        with self._file(name) as (fd, size):
            rule = models.rule_of_beginning(name, size, os.pread(fd, models.MAX_POINTER_BYTES, 0))
        if rule:
            raise Wrong(f"has a {name} that {rule}")

    def _read(self, name: str, limit: int) -> bytes | None:
        """None, and a doubt, if it is longer than `limit` bytes."""
        with self._file(name) as (fd, size):
            if size > limit:
                self.doubt(f"has a {name} of more than {limit} bytes, which was not looked at")
                return None
            return os.pread(fd, limit, 0)

    def _size(self, name: str) -> int:
        """Raises Wrong unless it is a plain file, by a link perhaps."""
        with self._naming(name) as path:
            status = Path(path).stat()
            if not stat.S_ISREG(status.st_mode):
                raise Wrong("is no plain file")
            return status.st_size

    @contextlib.contextmanager
    def _file(self, name: str) -> Iterator[tuple[int, int]]:
        with contextlib.ExitStack() as opened:
            with self._naming(name) as path:
                fd, size = opened.enter_context(plain_file(path))
            yield fd, size

    @contextlib.contextmanager
    def _naming(self, name: str) -> Iterator[str]:
        """The path of this file; what is wrong with it is said with its name. What lies outside is not looked at."""
        path = f"{self.path}/{name}" if not name.startswith("/") else name
        try:
            if (self.names.get(name, True) or "/" in name) and (rule := self.leads_out(path)):
                raise Wrong(rule)
            yield path
        except Wrong as wrong:
            raise Wrong(f"has a {name} that {wrong.rule}") from None
        except OSError as error:
            if rule := why_never(error, path):
                raise Wrong(f"has a {name} that {rule}") from None
            raise
        except ValueError:  # a name that no system takes: with a NUL, say
            raise Wrong(f"has a {name} that does not exist") from None
