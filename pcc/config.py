"""Where a user's settings lie. They decide what pcc makes, so only their owner removes them; what can be made again is
in the cache."""

import os
import re
from pathlib import Path

from pcc.errors import PccError
from pcc.target import Target, executes_here, host_processor


def config_root() -> Path:
    """The folder: ``$PCC_CONFIG``, else ``$XDG_CONFIG_HOME/pcc``, else ``~/.config/pcc``. It need not exist, but
    `PccError` for what is there under that name and no folder: its settings would be ignored."""
    if root := os.environ.get("PCC_CONFIG"):
        if os.path.lexists(root) and not os.path.isdir(root):
            raise PccError(f"PCC_CONFIG: {root} is no folder: name the folder of pcc's settings, or unset it")
        return Path(root)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "pcc"


def processor_words(target: Target) -> str:
    """What measurements belong to: timed ones to a target's processor on this computer's, counted ones to the target's
    alone."""
    return _slug(f"{target.cpu} {host_processor()}" if executes_here(target) else target.cpu)


def gpu_words(interface: str, profile: str, device: str = "") -> str:
    """What measurements on a GPU belong to: the family that kernels are chosen for, and the device with its driver's
    version, as the library says them (``NAME, driver VERSION``). Without a device, what the words of all of them begin
    with."""
    return _slug(f"{interface} {profile} {device}") + ("" if device else "-")


def _slug(words: str) -> str:
    return re.sub("[^a-z0-9]+", "-", words.lower()).strip("-")


def saved_profile(target: Target) -> Path:
    """Where the profile is saved that compilations for a target's processor use."""
    return config_root() / "machines" / f"{processor_words(target)}.json"
