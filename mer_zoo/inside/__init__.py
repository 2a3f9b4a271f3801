"""What happens inside a trained model on one dialogue: what it looks at, and what each modality says."""
