"""The part `lm` of parity.py: the engine against transformers' `LlamaForCausalLM` and its `generate`, in float32.

The checkpoint has Llasa-1B's layout: shards, tied embeddings, grouped-query attention, Llama 3's rotary scaling,
193,800 tokens; at the small size it has 2 of its 16 layers. `generate` may pick the same tokens as the engine: speech,
and its end.
"""

from pathlib import Path

import memory
import torch
from parity_rows import Options, Row
from transformers import LlamaForCausalLM

from llasa.checkpoint import open_checkpoint
from llasa.engine import Engine, Sampling

PROMPT, TOKENS = 100, 40
FIRST, END = memory.TEXT_TOKENS + 8, memory.TEXT_TOKENS + 5  # <|s_0|> and <|SPEECH_GENERATION_END|>
CLOSE = 1e-5  # of probabilities


def run(options: Options) -> tuple[list[Row], str]:
    """Equality of greedy tokens, and of the probabilities that sampled ones are drawn from after the prompt."""
    folder = options.scratch / "lm"
    folder.mkdir()
    layers = 16 if options.full else 2
    memory.make_checkpoint(folder, layers)
    generator = torch.Generator().manual_seed(1)
    prompt = torch.randint(0, memory.TEXT_TOKENS, (PROMPT,), generator=generator).tolist()
    legal = [*range(FIRST, FIRST + memory.CODES), END]
    tokens, probabilities = theirs(folder, prompt, legal)
    engine = Engine(open_checkpoint(folder, "cpu", torch.float32), FIRST, memory.CODES, END, 2048)
    state = engine.start([prompt], 1, [0], Sampling(temperature=0), TOKENS)
    found = engine.extend(state, TOKENS).tokens[0]
    # The engine does not hand out its logits: they are read where they leave the output matrix.
    seen: list[torch.Tensor] = []
    head = engine.llama.head
    object.__setattr__(engine.llama, "head", lambda hidden: seen.append(head(hidden)) or seen[-1])
    engine.extend(engine.start([prompt], 1, [0], Sampling(temperature=0), 1), 1)
    difference = float((seen[0][0].double().softmax(-1) - probabilities).abs().max() / probabilities.max())
    same = sum(a == b for a, b in zip(found, tokens, strict=False)) / max(len(found), len(tokens))
    against = "transformers' generate"
    return [
        Row(f"greedy, {len(tokens)} tokens after a prompt of {PROMPT}", against, equal=same, all_equal=True),
        Row(
            "next-token probabilities over what may be sampled, beside the largest",
            "transformers' LlamaForCausalLM",
            difference,
            bound=CLOSE,
        ),
    ], f"{layers} layers, float32. The engine multiplies by the {memory.CODES + 1} rows of the output matrix alone."


@torch.no_grad()
def theirs(folder: Path, prompt: list[int], legal: list[int]) -> tuple[list[int], torch.Tensor]:
    """transformers' greedy tokens, and its probabilities of the legal ones after the prompt."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([prompt])
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS, eos_token_id=END,
        pad_token_id=END, prefix_allowed_tokens_fn=lambda row, so_far: legal,
    )[0, PROMPT:].tolist()  # fmt: skip
    probabilities = model(ids).logits[0, -1, legal].double().softmax(-1)
    return [token for token in made if token != END], probabilities
