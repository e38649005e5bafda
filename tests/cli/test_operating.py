"""user, token, nodes, node, maintenance, top: what an operator does."""

from __future__ import annotations

from argus_ray.cli import exits
from tests.cli.conftest import Person
from tests.cli.schema import check


def test_users(admin: Person, alice: Person) -> None:
    ran = admin("user", "add", "bob", "--name", "Bob B.")
    assert ran.lines[0].split() == ["user", "bob"] and ran.err == "argus token new bob\n"
    assert "(user_exists)" in admin("user", "add", "bob", code=exits.CONFLICT).err
    assert "(invalid_request)" in admin("user", "add", "B O B", code=exits.REFUSED).err
    listed = admin("user", "ls")
    assert any(line.split()[:2] == ["bob", "ACTIVE"] for line in listed.lines), listed.out
    assert "bob" in admin("user", "ls", "-q").lines
    check(admin.api, "/users", admin("user", "ls", "--json").json)
    check(admin.api, "/users/{user_id}", admin("user", "show", "bob", "--json").json)
    admin("user", "disable", "bob")
    assert "DISABLED" in admin("user", "show", "bob").out
    admin("user", "enable", "bob")
    assert "ACTIVE" in admin("user", "show", "bob").out
    assert "(user_not_found)" in admin("user", "show", "nobody", code=exits.NOT_FOUND).err
    assert "(forbidden)" in alice("user", "ls", code=exits.TOKEN).err


def test_tokens(admin: Person, alice: Person) -> None:
    name = alice.home.name
    ran = admin("token", "new", name, "--expires", "30d", "--label", "laptop")
    (token,) = ran.lines
    assert token.startswith("argus_u_") and token not in ran.err
    assert alice("whoami", "-q", ARGUS_TOKEN=token).out == f"{name}\n"
    check(admin.api, "/users/{user_id}/tokens", admin("token", "new", name, "--json").json, "post", "201")
    check(admin.api, "/users/{user_id}/tokens", admin("token", "ls", name, "--json").json)
    row = next(line for line in admin("token", "ls", name).lines if "laptop" in line)
    token_id = row.split()[0]
    assert token_id in admin("token", "ls", name, "-q").lines
    admin("token", "revoke", name, token_id)
    assert "(unauthenticated)" in alice("whoami", code=exits.TOKEN, ARGUS_TOKEN=token).err
    assert "(token_not_found)" in admin("token", "revoke", name, "tok_0", code=exits.NOT_FOUND).err
    assert admin("token", "new", name, "--expires", "soon", code=exits.USAGE).err


def test_nodes_and_orders_about_them(admin: Person, alice: Person) -> None:
    ran = admin("nodes")
    assert ran.lines[1].split()[:2] == ["worker-1", "10.0.0.2"] and ran.err == "1 worker, 4 of 8 GPUs free\n"
    check(admin.api, "/nodes", admin("nodes", "--json").json)
    assert "(forbidden)" in alice("nodes", code=exits.TOKEN).err
    assert "cordoned" in admin("node", "cordon", "worker-1", "--reason", "a fan").out
    assert "cordoned" in admin("nodes").out and "a fan" in admin("nodes").out
    found = admin("node", "drain", "worker-1", "--deadline", "1h", "--json").json
    check(admin.api, "/nodes/{node}:drain", found, "post")
    assert found["deadline"] is not None
    assert "cleared" in admin("node", "uncordon", "worker-1").out
    assert "(node_not_found)" in admin("node", "cordon", "worker-9", code=exits.NOT_FOUND).err


def test_maintenance(admin: Person, alice: Person) -> None:
    assert admin("maintenance").out == "off\n"
    assert admin("maintenance", "on", "--reason", "new switches").out.endswith("by admin: new switches\n")
    check(admin.api, "/maintenance", admin("maintenance", "--json").json)
    assert "new switches" in alice("explain", alice.submit()).out
    assert admin("maintenance", "off").out == "off\n"
    assert "(forbidden)" in alice("maintenance", "on", code=exits.TOKEN).err


def test_the_pool_in_one_look(admin: Person, alice: Person) -> None:
    task_id = alice.submit()
    alice.api.run(task_id)
    out = admin("top").out
    assert "worker-1" in out and task_id in out and alice.home.name in out
    both = admin("top", "--json").json
    check(admin.api, "/nodes", both["nodes"])
    check(admin.api, "/admin/queue", both["queue"])


def test_who_did_what(admin: Person, alice: Person) -> None:
    task_id = alice.submit()
    alice("cancel", task_id)
    name = alice.home.name
    ran = admin("audit", "--user", name)
    assert ran.lines[0].split()[:3] == ["AT", "ACTOR", "ACTION"]
    done = [line.split()[1:4] for line in ran.lines[1:]]
    assert [name, "task.cancel", task_id] in done and [name, "task.submit", task_id] in done
    assert [line.split()[2] for line in admin("audit", "--actor", name, "--action", "task.submit").lines[1:]] == [
        "task.submit"
    ]
    assert admin("audit", "--user", name, "--until", "30d").err == "nothing\n"
    check(admin.api, "/audit", admin("audit", "--user", name, "--json").json)
    assert len(admin("audit", "--user", name, "-q", "-n", "2").lines) == 2
    assert "(forbidden)" in alice("audit", code=exits.TOKEN).err


def test_what_was_used(admin: Person, alice: Person) -> None:
    task_id = alice.submit()
    change = alice.api.run(task_id)
    alice.api.world.clock.advance(3600)
    alice.api.end(change)
    ran = admin("usage")
    row = next(line.split() for line in ran.lines if line.split()[0] == alice.home.name)
    assert row == [alice.home.name, "4.0", "1", "1", "0", "0"]
    assert ran.err.endswith("GPU hours in all\n")
    assert admin("usage", "--by", "user", "--by", "workload").lines[0].split()[:2] == ["USER", "WORKLOAD"]
    check(admin.api, "/usage", admin("usage", "--by", "day", "--since", "7d", "--json").json)
    own = alice("whoami")
    assert "4.0 GPU hours, 1 task" in own.out and "expires never" in own.out
    assert "(forbidden)" in alice("usage", code=exits.TOKEN).err
