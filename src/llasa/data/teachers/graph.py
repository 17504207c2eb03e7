"""ONNX graphs that are made to tell what they compute on the way: when each phoneme is said."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llasa.errors import LlasaError
from llasa.loading import first_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def load_graph(model: Path | bytes) -> Any:
    """An `onnx.ModelProto`, of a file or of what is in one.

    Raises:
        LlasaError: it is no ONNX model.
    """
    import onnx

    try:
        return onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(str(model))
    except Exception as error:  # protobuf's, the system's
        name = "the joined parts of the model" if isinstance(model, bytes) else str(model)
        raise LlasaError(f"{name} cannot be read as an ONNX model: {first_line(error)}") from error


def add_output(model: Any, tensor: str) -> None:
    """Makes a graph return one of its inner tensors too."""
    import onnx

    model.graph.output.append(onnx.ValueInfoProto(name=tensor))


def open_session(model: Any, name: str) -> "InferenceSession":
    """A session that computes a graph on one core: there are as many processes as cores.

    Args:
        name: of the model, for the message.

    Raises:
        LlasaError: onnxruntime cannot compute it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own have no common class
        raise LlasaError(f"onnxruntime cannot compute {name}: {first_line(error)}") from error
