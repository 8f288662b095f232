"""Exceptions, named after who must act.

A message says who must act, where, and what was there: ``gpu n3/2: cap_w=90.0 is below the board's 200.0``.
"""


class PolcadError(Exception):
    """Any error that polcad raises on purpose."""


class ConfigError(PolcadError):
    """The operator must mend a file, an option or an environment variable; the program does not start."""


class WireError(PolcadError):
    """A message cannot be believed: it is dropped and counted, and nothing else changes."""


class RecordingError(PolcadError):
    """A recording or an imported log cannot be read: the operator must look at the file."""


class DeviceError(PolcadError):
    """A GPU cannot be read or set: it is marked, and the others go on."""


class PermissionMissingError(DeviceError):
    """The driver refuses a setting for want of privilege: the operator must run the agent with it."""


class UnavailableError(PolcadError):
    """Something outside that the program cannot do without is absent: a GPU driver, a broker."""


class OutrankedError(PolcadError):
    """A newer daemon holds this row: this one must end."""


class StandDownError(OutrankedError):
    """The same, of a daemon that has a standby's part: started again, it waits for its turn."""
