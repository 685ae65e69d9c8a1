"""Every error this package raises on purpose.

Two families decide the exit code of the command line: a :class:`UserError` is something the user
can mend (exit code 2, one line, no traceback); any other :class:`DSFedMedError` is a failure of a
run (exit code 1). All children pass their arguments to ``super().__init__`` unchanged, so they
survive pickling between processes.
"""


class DSFedMedError(Exception):
    """Base of all errors raised on purpose."""


class UserError(DSFedMedError):
    """Something the user gave is wrong; the message names it, what is allowed and the remedy."""


class ConfigurationError(UserError):
    """A configuration value is outside its range or contradicts another one."""


class DataError(UserError):
    """A data set, site, image or mask cannot be used."""


class CheckpointError(UserError):
    """A checkpoint or weight file is missing, damaged, of another shape or of another hash."""


class ResourceError(UserError):
    """The cluster cannot, or can never, place what was requested."""


class RunDirectoryError(UserError):
    """A run directory exists, cannot be written or belongs to another configuration."""


class ClientFailureError(DSFedMedError):
    """A client failed and the failure policy says that the run stops.

    Args:
        client: name of the client, for example ``"site_02"``.
        reason: one line, what happened.
    """

    def __init__(self, client: str, reason: str) -> None:
        super().__init__(client, reason)
        self.client = client
        self.reason = reason

    def __str__(self) -> str:
        return f"client {self.client!r} failed: {self.reason}"


class TooFewRepliesError(DSFedMedError):
    """A round has fewer replies than ``runtime.failures.min_replies_fraction`` allows."""


class NonFiniteStateError(DSFedMedError):
    """A state or a metric is not finite, or a value is beyond the declared fixed-point range."""


class WorkerLostError(DSFedMedError):
    """A worker process died more often than the failure policy replaces it."""


class FoundationLostError(DSFedMedError):
    """The process of the foundation model died; its stage goes on from the last checkpoint."""


class InterruptedRunError(DSFedMedError):
    """A signal asked the run to stop; its state is saved.

    Args:
        signal_number: the signal, for example 2 for SIGINT.
        hint: how to resume, one line.
    """

    def __init__(self, signal_number: int, hint: str) -> None:
        super().__init__(signal_number, hint)
        self.signal_number = signal_number
        self.hint = hint

    def __str__(self) -> str:
        return f"interrupted by signal {self.signal_number}; {self.hint}"
