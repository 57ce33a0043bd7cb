# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each module as Ansible ships it: its payload runs where nothing but Python and the kubernetes client is installed."""

from __future__ import annotations

import base64
import importlib.metadata
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

MODULES = Path(__file__).resolve().parents[3] / "plugins" / "modules"
#: Nobody listens there: the discard port of the loopback.
ARGUMENTS = {"host": "https://127.0.0.1:9", "api_key": "none", "validate_certs": False}
#: Builds a payload with Ansible's own builder and loader. A named tuple, or (in older versions) a plain one.
BUILD = """
import json, pathlib, sys
from ansible.executor.module_common import modify_module
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader, module_loader
from ansible.template import Templar
name, file, arguments = sys.argv[1:]
init_plugin_loader()
found = module_loader.find_plugin_with_context(name, mod_type=".py")
built = modify_module(
    module_name=found.resolved_fqcn,
    module_path=found.plugin_resolved_path,
    module_args=json.loads(arguments),
    templar=Templar(loader=DataLoader()),
    task_vars={"ansible_playbook_python": sys.executable},
    remote_is_local=True,
)
pathlib.Path(file).write_bytes(getattr(built, "b_module_data", None) or built[0])
"""
#: Runs a file with the folder of libraries instead of site-packages.
RUN = """
import runpy, sys
libraries, file = sys.argv[1:]
sys.path.append(libraries)
sys.argv[:] = [file]
runpy.run_path(file, run_name="__main__")
"""
IMPORT_ALL = """
import importlib, sys
sys.path[:0] = [sys.argv[1]]
sys.path.append(sys.argv[2])
for name in sys.stdin.read().split():
    importlib.import_module(name)
"""


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the kubernetes client and what it needs, and nothing of Ansible."""
    folder = tmp_path_factory.mktemp("libraries")
    todo, seen = ["kubernetes"], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform or another Python
        todo += [re.split(r"[^\w.-]", need)[0] for need in found.requires or () if "extra ==" not in need]
        for top in {file.parts[0] for file in found.files or () if file.parts[0] != ".."}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(found.locate_file(top))))
    assert (folder / "kubernetes").exists()
    assert not (folder / "ansible").exists()
    assert not (folder / "ansible_collections").exists()
    return folder


def payload(name: str, file: Path) -> bytes:
    """The file that Ansible would copy to the target, made in a process that has imported nothing of the collection."""
    subprocess.run(
        [sys.executable, "-c", BUILD, f"homelab.netguard.{name}", str(file), json.dumps(ARGUMENTS)], check=True, timeout=120
    )
    return file.read_bytes()


def isolated(code: str, *words: str, folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """-I: neither the folder nor the user's packages nor PYTHON* variables; -S: no site-packages."""
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, *words],
        input=stdin,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("name", sorted(path.stem for path in MODULES.glob("*.py") if path.stem != "__init__"))
def test_a_payload_needs_nothing_else(name: str, libraries: Path, tmp_path: Path) -> None:
    file = tmp_path / f"AnsiballZ_{name}.py"
    shipped = payload(name, file)
    empty = tmp_path / "empty"
    empty.mkdir()
    done = isolated(RUN, str(libraries), str(file), folder=empty)
    said = json.loads(done.stdout or json.dumps({"msg": done.stderr}))
    # it came as far as the network
    assert said["failed"] is True, done.stderr
    assert "the API server does not answer" in said["msg"], said
    assert "Connection refused" in said["msg"], said

    packed = max(re.findall(rb"'([A-Za-z0-9+/=]{1000,})'", shipped), key=len)
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(packed))) as archive:
        archive.extractall(tmp_path / "zip")
        files = [Path(entry) for entry in archive.namelist() if entry.endswith(".py")]
    ours = [file for file in files if file.parts[:3] == ("ansible_collections", "homelab", "netguard")]
    assert len(ours) > 20
    names = [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in ours]
    everything = isolated(IMPORT_ALL, str(tmp_path / "zip"), str(libraries), folder=empty, stdin=" ".join(names))
    assert everything.returncode == 0, everything.stderr
