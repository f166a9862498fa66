"""``pcc verify``: a package that is right, one that is damaged, and one that computes something else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pcc.package.files import file_record
from tests.cli.conftest import Outcome
from tests.toy import toy_package


def test_right_and_wrong(pcc: Callable[..., Outcome], tmp_path: Path) -> None:
    copy = Path(shutil.copytree(toy_package(), tmp_path / "copy"))
    right = pcc("verify", copy)
    assert (right.status, right.err) == (0, "")
    assert right.out.startswith("toy, on host, cpu: right, largest error ")
    output, manifest = copy / "selftest/output_1.bin", copy / "manifest.json"
    values = np.fromfile(output, np.float32)
    values[7] += 1e-2 * np.abs(values).max()
    values.tofile(output)
    assert "selftest/output_1.bin is damaged" in pcc("verify", copy).error
    content = json.loads(manifest.read_text())
    content["files"]["selftest/output_1.bin"] = json.loads(file_record(output).model_dump_json())
    manifest.write_text(json.dumps(content))
    wrong = pcc("verify", copy)
    assert (wrong.status, wrong.err) == (1, "")
    assert "cpu: WRONG, largest error 1" in wrong.out
    reported = pcc("verify", copy, "--json")
    assert (reported.status, json.loads(reported.out)["passed"]) == (1, False)
