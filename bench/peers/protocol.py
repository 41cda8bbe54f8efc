"""One JSON object a line: requests on stdin, replies on stdout. What a library prints goes to stderr."""

import json
import resource
import sys


def serve(handlers):
    replies, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        reply = handlers[request.pop("call")](**request)
        reply["peakBytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(reply), file=replies, flush=True)


def versions():
    import torch
    import transformers

    return {
        "python": sys.version.split()[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "instructionSet": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "mkldnn": torch.backends.mkldnn.is_available(),
    }
