"""Why a program failed, for people: a stable code, the line of its log that says so, and what to do next.

The rules are in order of cause, not of the log: when one process has no memory left, the others lose their peer, and
Ray its actor. Each text was seen in a real log (tests/core/verl/failures) unless the rule says where else it is from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from argus_ray.core.text import CleanText

#: Characters of the quoted line.
MAX_LINE_CHARS = 500

#: Of each line; a program can write lines that take a pattern quadratic time.
_SCANNED_CHARS = 4000

INSUFFICIENT_RESOURCES = "insufficient_resources"
NODE_LOST = "node_lost"
STALLED = "stalled"
NOT_STARTED = "not_started"
DRAINED = "drained"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Failure(CleanText):
    code: str
    #: As it stands in the log, without control characters; empty if there is none.
    line: str
    #: The next step, in one sentence.
    hint: str


@dataclass(frozen=True)
class _Rule:
    code: str
    pattern: re.Pattern[str]
    hint: str


def _rule(code: str, hint: str, *texts: str) -> _Rule:
    return _Rule(code, re.compile("|".join(texts)), hint)


_EXCEPTION = r"(?:^|[\s(:])(?:\w+\.)*"

#: What decides about the task, not only about its reason; looked for in the last lines only.
_SPECIAL = (
    # verl 0.9.1, single_controller/ray/base.py, _check_resource_available; and payload/argus_sft_launcher.py.
    _rule(
        INSUFFICIENT_RESOURCES,
        "Nothing to do: the task is back in the queue and starts when its GPUs are free.",
        r"Total available GPUs \S+ is less than total desired GPUs \S+",
        r"(?<=argus-sft: )insufficient resources: .*",
    ),
    # ray 2.60's exceptions.py, core worker and GCS; and payload/argus_sft_launcher.py.
    _rule(
        NODE_LOST,
        "Nothing to do: a new attempt resumes from the newest checkpoint.",
        r"The actor died because its node has died.*",
        r"ray\.exceptions\.NodeDiedError.*",
        # The payload pins verl's small actors to the driver's own node.
        r"The node specified via NodeAffinitySchedulingStrategy doesn't exist any more or is infeasible.*",
        r"Task failed because the node it was running on is dead or unavailable.*",
        r"The actor is dead because its (?:owner's )?node has died.*",
        r"[Tt]he local [Rr]aylet (?:failed|is dead).*",
        r"due to local raylet death.*",
        r"the Raylet has most likely crashed.*",
        r"because the raylet is unavailable \(crashed\).*",
        r"Failed to connect to GCS.*",
        r"(?<=argus-sft: )lost node .*",
    ),
)

_CONFIG_HINT = (
    "The verl that ran does not know this setting: check which verl code_path brings (Argus's settings fit verl 0.9)."
)
_MODEL_HINT = (
    "Check model_id: a folder must hold config.json, the weights and the tokenizer; a Hub id must be in the shared"
    " cache, since runs are offline."
)

_RULES = (
    _rule(
        "gpu_out_of_memory",
        "Use more GPUs or a smaller model; with ppo and grpo the rollout takes half of each GPU's memory.",
        # torch, c10/cuda/CUDACachingAllocator.cpp; CUDA's own text; vllm, v1/worker and v1/core/kv_cache_utils.py.
        r"CUDA out of memory",
        r"CUDA error: out of memory",
        r"CUBLAS_STATUS_ALLOC_FAILED",
        r"No available memory for the cache blocks",
        r"Free memory on device .* is less than desired GPU memory utilization",
    ),
    _rule(
        "disk_full",
        "Free space on the shared filesystem or raise your quota, and submit again; a larger save_freq writes less.",
        r"No space left on device",
        r"[Dd]isk quota exceeded",
        # torch's archive writer, which swallows the reason.
        r"PytorchStreamWriter failed writing file",
        r"enforce fail at inline_container\.cc:\d+\] .*unexpected pos",
    ),
    _rule(
        "host_out_of_memory",
        "The machine's main memory was used up: spread the task over more nodes, or use a smaller model or data set.",
        rf"{_EXCEPTION}MemoryError\b",
        r"DefaultCPUAllocator: can't allocate memory",
        r"Cannot allocate memory",
        r"std::bad_alloc",
        r"ray\.exceptions\.OutOfMemoryError",
        r"killed due to (?:the node running low on memory|memory pressure)",
    ),
    _rule(
        "config_key",
        _CONFIG_HINT,
        r"hydra\.errors\.ConfigCompositionException.*",
        r"hydra\.errors\.OverrideParseException.*",
    ),
    _rule("config_key", _CONFIG_HINT, r"omegaconf\.errors\.Config(?:Key|Attribute)Error"),
    _rule(
        "no_gpu",
        "The worker's torch sees no GPU: ask the operator, or try a small model with trainer_device: cpu.",
        r"Distributed package doesn't have NCCL built in",
        # torch/cuda/__init__.py and CUDA's own texts.
        r"Torch not compiled with CUDA enabled",
        r"Found no NVIDIA driver on your system",
        r"No CUDA GPUs are available",
        r"CUDA driver version is insufficient",
    ),
    _rule(
        "dataset_columns",
        "sft needs the column messages; ppo and grpo need prompt, data_source and reward_model with its ground_truth.",
        rf"{_EXCEPTION}KeyError: '(?:messages|prompt|data_source|reward_model|ground_truth)'",
    ),
    _rule(
        "dataset_unreadable",
        "Write the data set again, as a whole Parquet file, under a name that ends in .parquet.",
        r"Could not open Parquet input source",
        r"Parquet magic bytes not found",
        r"Parquet file size is \d+ bytes",
        r"Unsupported file format: ",
        r"DatasetGenerationError: ",
    ),
    _rule(
        "model_not_found",
        _MODEL_HINT,
        r"couldn't connect to 'https://huggingface\.co'",
        r"Repo id must be in the form",
        r"Error no file named .* found in directory",
        r"Unrecognized model in ",
        r"does not appear to have a file named",
        r"is not a local folder and is not a valid model identifier",
        r"Can't load (?:the configuration|tokenizer|the model) (?:of|for) ",
        r"Couldn't instantiate the backend tokenizer",
    ),
    _rule("model_not_found", _MODEL_HINT, r"LocalEntryNotFoundError|OfflineModeIsEnabled"),
    _rule(
        "model_unreadable",
        "Copy the model's weights again: a file of them is cut short or broken.",
        r"SafetensorError: ",
        r"PytorchStreamReader failed",
    ),
    _rule(
        "dataset_missing",
        "Check train_file and val_file, and that nobody has moved them.",
        rf"{_EXCEPTION}FileNotFoundError: .*\.(?:parquet|jsonl?)\b",
        r"Unable to find '.*\.(?:parquet|jsonl?)'",
    ),
    _rule("file_missing", "Put the file there, or correct the path.", rf"{_EXCEPTION}FileNotFoundError: "),
    _rule(
        "non_finite_loss",
        "The numbers became infinite or NaN: look at the curves before it, at the data and at the model.",
        r"probability tensor contains either `inf`, `nan` or element < 0",
        r"FloatingPointError: ",
        r"[Ll]oss is (?:nan|inf|not finite)",
    ),
    # Late: libraries print those that they survive.
    _rule(
        "import_failed",
        "Install what is missing on the workers, or correct code_path.",
        rf"{_EXCEPTION}ModuleNotFoundError: ",
        rf"{_EXCEPTION}ImportError: ",
    ),
    _rule(
        "port_in_use",
        "Submit again: the port for the processes to meet was taken by another program in that moment.",
        r"EADDRINUSE",
        r"[Aa]ddress already in use",
    ),
    _rule(
        "killed",
        "Something killed a process without a word, most often the kernel when the machine is out of memory: spread the"
        " task over more nodes, or use a smaller model.",
        r"(?<=argus-sft: )a process on node \d+ ended with exit code 137",
        r"Signal 9 \(SIGKILL\)",
        r"killed by SIGKILL",
    ),
    _rule(
        "rendezvous_failed",
        "The processes could not meet: submit again, and tell the operator if it stays so (a firewall, a host name, the"
        " wrong network interface).",
        r"DistStoreError: .*",
        r"RendezvousTimeoutError",
        r"RendezvousConnectionError",
        r"The client socket has (?:failed to connect|timed out)",
        r"DistNetworkError: .*",
    ),
    _rule(
        "communication_failed",
        "A process lost the others; if none of them says why, look at the network between the nodes, and submit again.",
        r"Connection closed by peer",
        r"Connection reset by peer",
        r"gloo/transport/tcp/",
        # torch, c10d/ProcessGroupNCCL.cpp and NCCLUtils.cpp.
        r"Watchdog caught collective operation timeout",
        r"NCCL (?:error|operation .* failed)",
        r"ncclRemoteError|ncclSystemError|ncclUnhandledCudaError|ncclInternalError",
    ),
)

_BY_SIGNAL = {
    6: ("crashed", "A native library gave up: the end of the log says more."),
    9: ("killed", next(rule.hint for rule in _RULES if rule.code == "killed")),
    11: ("crashed", "A native library crashed: check that torch, CUDA and their extensions fit together."),
    15: ("stopped", "Somebody or something on the worker stopped it: submit again."),
}
_UNKNOWN = (UNKNOWN, "Read the end of the log.")

CODES = tuple(dict.fromkeys([*(rule.code for rule in (*_SPECIAL, *_RULES)), "crashed", "stopped", STALLED, UNKNOWN]))

#: verl's console logger. What stands before the last of these, the run has survived.
_STEP = re.compile(r"\bstep:\d+ - ")
#: What other processes print comes by way of Ray's log monitor, which polls: a step may be told after the driver's own
#: end, and is no sign that the run has survived it.
_RELAYED = re.compile(r"\(\w+ pid=\d+")
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)")
_LINE_END = re.compile(r"[\r\n]+")
#: Colours and cursor moves; then everything that is no text. A tab is a space.
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[@-_]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+")
#: Who printed a line: torch's rank, our launcher's node, Ray's actor.
_PREFIX = r"^(?:\[\w+\]: ?|\[node \d+\] |\([^()]* pid=[^()]*\) )*"
#: Of a traceback: they quote the program, which names errors that did not happen.
_CODE = re.compile(_PREFIX + r'(?: {4}|  File ")')
#: Lines that say nothing about why a program failed.
_NOISE = re.compile(r"^\s*$|UserWarning|FutureWarning|DeprecationWarning")
#: What vLLM and torch print when their processes are ended: runs that come to their good end print it, too. So it is
#: never the cause, and quoted only if there is nothing else.
_AT_EXIT = re.compile(
    r"EngineDeadError|EngineCore encountered an issue"
    # By "Bus error" or "Segmentation fault" it has died itself.
    r"|DataLoader worker \(pid(?:\(s\))? [\d, ]+\) (?:is killed by signal: (?:Terminated|Killed|Hangup|Interrupt)"
    r"|exited unexpectedly)"
)
_RAISED = re.compile(_PREFIX + r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b")


def lines_of(log: str) -> list[str]:
    """The log's lines as text that can be shown, without noise. A carriage return ends a line: progress bars."""
    lines = (_CONTROL.sub(" ", _ESCAPE.sub("", line[:_SCANNED_CHARS])).rstrip() for line in _LINE_END.split(log))
    return [line for line in lines if not _NOISE.search(line)]


def stalled() -> Failure:
    """Of a run that Argus has stopped since it made no steps: its log was not asked."""
    return Failure(
        STALLED, "", "Look at the end of the log for what it waited for; save_freq bounds what is lost by it."
    )


def unplaced(line: str) -> Failure:
    """Of a run that Argus has stopped since its gang found no room where it was assigned to."""
    return Failure(INSUFFICIENT_RESOURCES, line[:MAX_LINE_CHARS], _hint_of(INSUFFICIENT_RESOURCES))


def _hint_of(code: str) -> str:
    return next(rule.hint for rule in _SPECIAL if rule.code == code)


def not_started(line: str) -> Failure:
    """Of an attempt whose program never began: there is no log of its own."""
    hint = "Nothing to do: the task is back in the queue. If it happens again and again, show this to the operator."
    return Failure(NOT_STARTED, line[:MAX_LINE_CHARS], hint)


def drained(line: str) -> Failure:
    """Of an attempt that Argus has stopped since an operator has its node emptied."""
    hint = "Nothing to do: the task is back in the queue, and resumes from its newest complete checkpoint."
    return Failure(DRAINED, line[:MAX_LINE_CHARS], hint)


def special(lines: list[str], *, may_be_refused: bool = True) -> Failure | None:
    """An end that is not the program's own fault, if these lines tell of one. `may_be_refused`: verl may still have
    asked for its GPUs."""
    found = _found(_SPECIAL, lines, whole_line=False)
    return next((each for each in found if may_be_refused or each.code != INSUFFICIENT_RESOURCES), None)


def has_step(lines: list[str]) -> bool:
    """Whether verl tells of a step."""
    return any(map(_STEP.search, lines))


def explain(lines: list[str], exit_code: int) -> Failure:
    """Why the program with this log failed; code 'unknown' if nothing here says so."""
    own_end = len(lines)
    if exit_code < 128:  # it ended by its own traceback; after a signal, one in the log is what it had survived
        own_end = max((i for i, line in enumerate(lines) if _TRACEBACK.match(line)), default=own_end)
    steps = (i for i, line in enumerate(lines) if _STEP.search(line) and (i < own_end or not _RELAYED.search(line)))
    begin = max((i + 1 for i in steps), default=0)
    recent = [line for line in lines[begin:] if not _CODE.search(line)]
    if found := next(_found(_RULES, recent, whole_line=True), None):
        return found
    code, hint = _BY_SIGNAL.get(exit_code - 128, _UNKNOWN)
    telling = [line for line in recent if not _AT_EXIT.search(line)] or recent
    raised = [line for line in telling if _RAISED.search(line)]
    return Failure(code, _bounded((raised or telling or [""])[-1]), hint)


def _found(rules: tuple[_Rule, ...], lines: list[str], *, whole_line: bool) -> Iterator[Failure]:
    """By the order of the rules, and for each its first line: the later ones are echoes."""
    for rule in rules:
        for line in lines:
            if match := rule.pattern.search(line):
                yield Failure(rule.code, _bounded(line if whole_line else match.group()), rule.hint)
                break


def _bounded(line: str) -> str:
    line = line.strip()
    return line if len(line) <= MAX_LINE_CHARS else f"{line[: MAX_LINE_CHARS - 4]} ..."
