"""Opens ONNX graphs with an inner tensor as an extra output: when each phoneme is said."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llasa.errors import LlasaError, first_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def load_graph(model: Path | bytes) -> Any:
    """An `onnx.ModelProto`, from a file or its bytes.

    Raises:
        LlasaError: it is not an ONNX model.
    """
    import onnx

    try:
        return onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(str(model))
    except Exception as error:  # from protobuf or the system
        name = "the joined parts of the model" if isinstance(model, bytes) else str(model)
        raise LlasaError(f"{name} cannot be read as an ONNX model: {first_line(error)}") from error


def add_output(model: Any, tensor: str) -> None:
    """Makes a graph also return one of its inner tensors."""
    import onnx

    model.graph.output.append(onnx.ValueInfoProto(name=tensor))


def open_session(model: Any, name: str) -> "InferenceSession":
    """A session that computes a graph on one core; synthesis runs as many processes as there are cores.

    Args:
        name: the model's name in messages.

    Raises:
        LlasaError: onnxruntime cannot compute it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class
        raise LlasaError(f"onnxruntime cannot compute {name}: {first_line(error)}") from error
