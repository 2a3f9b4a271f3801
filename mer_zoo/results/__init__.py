"""What one run was and what came out."""
