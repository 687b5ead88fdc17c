"""A checkpoint of one number of ranks in the form that any number can load: DeepSpeed's universal checkpoint."""

import contextlib
import io
from argparse import Namespace
from pathlib import Path


def convert_to_universal(source: Path, target: Path) -> None:
    """Write what the ranks left in `source`, a tag's directory, parameter by parameter to `target`; one process does it.

    It takes as much disk again as the checkpoint, twice that while it works, and the memory of one rank's share.
    """
    from deepspeed.checkpoint import ds_to_universal

    options = Namespace(
        input_folder=str(source),
        output_folder=str(target),
        # No processes of its own: a Ray worker must not fork.
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        # Written only under tensor parallelism, which is not ours; without it stages 1 and 2 are refused.
        inject_missing_state=True,
    )
    # Its progress bars, one for each of its steps, are not for a log.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        ds_to_universal.main(options)
