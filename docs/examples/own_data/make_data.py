"""Stands for your own features: 40 dialogues of Ann and Bob, two modalities, three emotions."""

import numpy as np

draw = np.random.default_rng(0)
rows = [(f"dialogue{d}", turn) for d in range(40) for turn in range(draw.integers(5, 12))]
dialogue, turn = (np.array(column) for column in zip(*rows, strict=True))
number = np.array([int(name.removeprefix("dialogue")) for name in dialogue])
label = draw.integers(3, size=len(rows))
words = np.array([["fine", "quiet", "maybe"], ["great", "love", "yes"], ["never", "stop", "no"]])

np.savez(
    "dialogues.npz",
    dialogue=dialogue,
    turn=turn,
    split=np.where(number < 24, "train", np.where(number < 30, "validation", "test")),
    label=label,
    label_names=["calm", "happy", "angry"],
    speaker=draw.choice(["Ann", "Bob"], size=len(rows)),
    transcript=[" ".join(draw.choice(words[y], size=2)) for y in label],
    text=draw.normal(size=(len(rows), 12)) + 1.5 * np.eye(3, 12)[label],
    audio=draw.normal(size=(len(rows), 6)) + 0.7 * np.eye(3, 6)[label],
)
