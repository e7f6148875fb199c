"""The wheel has all that the program needs: somebody who installs it has no checkout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("domain", "projections", "api")
FILES = ("pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel brings, built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    sources, built = folder / "sources", folder / "built"
    sources.mkdir()
    for name in PACKAGES:
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, sources / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*command, "--wheel-dir", built, sources], check=True)
    (wheel,) = built.glob("*.whl")
    with ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def test_an_installed_wheel_makes_a_ledger_and_a_pack_of_it(
    installed: Path, tmp_path: Path
) -> None:
    def keyledger(*arguments: str) -> str:
        code = "import api, sys; from api.command_line import main; print(api.__file__); main()"
        ended = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=tmp_path,
            env=os.environ
            | {"PYTHONPATH": str(installed), "KEYLEDGER_DATA_DIR": str(tmp_path / "data")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        origin, _, output = ended.stdout.partition("\n")
        assert installed in Path(origin).parents
        return output

    made = json.loads(keyledger("keys", "create", "--name", "a", "--scopes", "a:b", "--json"))
    shown = json.loads(keyledger("keys", "show", made["key_id"], "--json"))
    assert shown["status"] == "active"
    assert json.loads(keyledger("audit", "verify", "--json"))["findings"] == []
    keyledger("audit", "export", str(tmp_path / "pack.zip"))
    with ZipFile(tmp_path / "pack.zip") as pack:
        assert any(name.endswith("HOW-TO-CHECK.md") for name in pack.namelist())
    assert json.loads(keyledger("doctor", "--json"))["checks"]
