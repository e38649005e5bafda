"""The configuration file, and which server a call goes to."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from argus_ray.cli import config, config_text
from argus_ray.cli.config import Config, Context
from argus_ray.cli.exits import USAGE, CliError

URL, TOKEN = "https://argus.example", "argus_u_" + "0" * 64
OTHER_URL, OTHER_TOKEN = "https://other.example", "argus_u_" + "1" * 64


def store(path: Path, *contexts: Context, current: str | None = None) -> None:
    with config.edited(path) as box:
        box[0] = Config(current or contexts[0].name, {each.name: each for each in contexts})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "argus" / "config.yaml"


def env(path: Path, **more: str) -> dict[str, str]:
    return {"ARGUS_CONFIG": str(path), **more}


# The file.


def test_the_file_is_its_owners_alone_from_its_first_byte_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, int]] = []
    real = os.open

    def seen(name: object, flags: int, mode: int = 0o777, **more: object) -> int:
        if flags & os.O_CREAT:
            made.append((flags, mode))
        return real(name, flags, mode, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", seen)
    old = os.umask(0)
    try:
        store(path, Context("a", URL, TOKEN))
    finally:
        os.umask(old)
    assert [(bool(flags & os.O_EXCL), mode) for flags, mode in made] == [(True, 0o600)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [each.name for each in path.parent.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644])
def test_a_file_that_others_can_use_is_refused(path: Path, mode: int) -> None:
    store(path, Context("a", URL, TOKEN))
    path.chmod(mode)
    with pytest.raises(CliError, match="others can read or change it") as caught:
        config.load(path)
    assert caught.value.exit_code == USAGE
    assert "chmod 600" in caught.value.hint
    assert TOKEN not in str(caught.value)


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for each in (pipe, tmp_path):
        with pytest.raises(CliError, match="is no plain file"):
            config.load(each)


def test_the_file_that_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "argus.yaml"
    real.parent.mkdir()
    store(real, Context("a", URL, TOKEN))
    link = tmp_path / "config.yaml"
    link.symlink_to(real)
    store(link, Context("b", URL, TOKEN))
    assert link.is_symlink()
    assert list(config.load(real).contexts) == ["b"]


def test_a_failed_write_leaves_the_old_file_and_no_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(path, Context("a", URL, TOKEN))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CliError, match="No space left"):
        store(path, Context("b", URL, TOKEN))
    assert list(config.load(path).contexts) == ["a"]
    assert len(list(path.parent.iterdir())) == 1


def test_two_changes_at_once_are_both_there(path: Path) -> None:
    store(path, Context("a", URL, TOKEN))
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        with config.edited(path) as box:
            inside.set()
            assert go_on.wait(30)
            box[0] = box[0].with_context(Context("slow", URL), use=False)

    def quick() -> None:
        with config.edited(path) as box:
            box[0] = box[0].with_context(Context("quick", URL), use=False)

    threads = [threading.Thread(target=slow), threading.Thread(target=quick)]
    threads[0].start()
    assert inside.wait(30)
    threads[1].start()
    go_on.set()
    for each in threads:
        each.join(30)
    assert set(config.load(path).contexts) == {"a", "slow", "quick"}


# Its text.


TEXT = st.text(min_size=1, max_size=40).filter(lambda text: "\ud800" not in text and text.isprintable())


@given(
    contexts=st.dictionaries(
        st.from_regex(config.NAME, fullmatch=True), st.fixed_dictionaries({"url": TEXT, "token": TEXT}), max_size=4
    ),
    current=st.none() | TEXT,
)
def test_what_is_written_is_read_again_and_is_yaml(contexts: dict[str, dict[str, str]], current: str | None) -> None:
    text = config_text.write(current, contexts)
    expected = {"contexts": contexts} | ({} if current is None else {"current": current})
    assert config_text.read(text) == expected
    by_yaml = yaml.safe_load(text)
    assert {str(name): value for name, value in by_yaml["contexts"].items()} == contexts
    assert by_yaml.get("current") == current


def test_a_file_that_was_written_by_hand() -> None:
    text = """\
---
# mine
current: 'lab'   # the one
contexts:
    # none of these
  lab:
    url: https://argus.lab:8000  # by day
    token: "argus_u_1"
    colour: red
  "10.0.0.2":
    url: http://10.0.0.2#no-comment
"""
    assert config_text.read(text) == {
        "current": "lab",
        "contexts": {
            "lab": {"url": "https://argus.lab:8000", "token": "argus_u_1", "colour": "red"},
            "10.0.0.2": {"url": "http://10.0.0.2#no-comment"},
        },
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("contexts:\n  a:\n   url: x\n", "line 3: is indented by 3"),
        ("contexts: a\n", "line 1: contexts must be a mapping"),
        ("contexts:\n  a: &x\n", "line 2: the value must be text"),
        ("contexts:\n  a:\n    url: x\n  a:\n    url: y\n", "line 4: the context a stands there twice"),
        ("contexts:\n  a:\n    url: x\n    url: y\n", "line 4: url stands there twice"),
        ('current: "a\n', "line 1: the quotes do not end"),
        ("current: 'a' b\n", "line 1: something follows"),
        ("nonsense\n", "line 1: must be `name: value`"),
        ("\tcurrent: a\n", "line 1: must be `name: value`"),
        ("current: |\n  a\n", "line 1: the value must be text"),
    ],
)
def test_other_yaml_is_refused_with_its_line(path: Path, text: str, words: str) -> None:
    path.parent.mkdir(parents=True)
    path.touch(0o600)
    path.write_text(text)
    with pytest.raises(CliError, match=words):
        config.load(path)


def test_a_field_of_a_newer_version_survives_a_change(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.touch(0o600)
    path.write_text(f"contexts:\n  a:\n    url: {URL}\n    colour: red\n")
    with config.edited(path) as box:
        box[0] = box[0].with_context(Context("b", OTHER_URL), use=True)
    assert config.load(path).contexts["a"].more == {"colour": "red"}


# Where it lies.


def test_where_it_lies() -> None:
    home = {"HOME": "/home/ann"}
    assert config.config_path(home) == Path("/home/ann/.config/argus/config.yaml")
    assert config.config_path({**home, "XDG_CONFIG_HOME": "/etc/ann"}) == Path("/etc/ann/argus/config.yaml")
    assert config.config_path({**home, "XDG_CONFIG_HOME": "relative"}) == Path("/home/ann/.config/argus/config.yaml")
    assert config.config_path({**home, "ARGUS_CONFIG": "/x/c.yaml"}) == Path("/x/c.yaml")


# Whom to ask.


def test_a_flag_counts_before_the_environment_and_this_before_the_file(path: Path) -> None:
    store(path, Context("a", URL, TOKEN, "/ca/a"), Context("b", OTHER_URL, OTHER_TOKEN))
    by_file = config.target(env(path), None)
    assert (by_file.url, by_file.token, by_file.ca_file, by_file.context) == (URL, TOKEN, "/ca/a", "a")
    assert config.target(env(path, ARGUS_CONTEXT="b"), None).url == OTHER_URL
    assert config.target(env(path, ARGUS_CONTEXT="b"), "a").url == URL
    by_env = config.target(env(path, ARGUS_URL="https://third.example", ARGUS_TOKEN="t" * 20, ARGUS_CONTEXT="a"), None)
    assert (by_env.url, by_env.token, by_env.context) == ("https://third.example", "t" * 20, None)
    by_flag = config.target(env(path, ARGUS_URL="https://third.example", ARGUS_TOKEN="t" * 20), "b")
    assert (by_flag.url, by_flag.token) == (OTHER_URL, OTHER_TOKEN)
    assert config.target(env(path, ARGUS_TOKEN="t" * 20), None).token == "t" * 20
    assert config.target(env(path, ARGUS_CA_FILE="/ca/e"), None).ca_file == "/ca/e"


def test_a_stored_token_goes_to_no_other_server(path: Path) -> None:
    store(path, Context("a", URL, TOKEN))
    assert config.target(env(path, ARGUS_URL="https://evil.example"), None).token is None
    assert config.target(env(path, ARGUS_URL=URL + "/"), None).token == TOKEN


def test_the_token_of_the_environment_goes_to_its_own_server_alone(path: Path) -> None:
    store(path, Context("a", URL), Context("b", OTHER_URL, OTHER_TOKEN))
    mine = "t" * 20
    assert config.target(env(path, ARGUS_URL="https://third.example", ARGUS_TOKEN=mine), "a").token is None
    assert config.target(env(path, ARGUS_URL=URL + "/", ARGUS_TOKEN=mine), "a").token == mine
    assert config.target(env(path, ARGUS_TOKEN=mine), "a").token == mine


def test_a_home_that_is_none_is_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.load(Path("/dev/null/.config/argus/config.yaml")) == Config()

    def unknown(_: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", unknown)
    assert config.load(config.config_path({})) == Config()


def test_nobody_is_named(path: Path) -> None:
    with pytest.raises(CliError, match="no server is known") as caught:
        config.target(env(path), None)
    assert "argus login" in caught.value.hint
    with pytest.raises(CliError, match="no context 'x'"):
        config.target(env(path), "x")


def test_a_token_is_in_no_words(path: Path) -> None:
    bad = "argus_u_secret with blanks"
    with pytest.raises(CliError) as caught:
        config.target(env(path, ARGUS_TOKEN=bad), None)
    assert "secret" not in str(caught.value)
    shown = repr(Context("a", URL, TOKEN)) + repr(Config("a", {"a": Context("a", URL, TOKEN)}))
    shown += repr(config.Target(URL, TOKEN, None, "a"))
    assert TOKEN not in shown


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://a.example/", "https://a.example"),
        ("a.example", "https://a.example"),
        ("localhost:8000", "http://localhost:8000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://[::1]:8000/argus/", "http://[::1]:8000/argus"),
        ("HTTPS://A.example", "https://a.example"),
    ],
)
def test_a_url_has_one_form(text: str, url: str) -> None:
    assert config.checked_url(text, "URL") == url


@pytest.mark.parametrize(
    "text",
    [
        "ftp://a",
        "https://",
        "https://u:p@a.example",
        "https://a/?x=1",
        "https://a/#f",
        "http://a:99999",
        "https://a b",
        "[::1",
    ],
)
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(CliError) as caught:
        config.checked_url(text, "URL")
    assert caught.value.exit_code == USAGE
    assert "p@" not in str(caught.value)


def test_plain_http_is_exposed_but_for_this_machine() -> None:
    assert [
        config.is_exposed(url) for url in ("http://head:8000", "http://10.0.0.2", "http://localhost.evil.example")
    ] == [True, True, True]
    assert not any(
        config.is_exposed(url)
        for url in ("https://head", "http://localhost:1", "http://127.0.0.9", "http://[::1]:8", "http://x.localhost")
    )


def test_the_name_of_a_context_follows_from_the_host() -> None:
    assert config.name_for(URL, Config()) == "argus.example"
    taken = Config(None, {"argus.example": Context("argus.example", OTHER_URL)})
    assert config.name_for("https://argus.example:444", taken) == "argus.example-444"
    assert config.name_for(OTHER_URL, taken) == "argus.example"
