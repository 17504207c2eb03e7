"""The official checkpoints' tokenizer in small, of Llama 3's kind and layout, and upstream's prompts as an oracle."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from small_models import make_lm
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from llasa.vocabulary import extend_tokenizer

# Rotary embeddings as Llama 3.2's config.json has them.
ROPE = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
PLAIN = 128000  # tokens before the special ones in Llama 3's tokenizer
SPECIAL = 256
MARKS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
# A conversation as Llama 3.2 has them: a system turn with two dates, one of them today's, then the turns, trimmed.
TEMPLATE = """\
{%- if date_string is not defined %}
    {%- set date_string = strftime_now("%d %b %Y") if strftime_now is defined else "26 Jul 2024" %}
{%- endif %}
{{- bos_token + "<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n<|eot_id|>" }}
{%- for message in messages %}
    {{- "<|start_header_id|>" + message.role + "<|end_header_id|>\\n\\n" + message.content | trim + "<|eot_id|>" }}
{%- endfor %}
{%- if add_generation_prompt %}{{- "<|start_header_id|>assistant<|end_header_id|>\\n\\n" }}{% endif %}
"""
WORDS = "Speaker kore puck Convert the text to speech: Cutting Knowledge Date: Today Date: system user assistant Hello"


def llama3_tokenizer(codebook_size: int, plain: int = 600) -> Any:
    """Byte-level BPE with Llama 3's splitting, its special tokens and template, and the speech tokens.

    Args:
        codebook_size: number of speech tokens.
        plain: tokens before the special ones; beyond what was learnt from a few words they never occur. With `PLAIN`
            every id is as in the official tokenizers.
    """
    learnt = Tokenizer(models.BPE())
    learnt.decoder = decoders.ByteLevel()
    split = pre_tokenizers.Split(Regex(r"\\p{N}{1,3}| ?[\p{L}\p{N}]+| ?[^\s\p{L}\p{N}]+|\s+"), "isolated")
    learnt.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learnt.train_from_iterator([WORDS] * 2, trainers.BpeTrainer(vocab_size=350, initial_alphabet=alphabet))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=learnt)
    tokenizer.add_tokens([f"<unused {i}>" for i in range(plain - len(tokenizer))])
    reserved = [f"<|reserved_special_token_{i}|>" for i in range(SPECIAL - len(MARKS))]
    tokenizer.add_tokens([*MARKS, *reserved], special_tokens=True)
    tokenizer.bos_token, tokenizer.eos_token = "<|begin_of_text|>", "<|eot_id|>"
    tokenizer.chat_template = TEMPLATE
    extend_tokenizer(tokenizer, codebook_size)
    return tokenizer


def make_official_folder(path: Path, codebook_size: int = 64) -> Path:
    """A small random model of the official layout: it names no codec, and brings a chat model's sampling settings."""
    tokenizer = llama3_tokenizer(codebook_size)
    model = make_lm(
        len(tokenizer), num_key_value_heads=1, tie_word_embeddings=True, rope_parameters=ROPE,
        max_position_embeddings=131072, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model.generation_config.update(do_sample=True, temperature=0.6, top_p=0.9)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def make_official_lora(path: Path, base: str, codebook_size: int = 64) -> Path:
    """A random LoRA for `make_official_folder`, with upstream's settings, that calls its base `base`."""
    from peft import LoraConfig, get_peft_model

    tokenizer = llama3_tokenizer(codebook_size)
    model = make_lm(len(tokenizer), num_key_value_heads=1, tie_word_embeddings=True)
    settings: Any = {"r": 8, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    tuned.peft_config["default"].base_model_name_or_path = base
    tuned.save_pretrained(path, save_embedding_layers=False)
    return path


def upstream_prompt(tokenizer: Any, text: str, codes: Iterable[int] = (), lead: str = "") -> list[int]:
    """Token ids as the official model cards (and, with a `lead`, the fine-tuning example) make them.

    Everything is one text, speech tokens included, that goes through the tokenizer's template.
    """
    chat = [
        {
            "role": "user",
            "content": "Convert the text to speech:" + f"<|TEXT_UNDERSTANDING_START|>{text}<|TEXT_UNDERSTANDING_END|>",
        },
        {"role": "assistant", "content": f"{lead}<|SPEECH_GENERATION_START|>" + "".join(f"<|s_{c}|>" for c in codes)},
    ]
    encoded = tokenizer.apply_chat_template(chat, tokenize=True, return_tensors="pt", continue_final_message=True)
    return encoded["input_ids"][0].tolist()


def written_out(text: str, codes: Iterable[int] = (), lead: str = "") -> str:
    """The same prompt as one text, written without any template."""
    return (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        f"Today Date: {datetime.now():%d %b %Y}\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        f"Convert the text to speech:<|TEXT_UNDERSTANDING_START|>{text}<|TEXT_UNDERSTANDING_END|><|eot_id|>"
        f"<|start_header_id|>assistant<|end_header_id|>\n\n{lead}<|SPEECH_GENERATION_START|>"
        + "".join(f"<|s_{code}|>" for code in codes)
    )
