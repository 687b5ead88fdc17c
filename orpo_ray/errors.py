"""One exception class per cause. The command line turns each into one message and an exit code."""


class OrpoRayError(Exception):
    """The root of every error this package raises on purpose: its message is for the person who reads it."""

    exit_code = 1


class InputError(OrpoRayError):
    """The user's input is at fault: the message says what was wrong, where, and what would be right."""

    exit_code = 2


class ConfigError(InputError):
    """The configuration is at fault; `problems` holds every mistake found, one line each."""

    def __init__(self, problems: list[str], source: str = "configuration") -> None:
        self.problems = problems
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        super().__init__(f"{source}: {count}\n" + "\n".join(f"  - {problem}" for problem in problems))

    def __reduce__(self) -> tuple[object, ...]:
        return (InputError, (str(self),))


class DataError(InputError):
    """A data file is at fault: the message names file and line."""


class VerifierError(OrpoRayError):
    """A verifier broke on a row. Never counted as a wrong answer: the run ends and the row is named."""

    exit_code = 2


class TeacherError(OrpoRayError):
    """The teacher could not be reached or refused, after the retries that make sense for the cause."""


class WaitTimeout(OrpoRayError):
    """A wait reached its limit: the message says what it waited for and for how long."""


class SamplerLostError(OrpoRayError):
    """A sampler is gone for longer than `limits.place_s`, and rows with it: the stream is built anew without it."""


class CollectiveTimeout(OrpoRayError):
    """A train worker waited for the others in a collective for longer than `limits.collective_s`."""


class StaleAttemptError(OrpoRayError):
    """A call came from an older start of the worker group, and was refused."""


class EvaluatorLostError(OrpoRayError):
    """The evaluator died more often than `limits.failures` allows."""
