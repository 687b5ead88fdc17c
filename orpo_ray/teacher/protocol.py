"""What a teacher is to the rest of the package: text for a prompt, nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orpo_ray.tasks import Message, Row


@dataclass(frozen=True)
class Sample:
    """One completion as a black box gives it.

    Attributes:
        truncated: cut by the token limit.
    """

    text: str
    truncated: bool = False


class Teacher(Protocol):
    """A backend. Many calls are in flight at once, all from one event loop.

    Not supported: logits, token ids, anything else that a black box does not give.
    """

    async def sample(
        self,
        row: Row,
        messages: Sequence[Message],
        *,
        k: int,
        temperature: float,
        top_p: float,
        max_tokens: int,
        seed: int,
    ) -> list[Sample]:
        """Up to k completions of one prompt, in the order of their seeds; fewer where the backend has no more.

        Args:
            temperature: 0 is greedy.
            max_tokens: longest completion.
            seed: the same seed gives the same completions, where the backend honours it.

        Raises:
            InputError: the backend refuses the request, and would again.
            TeacherError: it could not be reached, after retries.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
