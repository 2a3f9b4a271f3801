"""Follow one utterance of the synthetic dialogues from the data to the prediction."""

import mer_zoo
from mer_zoo.corpus import Corpus
from mer_zoo.model import filling, recipe
from mer_zoo.model.assembly import assemble
from mer_zoo.model.model import Facts
from mer_zoo.model.stages import Flow

data = mer_zoo.load_data("synthetic")
dialogue = data.conversations[0]
t = 4
print(f"conversation   {dialogue.id}, utterance {t}: {dialogue.speakers[t]}, {data.label_names[dialogue.labels[t]]}")
print("               " + ", ".join(f"{m} [{width}]" for m, width in dialogue.widths.items()))

plan = filling.fill(recipe.read("amb_dsgdn", ["graph.window=2"]), data.widths)
model = assemble(plan, Facts(data.widths, data.max_speakers, len(data.label_names))).eval()
graph = model.builder(dialogue)
print(f"heterograph    {graph.num_nodes('text')} text nodes, {len(graph.canonical_etypes)} edge types")
for relation in model.builder.relations:
    sources = graph.predecessors(t, etype=("text", relation, "text")).tolist()
    print(f"               {relation:<20} {t} sees {sources}")

batch = Corpus([dialogue], model.builder, model.views).batch([0])
print(f"relations      {len(batch.views)} views of {len(model.views)} kinds of stage and modality")
flow = Flow(batch, {m: batch.features[m] for m in model.modalities}, batch.layout)
for name, stage in model.stages.items():
    flow = stage(flow)
    print(f"{name:<14} " + ", ".join(f"{node} {tuple(x.shape)}" for node, x in flow.states.items()))
probability = flow.states["utterance"].softmax(-1)[t]
print(
    f"prediction     {data.label_names[int(probability.argmax())]} (untrained, {float(probability.max().detach()):.2f})"
)
