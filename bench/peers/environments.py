"""A virtual environment for each peer, made once and kept: the same pins are never installed twice."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
INSTALL_WITHIN_S = 900
REASON_CHARACTERS_MAX = 300


@dataclass(frozen=True)
class Environment:
    """Where a peer is installed, what is, and (if it is not) the reason that pip gave."""

    python: Path
    packages: dict[str, str] = field(default_factory=dict)
    reason: str = ""


def default_folder() -> Path:
    """Return where environments are kept unless --envs says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "everfaas-peers"


def own() -> Environment:
    """Return the environment that this runs in: ours."""
    return Environment(Path(sys.executable), _packages(Path(sys.executable)))


def ensure(requirements: str, folder: Path) -> Environment:
    """Return the environment with these requirements, made now if need be. One that pip can't make has a `reason`.

    Its name is made of what is in it, so a changed pin, or another Python, is another environment.
    """
    pins = (REQUIREMENTS / requirements).read_bytes()
    name = requirements.removesuffix(".txt")
    version = ".".join(map(str, sys.version_info[:3]))
    target = folder / f"{name}-{hashlib.sha256(pins + version.encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two benchmarks at once make it once
        done = target / "installed"
        if not done.exists():
            reason = _make(target, REQUIREMENTS / requirements)
            if reason:
                return Environment(target / "bin" / "python", reason=reason)
            done.write_text("")
    python = target / "bin" / "python"
    return Environment(python, _packages(python))


def _make(target: Path, requirements: Path) -> str:
    """Make it; return pip's reason if that fails, else nothing."""
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(target)],
        [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(requirements)],
    )
    for command in commands:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_WITHIN_S)
        except subprocess.TimeoutExpired:
            return f"not installed within {INSTALL_WITHIN_S} s"
        if done.returncode:
            return why(done.stderr or done.stdout)
    return ""


def why(output: str) -> str:
    """Return the errors in what pip wrote, in one line, without its warnings."""
    lines = [line.removeprefix("ERROR:").strip() for line in output.splitlines() if line.startswith("ERROR:")]
    return " ".join(lines or output.split("\n")[-5:])[:REASON_CHARACTERS_MAX].strip() or "pip failed without a word"


def _packages(python: Path) -> dict[str, str]:
    command = [str(python), "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    listed = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_WITHIN_S, check=True)
    return {one["name"].lower(): one["version"] for one in json.loads(listed.stdout)}
