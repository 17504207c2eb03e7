"""Tiny ONNX models with the inputs, outputs and node names of Kokoro's and Piper's, which hum instead of speaking."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PHONEMES = "abdefhijklmnopstuvwzæðŋɐɑɔəɚɛɜɡɪɹɾʃʊʌʒˈˌːθᵻ .,"


def _constant(name: str, value: float, kind: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, kind), name)


def _hum(samples: str, first: str, last: str, pitch: str) -> list[onnx.NodeProto]:
    """Nodes for `hum`: so many samples of a sine, silent for the first and the last of them."""
    return [
        helper.make_node("Range", ["zero", samples, "one"], ["time"]),
        helper.make_node("Mul", ["time", pitch], ["phase"]),
        helper.make_node("Sin", ["phase"], ["sine"]),
        helper.make_node("GreaterOrEqual", ["time", first], ["begun"]),
        helper.make_node("Sub", [samples, last], ["end"]),
        helper.make_node("Less", ["time", "end"], ["going"]),
        helper.make_node("And", ["begun", "going"], ["on"]),
        helper.make_node("Where", ["on", "sine", "zero"], ["hum"]),
    ]


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    output: str,
    constants: list[onnx.TensorProto],
) -> Path:
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "hum", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, path)
    return path


def kokoro_model(path: Path, tokens: str = "tokens", rounds: str = "Round", clip: str = "/encoder/Clip") -> Path:
    """Holds every token for 4 frames of 600 samples, over speed; the first number of the style is its pitch."""
    nodes = [
        helper.make_node("Cast", [tokens], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "four"], ["long"]),
        helper.make_node("Div", ["long", "speed"], ["longer"]),
        helper.make_node(rounds, ["longer"], ["whole"]),
        helper.make_node("Clip", ["whole", "one"], [f"{clip}_output_0"], name=clip),
        helper.make_node("Mul", [f"{clip}_output_0", "hop"], ["each"]),
        helper.make_node("ReduceSum", ["each"], ["samples"], keepdims=0),
        helper.make_node("ReduceMax", ["each"], ["edge"], keepdims=0),
        helper.make_node("ReduceMax", ["style"], ["pitch"], keepdims=0),
        *_hum("samples", "edge", "edge", "pitch"),
        helper.make_node("Identity", ["hum"], ["audio"]),
    ]
    inputs = [
        helper.make_tensor_value_info(tokens, TensorProto.INT64, [1, "length"]),
        helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, 256]),
        helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
    ]
    constants = [_constant("zero", 0), _constant("one", 1), _constant("four", 4), _constant("hop", 600)]
    return _save(path, nodes, inputs, "audio", constants)


def kokoro_voices(names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Voices (510, 1, 256), each of a pitch of its own."""
    made = {}
    for number, name in enumerate(names):
        made[name] = np.zeros((510, 1, 256), np.float32)
        made[name][:, :, 0] = 0.05 + 0.001 * number
    return made


def piper_model(path: Path, rounds: str = "Ceil", speakers: tuple[str, ...] = ()) -> Path:
    """Holds every id for 4 frames of 256 samples, times the length scale; with its configuration beside it."""
    nodes = [
        helper.make_node("Cast", ["input"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "four"], ["long"]),
        helper.make_node("Gather", ["scales", "place"], ["scale"]),
        helper.make_node("Mul", ["long", "scale"], ["longer"]),
        helper.make_node(rounds, ["longer"], ["/Ceil_output_0"], name="/Ceil"),
        helper.make_node("Mul", ["/Ceil_output_0", "hop"], ["each"]),
        helper.make_node("ReduceSum", ["each"], ["samples"], keepdims=0),
        helper.make_node("ReduceMax", ["each"], ["edge"], keepdims=0),
        *_hum("samples", "edge", "edge", "pitch"),
        helper.make_node("Reshape", ["hum", "shape"], ["output"]),
    ]
    inputs = [
        helper.make_tensor_value_info("input", TensorProto.INT64, [1, "length"]),
        helper.make_tensor_value_info("input_lengths", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("scales", TensorProto.FLOAT, [3]),
    ]
    if speakers:
        inputs.append(helper.make_tensor_value_info("sid", TensorProto.INT64, [1]))
    constants = [
        *(_constant("zero", 0), _constant("one", 1), _constant("four", 4), _constant("hop", 256)),
        *(_constant("pitch", 0.05), _constant("place", 1, np.int64)),
        numpy_helper.from_array(np.array([1, 1, 1, -1], np.int64), "shape"),
    ]
    ids = {symbol: [number] for number, symbol in enumerate(("_", "^", "$", *PHONEMES))}
    config = {
        "audio": {"sample_rate": 22050}, "espeak": {"voice": "en-us"}, "num_symbols": len(ids),
        "num_speakers": max(1, len(speakers)), "phoneme_id_map": ids,
        "speaker_id_map": {name: number for number, name in enumerate(speakers)},
    }  # fmt: skip
    Path(f"{path}.json").write_text(json.dumps(config))
    return _save(path, nodes, inputs, "output", constants)
