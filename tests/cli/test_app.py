"""The command group: help, what it imports, wrong use."""

import contextlib
import signal
import subprocess
import sys

import pytest

from pcc.cli.app import COMMANDS, main
from pcc.cli.app import run as run_command
from pcc.errors import PccError


@pytest.mark.parametrize("args", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    script = (
        f"import sys\nfrom pcc.cli.app import run\nstatus = run({args!r})\n"
        "heavy = {'torch', 'tvm', 'numpy', 'rich', 'PIL', 'pydantic', 'networkx'} & set(sys.modules)\n"
        "assert not heavy, heavy\nassert status == 0, status"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: pcc" in done.stdout


def test_help_names_every_command(pcc) -> None:
    outcome = pcc("--help")
    assert outcome.status == 0
    for name in COMMANDS:
        assert f"\n  {name} " in outcome.out


def test_help_from_the_installed_script(pcc_process) -> None:
    outcome = pcc_process("compile", "--help")
    assert outcome.status == 0
    assert "--dump-ir" in outcome.out


def test_unknown_command_names_the_nearest(pcc) -> None:
    assert pcc("complie").error == "no command 'complie': did you mean 'compile'? (pcc --help)"


def test_unknown_option_is_one_line(pcc) -> None:
    error = pcc("targets", "--jsn").error
    assert "--jsn" in error
    assert error.endswith("(pcc targets --help)")


def test_missing_argument_is_one_line(pcc) -> None:
    assert "MODEL" in pcc("compile", "-o", "x").error


def test_no_arguments_print_the_help(pcc) -> None:
    outcome = pcc()
    assert outcome.status == 2
    assert "Usage: pcc" in outcome.err


def test_messages_of_several_lines_become_one(monkeypatch: pytest.MonkeyPatch, pcc) -> None:
    def fail() -> None:
        raise PccError("first\n  second")

    monkeypatch.setattr("pcc.cli.targets.command.callback", lambda **_: fail())
    assert pcc("targets").error == "first second"


def test_interrupt_is_one_line_and_status_130(monkeypatch: pytest.MonkeyPatch, pcc) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pcc.cli.targets.command.callback", interrupt)
    outcome = pcc("targets")
    assert outcome.status == 130
    assert outcome.err == "pcc: error: interrupted\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(**_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("pcc.cli.targets.command.callback", bug)
    with pytest.raises(ZeroDivisionError):
        run_command(["targets"])


@pytest.mark.parametrize("error", [RecursionError, PccError])
@pytest.mark.usefixtures("heeded_interrupts")
def test_an_interrupt_that_a_library_swallowed(error: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fails_later(args: list[str]) -> int:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise error("a module that is half imported")

    monkeypatch.setattr("pcc.cli.app.cli.main", lambda **options: fails_later(options["args"]))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "pcc: error: interrupted\n"
