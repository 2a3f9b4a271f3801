"""MELD as released with GraphSmile."""

from __future__ import annotations

from mer_zoo.data.pickles import PickleLayout
from mer_zoo.parts.importer.pickles import AUDIO_VISUAL, MELD, SDT, PickleImporter


class GraphsmileMeld(PickleImporter):
    """The pickle of MELD that GraphSmile was released with: a tuple of parts by dialogue.

    Its parts are those of `sdt_meld`, with the sentiment's labels behind those of the emotion.

    Raises:
        MerZooError: the pickle asks for something forbidden, is damaged, or holds something else.

    Example:
        >>> GraphsmileMeld.layout.parts[2:4]
        ('labels', 'sentiment')
    """

    layout = PickleLayout(
        name="graphsmile-meld",
        parts=(*SDT[:3], "sentiment", *SDT[3:], "extra"),
        widths={"text": 1024, "audio": 300, "visual": 342},
        features={"text": "RoBERTa, first of four", **AUDIO_VISUAL},
        label_names=MELD,
        one_hot_speakers=True,
    )
