"""Each log of tests/core/verl/failures, made of real runs by scripts/make_failure_samples.py, is told by its cause."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from argus_ray.core.lifecycle import End
from argus_ray.core.model import Attempt
from argus_ray.core.observation import ExitRecord, FailureKind, FilesSeen, JobSeen, JobStatus, next_step
from argus_ray.core.states import AttemptState, Outcome
from argus_ray.core.verl import failures

SAMPLES = Path(__file__).parent / "failures"
EXIT_CODES: dict[str, int] = json.loads((SAMPLES / "exit_codes.json").read_text())
ATTEMPT = Attempt("argus-u-sft-20260101-000000-abcd--a01", "argus-u-sft-20260101-000000-abcd", 1,
                  AttemptState.RUNNING, 0.0, "/j", "s1")  # fmt: skip

#: Sample -> code, and words of the line that is quoted.
EXPECTED = {
    "sft_dataset_missing": ("dataset_missing", "FileNotFoundError: /private/common/datasets/add/gone.parquet"),
    "sft_dataset_corrupt": ("dataset_unreadable", "corrupt.parquet"),
    "sft_dataset_truncated": ("dataset_unreadable", "Parquet magic bytes not found in footer"),
    "sft_dataset_columns": ("dataset_columns", "KeyError: 'messages'"),
    "sft_model_missing": ("model_not_found", "/private/common/models/gone"),
    "sft_model_empty": ("model_not_found", "Couldn't instantiate the backend tokenizer"),
    "sft_model_no_weights": ("model_not_found", "no file named model.safetensors"),
    "sft_model_corrupt": ("model_unreadable", "SafetensorError"),
    "sft_model_not_in_cache": ("model_not_found", "couldn't connect to 'https://huggingface.co'"),
    "sft_config_key": ("config_key", "trainer.no_such_key"),
    "sft_config_grammar": ("config_key", "LexerNoViableAltException"),
    "sft_code_import": ("import_failed", "No module named 'flash_attn_next'"),
    "sft_port_in_use": ("port_in_use", "EADDRINUSE"),
    "sft_no_gpu": ("no_gpu", "doesn't have NCCL built in"),
    "sft_disk_full": ("disk_full", "unexpected pos"),
    "sft_host_memory": ("host_out_of_memory", "MemoryError"),
    "sft_host_memory_tensor": ("host_out_of_memory", "DefaultCPUAllocator"),
    "sft_kernel_kill": ("killed", ""),
    "launcher_one_killed": ("killed", "a process on node 0 ended with exit code 137"),
    "torchrun_rendezvous": ("rendezvous_failed", "RendezvousTimeoutError"),
    "torchrun_one_killed": ("killed", "Signal 9 (SIGKILL)"),
    # The other process, which lost its peer, speaks first.
    "torchrun_one_out_of_memory": ("host_out_of_memory", "DefaultCPUAllocator: can't allocate memory"),
    "gloo_peer_lost": ("communication_failed", "Connection closed by peer"),
    "meeting_no_master": ("rendezvous_failed", "timed out after 5000ms while trying to connect to (192.0.2.1"),
    "meeting_refused": ("rendezvous_failed", "timed out"),
    "meeting_no_peers": ("rendezvous_failed", "1/2 clients joined"),
    "meeting_no_such_host": ("rendezvous_failed", "no-such-host.invalid"),
    "rl_dataset_missing": ("dataset_missing", "Unable to find '/private/common/datasets/add/gone.parquet'"),
    "rl_dataset_corrupt": ("dataset_unreadable", "corrupt.parquet"),
    "rl_dataset_suffix": ("dataset_unreadable", "Unsupported file format: /private/common/datasets/rl_train.pq"),
    "rl_no_prompt": ("dataset_columns", "KeyError: 'prompt'"),
    "rl_no_reward_model": ("dataset_columns", "KeyError: 'reward_model'"),
    "rl_no_data_source": ("dataset_columns", "KeyError: 'data_source'"),
    "rl_model_empty": ("model_not_found", "Couldn't instantiate the backend tokenizer"),
    "rl_model_not_in_cache": ("model_not_found", "couldn't connect to 'https://huggingface.co'"),
    "rl_config_key": ("config_key", "trainer.no_such_key"),
    "rl_non_finite": ("non_finite_loss", "probability tensor contains"),
    "rl_ray_memory_monitor": ("host_out_of_memory", "memory"),
}


def read(name: str) -> str:
    return (SAMPLES / f"{name}.log").read_text()


def explained(log: str, exit_code: int = 1) -> failures.Failure:
    return failures.explain(failures.lines_of(log), exit_code)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_real_log_is_told_by_its_cause(name: str) -> None:
    code, words = EXPECTED[name]
    found = explained(read(name), EXIT_CODES[name])
    assert found.code == code, found
    assert words in found.line
    assert found.hint.endswith(".") and "\n" not in found.hint


def test_every_sample_is_judged() -> None:
    samples = {path.stem for path in SAMPLES.glob("*.log")}
    assert (
        samples
        == set(EXIT_CODES)
        == {
            *EXPECTED,
            *("rl_insufficient_resources", "sft_non_finite", "rl_vllm_good_end"),
        }
    )


def judged(log: str, exit_code: int = 1) -> End:
    files = FilesSeen(True, ExitRecord(exit_code), log)
    end = next_step(ATTEMPT, JobSeen(JobStatus.FAILED, "", FailureKind.DRIVER, exit_code), files, "s1")
    assert isinstance(end, End)
    return end


@pytest.mark.parametrize("name", EXPECTED)
def test_a_real_failure_is_never_taken_for_another_end(name: str) -> None:
    assert judged(read(name), EXIT_CODES[name]).outcome is Outcome.APPLICATION


def test_verls_own_fit_check_stays_an_outcome_of_its_own() -> None:
    end = judged(read("rl_insufficient_resources"))
    assert end.outcome is Outcome.INSUFFICIENT_RESOURCES
    assert end.failure is not None and end.failure.code == "insufficient_resources"
    assert end.reason == "verl: Total available GPUs 0 is less than total desired GPUs 1"


def test_a_loss_that_is_no_number_does_not_stop_verls_sft() -> None:
    """It warns, goes on, saves, and ends well; so does the task. Its metrics are where that shows."""
    assert EXIT_CODES["sft_non_finite"] == 0
    assert "WARN: grad_norm is not finite: nan" in read("sft_non_finite")
    assert "train/loss:nan" in read("sft_non_finite")


# Not produced here, where there is no GPU: the words are those of torch 2.x and vLLM as they stand in public reports
# (for instance pytorch/pytorch#118369 and RLinf/RLinf#272); ranks and numbers are made up.
CUDA_OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.32 GiB. GPU 3 has a total capacity of 79.11 GiB of"
    " which 1.05 GiB is free. Including non-PyTorch memory, this process has 78.05 GiB memory in use."
)
NCCL_TIMEOUT = (
    "[rank{0}]:[E321 02:07:08.408271257 ProcessGroupNCCL.cpp:607] [Rank {0}] Watchdog caught collective operation"
    " timeout: WorkNCCL(SeqNum=1580, OpType=ALLREDUCE, NumelIn=9, NumelOut=9, Timeout(ms)=600000) ran for 600060"
    " milliseconds before timing out."
)
NOT_PRODUCED = {
    "gpu_out_of_memory": [
        f"[rank3]: {CUDA_OOM}",
        "(WorkerDict pid=118848, ip=10.0.0.2) " + CUDA_OOM,
        "RuntimeError: CUDA error: out of memory",
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
        "ValueError: Free memory on device (10.1/79.1 GiB) on startup is less than desired GPU memory utilization (0.5",
    ],
    "communication_failed": [
        NCCL_TIMEOUT.format(0),
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:2251, unhandled system error",
        "ncclRemoteError: A call failed possibly due to a network error or a remote process exiting prematurely.",
    ],
    "disk_full": ["OSError: [Errno 28] No space left on device", "OSError: [Errno 122] Disk quota exceeded"],
    "no_gpu": ["RuntimeError: No CUDA GPUs are available"],
}


@pytest.mark.parametrize(("code", "line"), [(code, line) for code, lines in NOT_PRODUCED.items() for line in lines])
def test_words_that_were_not_produced_here(code: str, line: str) -> None:
    found = explained(f"some line\n{line}\nanother\n")
    assert (found.code, found.line) == (code, line)


def test_the_cause_is_told_and_not_its_consequence() -> None:
    """One process has no memory left; the others wait for it, and Ray finds its actors dead."""
    waits = [NCCL_TIMEOUT.format(rank) for rank in (0, 1, 2)]
    dies = ["ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task."]
    for log in ([f"[rank3]: {CUDA_OOM}", *waits, *dies], [*waits, f"[rank3]: {CUDA_OOM}", *dies]):
        assert explained("\n".join(log)).code == "gpu_out_of_memory"


def test_what_a_run_has_survived_is_not_the_cause() -> None:
    log = f"retrying after {CUDA_OOM}\nstep:1 - train/loss:0.5\nValueError: mine\n"
    found = explained(log)
    assert (found.code, found.line) == ("unknown", "ValueError: mine")


def test_code_in_a_traceback_is_no_message() -> None:
    log = 'Traceback:\n[rank0]:   File "a.py", line 1\n[rank0]:     raise MemoryError("x")\n[rank0]: ValueError: mine\n'
    assert explained(log).line == "[rank0]: ValueError: mine"


@pytest.mark.parametrize(
    ("exit_code", "code"), [(137, "killed"), (143, "stopped"), (139, "crashed"), (134, "crashed"), (1, "unknown")]
)
def test_without_a_word_the_signal_tells(exit_code: int, code: str) -> None:
    assert explained("", exit_code).code == code
    assert explained("step:1 - x\nworking\n", exit_code) == explained("working\n", exit_code)


def test_a_line_is_bounded_and_plain_text() -> None:
    noisy = (
        "\x1b[36m(W pid=1)\x1b[0m \x07\u202eOSError: No space left\tfor\x00you: No space left on device" + "x" * 9000
    )
    found = explained(f"Epoch 1: 2%\r{noisy}\r\n")
    assert found.code == "disk_full"
    assert found.line.startswith("(W pid=1)  OSError: No space left for you")
    assert found.line.isprintable() and len(found.line) == failures.MAX_LINE_CHARS


def test_a_long_log_is_explained_in_no_time() -> None:
    begin = time.thread_time()
    for long in ("(" * 130_000, "( pid=" * 20_000, "[rank0]: " * 15_000, "a." * 60_000, "x:\n" * 40_000):
        explained(long)
    assert time.thread_time() - begin < 5


def test_every_code_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \| (?!\d)", page, re.M)) >= set(failures.CODES)


def test_a_step_that_ray_relays_late_hides_nothing() -> None:
    """Seen on real Ray: the step before the error came after the driver's own traceback."""
    own = ["Traceback (most recent call last):", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB."]
    late = "[36m(TaskRunner pid=5149)[0m step:2 - critic/score/mean:0.5"
    assert failures.explain([*own, late], 1).code == "gpu_out_of_memory"
    assert failures.explain([*own, "step:2 - train/loss:0.5"], 1).code == "unknown", "sft's own steps come in order"
    assert failures.explain([*own, late], 137).code == "killed", "it has survived that traceback"


#: What runs with vLLM print when their processes are ended, also at a good end; as vLLM 0.29 and torch 2.13 word it.
#: `rl_vllm_good_end.log` is the whole end of a run that made all its steps.
AT_EXIT = (
    "(vLLMHttpServer pid=4242) ERROR 11-26 22:03:15 [async_llm.py:694] AsyncLLM output_handler failed.",
    "(vLLMHttpServer pid=4242) vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack"
    " trace (above) for the root cause.",
    "(TaskRunner pid=4100) RuntimeError: DataLoader worker (pid 4711) is killed by signal: Terminated. ",
    "(TaskRunner pid=4100) RuntimeError: DataLoader worker (pid(s) 4711, 4712) exited unexpectedly",
)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("ValueError: mine", "unknown"),
        (f"[rank3]: {CUDA_OOM}", "gpu_out_of_memory"),
        ("OSError: [Errno 28] No space left on device", "disk_full"),
    ],
)
def test_what_is_printed_at_every_exit_hides_no_cause(line: str, code: str) -> None:
    found = explained("\n".join([line, *AT_EXIT]))
    assert (found.code, found.line) == (code, line)
    assert explained("\n".join([*AT_EXIT[:2], line, *AT_EXIT[2:]])).line == line
    begin, end = read("rl_vllm_good_end").split("'Final validation metrics: None'")
    assert "is killed by signal: Killed" in end, "that of a run that ended well"
    found = explained(f"{begin}\n{line}\n{end}")
    assert (found.code, found.line) == (code, line)


@pytest.mark.parametrize("noise", AT_EXIT)
def test_what_is_printed_at_every_exit_is_no_cause(noise: str) -> None:
    found = explained(noise)
    assert (found.code, found.line) == ("unknown", noise.strip()), "there is nothing else to quote"
    assert judged(noise).outcome is Outcome.APPLICATION, "and no loss of a node"
    assert explained(f"working\n{noise}", 137).code == "killed"


@pytest.mark.parametrize(
    "log", ["\n".join(["step:4 - critic/score/mean:0.5", *AT_EXIT]), read("rl_vllm_good_end")], ids=["words", "real"]
)
def test_a_good_end_is_one_whatever_is_printed(log: str) -> None:
    files = FilesSeen(True, ExitRecord(0), log)
    for job in (
        JobSeen(JobStatus.SUCCEEDED),
        JobSeen(JobStatus.FAILED, "supervisor died", FailureKind.SUPERVISOR),
        JobSeen(JobStatus.ABSENT),
    ):
        end = next_step(ATTEMPT, job, files, "s1")
        assert isinstance(end, End) and end.outcome is Outcome.SUCCEEDED and end.failure is None


def test_a_worker_of_the_data_that_died_itself_is_told() -> None:
    line = "RuntimeError: DataLoader worker (pid 4711) is killed by signal: Bus error. It is possible that dataloader's"
    assert explained("\n".join([line, AT_EXIT[1]])).line == line
