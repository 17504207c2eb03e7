"""Facts printed with every table: the command, the machine, the versions. Paths and host names are left out."""

import os
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("llasa", "torch", "transformers", "numpy")


def describe(*packages: str) -> dict[str, str]:
    """Facts about this run by name, in printing order. `packages` are further packages whose versions matter."""
    import torch

    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in (*PACKAGES, *packages))]
    return {
        "date": date.today().isoformat(),
        "command": command_line(),
        "commit": commit(),
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "threads": str(torch.get_num_threads()),
        "load when it ended": f"{os.getloadavg()[0]:.1f}",
        "versions": ", ".join(versions),
    }


def command_line() -> str:
    """The command line of the script, with files by name only."""
    script = "/".join(Path(sys.argv[0]).resolve().parts[-2:])
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return " ".join(["python", script, *words])


def processor() -> str:
    """The processor's name from Linux, or from Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """The repository's commit, with a plus if files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout else "")


def on_two_cores() -> None:
    """Limits this process and those it starts to two cores. Call it before importing torch, which counts cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
