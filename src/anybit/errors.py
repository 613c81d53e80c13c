"""Typed exceptions for bad input: one clear sentence that names what was found, where, and what would be accepted."""


class AnybitError(ValueError):
    """Bad input from a person or a file; the command line prints its sentence and exits with code 2."""


class FormatError(AnybitError):
    """An unknown or impossible number format or spec string."""


class LayoutError(AnybitError):
    """Layouts that do not multiply, divide or compose, or data that does not fit one."""


class CheckpointError(AnybitError):
    """A checkpoint that is missing, truncated, of a wrong shape, or not to be trusted."""


class UnsupportedModelError(AnybitError):
    """A model architecture or option that anybit cannot lower to a plan."""


class RecipeError(AnybitError):
    """A recipe or budget that cannot be met."""
