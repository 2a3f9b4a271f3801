mer-zoo new package acme_mer

grep -A1 entry-points acme_mer/pyproject.toml
cat acme_mer/acme_mer/cards/fusion/mix.yaml
cat acme_mer/acme_mer/cards/recipes/mix.yaml
