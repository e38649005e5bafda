"""What counts as a command of a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import documented

ROOT = Path(__file__).resolve().parents[2]
PAGE = """
First `scripts/one --option`, then `ARGUS_A=b two three`, `docs/three.md` and `field`.
```sh
argus four ID      # a note, and `argus five`
argus six \\
    --seven
# nothing
```
1. In a list:
   ```sh
   printf '%s\\n' "$A" | argus eight
   ```
```yaml
workload: sft
```
```console
$ argus nine
what it answers
```
```python
from a import b
b()
```
And again `argus nine`, `scripts/one
--option`, and ``.
"""


def found(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "page.md").write_text(text)
    return [command.text for command in documented.commands(tmp_path / "page.md")]


def test_commands_of_blocks_and_sentences_each_once_and_in_order(tmp_path: Path) -> None:
    assert found(tmp_path, PAGE) == [
        "scripts/one --option",
        "ARGUS_A=b two three",
        "argus four ID",
        "argus six --seven",
        "printf '%s\\n' \"$A\" | argus eight",
        "argus nine",
        "from a import b\nb()\n",
    ]


def test_a_block_of_a_kind_that_nobody_knows_is_not_passed_over(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bash"):
        found(tmp_path, "```bash\nargus one\n```\n")


def test_the_block_after_a_text(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("```sh\none\n```\nNow:\n```sh\ntwo  # a note\nthree\n```\n")
    assert documented.block(tmp_path / "page.md", "Now:") == ["two", "three"]
