"""Sampling with transformers' generate (float32): what generate.bench.mjs is compared with.

Rollouts of a prompt are a batch of copies, as `num_return_sequences` makes them: the prompt is computed for
each copy. End tokens do not end a rollout, so that every one has the same length.
"""

import time

import torch
from protocol import serve, versions
from transformers import AutoModelForCausalLM, GenerationConfig, StoppingCriteria

state = {}


class FirstToken(StoppingCriteria):
    """Stops nothing; notes when the first token was drawn."""

    def __init__(self):
        self.at = None

    def __call__(self, input_ids, scores, **_):
        self.at = self.at or time.perf_counter()
        return torch.zeros(len(input_ids), dtype=torch.bool)


def load(folder, threads):
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    model.generation_config = GenerationConfig()
    state["model"] = model.eval()
    return versions()


def generate(prompts, rollouts, tokens, sample):
    ids = torch.tensor(prompts)
    first = FirstToken()
    options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0} if sample else {"do_sample": False}
    start = time.perf_counter()
    with torch.no_grad():
        out = state["model"].generate(
            ids,
            attention_mask=torch.ones_like(ids),
            num_return_sequences=rollouts,
            max_new_tokens=tokens,
            stopping_criteria=[first],
            pad_token_id=0,
            **options,
        )
    end = time.perf_counter()
    phases = {"prompt": (first.at - start) * 1e3, "decode": (end - first.at) * 1e3}
    return {"phases": phases, "ids": out[:, ids.shape[1] :].tolist()}


serve({"load": load, "generate": generate})
