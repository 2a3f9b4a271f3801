"""What recipes can say: repetition, pairs of modalities, second branches, padding, tasks, additions."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

import mer_zoo
from mer_zoo.commands import describe
from mer_zoo.corpus import Corpus
from mer_zoo.data.container import fingerprint_of, read_dataset, write_dataset
from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.errors import MerZooError
from mer_zoo.model import filling, recipe
from mer_zoo.model.assembly import assemble
from mer_zoo.model.model import Facts
from mer_zoo.model.step import Step, companions
from mer_zoo.model.wiring import wire

WIDTHS = {"text": 6, "audio": 4}
END = {"join": {"fusion": "concat"}, "classify": {"head": "linear"}}
PROJECT = {"project": {"encoder": {"name": "linear", "out_width": 8}}}


def plan(tmp_path, model, widths=WIDTHS, **more):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"title": "t", "model": model, **more}, sort_keys=False))
    return filling.fill(recipe.read(str(path)), widths)


def built(tmp_path, model, widths=WIDTHS, **more):
    made = plan(tmp_path, model, widths, **more)
    return assemble(made, Facts(widths, 2, 3, (1, 1, 1)))


def refusal(tmp_path, model, widths=WIDTHS, **more):
    with pytest.raises(MerZooError) as caught:
        built(tmp_path, model, widths, **more)
    return str(caught.value)


def talks(lengths=(5, 2), widths=WIDTHS, **targets):
    draw = np.random.default_rng(0)
    return [
        Conversation(
            f"d{i}",
            tuple("AB"[turn % 2] for turn in range(n)),
            draw.integers(3, size=n),
            {m: draw.normal(size=(n, width)) for m, width in widths.items()},
            targets={task: draw.integers(classes, size=n) for task, classes in targets.items()},
        )
        for i, n in enumerate(lengths)
    ]


def output(model, dialogues):
    return model.eval()(Corpus(dialogues, model.builder, model.views).batch(range(len(dialogues))))


def test_repeat_makes_stages_with_weights_of_their_own(tmp_path):
    deep = {**PROJECT, "deepen": {"encoder": {"name": "dense", "out_width": 8}, "repeat": 3}}
    model = built(tmp_path, {**deep, "beside": {"skip": ["project", "deepen_*"]}, **END})
    names = ["project", "deepen_1", "deepen_2", "deepen_3", "beside", "join", "classify"]
    assert list(model.stages) == names
    assert model.plan.model["beside"].sources == ("project", "deepen_1", "deepen_2", "deepen_3")
    first, second = (model.stages[f"deepen_{n}"].parts["text"].map.weight for n in (1, 2))
    assert not first.equal(second)
    assert model.stages["classify"].parts["utterance"].map.in_features == 2 * 8 * 5
    assert "repeat" not in model.plan.plain()["model"]["deepen_1"]


def test_a_repeated_stage_must_not_take_the_name_of_another(tmp_path):
    clash = {"a": {"encoder": "dense", "repeat": 2}, "a_2": {"encoder": "dense"}, **END}
    assert "there is a stage 'a_2' already" in refusal(tmp_path, clash)


def test_a_wildcard_without_a_match_is_refused_with_the_nearest_name(tmp_path):
    assert "no stage 'projct*' before this one" in refusal(tmp_path, {**PROJECT, "b": {"skip": "projct*"}, **END})


@pytest.mark.parametrize(
    ("per", "expected"),
    [
        ("pair", ["text<text", "text<audio", "audio<audio", "audio<text"]),
        ("other", ["text<audio", "audio<text"]),
        ("itself", ["text", "audio"]),
        ("each", ["text", "audio"]),
    ],
)
def test_pairs_are_made_and_gathered(tmp_path, per, expected):
    model = {**PROJECT, "meet": {"fusion": "concat", "per": per}}
    gather = {} if per in ("itself", "each") else {"gather": {"fusion": "concat", "per": "target"}}
    made = plan(tmp_path, {**model, **gather, **END})
    wiring = wire(made, 2)
    assert list(wiring.wires["meet"].after) == expected
    assert wiring.first_joint == "join"
    assert wiring.wires["join"].before == ("text", "audio")
    features = output(assemble(made, Facts(WIDTHS, 2, 3)), talks()).features
    assert set(features) == {"text", "audio"}


def test_a_target_sees_its_source(tmp_path):
    """`text<audio` is made of text, then audio."""
    model = built(
        tmp_path,
        {**PROJECT, "a": {"fusion": "first", "per": "other"}, "b": {"fusion": "sum", "per": "target"}, **END},
    )
    batch = Corpus(talks()).batch([0, 1])
    flow = model.encode(batch)
    projected = flow.saved["project"][0]
    torch.testing.assert_close(flow.states["text"], projected["text"])
    torch.testing.assert_close(flow.states["audio"], projected["audio"])


def test_each_modality_stands_before_all_others(tmp_path):
    widths = {"text": 6, "audio": 4, "visual": 2}
    made = plan(tmp_path, {**PROJECT, "meet": {"fusion": "concat", "per": "each"}, **END}, widths)
    groups = wire(made, 2).wires["meet"].groups
    assert groups == (("text", "audio", "visual"), ("audio", "text", "visual"), ("visual", "text", "audio"))
    alone = plan(tmp_path, {"meet": {"fusion": "concat", "per": "each"}, **END}, {"text": 6})
    assert wire(alone, 2).wires["meet"].outputs == {("text",): "text"}


def test_into_makes_states_beside_the_others(tmp_path):
    model = {
        **PROJECT,
        "both": {"fusion": "sum", "only": ["text", "audio"], "into": "both"},
        "meet": {"fusion": "concat", "only": ["text", "audio"], "into": "text"},
        **END,
    }
    made = built(tmp_path, model)
    flow = made.encode(Corpus(talks()).batch([0, 1]))
    before = flow.states
    for name in ("both", "meet"):
        flow = made.stages[name](flow)
    assert list(flow.states) == ["text", "audio", "both"]
    torch.testing.assert_close(flow.states["audio"], before["audio"])
    torch.testing.assert_close(flow.states["both"], before["text"] + before["audio"])
    torch.testing.assert_close(flow.states["text"], torch.cat([before["text"], before["audio"]], -1))
    assert wire(made.plan, 2).first_joint == "both"  # here it begins to mix, so balancing acts before


def test_the_graph_has_nodes_for_what_is_made_later(tmp_path):
    model = {
        **PROJECT,
        "hop": {"layer": "graph_conv", "only": ["text", "audio"]},
        "meet": {"fusion": "sum", "only": ["text", "audio"], "into": "both"},
        "on": {"layer": "graph_conv", "only": ["both", "audio"]},
        "join": {"fusion": "concat", "only": ["both", "audio"]},
        "judge": {"head": "linear"},
    }
    made = built(tmp_path, model, graph="complete_multimodal")
    assert made.builder.node_types == ("text", "audio", "both")
    assert list(made.stages["hop"].groups) == ["text+audio"]
    assert list(made.stages["on"].groups) == ["audio+both"]


def test_into_passes_by_what_the_data_lacks(tmp_path):
    meet = {"meet": {"fusion": "concat", "only": ["audio", "visual"], "into": "visual"}}
    wiring = wire(plan(tmp_path, {**PROJECT, **meet, **END}, {"text": 6}), 2)
    assert wiring.wires["meet"].after == ("text",)
    wiring = wire(plan(tmp_path, {**PROJECT, **meet, **END}, {"text": 6, "audio": 4}), 2)
    assert wiring.wires["meet"].outputs == {("audio",): "visual"}


def test_one_modality_alone_pairs_with_itself(tmp_path):
    model = {"meet": {"fusion": "concat", "per": "other"}, "gather": {"fusion": "concat", "per": "target"}, **END}
    wiring = wire(plan(tmp_path, model, {"text": 6}), 2)
    assert wiring.wires["meet"].after == ("text<text",)


def test_the_graph_lies_between_the_pairs_that_its_first_layer_meets(tmp_path):
    model = {
        **PROJECT,
        "apart": {"fusion": "first", "per": "other"},
        "hop": {"layer": "graph_conv"},
        "meet": {"fusion": "mean", "per": "target"},
        **END,
    }
    made = built(tmp_path, model, graph={"name": "bipartite_window", "past": 1, "future": 1})
    assert made.builder.node_types == ("text<audio", "audio<text")
    assert list(made.stages["hop"].groups) == ["text<audio+audio<text"]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"a": {"fusion": "concat", "per": "other"}, **END}, "the states here are pairs.*per: target"),
        ({"a": {"fusion": "concat", "per": "target"}, **END}, "gathers pairs, but here are text, audio"),
        ({"a": {"fusion": "concat"}, "b": {"fusion": "concat", "per": "pair"}, "c": {"head": "linear"}}, "pairs modal"),
        ({"a": {"encoder": "dense", "per": "pair"}, **END}, "`per` has no meaning for an? encoder"),
        ({"a": {"fusion": "sum", "per": "pair", "into": "b"}, **END}, "`per` and `into` both say"),
        ({"a": {"fusion": "sum", "into": "text<audio"}, **END}, r"model.a.into.*is not a name"),
        (
            {"a": {"fusion": "concat"}, "b": {"fusion": "sum", "into": "c"}, "d": {"head": "linear"}},
            "but all are fused",
        ),
        ({"a": {"fusion": "concat", "into": "keys"}, **END}, "torch needs the name 'keys'"),
        (
            {"a": {"fusion": "concat", "into": "both"}, "b": {"layer": "gat", "only": ["bth"]}, **END},
            "Did you mean 'both'",
        ),
        ({"a": {"fusion": "concat", "per": "others"}, **END}, r"mine.yaml:\d+:\d+ model.a.per"),
        ({"a": {"skip": "a", "only": ["text"]}, **END}, "`only` has no meaning for an? skip"),
        ({"a": {"encoder": "dense", "repeat": 0}, **END}, r"mine.yaml:\d+:\d+ model.a.repeat"),
        ({"a": {"encoder": "dense", "repaet": 2}, **END}, "Did you mean 'repeat'"),
        ({"a": {"padding": "hidden"}, **END}, "padding is hidden here already"),
        ({"a": {"padding": "shown"}, **END}, "cannot judge padding. Put `padding: hidden` before"),
        ({"a": {"add": {"nothing": 1.0}}, **END}, "no stage 'nothing' before this one"),
        ({**PROJECT, "a": {"add": {"project": {"txt": 1.0}}}, **END}, r"model\.a\.add: no modality 'txt'.*'text'"),
        ({"n": {"encoder": "norm"}, **PROJECT, "a": {"add": {"n": 1.0}}, **END}, "text has width 8 here, but 6 behind"),
        ({**END, "a": {"head": "linear", "task": "mood"}}, "no task 'mood'"),
        ({**END, "a": {"encoder": "dense"}}, "cannot follow a head"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(tmp_path, model, message):
    text = refusal(tmp_path, model)
    assert re.search(message, text), text


def test_a_head_may_follow_a_branch_that_was_not_judged(tmp_path):
    model = {**PROJECT, "students": {"head": "linear"}, "again": {"start": "project"}, **END}
    made = output(built(tmp_path, model, loss="self_distillation"), talks())
    assert set(made.modality_logits) == {"text", "audio"}
    assert made.logits.shape == (7, 3)
    assert not made.logits.equal(sum(made.modality_logits.values()))
    judged = {**PROJECT, "students": {"head": "linear"}, "again": {"start": "students"}, "more": {"head": "linear"}}
    assert "cannot follow a head" in refusal(tmp_path, judged)


def test_additions_are_weighted(tmp_path):
    both = {**PROJECT, "turn": {"encoder": {"name": "activation", "function": "tanh"}}}
    model = built(tmp_path, {**both, "sum": {"add": {"project": {"text": 3.0}, "turn": 0.5}}, **END})
    flow = model.encode(Corpus(talks()).batch([0, 1]))
    x = flow.saved["project"][0]
    torch.testing.assert_close(flow.states["text"], 1.5 * x["text"].tanh() + 3 * x["text"])
    torch.testing.assert_close(flow.states["audio"], 1.5 * x["audio"].tanh())


def test_shown_padding_is_utterances_of_the_first_speaker(tmp_path):
    shown = {"padded": {"padding": "shown"}, "speak": {"encoder": "speaker_embedding"}, "ragged": {"padding": "hidden"}}
    model = built(tmp_path, {**shown, **END})
    dialogues = talks()
    flow = model.encode(Corpus(dialogues).batch([0, 1]))
    states, layout = flow.saved["speak"]
    assert states["text"].shape == (10, 6)
    assert layout.lengths.tolist() == [5, 5]
    assert states["text"][8].equal(model.stages["speak"].parts["text"].weight[0])
    assert flow.states["text"].shape == (7, 6)
    assert flow.layout is flow.batch.layout
    assert not model.stages["padded"].capturable


def test_with_shown_padding_a_dialogue_depends_on_the_longest_beside_it(tmp_path):
    context = {"context": {"encoder": {"name": "bilstm", "hidden": 4, "dropout": 0}}}
    shown = {"padded": {"padding": "shown"}, **context, "ragged": {"padding": "hidden"}}
    for model, alike in (({**context, **END}, True), ({**shown, **END}, False)):
        made = built(tmp_path, model)
        long, short = talks()
        together = output(made, [long, short]).logits[5:]
        assert torch.allclose(together, output(made, [short]).logits, atol=1e-6) == alike


def test_a_second_branch_goes_back_to_shown_padding(tmp_path):
    model = {
        "padded": {"padding": "shown"},
        **PROJECT,
        "ragged": {"padding": "hidden"},
        "join": {"fusion": "concat"},
        "again": {"start": "project"},
        "turn": {"encoder": "activation"},
        "plain": {"padding": "hidden"},
        "mix": {"fusion": "concat"},
        "beside": {"skip": "join"},
        "classify": {"head": "linear"},
    }
    assert output(built(tmp_path, model), talks()).logits.shape == (7, 3)
    del model["plain"]
    assert "cannot judge padding" in refusal(tmp_path, model)


TASKS = {
    "join": {"fusion": "concat"},
    "mood": {"head": "linear", "task": "mood"},
    "shift": {"head": {"name": "pair_shift", "window": 2}, "task": "mood"},
    "classify": {"head": "linear"},
}


def test_tasks_are_judged_and_learned(tmp_path):
    loss = {"name": "multi_task", "weights": {"mood": 1.0, "shift": 0.5}}
    made = built(tmp_path, TASKS, tasks={"mood": 4}, loss=loss)
    dialogues = talks(mood=4)
    batch = Corpus(dialogues).batch([0, 1])
    step = Step(made, *companions(made.plan, made.facts))
    total, output, labels = step(batch)
    logits, targets = output.tasks["mood"]
    assert logits.shape == (7, 4)
    assert targets.tolist() == [x for d in dialogues for x in d.targets["mood"]]
    pairs, differ = output.tasks["shift"]
    mood = dialogues[0].targets["mood"]
    assert pairs.shape == (7, 2, 2)
    assert differ[0].tolist() == [0, int(mood[0] != mood[1])]
    assert differ[4].tolist() == [0, -1]
    nll = torch.nn.functional.cross_entropy
    parts = [nll(output.logits, labels), nll(logits, targets)]
    parts += [0.5 * nll(pairs.flatten(0, 1), differ.flatten(), ignore_index=-1)]
    torch.testing.assert_close(total, sum(parts))
    step.backward(total, output, labels)
    assert made.stages["shift"].parts["utterance"].second.weight.grad.any()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"tasks": {"mood": 4, "age": 3}}, "no head judges the task 'age'"),
        (
            {"tasks": {"mood": 4}, "loss": {"name": "multi_task", "weights": {"mood": 1.0}}},
            "no number for the head 'shift'",
        ),
        (
            {"tasks": {"mood": 4}, "loss": {"name": "multi_task", "weights": {"mood": 1, "shift": 1, "shft": 1}}},
            "no head 'shft' with a `task`. Did you mean 'shift'",
        ),
    ],
)
def test_tasks_that_nothing_learns_are_refused(tmp_path, more, message):
    assert message in refusal(tmp_path, TASKS, **more)


def test_label_columns_come_back_from_a_container(tmp_path):
    dialogues = tuple(talks(mood=4))
    plain = tuple(talks())
    data, without = (Dataset("d", x, ("a", "b", "c"), {"all": ("d0", "d1")}) for x in (dialogues, plain))
    write_dataset(data, tmp_path / "data")
    read = read_dataset(tmp_path / "data")
    assert [t.targets["mood"].tolist() for t in read] == [t.targets["mood"].tolist() for t in dialogues]
    assert fingerprint_of(data) != fingerprint_of(without)
    write_dataset(without, tmp_path / "without")
    assert "targets" not in (tmp_path / "without" / "manifest.json").read_text()


def test_training_refuses_data_without_the_label_column(tmp_path):
    path = tmp_path / "mine.yaml"
    loss = {"name": "multi_task", "weights": {"mood": 1.0, "shift": 0.5}}
    training = {"epochs": 1}
    recipe_of = {"title": "t", "tasks": {"mood": 4}, "model": TASKS, "loss": loss, "training": training}
    path.write_text(yaml.safe_dump(recipe_of, sort_keys=False))
    ids = [f"d{i}" for i in range(9)]
    splits = {"train": ids[:5], "validation": ids[5:7], "test": ids[7:]}
    with pytest.raises(MerZooError, match=r"has no label column 'mood'\. It has none"):
        mer_zoo.train(str(path), data=Dataset("d", tuple(talks([4] * 9)), ("a", "b", "c"), splits))
    with pytest.raises(MerZooError, match="the recipe has 4 classes, but the data have a label"):
        mer_zoo.train(str(path), data=Dataset("d", tuple(talks([4] * 9, mood=9)), ("a", "b", "c"), splits))
    outcome = mer_zoo.train(str(path), data=Dataset("d", tuple(talks([4] * 9, mood=4)), ("a", "b", "c"), splits))
    assert outcome.result.metrics.test.weighted_f1 >= 0


def test_graphsmile_learns_the_sentiment_where_the_data_have_it(small):
    def with_sentiment(dialogue):
        return replace(dialogue, targets={"sentiment": np.where(dialogue.labels < 0, -1, dialogue.labels % 3)})

    changes = ["training.epochs=2"]
    data = Dataset("d", tuple(map(with_sentiment, small)), small.label_names, small.splits)
    losses = [h["train_loss"] for h in mer_zoo.train("graphsmile/sentiment", data, change=changes).result.history]
    assert losses[1] < losses[0]
    with pytest.raises(MerZooError, match=r"no label column 'sentiment'.*import it as a further column 'sentiment'"):
        mer_zoo.train("graphsmile/sentiment", small, change=changes)
    mer_zoo.train("graphsmile", small, change=["training.epochs=1"])  # the form without


@pytest.mark.parametrize("name", ["cogmen", "graphsmile/iemocap", "corect/iemocap", "mm_dfn/iemocap", "sdt", "dag_erc"])
def test_a_recipe_of_the_zoo_is_described(name):
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(describe.describe(f"recipe/{name}"))
    told = console.export_text()
    assert recipe.read(name).recipe.title in told
    assert all(stage in told for stage in recipe.read(name).recipe.model)


@pytest.mark.parametrize("encoder", ["bilstm", "bigru", "party_gru"])
@pytest.mark.parametrize(("setting", "value"), [("packed", False), ("project", 200)])
def test_what_replaced_a_removed_setting_is_named(tmp_path, encoder, setting, value):
    text = refusal(tmp_path, {"context": {"encoder": {"name": encoder, setting: value}}, **END})
    assert re.match(rf"\S*mine.yaml:\d+:\d+ model.context.*has no setting '{setting}' any more\.", text)
    assert "{padding: shown}" in text
    assert "{padding: hidden}" in text
    around = {"a": {"padding": "shown"}, **PROJECT, "c": {"encoder": encoder}, "b": {"padding": "hidden"}}
    built(tmp_path, {**around, **END})
