"""The part `lm` of parity.py: compares the engine with transformers' `LlamaForCausalLM` and its `generate`, in float32.

The checkpoint has Llasa-1B's layout: shards, tied embeddings, grouped-query attention, Llama 3's rotary scaling,
193,800 tokens; at the small size it has 2 of its 16 layers. `generate` is limited to the tokens of the engine: speech
and its end.
"""

from pathlib import Path

import memory
import torch
from parity_rows import Options, Row
from transformers import LlamaForCausalLM

from llasa.engine import Sampling
from llasa.engine.torch_engine import Engine
from llasa.models.lora import open_model

PROMPT, TOKENS = 100, 40
FIRST, END = memory.TEXT_TOKENS + 8, memory.TEXT_TOKENS + 5  # <|s_0|> and <|SPEECH_GENERATION_END|>
CLOSE = 1e-5  # of probabilities
TIE = 1e-4  # of logits


def run(options: Options) -> tuple[list[Row], str]:
    """Compares greedy tokens, and the probabilities from which the first token after the prompt is drawn."""
    folder = options.scratch / "lm"
    folder.mkdir()
    layers = 16 if options.full else 2
    memory.make_checkpoint(folder, layers)
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randint(0, memory.TEXT_TOKENS, (PROMPT,), generator=generator).tolist()
    tokens, logits = theirs(folder, prompt)
    engine = Engine(open_model(folder, "cpu", torch.float32), FIRST, memory.CODES, END, 2048)
    # The engine does not return its logits, so they are read where they leave the output matrix.
    seen: list[torch.Tensor] = []
    head = engine.llama.head
    object.__setattr__(engine.llama, "head", lambda hidden: seen.append(head(hidden)) or seen[-1])
    equal = ties = done = 0
    while done < len(tokens):
        # After a token that differs, the engine continues after theirs.
        state = engine.start([prompt + tokens[:done]], 1, [0], Sampling(temperature=0), len(tokens) - done)
        found = engine.extend(state, len(tokens)).tokens[0]
        same = next(
            (i for i, pair in enumerate(zip(found, tokens[done:], strict=False)) if len(set(pair)) > 1), len(found)
        )
        equal, done = equal + same, done + same
        if done < len(tokens):
            best = logits[done].topk(2).values
            ties += bool(best[0] - best[1] < TIE)
            done += 1
    probabilities = logits[0].double().softmax(-1)
    difference = float((seen[0][0].double().softmax(-1) - probabilities).abs().max() / probabilities.max())
    return [
        Row(
            f"greedy, {len(tokens)} tokens after a prompt of {PROMPT}", "transformers' generate",
            equal=equal / len(tokens), all_equal=True, count=len(tokens), ties=ties,
        ),
        Row(
            "next-token probabilities over what may be sampled, beside the largest", "transformers' LlamaForCausalLM",
            difference, bound=CLOSE,
        ),
    ], (
        f"{layers} layers, float32. The engine multiplies by {memory.CODES + 1} rows of the output matrix alone. "
        f"A token on an edge: its logit lies within {TIE:g} of the next in transformers too."
    )  # fmt: skip


@torch.no_grad()
def theirs(folder: Path, prompt: list[int]) -> tuple[list[int], torch.Tensor]:
    """transformers' greedy tokens without the end, and the logits (T, legal) from which each was chosen."""
    legal = [*range(FIRST, FIRST + memory.CODES), END]
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([prompt])
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS, eos_token_id=END,
        pad_token_id=END, prefix_allowed_tokens_fn=lambda row, so_far: legal, return_dict_in_generate=True,
        output_logits=True,
    )  # fmt: skip
    tokens = [token for token in made.sequences[0, PROMPT:].tolist() if token != END]
    return tokens, torch.cat(made.logits)[: len(tokens), legal]
