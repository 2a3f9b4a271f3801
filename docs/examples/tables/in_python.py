"""From a DataFrame to a trained model."""

import pandas

import mer_zoo

data = mer_zoo.from_dataframe(pandas.read_csv("mine.csv"), name="mine")
print(len(data), "dialogues,", data.widths, data.label_names)

outcome = mer_zoo.train("bilstm", data=data, change=["training.epochs=3"])
print(outcome.result.dataset.name, outcome.result.fold)
