"""The initial student's directory on this machine, in a layout that trainer and samplers both know."""

from pathlib import Path

from orpo_ray.config import RunConfig
from orpo_ray.config.fingerprint import fingerprint
from orpo_ray.engine.internlm2 import LAYOUT, is_internlm2, write_llama
from orpo_ray.errors import InputError
from orpo_ray.traces.model_fingerprint import model_fingerprint
from orpo_ray.weights.published import IncompleteVersionError, check_published, publish_directory


def student_directory(config: RunConfig) -> Path:
    """The directory of `student.model`; a hub name is downloaded, or found in the hub's cache.

    All that follows, the export too, sees it as `in_known_layout` has it.

    Raises:
        InputError: neither a directory nor a model that the hub gives, or an InternLM2 model that cannot be converted.
    """
    return in_known_layout(config, _given(config))


def in_known_layout(config: RunConfig, given: Path) -> Path:
    """A model's directory itself; of an InternLM2 model one with the same model in the Llama layout.

    It is converted once for all runs of `storage.path`, and found again by its fingerprint.

    Raises:
        InputError: an InternLM2 model that cannot be converted.
    """
    if not is_internlm2(given):
        return given
    key = fingerprint(model_fingerprint(given), LAYOUT)
    directory = _converted(config) / f"llama-{key}"
    try:
        check_published(directory)
    except IncompleteVersionError:
        publish_directory(directory, lambda path: write_llama(given, path), {"converted_from": "internlm2"})
    return directory


def is_converted(config: RunConfig, directory: Path) -> bool:
    """Whether the student's directory is a conversion of the one that the configuration names."""
    return directory.parent == _converted(config)


def _converted(config: RunConfig) -> Path:
    return Path(config.storage.path).resolve() / "converted"


def _given(config: RunConfig) -> Path:
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
