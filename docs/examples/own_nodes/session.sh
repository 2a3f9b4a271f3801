mer-zoo check graph/./topics.py:Topics

mer-zoo train with_topics.yaml -o training.epochs=3
