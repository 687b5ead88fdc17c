"""The shelf of published versions: which is newest, who is reading which, and which may go. Pure logic, no I/O."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from orpo_ray.errors import StaleAttemptError


@dataclass(frozen=True)
class Version:
    """One published student.

    Attributes:
        number: how many times the student had been published when this one was; 0 is the initial student.
        path: its directory.
        step: optimizer steps behind it.
        epoch: the epoch that it ends; None in mid-epoch.
        phi: φ of the epochs from the first on, as far as this version determines it; empty where the options alone do.
        copy: a directory with the same in the memory of the node that published it, or the address of a link over which
            it is sent; None where there is none.
    """

    number: int
    path: str
    step: int
    epoch: int | None = None
    phi: tuple[float, ...] = ()
    copy: str | None = None


@dataclass
class Shelf:
    """Published versions of one run. Every call names its attempt, and calls of older attempts are refused.

    A hold is on a version's directory: the next attempt publishes the same numbers again, but each in another.

    Attributes:
        lasting: readers that live through attempts, as the evaluator; all others end with theirs.
    """

    initial: Version
    attempt: int = 0
    lasting: frozenset[str] = frozenset()
    _versions: dict[int, Version] = field(default_factory=dict)
    _holds: dict[tuple[str, str], int] = field(default_factory=dict)
    _retired: dict[int, Version] = field(default_factory=dict)
    _pinned: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._versions = {self.initial.number: self.initial}

    @property
    def newest(self) -> Version:
        return self._versions[max(self._versions)]

    def start_attempt(self, attempt: int, current: Version, older: Sequence[Version] = ()) -> None:
        """Begin `attempt` from `current`: newer versions belong to a dead timeline, and their readers are gone.

        Args:
            older: versions before `current` that are still on the storage; they go once nobody needs them.
        """
        if attempt <= self.attempt:
            raise StaleAttemptError(f"attempt {attempt} began after attempt {self.attempt}")
        self.attempt = attempt
        self._versions = {current.number: current}
        self._retired = {version.number: version for version in older}
        there = {version.path for version in (current, *older)}
        self._holds = {
            (reader, path): count
            for (reader, path), count in self._holds.items()
            if reader in self.lasting and path in there
        }

    def check(self, attempt: int) -> None:
        """Refuse a call of an older start of the worker group.

        Raises:
            StaleAttemptError: if `attempt` is not the current one.
        """
        if attempt != self.attempt:
            raise StaleAttemptError(
                f"a call of attempt {attempt} came while attempt {self.attempt} runs; it was refused"
            )

    def publish(self, attempt: int, version: Version) -> None:
        """Make `version` the newest; the ones before it may go once nobody reads them."""
        self.check(attempt)
        if version.number != self.newest.number + 1:
            raise ValueError(f"version {version.number} published after version {self.newest.number}")
        for number in list(self._versions):
            self._retired[number] = self._versions.pop(number)
        self._versions[version.number] = version

    def hold(self, reader: str, path: str) -> None:
        """`reader` reads the version in directory `path` until it calls release, once for each hold."""
        key = (reader, path)
        self._holds[key] = self._holds.get(key, 0) + 1

    def release(self, reader: str, path: str) -> None:
        key = (reader, path)
        left = self._holds.get(key, 0) - 1
        if left > 0:
            self._holds[key] = left
        else:
            self._holds.pop(key, None)

    def hold_only(self, reader: str, paths: Set[str]) -> None:
        """`reader` reads the versions in `paths`, once each, and no others."""
        self.drop_reader(reader)
        self._holds |= {(reader, path): 1 for path in paths}

    def holds(self) -> list[tuple[str, str]]:
        """Who reads which directory."""
        return list(self._holds)

    def held_by(self, reader: str) -> set[str]:
        """Directories that `reader` reads."""
        return {path for holder, path in self._holds if holder == reader}

    def drop_reader(self, reader: str) -> None:
        """A reader is dead: its holds end."""
        for key in [key for key in self._holds if key[0] == reader]:
            del self._holds[key]

    def pin(self, numbers: set[int]) -> None:
        """Versions that a kept checkpoint would resume with: they stay until another set is pinned."""
        self._pinned = set(numbers)

    def take_removable(self) -> list[Version]:
        """Versions that are neither newest, pinned, nor read, nor the initial student: given out once, for deletion."""
        read = {path for _, path in self._holds}
        free = [
            version
            for number, version in self._retired.items()
            if number not in self._pinned and version.path not in read
        ]
        for version in free:
            del self._retired[version.number]
        return [version for version in free if version.number != self.initial.number]
