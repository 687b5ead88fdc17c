"""Who listens where."""

from collections.abc import Iterable

import psutil


def listening(processes: Iterable[psutil.Process]) -> list[tuple[str, str]]:
    """Name, and address:port, of every TCP listener among `processes`."""
    found = set()
    for process in processes:
        try:
            connections = process.net_connections(kind="tcp")
            name = process.name()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        found |= {(name, f"{one.laddr.ip}:{one.laddr.port}") for one in connections if one.status == psutil.CONN_LISTEN}
    return sorted(found)
