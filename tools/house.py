# Copyright: the homelab.netguard developers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The project's own rules: headers, packages whose __init__ holds a docstring alone, modules in the action group and routed."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
#: Licence, imports, the argument specification and a call.
LONGEST_MODULE = 40
HEADER = "SPDX-License-Identifier: GPL-3.0-or-later"
SKIPPED = {".venv", "build", ".git", ".ansible", ".cache", "collections"}


def sources() -> list[Path]:
    """The project's Python files."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]
    return [path for path in ROOT.rglob("*.py") if not SKIPPED & set(path.relative_to(ROOT).parts)]


def headers(paths: list[Path]) -> list[str]:
    """Every file names its licence in its first lines."""
    return [f"{path.relative_to(ROOT)}: no licence header" for path in paths if HEADER not in "".join(path.open().readlines()[:5])]


def packages(paths: list[Path]) -> list[str]:
    """A package's __init__ says what belongs there, and nothing else: code in it would be shipped with every module."""
    faults = []
    for path in paths:
        if path.name != "__init__.py":
            continue
        body = ast.parse(path.read_text()).body
        if ast.get_docstring(ast.parse(path.read_text())) is None or len(body) != 1:
            faults.append(f"{path.relative_to(ROOT)}: must hold a docstring and nothing else")
    return faults


def layering(paths: list[Path]) -> list[str]:
    """Only _cluster imports the Kubernetes client; only modules and _module.py know AnsibleModule."""
    faults = []
    utils = ROOT / "plugins" / "module_utils"
    for path in paths:
        if not path.is_relative_to(utils):
            continue
        inside = path.relative_to(utils)
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                where = f"{path.relative_to(ROOT)}:{node.lineno if isinstance(node, ast.stmt) else 0}"
                kubernetes = name.split(".")[0] == "kubernetes" or name.startswith("ansible_collections.kubernetes")
                if kubernetes and inside.parts[0] not in {"_cluster", "_argspec.py", "_module.py"}:
                    faults.append(f"{where}: imports {name}; only _cluster talks to an API server")
                if name.startswith("ansible_collections.homelab"):
                    faults.append(f"{where}: imports {name}; inside module_utils imports are relative")
    return faults


def modules() -> list[str]:
    """Every module belongs to the action group and is routed through the action plugin; nothing else is."""
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())
    there = {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py") if not path.name.startswith("_")}
    group = {entry for entry in runtime["action_groups"]["netguard"] if isinstance(entry, str)}
    routed = set(runtime["plugin_routing"]["modules"])
    faults = []
    faults += [f"meta/runtime.yml: module {name} is not in the action group" for name in sorted(there - group)]
    faults += [f"meta/runtime.yml: module {name} is not routed through on_cluster" for name in sorted(there - routed)]
    if there:
        faults += [f"meta/runtime.yml: names {name}, which does not exist" for name in sorted((group | routed) - there)]
    return faults


def thin() -> list[str]:
    """A module file is documentation, options and a call: what else it holds is a few lines."""
    faults = []
    for path in sorted((ROOT / "plugins" / "modules").glob("[!_]*.py")):
        text = path.read_text()
        documents = 0
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                documents += (node.end_lineno or node.lineno) - node.lineno + 1
        rest = len(text.splitlines()) - documents
        if rest > LONGEST_MODULE:
            faults.append(f"{path.relative_to(ROOT)}: {rest} lines beside its documentation, more than {LONGEST_MODULE}")
    return faults


def scans(paths: list[Path]) -> list[str]:
    """Ansible ships what is imported: a package that is searched at run time is empty there."""
    found = [path for path in paths if path.is_relative_to(ROOT / "plugins")]
    words = ("pkgutil", "import_module", "__import__")
    return [
        f"{path.relative_to(ROOT)}: {word} finds nothing in a module's payload"
        for path in found
        for word in words
        if word in path.read_text()
    ]


def tasks() -> list[str]:
    """Roles and playbooks run our modules; no kubectl, no object by object."""
    faults = []
    for folder in ("roles", "playbooks"):
        for path in sorted((ROOT / folder).rglob("*.yml")):
            text = path.read_text()
            for word in ("ansible.builtin.command:", "ansible.builtin.shell:", "kubernetes.core."):
                if word in text:
                    faults.append(f"{path.relative_to(ROOT)}: {word.rstrip(':.')} in a task; our modules do that, in one call")
    return faults


def roles() -> list[str]:
    """Every role documents its interface."""
    needed = ("README.md", "meta/argument_specs.yml", "meta/main.yml")
    return [
        f"roles/{role.name}: no {name}"
        for role in sorted((ROOT / "roles").iterdir())
        if role.is_dir()
        for name in needed
        if not (role / name).exists()
    ]


def main() -> int:
    paths = sources()
    faults = [*headers(paths), *packages(paths), *layering(paths), *modules(), *thin(), *scans(paths), *tasks(), *roles()]
    for fault in faults:
        print(fault)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
