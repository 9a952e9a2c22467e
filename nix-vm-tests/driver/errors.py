"""What can go wrong, told apart as NixOS's framework does."""


class MachineError(Exception):
    """The machine or this driver failed, or the driver lacks what a script wants."""


class RequestedAssertionFailed(AssertionError):
    """What a script wants is not so."""
