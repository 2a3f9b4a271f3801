"""Graph builders, and the lowering of their heterographs to tensors."""
