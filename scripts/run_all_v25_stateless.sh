#!/usr/bin/env bash
# The whole story of a pool of stateless machines, on real hosts (namespaces; needs root): see the Python file.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
"$here/scripts/setup"
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
exec "$here/.venv/bin/python" "$here/scripts/run_all_v25_stateless.py" "$@"
