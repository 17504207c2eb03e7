"""Renders a chat template in a process of its own, `python -m llasa.rendering`: standard input to standard output."""

import json
import resource
import sys
from datetime import datetime
from typing import Any, NoReturn

LONGEST = 1 << 20  # characters that a template may make
MEMORY = 1 << 29  # bytes that the process may have
SECONDS = 2  # that it may compute once it has started
PATIENCE = 60  # seconds until it is given up; on a busy machine it waits for a processor


def main() -> None:
    """Reads a template and its values; writes a plus and what it renders to, or a minus and what is wrong."""
    import jinja2.ext
    import jinja2.sandbox  # before there are limits

    template, values = json.load(sys.stdin)
    spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + SECONDS,) * 2)
    try:
        text = render(template, values)
        if len(text) > LONGEST:
            raise jinja2.TemplateError(f"it makes {len(text):,} characters of two short messages")
        answer = f"+{text}"
    except Exception as error:  # a template is a program, and may raise anything
        lines = str(error).strip().splitlines()
        answer = f"-{lines[0] if lines else type(error).__name__}"
    sys.stdout.buffer.write(answer.encode(errors="replace"))


def render(template: str, values: dict[str, Any]) -> str:
    """What a template makes of its values, in an environment like that of transformers.

    Raises:
        Exception: the template is invalid, or raises any error itself.
    """
    import jinja2
    from jinja2 import ext, nodes, parser, sandbox

    class Generation(ext.Extension):
        """Lets a template mark what the assistant says, which changes nothing in the text."""

        tags = {"generation"}  # noqa: RUF012 - so jinja2 declares it

        def parse(self, parser: parser.Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, **layout: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **layout)

    environment = sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda layout: datetime.now().strftime(layout)
    return environment.from_string(template).render(values)


if __name__ == "__main__":
    main()
