"""The model zoo: networks of our own writing that load the checkpoints people have, and where trained weights come
from."""

from pcc.models.registry import ModelEntry, create, entry, names

__all__ = ["ModelEntry", "create", "entry", "names"]
