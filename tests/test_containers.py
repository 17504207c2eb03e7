"""The Dockerfile and the compose file, as far as they can be checked without an engine that builds them."""

import re
import shlex
import tomllib
from pathlib import Path

import yaml
from typer.testing import CliRunner

from llasa.cli import app

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
TARGETS = re.findall(r"^FROM \S+ AS (\w+)", DOCKERFILE, re.M)


def lines(instruction: str) -> list[str]:
    return re.findall(rf"^{instruction} (.*)", DOCKERFILE, re.M)


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    for line in lines("COPY"):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert f"!{source}" in ignored


def test_it_has_a_python_and_extras_that_the_package_has() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (version,) = re.findall(r"^FROM python:([\d.]+)-slim AS base", DOCKERFILE, re.M)
    least = project["requires-python"].removeprefix(">=")
    assert [int(part) for part in version.split(".")] >= [int(part) for part in least.split(".")]
    found = re.findall(r'"/llasa\[([\w,]+)\]"', DOCKERFILE)
    assert len(found) == len(TARGETS) - 1
    for extras in found:
        assert set(extras.split(",")) <= project["optional-dependencies"].keys()


def test_its_commands_are_ones_that_the_command_line_takes() -> None:
    commands = [yaml.safe_load(lines("CMD")[-1])]
    commands += [service["command"] for service in COMPOSE["services"].values() if "command" in service]
    commands += [
        shlex.split(line)[shlex.split(line).index("serve") :]
        for line in re.findall(r"^# +docker run .* serve .*", DOCKERFILE, re.M)
    ]
    assert len(commands) == 3
    for command in commands:
        told = CliRunner().invoke(app, [*command, "--help"])
        assert told.exit_code == 0
        for option in (word for word in command if word.startswith("--")):
            assert option in told.output


def test_the_compose_file_names_targets_and_volumes_that_exist() -> None:
    for service in COMPOSE["services"].values():
        assert service["build"]["target"] in TARGETS
        name, place = service["volumes"][0].split(":")
        assert name in COMPOSE["volumes"]
        assert place in lines("VOLUME")
        assert service["ports"][0].endswith(f":{lines('EXPOSE')[0]}")
