"""Every error that Diffutron raises on purpose.

The command line prints ``str(error)`` on one line and exits 1, so a message names the thing, the value,
the place and the way out.
"""


class DiffutronError(Exception):
    """Something the user can mend."""


class RecipeError(DiffutronError):
    """A recipe has an unknown key, a value out of range, or does not parse."""


class DataError(DiffutronError):
    """A file of texts is missing, unreadable or empty."""


class ModelError(DiffutronError):
    """A model is unknown, incomplete, or of an architecture that cannot denoise."""


class InputError(DiffutronError):
    """A text or an option given to a command cannot be used as it is."""


class StorageError(DiffutronError):
    """The disk refused a file or a folder, or has no room for it."""


class CheckpointError(DiffutronError):
    """What lies in a run's folder belongs to another run, or cannot be read again."""


class TrainingError(DiffutronError):
    """A training cannot go on: its loss is not finite, or memory does not suffice."""
