"""The perplexity of a folder with a model, by Python's transformers: what `prune-llm` prints for the
same text has to be the same.

    python3 -m pip install torch transformers
    cargo run --release -p prune-llm -- --eval README.md --eval-windows 8 --eval-length 256 \\
      --output pruned
    python3 stock_transformers.py pruned README.md 8 256
"""

import math
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def perplexity(folder, text, windows, length):
    """exp of the mean negative log likelihood of every token but the first of each window."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with open(text, encoding="utf-8") as file:
        encoding = AutoTokenizer.from_pretrained(folder)(file.read(), add_special_tokens=False)
    tokens = torch.tensor(encoding.input_ids[: windows * length]).view(windows, length)
    loss = 0.0
    with torch.no_grad():
        for window in tokens:
            logits = model(window[None]).logits[0, :-1].double()
            loss += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
    return math.exp(loss / (windows * (length - 1)))


if __name__ == "__main__":
    folder, text, windows, length = sys.argv[1:]
    print(f"{perplexity(folder, text, int(windows), int(length)):.4f}")
