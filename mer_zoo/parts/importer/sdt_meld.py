"""MELD as released with SDT and AMB-DSGDN."""

from __future__ import annotations

from mer_zoo.data.pickles import PickleLayout
from mer_zoo.parts.importer.pickles import AUDIO_VISUAL, MELD, SDT, PickleImporter


class SdtMeld(PickleImporter):
    """The pickle of MELD that SDT and AMB-DSGDN were released with: a tuple of parts by dialogue.

    Its parts in order: ids, speakers, labels, text, 3 other texts, audio, visual, transcript, train, test, and one
    more that is not read. Of the four RoBERTa layers the first is read, as AMB-DSGDN does.

    Raises:
        MerZooError: the pickle asks for something forbidden, is damaged, or holds something else.

    Example:
        >>> SdtMeld.layout.widths
        {'text': 1024, 'audio': 300, 'visual': 342}
    """

    layout = PickleLayout(
        name="sdt-meld",
        parts=(*SDT, "extra"),
        widths={"text": 1024, "audio": 300, "visual": 342},
        features={"text": "RoBERTa, first of four", **AUDIO_VISUAL},
        label_names=MELD,
        one_hot_speakers=True,
    )
