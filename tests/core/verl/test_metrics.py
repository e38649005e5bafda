"""What is read from verl's metrics lines, odd ones included, and what is left of a curve that is reduced."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argus_ray.core.verl import metrics
from argus_ray.core.verl.metrics import Digest, Headline, Part, Points, merge, thin


def line(step: Any, **data: Any) -> bytes:
    return json.dumps({"step": step, "data": {name.replace("__", "/"): value for name, value in data.items()}}).encode()


def losses(*pairs: tuple[int, float]) -> bytes:
    return b"".join(line(step, train__loss=loss) + b"\n" for step, loss in pairs)


def digest_of(data: bytes, names: list[str] | None = None) -> Digest:
    digest = Digest(names)
    digest.feed(data)
    return digest


def curve(digest: Digest, name: str = "train/loss") -> list[tuple[int, float]]:
    found = digest.curves.get(name)
    return [] if found is None else list(zip(found.steps, found.values, strict=True))


def points(found: Points) -> list[tuple[int, float, int]]:
    return list(zip(found.steps, found.values, found.attempts, strict=True))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (losses((1, 2.0), (2, 1.5)), [(1, 2.0), (2, 1.5)]),
        (losses((1, 2.0))[:-1], [(1, 2.0)]),
        (losses((1, 2.0)) + b'{"step": 2, "data": {"train/lo', [(1, 2.0)]),
        (losses((1, 2.0)) + b"junk\n\n[]\n7\nnull\n" + losses((2, 1.0)), [(1, 2.0), (2, 1.0)]),
        (losses((3, 2.0), (3, 1.0)), [(3, 1.0)]),
        (losses((1, 9.0), (2, 8.0), (3, 7.0), (2, 1.0)), [(1, 9.0), (2, 1.0)]),
        (b'{"step": 1, "data": {"train/loss": NaN}}\n' + losses((2, 1.0)), [(2, 1.0)]),
        (b'{"step": 1, "data": {"train/loss": -Infinity}}\n{"step": 2, "data": {"train/loss": 1e999}}\n', []),
        (b'{"step": 1, "data": {"train/loss": 1' + b"0" * 400 + b"}}\n", []),
        (b'{"step": 1, "data": {"train/loss": 1' + b"0" * 5000 + b"}}\n", []),
        (line(1, train__loss="1"), []),
        (line(1, train__loss=True), []),
        (line(1, train__loss=None), []),
        (line(1, train__loss=[1]), []),
        (line(1, train__loss=3), [(1, 3.0)]),
        (line("1", train__loss=1.0), []),
        (line(True, train__loss=1.0), []),
        (line(1.0, train__loss=1.0), []),
        (line(-1, train__loss=1.0), []),
        (line(2**53, train__loss=1.0), []),
        (line(None, train__loss=1.0), []),
        (b'{"data": {"train/loss": 1.0}}', []),
        (b'{"step": 1, "data": {"train/loss": 1.0, "note": "\xff\xfe"}}', [(1, 1.0)]),
        (b"\xff\xfe\x00\n" + losses((1, 1.0)), [(1, 1.0)]),
        (b"[" * 100_000 + b"\n" + losses((1, 1.0)), [(1, 1.0)]),
        (b'{"a":' * 20_000 + b"\n" + losses((1, 1.0)), [(1, 1.0)]),
        (line(1, train__loss=1.0, note="x" * metrics.MAX_LINE_BYTES) + b"\n" + losses((2, 1.0)), [(2, 1.0)]),
        (losses((1, 1.0)).replace(b"\n", b"\r\n"), [(1, 1.0)]),
    ],
    ids=range(29),
)
def test_lines(data: bytes, expected: list[tuple[int, float]]) -> None:
    assert curve(digest_of(data)) == expected


@pytest.mark.parametrize(
    ("data", "first", "last"),
    [
        (b"", None, None),
        (b'{"step": 7, "data": {}}\n', 7, 7),
        (b'{"step": 7}\n{"step": 8, "data": 3}\n', 7, 8),
        (b'{"step": 7}\njunk\n', 7, 7),
        (b'{"step": 7}\n{"step": 3}\n', 3, 3),
        (b'{"step": 0}\n{"step": -1}\n{"step": "9"}\n{"step": 1e3}\n', 0, 0),
    ],
)
def test_first_and_last_step(data: bytes, first: int | None, last: int | None) -> None:
    digest = digest_of(data)
    assert (digest.first_step, digest.last_step) == (first, last)


def test_training_and_validation_of_one_step_are_two_lines() -> None:
    digest = digest_of(losses((1, 2.0), (2, 1.0)) + line(2, val__loss=1.25) + b"\n" + losses((3, 0.5)))
    assert curve(digest) == [(1, 2.0), (2, 1.0), (3, 0.5)]
    assert curve(digest, "val/loss") == [(2, 1.25)]


def test_main_curves_and_the_names_of_others() -> None:
    digest = digest_of(
        line(0, **{"val-core/gsm8k/acc/mean@1": 0.5, "val-aux/gsm8k/reward/mean@1": 0.25})
        + b"\n"
        + line(1, **{"critic/score/mean": 0.1, "actor/pg_loss": 0.0, "actor/lr": 1e-6, "timing_s/gen": 2.0})
    )
    assert set(digest.curves) == {"val-core/gsm8k/acc/mean@1", "critic/score/mean", "actor/pg_loss"}
    assert digest.other_names == {"val-aux/gsm8k/reward/mean@1", "actor/lr", "timing_s/gen"}


def test_any_other_name_can_be_asked_for() -> None:
    digest = digest_of(losses((1, 2.0)) + line(2, actor__lr=0.5), ["actor/lr"])
    assert curve(digest, "actor/lr") == [(2, 0.5)]
    assert not digest.other_names and set(digest.curves) == {"actor/lr"}
    assert (digest.first_step, digest.last_step) == (1, 2)


def test_names_are_bounded_and_printable() -> None:
    digest = Digest()
    for step in range(100):
        digest.feed(line(step, **{f"n{step}-{i}": 1.0 for i in range(50)}, **{f"val-core/{step}": 1.0}))
    assert len(digest.other_names) + len(digest.curves) <= metrics.MAX_NAMES
    assert len(digest.curves) <= metrics.MAX_VALIDATION_CURVES
    odd = digest_of(b'{"step": 1, "data": {"": 1, "a\\u0000b": 1, "\\ud800": 1, "' + b"x" * 201 + b'": 1, "ok": 1}}')
    assert odd.other_names == {"ok"}
    assert digest.size < 200_000


def test_the_headline_is_the_newest_value() -> None:
    assert digest_of(b"").headline() is None
    assert digest_of(losses((1, 2.0), (2, 1.0))).headline() == Headline("train/loss", 1.0, 2)
    rl = line(1, critic__rewards__mean=0.1, critic__score__mean=0.2) + b"\n" + line(2, critic__rewards__mean=0.3)
    assert digest_of(rl).headline() == Headline("critic/score/mean", 0.2, 1)


def test_the_pace_is_that_of_the_last_steps() -> None:
    def timed(step: int, seconds: float, **more: float) -> bytes:
        return line(step, timing_s__step=seconds, **more) + b"\n"

    assert digest_of(losses((1, 2.0))).steps_per_s() is None
    assert digest_of(timed(1, 4.0) + timed(2, 2.0)).steps_per_s() == pytest.approx(1 / 3)
    assert digest_of(timed(1, 1.0, timing_s__testing=3.0)).steps_per_s() == pytest.approx(1 / 4)
    assert digest_of(timed(1, 1.0) + timed(1, 2.0)).steps_per_s() == pytest.approx(1 / 2), "the later one counts"
    slow = b"".join(timed(step, 100.0) for step in range(10))
    quick = b"".join(timed(step, 2.0) for step in range(10, 10 + metrics.PACE_STEPS))
    assert digest_of(slow + quick).steps_per_s() == pytest.approx(1 / 2)
    assert digest_of(slow + timed(0, 1.0)).steps_per_s() == pytest.approx(1.0), "a restart forgets what came after"
    assert digest_of(timed(1, 0.0) + timed(2, -1.0)).steps_per_s() is None
    assert digest_of(timed(1, 5e-324)).steps_per_s() is None


@pytest.mark.parametrize(
    ("step", "total", "rate", "expected"),
    [(5, 10, 0.5, 10.0), (10, 10, 0.5, 0.0), (11, 10, 0.5, 0.0), (5, None, 0.5, None), (5, 10, None, None),
     (0, 10**9, 1e-308, None)],
)  # fmt: skip
def test_seconds_left(step: int, total: int | None, rate: float | None, expected: float | None) -> None:
    assert metrics.seconds_left(step, total, rate) == expected


def part(number: int, data: bytes) -> Part:
    return Part.of(number, digest_of(data))


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (losses((4, 0.4), (5, 0.3)), [(1, 3.0, 1), (2, 2.0, 1), (3, 1.0, 1), (4, 0.4, 2), (5, 0.3, 2)]),
        (losses((2, 0.4)), [(1, 3.0, 1), (2, 0.4, 2)]),
        (losses((1, 0.4)), [(1, 0.4, 2)]),
        (losses((9, 0.4)), [(1, 3.0, 1), (2, 2.0, 1), (3, 1.0, 1), (9, 0.4, 2)]),
        (b"", [(1, 3.0, 1), (2, 2.0, 1), (3, 1.0, 1)]),
        # It validated at the step of its checkpoint, and goes on from there.
        (line(2, val__loss=1.0) + b"\n" + losses((3, 0.4)), [(1, 3.0, 1), (2, 2.0, 1), (3, 0.4, 2)]),
        (line(2, val__loss=1.0), [(1, 3.0, 1), (2, 2.0, 1)]),
    ],
)
def test_attempts_are_joined_by_step(second: bytes, expected: list[tuple[int, float, int]]) -> None:
    first = losses((1, 3.0), (2, 2.0), (3, 1.0))
    assert points(merge([part(1, first), part(2, second)], "train/loss")) == expected


def test_of_three_attempts_the_last_wins() -> None:
    parts = [
        part(1, losses((1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0))),
        part(2, losses((3, 2.0), (4, 2.0), (5, 2.0))),
        part(4, losses((2, 4.0), (3, 4.0))),
    ]
    assert points(merge(parts, "train/loss")) == [(1, 1.0, 1), (2, 4.0, 4), (3, 4.0, 4)]
    assert points(merge(parts, "val/loss")) == []


# --- reduction ---


def test_a_long_curve_keeps_its_ends_and_its_spikes() -> None:
    digest = Digest()
    for step in range(1, 60_001):
        value = {22_222: 1000.0, 45_678: -1000.0}.get(step, math.sin(step / 1000))
        digest._feed_line(b'{"step": %d, "data": {"train/loss": %r}}' % (step, value))
    found = curve(digest)
    assert len(found) <= metrics.MAX_POINTS
    assert {found[0][0], 22_222, 45_678, found[-1][0]} <= {step for step, _ in found}
    assert (found[0][0], found[-1][0]) == (1, 60_000)
    gaps = [after[0] - before[0] for before, after in itertools.pairwise(found)]
    assert max(gaps) <= 60_000 / (metrics.MAX_POINTS / 8), "even: old parts are no coarser than new ones"


values = st.floats(-1e6, 1e6)
series = st.lists(st.tuples(st.integers(0, 5000), values), max_size=300)


@given(series)
def test_the_curve_is_that_of_the_plain_rule(pairs: list[tuple[int, float]]) -> None:
    """As written down by a dictionary: going back forgets what came after."""
    expected: dict[int, float] = {}
    for step, value in pairs:
        expected = {known: of for known, of in expected.items() if known <= step} | {step: value}
    assert curve(digest_of(losses(*pairs))) == sorted(expected.items())


@given(st.lists(st.tuples(st.integers(1, 50), values), min_size=1, max_size=400))
def test_reducing_bit_by_bit_is_reducing_at_once(gaps: list[tuple[int, float]]) -> None:
    step, pairs = 0, []
    for gap, value in gaps:
        step += gap
        pairs.append((step, value))
    limit = metrics.MAX_POINTS
    try:
        metrics.MAX_POINTS = 16
        reduced = metrics.Curve()
        for step, value in pairs:
            reduced.put(step, value)
        width = reduced._width
        kept = metrics.extremes(reduced.values, [step // width for step in reduced.steps])
        found = [(reduced.steps[i], reduced.values[i]) for i in kept]
    finally:
        metrics.MAX_POINTS = limit
    at_once = metrics.extremes([value for _, value in pairs], [step // width for step, _ in pairs])
    assert found == [pairs[index] for index in at_once]


@given(
    st.dictionaries(st.integers(0, 10**6), values, max_size=300),
    st.integers(0, 10**6),
    st.integers(2, 100),
)
def test_thinning(found: dict[int, float], since: int, most: int) -> None:
    whole = Points(sorted(found), [found[step] for step in sorted(found)], [1] * len(found))
    rest = [(step, found[step], 1) for step in sorted(found) if step >= since]
    thinned = points(thin(whole, since_step=since, max_points=most))
    assert len(thinned) <= most
    assert set(thinned) <= set(rest) and thinned == sorted(thinned)
    if len(rest) <= most:
        assert thinned == rest
    if rest:
        assert (thinned[0], thinned[-1]) == (rest[0], rest[-1])
    if rest and most >= 4:
        heights = [value for _, value, _ in thinned]
        assert (min(heights), max(heights)) == (min(v for _, v, _ in rest), max(v for _, v, _ in rest))


@given(st.lists(st.binary(max_size=200) | st.sampled_from([b'{"step": 1, "data": {"train/loss": 1}}', b"{}"])))
def test_junk_never_raises(lines: list[bytes]) -> None:
    digest = digest_of(b"\n".join(lines))
    assert set(digest.curves) <= {"train/loss"}
    assert digest.steps_per_s() is None


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(max_examples=50)
@given(st.lists(st.fixed_dictionaries({"step": json_like, "data": json_like}), max_size=5))
def test_any_json_never_raises(records: list[dict[str, Any]]) -> None:
    digest = digest_of(b"\n".join(json.dumps(record).encode() for record in records))
    for name in digest.other_names | set(digest.curves):
        name.encode()
