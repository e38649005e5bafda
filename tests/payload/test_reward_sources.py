"""The reward module against the installed verl: which of its scorers are asked, by its source, and that no answer of a
model is ever run, whatever the data source."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PAYLOAD = Path(__file__).parents[2] / "argus_ray" / "payload"
needs_verl = pytest.mark.skipif(importlib.util.find_spec("verl") is None, reason="verl is not installed")
pytestmark = [needs_verl, pytest.mark.verl]

#: What a scorer that only compares texts may import; and no name of these may be in it.
HARMLESS = {"random", "re", "string", "typing"}
RUNS = {"__builtins__", "__import__", "compile", "eval", "exec", "getattr", "globals", "open", "setattr", "vars"}

#: verl's whole table, as it was read: its module by data source. A name that ends in * is a prefix.
TABLE = {
    "openai/gsm8k": "gsm8k",
    "lighteval/MATH": "math_reward",
    "DigitalLearningGmbH/MATH-lighteval": "math_reward",
    "HuggingFaceH4/MATH-500": "math_reward",
    "math_dapo": "math_dapo",
    "math": "math_dapo",
    "math_dapo_reasoning": "math_dapo",
    "aime*": "math_dapo",
    "searchR1_nq": "search_r1_like_qa_em",
    "searchR1_triviaqa": "search_r1_like_qa_em",
    "searchR1_popqa": "search_r1_like_qa_em",
    "searchR1_hotpotqa": "search_r1_like_qa_em",
    "searchR1_2wikimultihopqa": "search_r1_like_qa_em",
    "searchR1_musique": "search_r1_like_qa_em",
    "searchR1_bamboogle": "search_r1_like_qa_em",
}
_NUMINA = ("aops_forum", "synthetic_math", "amc_aime", "synthetic_amc", "cn_k12", "olympiads")
#: Those that run what they are given, so that it is compared here.
COMPARED = {
    **{f"numina_{name}": {"prime_math"} for name in _NUMINA},
    **{name: {"prime_code", "sandbox_fusion"} for name in ("codecontests", "apps", "codeforces", "taco")},
    "hiyouga/geometry3k": {"geo3k"},
}


def folder() -> Path:
    """Of verl's scorers, without an import of verl."""
    spec = importlib.util.find_spec("verl")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "utils" / "reward_score"


def dispatch() -> dict[str, set[str]]:
    """verl's modules by data source, out of the source of `default_compute_score`. Raises AssertionError where that
    says more than this understands."""
    tree = ast.parse((folder() / "__init__.py").read_text())
    (function,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "default_compute_score"]
    branches = [node for node in function.body if isinstance(node, ast.If)]
    found: dict[str, set[str]] = {}
    branch: Any = branches[0]
    while isinstance(branch, ast.If):
        modules = {
            alias.name for n in branch.body for m in ast.walk(n) if isinstance(m, ast.ImportFrom) for alias in m.names
        }
        assert modules, ast.unparse(branch)
        for name in sources_of(branch.test):
            found[name] = modules
        (branch,) = branch.orelse
    assert isinstance(branch, ast.Raise), "what no branch takes"
    return found


def sources_of(test: ast.expr) -> list[str]:
    match test:
        case ast.BoolOp(op=ast.Or(), values=values):
            return [name for value in values for name in sources_of(value)]
        case ast.Compare(left=ast.Name("data_source"), ops=[ast.Eq() | ast.In()], comparators=[wanted]):
            names = ast.literal_eval(wanted)
            return [names] if isinstance(names, str) else list(names)
        case ast.Call(func=ast.Attribute(value=ast.Name("data_source"), attr="startswith"), args=[prefix]):
            return [f"{ast.literal_eval(prefix)}*"]
    raise AssertionError(f"nobody has read this condition of verl's: {ast.unparse(test)}")


def test_each_data_source_of_verl_was_read() -> None:
    assert dispatch() == {**{name: {module} for name, module in TABLE.items()}, **COMPARED}


@pytest.mark.parametrize("module", sorted(set(TABLE.values())))
def test_a_scorer_that_is_asked_only_compares_texts(module: str) -> None:
    tree = ast.parse((folder() / f"{module}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= HARMLESS
        elif isinstance(node, ast.ImportFrom):
            assert node.module in HARMLESS and not node.level
        elif isinstance(node, ast.Name):
            assert node.id not in RUNS
        elif isinstance(node, ast.Attribute):
            assert node.attr.strip("_") == node.attr, "no way round by an object's insides"


#: Answers that make a file where they are run, by the ways in which verl's scorers do it; {} is the file.
MARKING = [
    r"""\boxed{{\pi-open("{}","w").fileno()}}""",
    r"""\boxed{{open("{}","w").fileno()}}""",
    r"""<think>so</think> \boxed{{open("{}","w").fileno()}}""",
    r"""\boxed{{[open("{}","w").fileno()]}}""",
    r"""\boxed{{Matrix([open("{}","w").fileno()])}}""",
    r"""\boxed{{__import__("os").system("touch {}")}}""",
    r"""\boxed{{__import__("subprocess").Popen(["touch","{}"])}}""",
    "```python\nopen('{}', 'w')\n```",
    "open('{}', 'w')",
    "```python\nimport os\nif os.fork() == 0: os.setsid(); open('{}', 'w'); os._exit(0)\n```",
    "<answer>open('{}', 'w')</answer>",
    "#### open('{}', 'w')",
    "Answer: open('{}', 'w')",
]
#: Answers that take for ever, or all memory, where they are worked out.
HUGE = [
    r"\boxed{9**9**9**9}",
    r"\boxed{\pi*9**9**9**9}",
    r"\boxed{" + "9" * 1_000_000 + "}",
    r"\boxed{" * 150_000,
    r"\boxed{" + "{" * 1_000_000,
    r"\boxed " * 150_000,
    r"\fbox{" + r"\frac" * 3_000 + "}",
    "<answer>" * 125_000,
    "<answer>" + "a the " * 160_000 + "</answer>",
    "<think>" * 70_000 + r"</think>\boxed{" * 70_000,
    "Answer:" * 140_000,
    "#### " + "1," * 500_000,
    "$" * 1_000_000,
    "```python\nwhile True: pass\n```",
    "\ud800\x00\x1b[2J",
]
TRUTHS: list[Any] = [
    *("1", "", r"\begin{pmatrix} 1 \end{pmatrix}", "$" * 100_000, "{" * 5_000, r"\frac"),
    *(1, 2.5, True, None, [], ["1", "2", None], [["1"]], {}, {"target": "1"}, {"target": ["1", "2"]}),
    *({"target": None}, {"inputs": ["1\n"], "outputs": ["1\n"]}, json.dumps({"inputs": ["1"], "outputs": ["1"]})),
]
#: Names that are none of verl's, or nearly one, or no text.
ODD: list[Any] = ["tiny/add", "numina_", "numina_new", "apps/2", " apps", "APPS", "aime_apps", "", None, 7, ["apps"]]
#: Seconds of CPU for one answer. The slowest, of searchR1 with a tag in every eight characters, takes 0.1.
EACH_S = 2.0

#: verl's scorers are its own; the packages above them are empty, as they import torch and Ray, for many seconds.
SHELLS = """
import importlib, os, sys, types
for name in ("verl", "verl.utils"):
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [os.path.join(os.environ["SITE"], *name.split("."))]
"""
PROGRAM = (
    f"{SHELLS}\n"
    + r"""
import importlib.util, json, time

task = json.load(sys.stdin)
spec = importlib.util.spec_from_file_location("custom_module_1", task["module"])  # as verl loads it
reward = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reward)
for name in task["scorers"]:
    importlib.import_module("verl.utils.reward_score." + name)

watched, events = False, set()
FORBIDDEN = ("exec", "compile", "import", "open", "os.", "subprocess.", "socket.", "ctypes.", "pty.", "code.")
def hook(event, arguments):
    if watched and event.startswith(FORBIDDEN):
        events.add(event)
sys.addaudithook(hook)

results = []
for source in task["sources"]:
    for i, answer in enumerate(task["answers"]):
        for truth in task["truths"] if i in task["with_all_truths"] else task["truths"][:3]:
            watched, begin = True, time.process_time()
            try:
                score = reward.compute_score(data_source=source, solution_str=answer, ground_truth=truth, extra_info={})
                watched = False
                failure = ""
                json.dumps(score["score"] if isinstance(score, dict) else score, allow_nan=False)
            except BaseException as error:
                failure = repr(error)
            watched = False
            took = time.process_time() - begin
            if failure or events or took > task["each_s"]:
                results.append([repr(source), i, repr(truth)[:50], failure, sorted(events), took])
            events.clear()
children = open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()
json.dump({"bad": results, "children": children}, open(task["result"], "w"))
"""
)


def run(program: str, task: Any) -> str:
    """What it prints."""
    env = {**os.environ, "PYTHONPATH": str(PAYLOAD), "SITE": str(folder().parents[2])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input=json.dumps(task), env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What the hostile answers came to with every data source; and the folder in which they would have left files."""
    path = tmp_path_factory.mktemp("reward")
    marks = path / "marks"
    marks.mkdir()
    marking = [text.format(marks / f"mark{i}") for i, text in enumerate(MARKING)]
    sources = [name.replace("*", "2024") for name in dispatch()]
    task = {
        "module": str(PAYLOAD / "argus_verl_reward.py"),
        "scorers": sorted(set(TABLE.values())),
        "sources": sources + ODD,
        "answers": marking + HUGE + ["1", r"\boxed{1}", ""],
        "with_all_truths": [0, 7, len(marking), len(marking) + len(HUGE), len(marking) + len(HUGE) + 1],
        "truths": TRUTHS,
        "each_s": EACH_S,
        "result": str(path / "result.json"),
    }
    run(PROGRAM, task)
    return json.loads((path / "result.json").read_text()), marks


def test_no_answer_is_run_whatever_the_data_source(tried: tuple[dict[str, Any], Path]) -> None:
    """No code made, no file opened, no process, no connection, no exception, and an end in time."""
    result, marks = tried
    assert result == {"bad": [], "children": []}
    assert list(marks.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "answer", "truth", "score"),
    [
        ("numina_olympiads", r"So \boxed{\frac12}.", "0.5", 1.0),
        ("numina_cn_k12", r"\boxed{3}", "4", 0.0),
        ("hiyouga/geometry3k", r"<think>.</think>\boxed{3}", "3", 1.0),
        ("apps", "```python\nprint(1)\n```", "print(1)", 1.0),
        ("openai/gsm8k", "#### 72", "72", 1.0),
        ("openai/gsm8k", "#### 72", 72, 1.0),
        ("lighteval/MATH", r"\boxed{\frac12}", r"\frac{1}{2}", 1.0),
        ("aime2024", "Answer: 33", "33", 1.0),
        ("aime2024", "Answer: 34", "33", -1.0),
        ("searchR1_nq", "<answer>The Paris</answer>", {"target": ["London", "paris"]}, 1.0),
        ("searchR1_nq", "<answer>Rome</answer>", {"target": ["London", "paris"]}, 0.0),
        ("tiny/add", "12", "12", 1.0),
        ("tiny/add", "13", 12, 0.1),
        ("tiny/add", "12", ["11", "12"], 1.0),
    ],
)
def test_scores(scores: dict[str, Any], source: str, answer: str, truth: Any, score: float) -> None:
    assert scores[json.dumps([source, answer, truth])] == pytest.approx(score)


@pytest.fixture(scope="module")
def scores() -> dict[str, Any]:
    """Of the cases of `test_scores`, by one process for all."""
    (mark,) = [m for m in test_scores.pytestmark if m.name == "parametrize"]
    cases = [list(case[:3]) for case in mark.args[1]]
    program = (
        f"{SHELLS}\nimport json, numpy; from argus_verl_reward import compute_score\n"
        "for case in json.load(sys.stdin):\n"
        "    score = compute_score(numpy.str_(case[0]), *case[1:])\n"  # as it is in a batch of verl
        "    print('=', json.dumps([json.dumps(case), score]), flush=True)\n"
    )
    output = run(program, cases)
    assert "code that answers 'apps' is not run" in output
    pairs = [json.loads(line[2:]) for line in output.splitlines() if line.startswith("= ")]
    return {case: score["score"] if isinstance(score, dict) else score for case, score in pairs}
