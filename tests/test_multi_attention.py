"""The attention of MultiEMO: sources in turn, kept as they came, padding unseen."""

import pytest
import torch

from mer_zoo.checking.small_data import tiny_batch
from mer_zoo.errors import MerZooError
from mer_zoo.parts.fusion.multi_attention import MultiAttention


def states(*names, width=6):
    draw = torch.Generator().manual_seed(3)
    return {name: torch.randn(10, width, generator=draw) for name in names}


def test_it_is_what_torch_computes_dialogue_by_dialogue():
    given, layout = states("text", "audio", "visual"), tiny_batch().layout
    torch.manual_seed(1)
    part = MultiAttention(dict.fromkeys(given, 6), heads=2, layers=2, feed_forward=5)
    result = part(given, layout)
    for dialogue in layout.dialogue.unique():
        here = layout.dialogue == dialogue
        x = given["text"][here]
        for layer in part.layers:
            for take, norm, source in zip(layer.takes, layer.norms, ("audio", "visual"), strict=False):
                theirs = torch.nn.MultiheadAttention(6, 2, batch_first=True)
                weights = torch.cat([take.query.weight, take.key.weight, take.value.weight])
                biases = torch.cat([take.query.bias, torch.zeros(6), take.value.bias])
                theirs.load_state_dict(
                    {
                        "in_proj_weight": weights,
                        "in_proj_bias": biases,
                        "out_proj.weight": take.out.weight,
                        "out_proj.bias": take.out.bias,
                    }
                )
                x = norm(x + theirs(x[None], given[source][here][None], given[source][here][None])[0][0])
            x = layer.norms[-1](x + layer.narrow(layer.widen(x).relu()))
        torch.testing.assert_close(result[here], x)


def test_the_order_of_the_sources_counts():
    given, layout = states("text", "audio", "visual"), tiny_batch().layout
    torch.manual_seed(1)
    part = MultiAttention(dict.fromkeys(given, 6), layers=1)
    swapped = {"text": given["text"], "audio": given["visual"], "visual": given["audio"]}
    assert not torch.allclose(part(given, layout), part(swapped, layout))


def test_widths_that_differ_are_refused():
    with pytest.raises(MerZooError, match="width"):
        MultiAttention({"text": 6, "audio": 4})
