"""Run by `tests/node/test_haproxy_start.py` in a process of its own, since Ray reads its settings when it is imported:
writes HAProxy's configuration as Serve's proxy actor does. Arguments: folder, port, and the ports of the replicas."""

from __future__ import annotations

import sys
from pathlib import Path

from ray.serve._private import haproxy
from ray.serve.config import HTTPOptions


def main(folder: Path, port: int, replicas: list[int]) -> None:
    config = haproxy.HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        is_head=True,
        socket_path=str(folder / "s"),
        server_state_base=str(folder),
        server_state_file=str(folder / "servers"),
    )
    api = haproxy.HAProxyApi(config, config_file_path=str(folder / "haproxy.cfg"))
    if replicas:
        # Serve names the address of the node, where nobody listens.
        servers = [haproxy.ServerConfig(f"replica-{each}", "127.0.0.10", each) for each in replicas]
        fallback = haproxy.ServerConfig("fallback", "127.0.0.1", port)
        backend = haproxy.BackendConfig(
            name="http-argus", path_prefix="/", app_name="argus", servers=servers, fallback_server=fallback
        )
        api.set_backend_configs({"http-argus": backend})
    api._generate_config_file_internal()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), [int(each) for each in sys.argv[3:]])
