"""MELD as released with MMGCN."""

from __future__ import annotations

from mer_zoo.data.pickles import PickleLayout
from mer_zoo.parts.importer.pickles import AUDIO_VISUAL, MELD, MMGCN, PickleImporter


class MmgcnMeld(PickleImporter):
    """The pickle of MELD that MMGCN was released with: a tuple of parts by dialogue.

    Its parts in order: ids, speakers, labels, text, audio, visual, transcript, train, test, and one more that is
    not read.

    Raises:
        MerZooError: the pickle asks for something forbidden, is damaged, or holds something else.

    Example:
        >>> MmgcnMeld.layout.widths
        {'text': 600, 'audio': 300, 'visual': 342}
    """

    layout = PickleLayout(
        name="mmgcn-meld",
        parts=(*MMGCN, "extra"),
        widths={"text": 600, "audio": 300, "visual": 342},
        features={"text": "TextCNN", **AUDIO_VISUAL},
        label_names=MELD,
        one_hot_speakers=True,
    )
