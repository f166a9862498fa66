"""The command group: help, what it imports, wrong use."""

import contextlib
import errno
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from pcc.cli.app import COMMANDS, main
from pcc.cli.app import run as run_command
from pcc.errors import PccError, PccWarning
from tests.cli.conftest import SCRIPT


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
    assert pcc("complie").error == "no command 'complie': did you mean compile? (pcc --help)"


def test_unknown_option_is_one_line(pcc) -> None:
    error = pcc("targets", "--jsn").error
    assert "--jsn" in error
    assert error.endswith("(pcc targets --help)")


def test_missing_argument_is_one_line(pcc) -> None:
    assert "MODEL" in pcc("compile", "-o", "x").error


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["compile", "lenet5", "-o", ""], "'-o' / '--output'"),
        (["export", "lenet5", "-o", ""], "'-o' / '--output'"),
        (["run", "package", "-o", "a.npy", "-o", ""], "'-o' / '--output'"),
        (["tune", "lenet5", "-o", ""], "'-o' / '--output'"),
        (["dump", "lenet5", "-o", ""], "'-o' / '--output'"),
        (["prune", "lenet5", "--data", "mnist", "--recipe", "r.yaml", "-o", ""], "'-o' / '--output'"),
        (["compress", "lenet5", "--images", "photos", "--macs", "0.5", "-o", ""], "'-o' / '--output'"),
        (["compile", "lenet5", "-o", "net", "--weights", ""], "'--weights'"),
        (["inspect", "lenet5", "--weights="], "'--weights'"),
        (["dump", "lenet5", "--after", ""], "'--after'"),
        (["diff-ir", "a.txt", "b.txt", "--after", ""], "'--after'"),
        (["compile", "lenet5", "-o", "net", "--target", "x86_64-linux", "--target", ""], "'--target'"),
    ],
)
def test_empty_values_are_refused(
    pcc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    error = pcc(*arguments).error
    assert error.startswith(f"Invalid value for {option}: it is empty: give a value, or leave the option out (pcc ")
    assert not list(tmp_path.iterdir())


def test_an_empty_model_is_refused(pcc) -> None:
    assert "it is empty: give a value (pcc inspect --help)" in pcc("inspect", "").error


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


@pytest.mark.usefixtures("heeded_interrupts")
def test_interrupted_while_it_begins() -> None:
    """Ctrl-C while the first modules are imported, before anything could note it."""
    script = (
        "import builtins, signal, sys\nreal = builtins.__import__\n"
        "def slow(name, *rest):\n"
        "    if name == 'click': signal.raise_signal(signal.SIGINT)\n"
        "    return real(name, *rest)\n"
        "builtins.__import__ = slow\nfrom pcc.cli import main\nmain()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "pcc: error: interrupted\n")


def test_code_that_ends_the_process(monkeypatch: pytest.MonkeyPatch, pcc) -> None:
    monkeypatch.setattr("pcc.cli.targets.command.callback", lambda **_: sys.exit("bye"))
    assert pcc("targets").error.startswith("the model's or the data's code calls sys.exit('bye') at test_app.py:")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(**_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("pcc.cli.targets.command.callback", bug)
    with pytest.raises(ZeroDivisionError):
        run_command(["targets"])


@pytest.mark.parametrize("error", [RecursionError, PccError])
@pytest.mark.usefixtures("heeded_interrupts")
def test_an_interrupt_that_a_library_swallowed(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails_later(args: list[str]) -> int:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise error("a module that is half imported")

    monkeypatch.setattr("pcc.cli.app.cli.main", lambda **options: fails_later(options["args"]))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "pcc: error: interrupted\n"


@pytest.mark.parametrize(
    ("command", "status", "line"),
    [
        ("{pcc} passes > /dev/full", 2, "pcc: error: cannot write standard output: No space left on device"),
        ("{pcc} targets --json > /dev/full", 2, "pcc: error: cannot write standard output: No space left on device"),
        ("{pcc} run --help > /dev/full", 2, "pcc: error: cannot write standard output: No space left on device"),
        ("{pcc} targets >&-", 2, "pcc: error: cannot write standard output: Bad file descriptor"),
        ("{pcc} targets <&- >&-", 2, "pcc: error: cannot write standard output: Bad file descriptor"),
        ("{pcc} targets <&- >&- 2>&-", 2, ""),
        ("{pcc} targets --jsn 2>&-", 2, ""),
        ("{pcc} targets --jsn 2> /dev/full", 2, ""),
        ("{pcc} targets <&- > /dev/null", 0, ""),
        ("(sleep 0.1; {pcc} targets) | true", 141, ""),
        ("(sleep 0.1; {pcc} --help) | true", 141, ""),
    ],
)
def test_standard_streams_that_take_nothing(command: str, status: int, line: str) -> None:
    done = subprocess.run(
        ["bash", "-c", command.replace("{pcc}", f"{SCRIPT}") + "; exit ${PIPESTATUS[0]}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr.strip()) == (status, line)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "x" * 5000),
            f"{'x' * 150}...{'x' * 149}: File name too long",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "a", None, "b"), "a: b: Permission denied"),
        (MemoryError(), "not enough memory: a smaller input, a smaller batch or fewer threads need less"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
            "not enough memory: a smaller input",
        ),
    ],
)
def test_what_the_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, pcc, error: Exception, message: str
) -> None:
    def refuse(**_: object) -> None:
        raise error

    monkeypatch.setattr("pcc.cli.targets.command.callback", refuse)
    assert pcc("targets").error.startswith(message)


def test_names_that_are_too_long(pcc, tmp_path: Path) -> None:
    name = "n" * 300
    (tmp_path / "net.py").write_text(f"import torch\ndef {name}(): return torch.nn.Conv2d(3, 4, 3)\n")
    for args in (
        ("compile", f"{name}.py:make", "--input-shape", "1,3,8,8", "-o", tmp_path / "x"),
        ("prune", "lenet5", "--data", name, "--recipe", "mnist-dense", "-o", tmp_path / "x"),
        ("prune", "lenet5", "--data", "mnist", "--recipe", f"{name}.yaml", "-o", tmp_path / "x"),
        (
            "prune",
            "lenet5",
            "--data",
            "mnist",
            "--recipe",
            "mnist-dense",
            "--weights",
            f"{name}.pt",
            "-o",
            tmp_path / "x",
        ),
    ):
        assert "File name too long" in pcc(*args).error
    assert "is not a pcc package" in pcc("run", name, "-i", "x.png").error
    assert (
        "a network's name has at most 100"
        in pcc("compile", f"{tmp_path}/net.py:{name}", "--input-shape", "1,3,8,8", "-o", tmp_path / "x").error
    )
    assert (
        "no recipe is called" in pcc("prune", "lenet5", "--data", "mnist", "--recipe", name, "-o", tmp_path / "x").error
    )
    assert not (tmp_path / "x").exists()


def test_warnings_of_libraries_are_not_shown(monkeypatch: pytest.MonkeyPatch, pcc) -> None:
    def warn(**_: object) -> None:
        for module in ("PIL.Image", "pcc.sparsity.scale", "net"):
            warnings.warn_explicit(f"from {module}", UserWarning, "file.py", 1, module)

    monkeypatch.setattr("pcc.cli.targets.command.callback", warn)
    with warnings.catch_warnings(record=True) as shown:
        assert pcc("targets").status == 0
    assert [str(warning.message) for warning in shown] == ["from net"]


def test_what_pcc_warns_of_is_a_line_each_time(monkeypatch: pytest.MonkeyPatch, pcc) -> None:
    def warn(**options: object) -> None:
        for _ in range(2):
            warnings.warn("took 'ema'", PccWarning, stacklevel=1)

    monkeypatch.setattr("pcc.cli.targets.command.callback", warn)
    outcome = pcc("targets")
    assert (outcome.status, outcome.err) == (0, "pcc: note: took 'ema'\n" * 2)
