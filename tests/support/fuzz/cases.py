"""Generators of what schemathesis does not make: TaskSpecs, and whole requests that fit no document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import yaml
from hypothesis import strategies as st

from tests.support.builders import spec_yaml
from tests.support.fuzz.world import SENDERS

_ODD_TEXT = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", " ", "..", "../../etc/passwd", "/", "//", "a" * 300, "\x00", "\r\n", "null", "0", "-1", "é", "💥"]
    ),
)
_ODD = st.one_of(
    _ODD_TEXT,
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 300),
    st.floats(),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


def specs(shared_root: str) -> st.SearchStrategy[bytes]:
    """Whole ones, those with some odd field, and texts that YAML may choke on."""
    common = f"{shared_root}/common"
    fields: dict[str, st.SearchStrategy[Any]] = {
        "workload": st.sampled_from(["sft", "ppo", "grpo"]),
        "code_path": st.sampled_from([f"{common}/code/verl/verl_repo", f"{common}/..", f"{common}/none", "verl"]),
        "model_id": st.sampled_from(["Qwen/Qwen2.5-0.5B-Instruct", "a/b", f"{common}/x", "../x", "a" * 400]),
        "train_file": st.sampled_from([f"{common}/datasets/gsm8k/{n}.parquet" for n in ("train", "rl", "none")]),
        "val_file": st.sampled_from([f"{common}/datasets/gsm8k/test.parquet", f"{common}/datasets", "/etc/passwd"]),
        "nnodes": st.integers(1, 4),
        "n_gpus_per_node": st.integers(1, 16),
        "total_epochs": st.integers(1, 5),
        "total_training_steps": st.integers(1, 10**6),
        "save_freq": st.integers(-1, 100),
        "test_freq": st.integers(-1, 100),
        "trainer_device": st.sampled_from(["cuda", "cpu"]),
        "submission_id": _ODD_TEXT,
    }
    chosen = st.fixed_dictionaries({}, optional=fields)
    broken = st.dictionaries(st.one_of(st.sampled_from(sorted(fields)), _ODD_TEXT), _ODD, max_size=2)

    def whole(some: dict[str, Any]) -> str:
        return spec_yaml(shared_root, **some)

    good = st.one_of(st.just(spec_yaml(shared_root)), st.builds(whole, chosen))
    return st.one_of(
        good.map(str.encode),
        good.map(str.encode),
        st.builds(lambda text, more: f"{text}{yaml.safe_dump(more)}".encode(), good, broken),
        st.builds(
            lambda text, by: text.replace("\n", by).encode(), good, st.sampled_from(["", " ", "\r\n", "\r", "\n\n"])
        ),
        st.builds(lambda text, before: (before + text).encode(), good, st.sampled_from(QUIRKS)),
        st.binary(max_size=100),
        st.text(max_size=200).map(str.encode),
        st.integers(8000, 9000).map(lambda size: b"#" * size),
    )


QUIRKS = [
    "\ufeff",
    "# a comment\n",
    "---\n",
    "%YAML 1.2\n---\n",
    "a: &a [1]\nb: *a\n",
    "!!python/object:os.system {}\n",
    "? a\n",
    "workload: sft\n",
    "{",
    "[",
    "\t",
    "nnodes: 1_000\n",
    "nnodes: 0x10\n",
    "nnodes: " + "9" * 5000 + "\n",
    "a: " * 200,
    "[" * 1000,
    "x: |\n y\n",
    "<<: {a: 1}\n",
    "\x00",
    "\x85",
    "~: ~\n",
    "...\n",
]


@dataclass(frozen=True)
class Request:
    sender: str
    method: str
    #: Path and query, ASCII.
    target: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def senders() -> st.SearchStrategy[str]:
    return st.sampled_from([name for name, weight in SENDERS.items() for _ in range(weight)])


def requests(paths: Sequence[str], known: Sequence[str], spec: st.SearchStrategy[bytes]) -> st.SearchStrategy[Request]:
    """`paths`: templates. `known`: ids that exist, whosever."""
    value = st.one_of(st.sampled_from(known), st.sampled_from(known), _ODD_TEXT)

    @st.composite
    def target(draw: st.DrawFn) -> str:
        if draw(st.integers(0, 9)) == 0:
            path = "/" + quote(draw(st.text(max_size=60)), safe=draw(st.sampled_from(["/", "/:%", ""])))
        else:
            pieces = draw(st.sampled_from(paths)).replace("}", "{").split("{")
            path = "".join(p if i % 2 == 0 else quote(draw(value), safe=":") for i, p in enumerate(pieces))
            path += draw(st.sampled_from([""] * 12 + ["/", ":cancel", "/..", "%00", "//x", ";a=b", "%2e%2e", ":"]))
        pairs = draw(st.lists(st.tuples(st.sampled_from(_QUERY), value | _ODD_VALUE), max_size=3))
        query = "&".join(f"{name}={quote(text, safe='')}" for name, text in pairs)
        query += draw(st.sampled_from([""] * 8 + ["&", "&=", "%", "%zz", "&&a", "=", "?"]))
        return path + ("?" + query if query else "")

    header = st.tuples(st.sampled_from(_HEADERS), st.one_of(st.sampled_from(_HEADER_VALUES), _RAW))
    kinds = st.sampled_from(
        [b"application/yaml"] * 3 + [b"application/json"] * 3 + [b"", b"text/plain; charset=utf-16"]
    )

    @st.composite
    def whole(draw: st.DrawFn) -> Request:
        kind = draw(kinds)
        given = [(b"content-type", kind)] if kind else []
        return Request(
            draw(senders()),
            draw(st.sampled_from(_METHODS)),
            draw(target()),
            tuple(given + draw(st.lists(header, max_size=2))),
            draw(st.one_of(spec, _JSON, st.just(b""))),
        )

    return whole()


_METHODS = ["GET"] * 5 + ["POST"] * 5 + ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "X", "get"]
_QUERY = [
    "limit",
    "cursor",
    "state",
    "user_id",
    "attempt",
    "tail",
    "since_step",
    "max_points",
    "names",
    "preset",
    "x",
    "",
]
_QUERY += ["path", "step", "kind", "max_chars", "q", "regex", "from", "direction"]
_QUERY += ["since", "until", "workload", "id_prefix", "id_suffix", "ids", "task"]
_ODD_VALUE = st.sampled_from(
    [
        "0",
        "1",
        "2",
        "-1",
        "500",
        "501",
        "1e3",
        "9" * 30,
        "latest",
        "RUNNING",
        "QUEUED,FAILED",
        "dDE",
        "ZTE",
        "train/loss",
        "sft,export",
        "2h",
        "2027-01-15T08:00:00Z",
        "fuzzed-preset",
        "fuzzed-preset",
        "of-the-operator",
        "validation",
        "logs",
    ]
)
_HEADERS = [
    b"authorization",
    b"content-type",
    b"content-length",
    b"content-encoding",
    b"idempotency-key",
    b"last-event-id",
    b"accept",
    b"host",
    b"x-request-id",
    b"x-forwarded-prefix",
    b"x-forwarded-for",
    b"expect",
    b"range",
    b"if-range",
    b"cookie",
    b"transfer-encoding",
    b"origin",
    b"access-control-request-method",
    b"x-http-method-override",
    b"if-none-match",
    b"te",
    b"upgrade",
]
_HEADER_VALUES = [
    b"",
    b" ",
    b"1:0",
    b"1:99999",
    b"99:5",
    b"x" * 300,
    b"x" * 9000,
    b"gzip",
    b"chunked",
    b"application/yaml",
    b"a, b",
    b"/a",
    b"//evil.example",
    b"Bearer x",
    b"bytes=0-1",
    b"bytes=5-",
    b"bytes=-3",
    b"bytes=999999-",
    b"100-continue",
    b"-1",
    b"9" * 40,
    b"\xff\xfe",
    b"key-1",
    b"key-2",
    b"key-3",
]
#: What a server lets through: no control characters but the tab.
_RAW = st.binary(max_size=20).map(lambda raw: bytes(c for c in raw if c >= 32 and c != 127).strip())
_JSON = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "user_id": st.one_of(st.from_regex(r"[a-z0-9-]{1,33}", fullmatch=True), _ODD),
            "display_name": _ODD,
            "label": _ODD,
            "expires_in_s": _ODD,
            "resume": _ODD,
            "reason": _ODD,
            "deadline_s": _ODD,
            "on": _ODD,
            "ids": _ODD,
            "filter": _ODD,
            "dry_run": _ODD,
        },
    ).map(lambda value: json.dumps(value).encode()),
    st.sampled_from(
        [b"{}", b"[]", b"null", b"{", b'{"on": true, "on": false}', b"NaN", b"[" * 5000, b'"\\ud800"', b"\xff"]
    ),
    st.sampled_from(
        [b'{"on": false}', b'{"resume": true}', b'{"label": "x"}', b'{"reason": "\\ud800"}', b'{"deadline_s": 0}']
    ),
)
