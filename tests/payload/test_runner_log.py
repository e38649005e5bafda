"""The driver log with a bound, as the runner writes it and as its readers read it; and what Ray's own log gets."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import pytest

from argus_ray.core import paths
from argus_ray.disk import attempt_files, logs
from tests.support.running import Start, finish, log_of, until

MIB = 1 << 20
LIMIT = ("--log-bytes", str(MIB))
#: Lines of 16 bytes, by number.
COUNT = "import sys\nfor i in range({n}): sys.stdout.write(f'line {{i:010}}\\n')"

#: Never writes more than 200,000 bytes that the test has not read.
PACED = """
import sys, time
def read():
    try:
        return int(open('read').read() or 0)
    except FileNotFoundError:
        return 0
for i in range(300_000):
    print(f'line {i:010}')
    if i % 2000 == 0:
        sys.stdout.flush()
        while 16 * i - read() > 200_000:
            time.sleep(0.001)
"""


def numbers(text: bytes | str) -> list[int]:
    text = text.decode() if isinstance(text, bytes) else text
    return [int(number) for number in re.findall(r"^line (\d{10})$", text, re.MULTILINE)]


def files(job_root: Path) -> list[Path]:
    return sorted((job_root / "logs").iterdir())


class TestFiles:
    def test_a_log_within_the_bound_is_one_file(self, start: Start, job_root: Path) -> None:
        assert finish(start(COUNT.format(n=30_000), argv=(), options=LIMIT))[0] == 0
        assert [path.name for path in files(job_root)] == ["driver.log"]
        assert numbers(log_of(job_root)) == list(range(30_000))

    def test_head_and_tail_are_kept_and_the_gap_is_said(self, start: Start, job_root: Path) -> None:
        n = 500_000  # 8 MB
        assert finish(start(COUNT.format(n=n), options=LIMIT))[0] == 0
        found = files(job_root)
        assert sum(path.stat().st_size for path in found) <= MIB
        # In the order of their names: what `cat driver.log*` shows.
        text = b"".join(path.read_bytes() for path in found)
        kept = numbers(text)
        assert (kept[0], kept[-1]) == (0, n - 1)
        (gap_at,) = [i for i, (a, b) in enumerate(itertools.pairwise(kept)) if b != a + 1]
        assert 16 * gap_at > 0.45 * MIB  # the first half
        assert 16 * (n - kept[gap_at + 1]) > 0.4 * MIB  # and the newest
        said = re.search(rb"argus-runner: (\d+) bytes of the log are left out here\n", text)
        assert said is not None
        assert int(said[1]) == 16 * (kept[gap_at + 1] - kept[gap_at] - 1)
        assert b"(limits.log_bytes: 1048576)" in found[0].read_bytes()

    def test_one_endless_line(self, start: Start, job_root: Path) -> None:
        assert finish(start("import sys\nfor _ in range(90): sys.stdout.write('x' * 100_000)", options=LIMIT))[0] == 0
        assert sum(path.stat().st_size for path in files(job_root)) <= MIB
        assert logs.read_end(str(job_root), paths.driver_log(str(job_root)), 1000).data == b"x" * 1000

    def test_a_file_in_place_of_a_piece_ends_no_run(self, start: Start, job_root: Path, tmp_path: Path) -> None:
        """What runs there can write there."""
        assert finish(start(COUNT.format(n=40_000), options=LIMIT))[0] == 0
        piece = files(job_root)[1].name
        job_root.rename(tmp_path / "first")
        wait = "import os, time\nwhile not os.path.isdir('logs'): time.sleep(0.01)"
        plant = f"{wait}\nopen('logs/{piece}', 'w').write('mine')"
        code, output = finish(start(f"{plant}\n{COUNT.format(n=40_000)}", options=LIMIT))
        assert code == 0
        assert output.count(b"argus-runner: cannot write logs/driver.log") == 1
        assert (job_root / "logs" / piece).read_text() == "mine"


class TestReaders:
    @pytest.fixture
    def long_log(self, start: Start, job_root: Path) -> tuple[str, str]:
        assert finish(start(COUNT.format(n=500_000), options=LIMIT))[0] == 0
        return str(job_root), paths.driver_log(str(job_root))

    def test_the_tail(self, long_log: tuple[str, str]) -> None:
        span = logs.read_tail(*long_log, 10_000, 4 * MIB)
        assert numbers(span.data) == list(range(490_000, 500_000))
        assert span.end - span.start == len(span.data) == 160_000

    def test_a_tail_that_crosses_the_gap_says_so(self, long_log: tuple[str, str]) -> None:
        span = logs.read_tail(*long_log, 40_000, 64 * MIB)
        kept = numbers(span.data)
        assert (len(kept), kept[-1]) in {(n, 499_999) for n in (39_999, 40_000)}  # one of them may be the runner's
        said = re.search(rb"argus: (\d+) bytes of the log are left out here\n", span.data)
        assert said is not None
        (before, after) = next((a, b) for a, b in itertools.pairwise(kept) if b != a + 1)
        assert int(said[1]) == 16 * (after - before - 1)
        assert logs.tail_offset(*long_log, 40_000, 64 * MIB) == span.start

    def test_the_bytes_bound_the_tail(self, long_log: tuple[str, str]) -> None:
        span = logs.read_tail(*long_log, 40_000, 1024)
        assert len(span.data) <= 1024
        assert numbers(span.data)[-1] == 499_999

    def test_following_from_the_start_meets_each_byte_once(self, long_log: tuple[str, str]) -> None:
        offset, gaps, read = 0, [], []
        while True:
            span = logs.read_lines_from(*long_log, offset, final=True)
            if span.start > offset:
                gaps.append((offset, span.start))
            if not span.data:
                break
            assert span.end - span.start == len(span.data)
            read.append(span.data)
            offset = span.end
        kept = numbers(b"".join(read))
        assert (kept[0], kept[-1]) == (0, 499_999)
        ((start, end),) = gaps
        (before, after) = next((a, b) for a, b in itertools.pairwise(kept) if b != a + 1)
        assert end - start == 16 * (after - before - 1)

    def test_a_place_within_the_gap_goes_on_behind_it(self, long_log: tuple[str, str]) -> None:
        span = logs.read_lines_from(*long_log, 2 * MIB, final=True)
        assert span.start > 2 * MIB
        assert numbers(span.data)

    def test_a_place_behind_the_end_is_the_end(self, long_log: tuple[str, str]) -> None:
        span = logs.read_lines_from(*long_log, 1 << 40, final=True)
        assert (span.data, span.end) == (b"", logs.read_tail(*long_log, 0, MIB).end)

    def test_a_reader_too_far_behind_skips(self, long_log: tuple[str, str]) -> None:
        span = logs.read_lines_from(*long_log, 0, final=True, backlog=logs.Backlog(100_000, 10_000))
        assert 499_000 < numbers(span.data)[0] < 499_999

    def test_the_scheduler_looks_at_the_end(self, long_log: tuple[str, str]) -> None:
        tail = attempt_files.look(long_log[0]).log_tail
        assert numbers(tail)[-1] == 499_999
        assert len(tail) == attempt_files.TAIL_BYTES

    def test_foreign_pieces_lead_nowhere(self, long_log: tuple[str, str], tmp_path: Path) -> None:
        folder = Path(long_log[0]) / "logs"
        secret = tmp_path / "secret"
        secret.write_text("secret\n" * 100)
        (folder / f"driver.log.{9 * 10**14}").symlink_to(secret)
        os.mkfifo(folder / f"driver.log.{8 * 10**14}")
        (folder / "driver.log.7").write_text("secret\n")
        span = logs.read_tail(*long_log, 100, MIB)
        assert numbers(span.data)[-1] == 499_999
        assert b"secret" not in span.data

    def test_while_it_is_written(self, start: Start, job_root: Path) -> None:
        """A reader that keeps pace misses nothing, though pieces come and go."""
        path = paths.driver_log(str(job_root))
        process = start(PACED, options=LIMIT)
        until(lambda: log_of(job_root), "the first line")
        offset, read, has_ended = 0, [], False
        while True:
            span = logs.read_lines_from(str(job_root), path, offset, final=has_ended)
            assert span.start == offset
            read.append(span.data)
            offset = span.end
            (job_root / "read").write_text(str(offset))
            if not span.data:
                if has_ended:
                    break
                has_ended = process.poll() is not None
        assert numbers(b"".join(read)) == list(range(300_000))


class TestRaysLog:
    def test_it_gets_a_bounded_head_and_our_own_lines(self, start: Start, job_root: Path) -> None:
        code, output = finish(start(COUNT.format(n=100_000) + "\nraise SystemExit(3)"))
        assert code == 3
        assert len(output) < 34_000
        assert output.startswith(b"line 0000000000\n")
        assert output.endswith(f"argus-runner: the rest of the output is in {job_root}/logs/driver.log only\n".encode())

    def test_where_the_log_cannot_be_written_it_gets_the_end_of_a_failure(self, start: Start, job_root: Path) -> None:
        (job_root / "logs" / "driver.log").mkdir(parents=True)
        code, output = finish(start(COUNT.format(n=100_000) + "\nraise SystemExit('the reason')"))
        assert code == 1
        assert output.count(b"argus-runner: cannot write logs/driver.log") == 1
        assert output.endswith(b"the reason\n")
        assert len(output) < 60_000
