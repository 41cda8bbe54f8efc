"""One SDPO update in PyTorch (eager): what train-step.bench.mjs is compared with.

Sequences of a micro-batch are padded on the right and need no mask: causal attention keeps padding out of the
rows that count. The head is applied to completion rows alone, and log-sum-exp stands in for a full
log-softmax. Gradients stop at the hidden states, so that loss and backward are timed apart; the arithmetic is
that of one backward call.
"""

import copy
import math
import time

import torch
from protocol import serve, versions
from transformers import AutoModelForCausalLM

state = {}


def load(folder, threads, dtype):
    torch.set_num_threads(threads)
    dtype = getattr(torch, dtype)
    student = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa")
    student.train()
    teacher = copy.deepcopy(student).requires_grad_(False)
    matrices = [p for p in student.parameters() if p.dim() >= 2]
    vectors = [p for p in student.parameters() if p.dim() < 2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, fused=True)
    initial = [p.detach().clone() for p in student.parameters()]
    state.update(student=student, teacher=teacher, optimizer=optimizer, initial=initial)
    return {**versions(), "dtype": str(dtype).removeprefix("torch.")}


@torch.no_grad()
def reset():
    torch._foreach_copy_(list(state["student"].parameters()), state["initial"])
    torch._foreach_copy_(list(state["teacher"].parameters()), state["initial"])
    for moments in state["optimizer"].state.values():
        for value in moments.values():
            value.zero_()


def completion_rows(model, sequences, counts):
    """The hidden states [rows, D] that predict the last counts[i] tokens of each sequence."""
    longest = max(len(ids) for ids in sequences)
    padded = torch.tensor([ids + [0] * (longest - len(ids)) for ids in sequences])
    hidden = model.model(input_ids=padded, use_cache=False).last_hidden_state
    rows = [(i, t) for i, ids in enumerate(sequences) for t in range(len(ids) - counts[i] - 1, len(ids) - 1)]
    sequence, position = torch.tensor(rows).T
    return hidden[sequence, position]


def divergence(student, teacher, top_k, alpha):
    """Generalised Jensen-Shannon divergence of each row over the student's top k and a tail."""
    top, ids = student.topk(top_k, dim=-1, sorted=False)
    p = top - student.logsumexp(-1, keepdim=True)
    t = teacher.gather(-1, ids) - teacher.logsumexp(-1, keepdim=True)

    def with_tail(logs):
        mass = logs.logsumexp(-1, keepdim=True).clamp(max=-1e-7)
        return torch.cat([logs, torch.log(-torch.expm1(mass))], -1)

    p, t = with_tail(p), with_tail(t)
    m = torch.logaddexp(p + math.log(1 - alpha), t + math.log(alpha))
    return ((1 - alpha) * p.exp() * (p - m) + alpha * t.exp() * (t - m)).sum(-1)


class Stopwatch:
    def __init__(self):
        self.phases, self.last = {}, time.perf_counter()

    def lap(self, name):
        now = time.perf_counter()
        self.phases[name] = self.phases.get(name, 0.0) + (now - self.last) * 1e3
        self.last = now


def micro_batch(part, settings, watch):
    """Adds the gradient of a micro-batch; its share of the loss."""
    student, teacher = state["student"], state["teacher"]
    counts = part["counts"]
    with torch.no_grad():
        seen = completion_rows(teacher, part["teacher"], counts)
    watch.lap("teacherForward")
    hidden = completion_rows(student, part["student"], counts)
    watch.lap("studentForward")
    rows = hidden.detach().requires_grad_()
    with torch.no_grad():
        target = teacher.lm_head(seen)
    losses = divergence(student.lm_head(rows), target, settings["topK"], settings["alpha"])
    loss = losses.sum() / settings["tokens"]
    loss.backward()
    watch.lap("loss")
    hidden.backward(rows.grad)
    watch.lap("backward")
    return loss.item()


def step(parts, settings, norms):
    reset()
    student, optimizer = state["student"], state["optimizer"]
    watch = Stopwatch()
    start = watch.last
    optimizer.zero_grad(set_to_none=True)
    loss = sum(micro_batch(part, settings, watch) for part in parts)
    result = {"loss": loss}
    if norms:
        result["norms"] = {name: p.grad.norm().item() for name, p in student.named_parameters()}
        watch.last = time.perf_counter()
    norm = torch.nn.utils.clip_grad_norm_(student.parameters(), settings["clipNorm"])
    for group in optimizer.param_groups:
        group["lr"] = settings["learningRate"]
        group["betas"] = (settings["beta1"], settings["beta2"])
        group["weight_decay"] = settings["weightDecay"] if group is optimizer.param_groups[0] else 0.0
    optimizer.step()
    with torch.no_grad():
        rate = settings["teacherRate"]
        torch._foreach_lerp_(list(state["teacher"].parameters()), list(student.parameters()), rate)
    watch.lap("optimizer")
    total = (watch.last - start) * 1e3
    return {**result, "gradientNorm": norm.item(), "total": total, "phases": watch.phases}


serve({"load": load, "step": step})
