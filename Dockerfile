# One image for heads and workers: `ARGUS_ROLE=head` or `worker` decides. See docs/operations.md, "In containers".
# About 8 GB: requirements.lock has torch (with CUDA) and verl, which the workers need. For workers with GPUs, and then for
# their head as well: docker build --build-arg ARGUS_LOCK=requirements-gpu.lock, which has vLLM too, for ppo and grpo.
#
# To the patch level: Ray refuses a node whose Python differs from its head's. If workers are no containers, name theirs.
ARG PYTHON_VERSION=3.11.14
FROM python:${PYTHON_VERSION}-slim-bookworm

# The same number as on every other machine that mounts the shared filesystem.
ARG ARGUS_UID=990
RUN useradd --system --uid "$ARGUS_UID" --create-home --home-dir /var/lib/argus argus \
 && install -d -o argus /private /run/argus

# Triton compiles at run time what it launches on a GPU: torch.compile, which verl's actor uses, and vLLM need it.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/argus
ARG ARGUS_LOCK=requirements.lock
COPY ${ARGUS_LOCK} ./
RUN pip install --no-cache-dir -r "$ARGUS_LOCK"
COPY . .
# The command as one file and the page for people are parts of the package, so they are made first.
RUN python scripts/make_pyz.py --lock "$ARGUS_LOCK" \
 && scripts/make-console && rm -rf .venv argus_ray/console/node_modules \
 && pip install --no-cache-dir --no-deps .

ENV ARGUS_RUN_DIR=/run/argus ARGUS_SERVE_CONFIG=/opt/argus/serve_config.yaml
USER argus
ENTRYPOINT ["/opt/argus/scripts/entrypoint"]
