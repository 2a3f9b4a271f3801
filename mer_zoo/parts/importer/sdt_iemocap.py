"""IEMOCAP as released with SDT and AMB-DSGDN."""

from __future__ import annotations

from mer_zoo.data.pickles import PickleLayout
from mer_zoo.parts.importer.pickles import AUDIO_VISUAL, IEMOCAP, SDT, PickleImporter


class SdtIemocap(PickleImporter):
    """The pickle of IEMOCAP that SDT and AMB-DSGDN were released with: a tuple of parts by dialogue.

    Its parts in order: ids, speakers, labels, text, 3 other texts, audio, visual, transcript, train, test. Of the
    four RoBERTa layers the first is read, as AMB-DSGDN does.

    Raises:
        MerZooError: the pickle asks for something forbidden, is damaged, or holds something else.

    Example:
        >>> SdtIemocap.layout.widths
        {'text': 1024, 'audio': 1582, 'visual': 342}
    """

    layout = PickleLayout(
        name="sdt-iemocap",
        parts=SDT,
        widths={"text": 1024, "audio": 1582, "visual": 342},
        features={"text": "RoBERTa, first of four", **AUDIO_VISUAL},
        label_names=IEMOCAP,
        one_hot_speakers=False,
    )
