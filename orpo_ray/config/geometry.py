"""Batches, blocks, ranks and epochs: the arithmetic that keeps the stream from hanging (DESIGN promise 1).

A global batch is cut into equal blocks that go round-robin to the ranks. Unless `block_rows × ranks` divides the global
batch, the splitter waits for rows that the gate holds back; unless an epoch is whole global batches, the batch that
straddles its end waits for a version that only its own training can publish.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """How the stream's rows fall into blocks, batches and epochs.

    `refresh_steps` is None where a new student version is published at the end of each epoch only.
    """

    global_batch: int
    ranks: int
    block_rows: int
    prompts: int
    epochs: int
    refresh_steps: int | None

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch: its last batch is filled up with rows of weight 0."""
        return -(-self.prompts // self.global_batch)

    @property
    def rows_per_epoch(self) -> int:
        """Rows of one epoch, padding included."""
        return self.steps_per_epoch * self.global_batch

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    @property
    def rows(self) -> int:
        return self.rows_per_epoch * self.epochs

    @property
    def steps_per_version(self) -> int:
        """Optimizer steps between two published student versions; an epoch's end always publishes one."""
        return min(self.refresh_steps or self.steps_per_epoch, self.steps_per_epoch)

    @property
    def versions_per_epoch(self) -> int:
        return -(-self.steps_per_epoch // self.steps_per_version)

    def version_at(self, step: int) -> int:
        """How many times the student has been published once `step` optimizer steps are done."""
        epochs, in_epoch = divmod(step, self.steps_per_epoch)
        return epochs * self.versions_per_epoch + in_epoch // self.steps_per_version

    @property
    def local_rows(self) -> int:
        """Rows of a global batch that one rank receives."""
        return self.global_batch // self.ranks

    def real_rows(self, step: int) -> int:
        """Rows of weight 1 in the global batch of optimizer step `step` (from 0): known without asking the ranks."""
        in_epoch = step % self.steps_per_epoch
        return min(self.global_batch, self.prompts - in_epoch * self.global_batch)


def world_sizes(global_batch: int, fewest: int, most: int, block_rows: int | None) -> list[int]:
    """The numbers of ranks from `most` down to `fewest` with which whole blocks fill the global batch."""
    return [ranks for ranks in range(most, fewest - 1, -1) if not geometry_problems(global_batch, ranks, block_rows)]


def default_block_rows(global_batch: int, ranks: int, at_most: int = 16) -> int:
    """The largest block of at most `at_most` rows with which block_rows × ranks divides the global batch."""
    local = global_batch // ranks
    return max(rows for rows in range(1, min(local, at_most) + 1) if local % rows == 0)


def geometry_problems(
    global_batch: int, ranks: int, block_rows: int | None, option: str = "train.workers"
) -> list[str]:
    """What is wrong with the batch's edges, one sentence each; empty where nothing is.

    Args:
        option: the one that gives `ranks`, for messages.
    """
    if global_batch % ranks:
        return [
            f"train.global_batch: {global_batch} cannot be shared equally by {option} = {ranks}; "
            f"take a multiple of {ranks}, as {-(-global_batch // ranks) * ranks}"
        ]
    problems = []
    local = global_batch // ranks
    if block_rows is not None and global_batch % (block_rows * ranks):
        fitting = [rows for rows in range(1, local + 1) if local % rows == 0]
        problems.append(
            f"resources.block_rows: {block_rows} × {option} {ranks} does not divide train.global_batch "
            f"{global_batch}, which would hang the stream; fitting are {', '.join(map(str, fitting))}"
        )
    return problems
