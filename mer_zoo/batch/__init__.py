"""What a training step sees of the data: index, layout, output."""
