"""Which of several raylets on one machine is a driver's own.

Ray attaches a driver to the head's raylet if there is one on the same host (ray 2.60, get_node_to_connect_for_driver),
and the driver's actors then count as created on the head. Where the nodes of one machine have an address each, the
one who starts a raylet says which is its own; with one raylet a host there is nothing to say."""

from __future__ import annotations

import os
from typing import Any

#: Set for the raylet, and so for the drivers that it starts.
NODE_IP = "ARGUS_NODE_IP"


def options() -> dict[str, Any]:
    """What `ray.init` has to be told."""
    ip = os.environ.get(NODE_IP)
    return {"_node_ip_address": ip} if ip else {}
