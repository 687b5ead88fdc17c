"""The initial student's directory on this machine."""

from pathlib import Path

from orpo_ray.config import RunConfig
from orpo_ray.errors import InputError


def student_directory(config: RunConfig) -> Path:
    """The directory of `student.model`; a hub name is downloaded, or found in the hub's cache.

    Raises:
        InputError: neither a directory nor a model that the hub gives.
    """
    path = Path(config.student.model)
    if path.is_dir():
        return path.resolve()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(config.student.model))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"student.model: {config.student.model} is no directory here, and the hub does not give it: "
            f"{str(error).splitlines()[0]}"
        ) from None
