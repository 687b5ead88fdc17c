"""What must not stand in a configuration, which is dumped, logged and published, and who may reach a listener."""

import ipaddress
import re
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

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


MIRROR_QUERY = ("region", "endpoint_override", "scheme")
"""What the query of a mirror's URL may say."""


def mirror_url(url: str | None) -> str | None:
    """The URL of an object store, with where it is but not who asks: keys come from the environment."""
    if url is None:
        return None
    parts = urlsplit(url)
    unknown = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if name not in MIRROR_QUERY]
    if parts.username or parts.password or unknown or (parts.query and parts.scheme != "s3"):
        raise PydanticCustomError(
            SECRET_VALUE,
            "holds a user, a password or an unknown query, and a configuration is no place for secrets; leave keys to the "
            "environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role); a query may say region, "
            "endpoint_override and scheme of an s3:// URL",
        )
    place = parts.path if parts.scheme == "file" else parts.netloc
    if not parts.scheme or not place.strip("/"):
        raise ValueError(
            "is no URL of a place that keeps files; write s3://bucket/prefix, gs://bucket/prefix or file:///directory"
        )
    return url


VariableName = Annotated[str | None, AfterValidator(variable_name)]
PublicUrl = Annotated[str | None, AfterValidator(public_url)]
MirrorUrl = Annotated[str | None, AfterValidator(mirror_url)]


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
