"""The campaign: so many calls, of four kinds, and what was wrong with the answers.

`fitting` and `unfitting` are schemathesis's cases by the document, which fit it or do not. `linked` follows the links
of the document from an answer to the next call. `wild` are requests of our own. Each answer is judged by the document
and by `judge`.
"""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from random import Random
from typing import Any

import hypothesis
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.core.transport import Response
from schemathesis.generation.stateful import run_state_machine_as_test
from schemathesis.specs.openapi import checks as by_document

from argus_ray.gateway.http.body import YAML_TYPES
from tests.support.fuzz import cases, judge
from tests.support.fuzz.wire import Answer, Wire
from tests.support.fuzz.world import FILES, SENDERS, USERS, FuzzWorld

#: Kind -> its share of the calls, in hundredths.
SHARES = {"fitting": 30, "unfitting": 15, "linked": 25, "wild": 30}
_CHECKS = [
    by_document.status_code_conformance,
    by_document.content_type_conformance,
    by_document.response_headers_conformance,
    by_document.response_schema_conformance,
]
#: Calls until the tasks move on.
_PACE = 25
#: Examples of one run of hypothesis. A new one begins with new random numbers.
_ROUND = 250
_BASE = "http://testserver"


_log = logging.getLogger("argus.fuzz")


class Enough(Exception):
    """All calls are made."""


class Fuzz:
    """`failures`: what was wrong -> the first request of it. `calls`, `statuses`: by operation."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int = 0,
        app: Callable[[Any], Any] = lambda app: app,
        only: Collection[str] | None = None,
    ) -> None:
        """`app`: what is asked in place of the application, made of it. `only`: paths at which most calls are aimed,
        however many more there are."""
        self._seed = seed
        self._random = Random(seed)
        self.world = FuzzWorld(folder, seed)
        self._wire = Wire(app(self.world.api.app))
        self.calls: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.statuses: dict[str, Counter[int]] = {}
        self.failures: dict[str, str] = {}
        self.failed: Counter[str] = Counter()
        self.reads_by_user = 0
        self._left = 0
        #: By mode; costly to make.
        self._strategies: dict[Any, st.SearchStrategy[Any]] = {}
        self._specs = cases.specs(self.world.api.world.shared_root)
        schemathesis.openapi.media_type("application/yaml", self._specs, aliases=_other_yaml())
        self._document: dict[str, Any] = self.world.api.app.fastapi.openapi()
        self.schema = schemathesis.openapi.from_dict(self._document)
        self._paths = {path: list(self.schema[path]) for path in self.schema}
        self._aimed = {path: self._paths[path] for path in (self._paths if only is None else only)}
        self._patterns = {path: re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in self._paths}
        #: Those without a parameter and with a verb first, as the routes are tried.
        self._order = sorted(self._paths, key=lambda path: (path.count("{"), not path.endswith("}"), path))

    def close(self) -> None:
        self._wire.close()
        self.world.close()

    @property
    def total(self) -> int:
        return self.calls.total()

    def run(self, calls: int) -> None:
        """So many calls, in rounds of all kinds. What fails is written down and stops nothing."""
        kinds: dict[str, Callable[[int], None]] = {
            "fitting": lambda seed: self._by_document(schemathesis.GenerationMode.POSITIVE, seed),
            "unfitting": lambda seed: self._by_document(schemathesis.GenerationMode.NEGATIVE, seed),
            "linked": self._linked,
            "wild": self._wild,
        }
        done = 0
        target = self.total + calls
        while self.total < target:
            done += 1
            for number, (kind, run) in enumerate(kinds.items(), 1):
                share = min(calls, 4 * _ROUND) * SHARES[kind] // 100 or 1
                self._left = min(share, target - self.total)
                before = self.total
                while self._left > 0 and self.total < target:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")  # hypothesis's and schemathesis's, of strategies
                        # Flaky: what an answer says decides what can be called next, and answers change.
                        with contextlib.suppress(Enough, hypothesis.errors.Flaky):
                            run(self._seed * 1_000_003 + done * 10 + number)
                    done += 1
                self.kinds[kind] += self.total - before

    # The kinds. Each makes calls until `_count` says that it is enough.

    def _settings(self, **more: Any) -> hypothesis.settings:
        return hypothesis.settings(
            max_examples=_ROUND,
            deadline=None,
            database=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
            **more,
        )

    def _by_document(self, mode: schemathesis.GenerationMode, seed: int) -> None:
        if mode not in self._strategies:
            self._strategies[mode] = st.one_of(
                [
                    self.schema[path][method].as_strategy(generation_mode=mode)
                    for path, methods in self._aimed.items()
                    for method in methods
                    if mode.is_positive or _takes_anything(self.schema[path][method])
                ]
            )
        strategy = self._strategies[mode]

        @hypothesis.seed(seed)
        @self._settings()
        @hypothesis.given(case=strategy, sender=cases.senders(), _=st.integers(0, 2**40))
        def go(case: Any, sender: str, _: int) -> None:
            self._aim(case, sender)
            self.send_case(sender, case)

        go()

    def _linked(self, seed: int) -> None:
        fuzz = self
        base: Any = self.schema.as_state_machine()

        class Machine(base):  # type: ignore[misc]
            def setup(self) -> None:
                self.sender = fuzz._random.choice(["admin", *USERS, *SENDERS])

            def call(self, case: Any, **_: Any) -> Response:
                # Now and then another one follows the link: what is another's it must not see.
                sender = self.sender if fuzz._random.random() < 0.7 else fuzz._random.choice([*SENDERS])
                return fuzz.send_case(sender, case)

            def validate_response(self, *_: Any, **__: Any) -> None:
                """`send_case` has."""

        # `run_state_machine_as_test` knows no seed.
        hypothesis.core.global_force_seed = seed  # type: ignore[assignment]
        try:
            run_state_machine_as_test(Machine, settings=self._settings(stateful_step_count=8))
        finally:
            hypothesis.core.global_force_seed = None

    def _wild(self, seed: int) -> None:
        known = [*self._random.sample(ids := self.world.task_ids(), min(20, len(ids))), *USERS, "internal", "worker-1"]
        strategy = cases.requests(
            ["/healthz", "/docs", "/openapi.json", *self._aimed, *["/api/v2/tasks"] * 5], known, self._specs
        )

        @hypothesis.seed(seed)
        @self._settings()
        @hypothesis.given(request=strategy, _=st.integers(0, 2**40))
        def go(request: cases.Request, _: int) -> None:
            self.send(request)

        go()

    def _aim(self, case: Any, sender: str) -> None:
        """Most calls at what exists, and of these most at the sender's own."""
        if self._random.random() < 0.3 or not case.path_parameters:
            return
        owner = sender if sender in USERS and self._random.random() < 0.7 else self._random.choice(USERS)
        known = {
            "task_id": [name for name in self.world.task_ids() if f"-{owner}-" in name],
            "user_id": [owner],
            "token_id": self.world.token_ids(owner),
            "node": ["worker-1"],
            "path": FILES,
        }
        for name in case.path_parameters:
            case.path_parameters[name] = self._random.choice(known[name])

    # One call.

    def send_case(self, sender: str, case: Any) -> Response:
        try:
            wanted = case.as_transport_kwargs(base_url=_BASE)
            prepared = requests.Request(**{k: v for k, v in wanted.items() if k != "verify"}).prepare()
        except (requests.RequestException, UnicodeError, ValueError):
            hypothesis.reject()  # nothing that can be sent
        headers = [
            (name.encode(), value if isinstance(value, bytes) else value.encode("latin-1", "replace"))
            for name, value in prepared.headers.items()
            if name.lower() != "authorization"
        ]
        body = prepared.body or b""
        raw = body if isinstance(body, bytes) else str(body).encode()
        request = cases.Request(sender, case.method.upper(), prepared.path_url, tuple(headers), raw)
        return self._sent(request, case)

    def send(self, request: cases.Request) -> None:
        self._sent(request, self._case_of(request))

    def _sent(self, request: cases.Request, case: Any) -> Response:
        token = self.world.tokens[request.sender]
        headers = [*request.headers, *([(b"authorization", f"Bearer {token}".encode())] if token else [])]
        label = f"{case.operation.method.upper()} {case.operation.path}" if case else f"{request.method} (other)"
        self._count(label)
        try:
            answer = self._wire.ask(request.method, request.target, headers, request.body)
        except Exception as error:
            self._fail(label, f"{type(error).__name__}: {error}"[:300], request)
            return _response(request, Answer(599, [], b""))
        self.statuses.setdefault(label, Counter())[answer.status] += 1
        self.reads_by_user += request.sender in USERS and answer.status == 200
        sent = request.target.encode() + request.body + b"".join(value for _, value in request.headers)
        for fault in judge.faults(request.sender, request.method, request.target, sent, answer):
            self._fail(label, fault, request)
        response = _response(request, answer)
        if case is not None:
            operation = self._document["paths"][case.operation.path][case.operation.method.lower()]
            for fault in judge.untold(operation, answer):
                self._fail(label, fault, request)
            try:
                case.validate_response(response, checks=_CHECKS)
            except (FailureGroup, Failure) as error:
                for each in getattr(error, "exceptions", [error]):
                    self._fail(label, f"{answer.status} against the document: {_words(each)}", request)
        self._heal(request, answer)
        return response

    def _count(self, label: str) -> None:
        if self._left <= 0:
            raise Enough
        self._left -= 1
        self.calls[label] += 1
        if self.total % _PACE == 0:
            self.world.move_on()

    def _fail(self, label: str, what: str, request: cases.Request) -> None:
        key = f"{label}: {what}"
        if key not in self.failures:
            self.failures[key] = repr(request)[:1500]
            _log.warning("%s\n    %s", key, self.failures[key])
        self.failed[key] += 1

    def _heal(self, request: cases.Request, answer: Answer) -> None:
        if answer.status == 200 and request.method in ("POST", "DELETE"):
            for user in USERS:
                if f"/users/{user}" in request.target:
                    self.world.heal(user)

    def _case_of(self, request: cases.Request) -> Any:
        """For the document; None for what it does not name."""
        path = request.target.partition("?")[0]
        for template in self._order:
            if self._patterns[template].fullmatch(path) and request.method.lower() in self._paths[template]:
                if request.method != request.method.upper():
                    return None
                named = dict.fromkeys(re.findall(r"\{(\w+)\}", template), "x")
                return self.schema[template][request.method.lower()].Case(path_parameters=named)
        return None


def _takes_anything(operation: Any) -> bool:
    return bool(operation.body or operation.query or operation.headers or operation.path_parameters)


def _other_yaml() -> list[str]:
    return [kind for kind in YAML_TYPES if kind != "application/yaml"]


def _response(request: cases.Request, answer: Answer) -> Response:
    prepared = requests.Request("GET", _BASE).prepare()
    prepared.method, prepared.url = request.method, _BASE + request.target
    found: dict[str, list[str]] = {}
    for name, value in answer.headers:
        found.setdefault(name, []).append(value)
    return Response(answer.status, found, answer.body, prepared, 0.0, True, encoding="utf-8")


def _words(error: BaseException) -> str:
    message = " ".join(str(getattr(error, "message", "") or error).split())
    return f"{type(error).__name__}: {message}"[:300]


def report(fuzz: Fuzz) -> Iterator[str]:
    """Lines for people."""
    width = max(map(len, fuzz.calls))
    for label, count in sorted(fuzz.calls.items()):
        seen = ", ".join(f"{status} x {n}" for status, n in sorted(fuzz.statuses.get(label, Counter()).items()))
        yield f"{label:{width}} {count:6}  {seen}"
    yield f"{fuzz.total} calls ({', '.join(f'{kind} {n}' for kind, n in fuzz.kinds.items())})"
    yield f"{fuzz.reads_by_user} answers with 200 to users, and none of another's things" if not fuzz.failures else ""
    for what, first in fuzz.failures.items():
        yield f"FAILED {fuzz.failed[what]} x {what}\n    first: {first}"
    yield f"{len(fuzz.failures)} failures"
