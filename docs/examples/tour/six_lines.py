"""The same from Python."""

import mer_zoo

outcome = mer_zoo.train("bilstm", data="synthetic", change={"training.epochs": 6})
scores = outcome.result.metrics.test
print(f"weighted F1 {scores.weighted_f1:.3f}, accuracy {scores.accuracy:.3f}")
print(f"ceiling     {mer_zoo.load_data('synthetic').ceiling:.3f}")
