"""The library in five verbs: load data, train, compare, tune, use what was trained."""
