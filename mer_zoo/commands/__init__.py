"""The commands of `mer-zoo`, one file each."""
