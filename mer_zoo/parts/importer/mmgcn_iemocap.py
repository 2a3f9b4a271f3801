"""IEMOCAP as released with MMGCN."""

from __future__ import annotations

from mer_zoo.data.pickles import PickleLayout
from mer_zoo.parts.importer.pickles import AUDIO_VISUAL, IEMOCAP, MMGCN, PickleImporter


class MmgcnIemocap(PickleImporter):
    """The pickle of IEMOCAP that MMGCN was released with: a tuple of parts by dialogue.

    Its parts in order: ids, speakers, labels, text, audio, visual, transcript, train, test.

    Raises:
        MerZooError: the pickle asks for something forbidden, is damaged, or holds something else.

    Example:
        >>> MmgcnIemocap.layout.widths
        {'text': 100, 'audio': 1582, 'visual': 342}
    """

    layout = PickleLayout(
        name="mmgcn-iemocap",
        parts=MMGCN,
        widths={"text": 100, "audio": 1582, "visual": 342},
        features={"text": "TextCNN", **AUDIO_VISUAL},
        label_names=IEMOCAP,
        one_hot_speakers=False,
    )
