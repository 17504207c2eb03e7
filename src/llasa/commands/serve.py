"""`llasa serve`: a server with a page, OpenAI's speech API, and voices for Home Assistant."""

import os
import socket
from functools import partial
from typing import Annotated

import typer

from llasa.commands.common import Backend, Device, DeviceMap, Dtype, Model, tell, waiting
from llasa.errors import LlasaError, need_extra, reason

LIMITS = "Limits"
KEY = "LLASA_API_KEY"
NEEDED = ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "websockets")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; [bold]0.0.0.0[/] is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    model: Model = "tiny",
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            envvar=KEY,
            show_envvar=False,
            help=f"The key that clients must send; better set in ${KEY}, as others see arguments.",
        ),
    ] = None,
    cors: Annotated[
        list[str] | None,
        typer.Option("--cors", metavar="ORIGIN", help="A page elsewhere that may call, such as https://example.org."),
    ] = None,
    wyoming: Annotated[
        int | None, typer.Option("--wyoming", metavar="PORT", min=1, max=65535, help="Listen for Home Assistant here.")
    ] = None,
    max_streams: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=LIMITS,
            help="Streams that run at once; by default as many as are heard without gaps.",
        ),
    ] = None,
    max_waiting: Annotated[
        int, typer.Option(min=0, rich_help_panel=LIMITS, help="Streams that may wait; more are refused.")
    ] = 32,
    max_characters: Annotated[int, typer.Option(min=1, rich_help_panel=LIMITS, help="Of a text.")] = 4096,
    ray: Annotated[
        bool, typer.Option("--ray", help="On a Ray cluster, with more replicas of the model as more is asked.")
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
    device_map: DeviceMap = None,
    backend: Backend = "torch",
) -> None:
    """Serve a page and an API that speak.

    The page is at [bold]/[/], OpenAI's API at [bold]/v1[/]. Texts are not logged.

    [bold]Examples[/]

      llasa serve

      llasa serve --host 0.0.0.0 --api-key secret --wyoming 10200
    """  # fmt: skip
    need_extra("serve", *NEEDED, *(["wyoming"] if wyoming else []))
    if ray:
        need_extra("cluster", "ray", "grpc_reflection")
        if wyoming:
            raise LlasaError("--wyoming does not work with --ray: run a server of its own for Home Assistant")
    if api_key is not None and not api_key.strip():
        raise LlasaError("the API key is empty: pass one, or leave --api-key out")
    listening = _listen(host, port, "--port")
    if wyoming:
        _listen(host, wyoming, "--wyoming").close()
    import uvicorn

    from llasa.serve.app import Settings, create_app
    from llasa.serve.service import Limits
    from llasa.serve.warming import load

    settings = Settings(
        os.path.basename(os.path.normpath(model)), api_key, tuple(cors or ()), max_streams, max_waiting,
        Limits(max_characters), (host, wyoming) if wyoming else None,
    )  # fmt: skip
    ready = partial(load, model, device=device, dtype=dtype, device_map=device_map, backend=backend)
    with waiting(f"loading {model}"):
        if ray:
            from llasa.engine import check_backend
            from llasa.models.hub import find_model
            from llasa.serve import replicas

            check_backend(backend, device, device_map)  # so that an error is told here, and not in a replica's logs
            find_model(model)
            app = replicas.deploy(ready, settings)
        else:
            app = create_app(ready(), settings)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5,
        lifespan="off" if ray else "on",
    )  # fmt: skip
    listening.listen(1024)  # so that whoever reads the address can connect
    place = f"[{host}]" if ":" in host else host
    tell(f"serving {model}: http://{place}:{listening.getsockname()[1]}/")
    if wyoming:
        tell(f"for Home Assistant: {host} port {wyoming}")
    try:
        uvicorn.Server(config).run([listening])
    finally:
        if ray:
            replicas.close()


def _listen(host: str, port: int, option: str) -> socket.socket:
    """A socket at the address, before the model is loaded. `option` named the port."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise LlasaError(f"cannot listen on {host} port {port}: {reason(error)}: choose another {option}") from error
    return listening
