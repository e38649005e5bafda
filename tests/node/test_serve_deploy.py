"""`serve deploy` as a child: one that does not answer, and one that does not die."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from argus_ray.node import processes, serve_deploy
from argus_ray.node.head import Launcher
from argus_ray.node.journal import Journal
from argus_ray.node.serve_deploy import Application, Deployment


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Its check and its command hang."""
    monkeypatch.setattr(Deployment, "_check", lambda _: ["sleep", "600"])
    monkeypatch.setattr(Deployment, "_deploy", lambda _: ["sleep", "600"])
    application = Application(tmp_path / "serve.yaml", "http://127.0.0.1:9", "http://a", "http://127.0.0.1:9", "h")
    journal = Journal("test", tmp_path / "status.json")
    made = Deployment(application, journal, os.environ, tmp_path / "log", tuple, comes_back=False)
    yield made
    made.end()


def test_one_without_an_answer_is_ended_and_tried_again(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve_deploy, "_TIMEOUT_S", 0.05)

    def has_failed() -> bool:
        deployment.step()
        return "has failed 1 times" in deployment.words

    assert processes.wait_until(has_failed, 60, 0.01)
    assert "deploy failed: no answer; see" in capsys.readouterr().out and deployment.pid is None


def test_one_that_does_not_die_holds_up_nobody_and_no_other_is_begun(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deployment.step()
    stuck = deployment._child
    assert stuck is not None
    try:
        with monkeypatch.context() as patched:
            patched.setattr(stuck, "kill", lambda: None)
            patched.setattr(serve_deploy, "_TIMEOUT_S", 0.0)
            patched.setattr(processes, "KILL_PATIENCE_S", 0.1)
            for _ in range(3):
                deployment.step()
            assert deployment.pid == stuck.pid and "does not end" in deployment.words
            assert capsys.readouterr().out.count("does not end; this machine may need a restart") == 1
            ended: list[object] = []
            journal = SimpleNamespace(say=lambda kind, words: ended.append(words))
            launcher = SimpleNamespace(_deploy=deployment, _child=SimpleNamespace(end=ended.append), _journal=journal)
            Launcher._end(launcher)  # type: ignore[arg-type]
            assert ended == [f"process {stuck.pid} does not end; this machine may need a restart", 0], "Ray is ended"
    finally:
        stuck.kill()
        stuck.wait(60)
