"""The model card of a run: Markdown for people, with the YAML front matter that the Hugging Face hub reads."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from mer_zoo.comparison.table import markdown_table, markdown_text
from mer_zoo.model import recipe
from mer_zoo.model.filling import fill
from mer_zoo.model.status import status
from mer_zoo.registry.references import references
from mer_zoo.results.metrics import SCORES
from mer_zoo.results.result import Result
from mer_zoo.showing import visible


def card(result: Result, *, onnx: bool = False) -> str:
    """Return the card; names are data: none is obeyed by Markdown, YAML or HTML.

    Args:
        result: of the run whose weights are handed on.
        onnx: whether `model.onnx` lies beside it.
    """
    front = yaml.safe_dump(_front(result), sort_keys=False, allow_unicode=True, width=10**6)
    return f"---\n{front}---\n\n" + "\n\n".join(_body(result, onnx)) + "\n"


def _front(result: Result) -> dict[str, Any]:
    """Return what the hub reads; the licence is for the owner to add."""
    test = result.metrics.test
    measured = {
        "task": {"type": "emotion-recognition-in-conversation", "name": "Emotion recognition in conversation"},
        "dataset": {"type": visible(result.dataset.name), "name": visible(result.dataset.name), "split": "test"},
        "metrics": [
            {"type": score, "name": score.replace("_", " "), "value": round(getattr(test, score), 6)}
            for score in SCORES
        ],
    }
    return {
        "library_name": "mer_zoo",
        "tags": ["emotion-recognition-in-conversation", "multimodal", *map(visible, result.dataset.modalities)],
        "model-index": [{"name": visible(result.recipe_name), "results": [measured]}],
    }


def _body(result: Result, onnx: bool) -> Iterator[str]:
    data, metrics, text = result.dataset, result.metrics, markdown_text
    name, of = text(result.recipe_name), text(data.name)
    yield f"# Model {name}, trained on {of}"
    yield (
        f"It says of every utterance of a dialogue which of {len(data.label_names)} emotions it carries, from "
        f"features of {', '.join(f'{text(one)} (width {width})' for one, width in data.modalities.items())}. "
        f"{result.parameters:,} parameters. Made with mer_zoo {text(result.environment.mer_zoo)}."
    )
    yield "## Use"
    yield '```python\nimport mer_zoo\n\nmodel = mer_zoo.load_model("FOLDER")\nmodel.predict(dialogues)\n```'
    yield (
        "`dialogues` are `mer_zoo.Conversation`s with features of the widths above, from the same extractors as those "
        "of the training data."
    )
    if onnx:
        yield from _onnx()
    yield "## Scores"
    yield _chosen(result)
    splits = {"validation": metrics.validation, "test": metrics.test}
    heads = {score: score.replace("_", " ") for score in SCORES}
    rows = [
        {"model": split} | {score: f"{100 * getattr(found, score):.2f}" for score in SCORES}
        for split, found in splits.items()
        if found is not None
    ]
    yield markdown_table({"model": "split, in %"} | heads, rows)
    rows = [
        {"model": label, "support": str(one.support)}
        | {key: f"{100 * getattr(one, key):.2f}" for key in ("precision", "recall", "f1")}
        for label, one in ((label, metrics.test.per_class[label]) for label in data.label_names)
    ]
    heads = {"precision": "precision", "recall": "recall", "f1": "F1", "support": "utterances"}
    yield markdown_table({"model": "class, on test, in %"} | heads, rows)
    yield "## Data"
    sizes = {"training": result.split.train, "validation": result.split.validation, "test": result.split.test}
    fold = "" if result.fold is None else f" Fold {result.fold} was the test."
    yield (
        f"{of}, fingerprint `{text(data.fingerprint)}`. Dialogues: "
        f"{', '.join(f'{len(ids)} {split}' for split, ids in sizes.items())}.{fold}"
    )
    yield from (f"Warning about this data: {text(one)}" for one in data.warnings)
    yield "## Recipe"
    yield from _origin(result)
    yield "All settings are in `recipe.yaml`."
    yield from _by_path(result)
    yield "## Limits"
    yield "\n".join(f"* {line}" for line in _limits(result))
    yield "## Repeat"
    where = shlex.quote(visible(data.name))
    yield (
        "With the result file, which the owner of the model has, the run is made again and compared:\n\n"
        f"```console\n$ mer-zoo rerun {shlex.quote(visible(result.file_name))} --data {where}\n```"
    )


def _onnx() -> Iterator[str]:
    """Say how to use the ONNX file."""
    yield (
        "`model.onnx` is the same model for programs without torch, one dialogue at a time. When it was written, it "
        "gave the model's logits in onnxruntime on dialogues of several lengths."
    )
    yield (
        '```python\nimport json\n\nimport onnxruntime\n\nsession = onnxruntime.InferenceSession("model.onnx")\n'
        '(logits,) = session.run(["logits"], inputs)  # float32 [utterances, classes]\n'
        'json.loads(session.get_modelmeta().custom_metadata_map["mer_zoo"])  # classes, node types, relations\n```'
    )
    yield (
        "`mer_zoo.onnx_inputs(model, dialogue)` makes `inputs`. By hand: `features.MODALITY`, float32 `[utterances, "
        "width]`, as the extractor gives them, a row of NaN where the modality is absent; `speaker`, int64 "
        "`[utterances]`, numbered by first appearance; and, if the file asks for it, `edges`, int64 `[3, edges]`: "
        "source, target and relation, a node being `utterance * node types + node type`."
    )


def _chosen(result: Result) -> str:
    """Say how the scores came about."""
    training = result.recipe.get("training")
    select = markdown_text(str(training.get("select", ""))) if isinstance(training, Mapping) else ""
    said = f"One run with seed {result.seed}. Epoch {result.chosen_epoch} of {result.epochs_run}"
    if result.metrics.validation is None:
        return f"{said}; there was no validation split to choose it on."
    said += f" was chosen on the validation split by {select}; the test split did not take part in the choice."
    if result.protocol == "test-oracle":
        said += " The test split was also watched during training (protocol `test-oracle`); no score here is from that."
    return said


def _origin(result: Result) -> Iterator[str]:
    """Say what is known of the recipe, and what to cite; a name alone proves nothing, so the settings are compared."""
    name = markdown_text(result.recipe_name)
    if result.recipe_name not in recipe.names():
        yield f"{name} is no recipe of mer_zoo: nothing is known of how it compares with published models."
        return
    file = recipe.read(result.recipe_name)
    shipped = fill(file, result.dataset.modalities).plain() if _fits(file, result) else None
    if json.dumps(shipped, sort_keys=True) != json.dumps(result.recipe, sort_keys=True):
        yield (
            f"The settings are not those of mer_zoo's recipe {name}: what is known of that one ({status(file.name)}) "
            "does not hold for this model as it stands."
        )
    else:
        yield f"Recipe {name} of mer_zoo: {status(file.name)}."
    if paper := references().get(file.recipe.paper or ""):
        yield f"The recipe {name} is after: {markdown_text(str(paper))} If you use this model, cite that paper."


def _fits(file: recipe.RecipeFile, result: Result) -> bool:
    """Whether a shipped recipe can be filled for the modalities of a run."""
    wanted, widths = file.recipe.modalities, result.dataset.modalities
    if wanted == "all":
        return True
    return all(name in widths and (not isinstance(wanted, dict) or wanted[name] == widths[name]) for name in wanted)


def _by_path(result: Result) -> Iterator[str]:
    """Name the parts that mer_zoo does not bring, with the digest of their source."""
    code = result.recipe.get("code")
    if not isinstance(code, Mapping) or not code:
        return
    yield (
        "It needs code that is not part of mer_zoo and is not in this folder. Its source must be what it was; parts by "
        "file or module are run only if you trust them by name (`trust=[...]`)."
    )
    rows: Sequence[dict[str, str]] = [{"model": part, "digest": str(digest)} for part, digest in code.items()]
    yield markdown_table({"model": "part", "digest": "digest of its source"}, rows)


def _limits(result: Result) -> Iterator[str]:
    yield "One seed on one split: another seed or split gives other scores. Compare models over several seeds."
    yield "It was trained on these data alone. Other languages, other recordings or other extractors may give anything."
    yield "It always names one of its classes, also where none fits; its probabilities were not calibrated."
    yield "It guesses what annotators would say, not what a person feels. Do not decide about people by it."
    rare = [label for label in result.dataset.label_names if result.metrics.test.per_class[label].support == 0]
    if rare:
        yield f"The test split has no utterance of: {', '.join(map(markdown_text, rare))}."
