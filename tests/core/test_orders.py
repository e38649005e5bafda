"""Which machine a name means, and the words of orders."""

from __future__ import annotations

from dataclasses import replace

import pytest

from argus_ray.core.errors import AmbiguousNode, NodeNotFound
from argus_ray.core.model import Cordon, Maintenance, NodeView, PoolOrders
from argus_ray.core.orders import (
    CordonState,
    Machine,
    cordon_of,
    cordon_words,
    find_machine,
    maintenance_words,
    state_of,
    that_hold,
)


def node(name: str, hostname: str, ip: str) -> NodeView:
    return NodeView(name, ip, False, 8, 32, 8, 32, 100, 100, hostname)


ONE, TWO = node("aa", "worker-1", "10.0.0.1"), node("bb", "worker-2", "10.0.0.2")
#: Containers of one name, a machine without a name, and one that carries two nodes.
SAME_1, SAME_2 = node("cc", "worker", "10.0.0.3"), node("dd", "worker", "10.0.0.4")
NAMELESS, LOCAL = node("ee", "", "10.0.0.5"), node("ff", "localhost.localdomain", "10.0.0.6")
TWIN_1, TWIN_2 = node("gg", "big", "10.0.0.7"), node("hh", "big", "10.0.0.7")
POOL = (ONE, TWO, SAME_1, SAME_2, NAMELESS, LOCAL, TWIN_1, TWIN_2)


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        *((name, Machine("worker-1", ("worker-1", "10.0.0.1"), ("aa",))) for name in ("worker-1", "10.0.0.1", "aa")),
        *((name, Machine("10.0.0.3", ("10.0.0.3", "worker"), ("cc",))) for name in ("10.0.0.3", "cc")),
        ("ee", Machine("10.0.0.5", ("10.0.0.5",), ("ee",))),
        ("ff", Machine("10.0.0.6", ("10.0.0.6", "localhost.localdomain"), ("ff",))),
        *((name, Machine("big", ("big", "10.0.0.7"), ("gg", "hh"))) for name in ("big", "10.0.0.7", "hh")),
        ("gone", Machine("gone", ("gone",))),
    ],
)
def test_a_machine_goes_by_its_hostname_its_address_and_its_nodes(name: str, machine: Machine) -> None:
    assert find_machine(name, POOL, {"gone", "worker-1"}) == machine


@pytest.mark.parametrize("name", ["nobody", "", "worker-", "10.0.0", "WORKER-1"])
def test_any_other_name_is_none(name: str) -> None:
    with pytest.raises(NodeNotFound):
        find_machine(name, POOL, {"gone"})


def test_a_name_of_more_than_one_machine_lists_them() -> None:
    with pytest.raises(AmbiguousNode) as caught:
        find_machine("worker", POOL, {"worker"})
    assert [(each.field, each.rule) for each in caught.value.fields] == [
        ("cc", "worker at 10.0.0.3"),
        ("dd", "worker at 10.0.0.4"),
    ]


def test_a_cordon_covers_what_joins_under_the_name_of_its_machine() -> None:
    holding = that_hold(
        PoolOrders(
            3, (Cordon("worker-1", "admin", 1.0), Cordon("10.0.0.3", "admin", 1.0), Cordon("big", "a", 1, cleared_at=2))
        )
    )
    rejoined, moved = replace(ONE, node_id="zz"), replace(ONE, node_id="yy", ip="10.0.9.9")
    assert [each.node_id for each in (*POOL, rejoined, moved) if cordon_of(each, holding)] == ["aa", "cc", "zz", "yy"]


def test_states_and_words() -> None:
    plain = Cordon("m", "admin", 1_800_000_000.0, "a fan")
    drain = replace(plain, drain=True, deadline=1_800_000_600.0, reason="")
    assert state_of(plain, is_busy=True) is CordonState.CORDONED
    assert state_of(drain, is_busy=True) is CordonState.DRAINING
    assert state_of(drain, is_busy=False) is CordonState.DRAINED
    assert state_of(replace(drain, cleared_at=1.0), is_busy=True) is CordonState.CLEARED
    since = "by admin since 2027-01-15T08:00:00Z"
    assert cordon_words(plain, CordonState.CORDONED) == f"cordoned {since}: a fan"
    end = "and what runs there is stopped at 2027-01-15T08:10:00Z"
    assert cordon_words(drain, CordonState.DRAINING) == f"draining {since}, {end}"
    assert cordon_words(drain, CordonState.DRAINED) == f"drained {since}"
    assert (
        maintenance_words(Maintenance("admin", 1_800_000_000.0, "x"))
        == f"maintenance is on {since}, and nothing starts: x"
    )
