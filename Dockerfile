# One image for heads and workers: `ARGUS_ROLE=head` or `worker` decides. See docs/operations.md, "In containers".
# About 8 GB: requirements.lock has torch (with CUDA) and verl, which the workers need.
FROM python:3.11-slim

# The same number as on every other machine that mounts the shared filesystem.
ARG ARGUS_UID=990
RUN useradd --system --uid "$ARGUS_UID" --create-home --home-dir /var/lib/argus argus \
 && install -d -o argus /private /run/argus

WORKDIR /opt/argus
COPY requirements.lock ./
RUN pip install --no-cache-dir -r requirements.lock
COPY . .
RUN pip install --no-cache-dir --no-deps .

ENV ARGUS_RUN_DIR=/run/argus ARGUS_SERVE_CONFIG=/opt/argus/serve_config.yaml
USER argus
ENTRYPOINT ["/opt/argus/scripts/entrypoint"]
