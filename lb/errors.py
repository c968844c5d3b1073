"""Every error a user can meet, in one tree.

    TidegateError            one line: what, on which object, what to do about it
    ├── BadInput             a flag, file or object that cannot be used
    │   └── BadAddress       text that is no IP address or prefix
    ├── MapFull              a kernel map has no room; names the flag to raise
    ├── KernelRefused        the kernel said no: errno and the call that was made
    ├── AgentUnreachable     nobody answers on the agent's socket
    └── Unforeseen           a thread of the agent ended by a bug

The command line prints the text of a `TidegateError` and exits with `status`; anything
else is a bug and keeps its traceback.
"""


class TidegateError(Exception):
    """Root of all errors that are answers to a user. `status` is the exit status (0 to 255)."""

    status = 2


class BadInput(TidegateError):
    """A flag, a file or an object cannot be used as it is."""


class BadAddress(BadInput):
    """A text is not an IP address, or not a prefix."""


class MapFull(TidegateError):
    """A kernel map has no room for one more service; the text names the flag that makes room."""


class KernelRefused(TidegateError):
    """The kernel refused an operation; the text holds the operation and the errno."""


class AgentUnreachable(TidegateError):
    """No agent answers on its socket."""


class Unforeseen(TidegateError):
    """A thread met what nobody foresaw; the text names it, the exception and where it came from."""
