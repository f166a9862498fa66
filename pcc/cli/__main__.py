"""``python -m pcc.cli``: the ``pcc`` script as a module, for launchers such as torchrun."""

from pcc.cli import main

main()
