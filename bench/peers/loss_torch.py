"""The SDPO logit loss in PyTorch, eager and compiled, for loss.bench.mjs: JSON lines on stdin and stdout.

{"setup": {"student": file, "teacher": file, "rows", "vocab", "alpha", "top_k" (null: full), "threads"}}
{"run": "eager" | "compile"}  -> {"milliseconds", "loss"}: forward and backward over all rows, mean over rows
{"reference": rows, "gradient": file}  -> {"losses"}: token losses and gradient in float64 of the first rows
Each implementation is ordinary PyTorch: log_softmax, topk, gather, the tail by log(1 - mass), autograd.
"""
import json
import math
import sys
import time

import torch


def bucket_logprobs(student, teacher, top_k):
    student, teacher = student.log_softmax(-1), teacher.log_softmax(-1)
    if top_k is None:
        return student, teacher
    index = student.detach().topk(top_k, -1).indices

    def buckets(logprobs):
        top = logprobs.gather(-1, index)
        mass = top.logsumexp(-1, keepdim=True).clamp(max=-1e-7)
        return torch.cat([top, torch.log(-torch.expm1(mass))], -1)

    return buckets(student), buckets(teacher)


def token_losses(student, teacher, alpha, top_k):
    p, t = bucket_logprobs(student, teacher, top_k)
    if alpha == 0:
        return (t.exp() * (t - p)).sum(-1)
    if alpha == 1:
        return (p.exp() * (p - t)).sum(-1)
    m = torch.logaddexp(p + math.log(1 - alpha), t + math.log(alpha))
    return (1 - alpha) * (p.exp() * (p - m)).sum(-1) + alpha * (t.exp() * (t - m)).sum(-1)


class Peer:
    def setup(self, student, teacher, rows, vocab, alpha, top_k, threads):
        torch.set_num_threads(threads)
        read = lambda file: torch.from_file(file, size=rows * vocab).view(rows, vocab).clone()
        self.student, self.teacher = read(student).requires_grad_(), read(teacher)
        mean = lambda s, t: token_losses(s, t, alpha, top_k).mean()
        self.mean = {"eager": mean, "compile": torch.compile(mean, dynamic=False)}
        self.options = (alpha, top_k)
        return {"torch": torch.__version__, "threads": torch.get_num_threads()}

    def run(self, variant):
        self.student.grad = None
        start = time.perf_counter()
        loss = self.mean[variant](self.student, self.teacher)
        loss.backward()
        value = loss.item()
        return {"milliseconds": (time.perf_counter() - start) * 1e3, "loss": value}

    def reference(self, rows, gradient):
        student = self.student.detach()[:rows].double().requires_grad_()
        losses = token_losses(student, self.teacher[:rows].double(), *self.options)
        losses.sum().backward()
        with open(gradient, "wb") as file:
            file.write(bytes(student.grad.contiguous().untyped_storage()))
        return {"losses": losses.tolist()}


def main():
    peer = Peer()
    for line in sys.stdin:
        request = json.loads(line)
        if "setup" in request:
            answer = peer.setup(**request["setup"])
        elif "run" in request:
            answer = peer.run(request["run"])
        else:
            answer = peer.reference(request["reference"], request["gradient"])
        print(json.dumps(answer), flush=True)


main()
