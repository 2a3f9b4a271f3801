"""Predict from Python."""

import mer_zoo

saved = mer_zoo.load_model("model.safetensors")
for name, probabilities in saved.predict(mer_zoo.load_data("new").conversations).items():
    for turn, row in enumerate(probabilities[:3]):
        print(name, turn, saved.label_names[row.argmax()], row.max().round(2))
