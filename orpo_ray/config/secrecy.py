"""What must not stand in a configuration, which is dumped, logged and published, and who may reach a listener."""

import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

SECRET_VALUE = "secret_value"
"""Type of the validation errors whose value must not be repeated."""


def variable_name(name: str | None) -> str | None:
    """An environment variable's name, in capitals as they are written; a key that was pasted instead is refused unseen."""
    if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise PydanticCustomError(
            SECRET_VALUE,
            "names an environment variable, in capitals as OPENAI_API_KEY; what is given is none, and is not repeated here, "
            "since it may be the key itself",
        )
    return name


def public_url(url: str | None) -> str | None:
    """A URL without user, password or query, where keys are put."""
    if url is not None:
        parts = urlsplit(url)
        if parts.username or parts.password or parts.query:
            raise PydanticCustomError(
                SECRET_VALUE,
                "holds a user, a password or a query, and a configuration is no place for secrets; take the plain URL, and "
                "leave the key to the environment (`api_key_env` names its variable; MLflow has its own, as "
                "MLFLOW_TRACKING_PASSWORD)",
            )
    return url


VariableName = Annotated[str | None, AfterValidator(variable_name)]
PublicUrl = Annotated[str | None, AfterValidator(public_url)]


def is_loopback_host(host: str) -> bool:
    """Whether only processes of this machine reach a listener at `host`."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    # Until Python 3.13 an IPv4 address in IPv6 form is never a loopback one.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
