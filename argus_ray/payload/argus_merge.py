"""verl's own model merger, and then a look by transformers at what it has made: the arguments are those of
`python -m verl.model_merger`. It exits with 1 if a weight is missing, too many or of another shape, as for a checkpoint
that holds an adapter only: the merger itself looks at the names of files."""

from __future__ import annotations

import argparse
import sys
from typing import Any


def main() -> int:
    from verl.model_merger.base_model_merger import generate_config_from_args, parse_args
    from verl.model_merger.fsdp_model_merger import FSDPModelMerger

    options: argparse.Namespace = parse_args()
    merger: Any = FSDPModelMerger(generate_config_from_args(options))
    merger.merge_and_save()
    merger.cleanup()
    auto_class = merger.get_transformers_auto_model_class()
    _, found = auto_class.from_pretrained(
        options.target_dir, output_loading_info=True, dtype="auto", trust_remote_code=options.trust_remote_code
    )
    wrong = {
        what: sorted(map(str, found.get(f"{what}_keys") or ())) for what in ("missing", "unexpected", "mismatched")
    }
    for what, names in wrong.items():
        if names:
            print(f"the merged model has {len(names)} {what} weights: {', '.join(names[:5])}")
    return int(any(wrong.values()))


if __name__ == "__main__":
    sys.exit(main())
