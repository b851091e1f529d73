"""The two ways the tool says no, and its exit codes."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_USAGE = 2
EXIT_HOLD = 10
EXIT_FAIL = 20
EXIT_ERROR = 30


class InputError(Exception):
    """What a person gave us is wrong: file, key, problem and fix. Exit code 2, nothing changed."""

    def __init__(self, file: str, key: str, problem: str, fix: str) -> None:
        self.file, self.key, self.problem, self.fix = file, key, problem, fix
        super().__init__(f"{file}: {key}: {problem}. Fix: {fix}")


class Refused(Exception):  # noqa: N818 - a refusal is an answer, not an error
    """A legal request that the state of the site does not allow now; exit code 10."""
